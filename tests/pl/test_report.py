import base64
import re
from html.parser import HTMLParser
from io import BytesIO

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import spatialdata
from geopandas import GeoDataFrame
from PIL import Image
from shapely import points
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, ShapesModel, TableModel

import nextmarker as nm
from nextmarker.pl import report
from nextmarker.pl.html import clusters, sections

TITLES = [part.title for part in sections.PARTS if part.missing or part.title == "Images and cells"]
FURTHER = [part.title for part in sections.PARTS if part.title not in TITLES]
VOID = {"meta", "img", "br", "link", "base"}


class Page(HTMLParser):
    """Sections of a report by title, each with its text, pictures and rows of tables."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.pictures, self.tags, self.words = [], [], [], [], []
        self.text, self.rows, self.remarks = {}, {}, {}
        self.open, self.section = [], ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []  # every element is closed

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag == "section":
            self.section = attributes["id"]
        if tag == "img":
            self.pictures.append((self.section, attributes))
        if tag == "tr":
            self.rows.setdefault(self.section, []).append([])
        if tag in {"th", "td"}:
            self.rows[self.section][-1].append("")
        if tag not in VOID:
            self.open.append((tag, attributes))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        self.text[self.section] = self.text.get(self.section, "") + data
        tag, attributes = self.open[-1] if self.open else ("", {})
        if tag in {"th", "td"}:
            self.rows[self.section][-1][-1] += data
        if tag == "p" and attributes.get("class") in {"good", "check"}:
            self.remarks.setdefault(self.section, []).append((attributes["class"], data.strip()))

    def drawn(self, section):
        return [decode(attributes["src"]) for name, attributes in self.pictures if name == section]


def decode(source):
    head, _, content = source.partition(";base64,")
    picture = Image.open(BytesIO(base64.b64decode(content)))
    assert head == f"data:image/{picture.format.lower()}"
    return np.asarray(picture.convert("RGB"))


@pytest.fixture
def only(monkeypatch):
    """Limits the report to some sections, since drawing all takes seconds."""

    def limit(*titles):
        assert set(titles) <= {*TITLES, *FURTHER}
        parts = [part for part in sections.PARTS if part.title in titles]
        monkeypatch.setattr(sections, "PARTS", parts)

    return limit


def anchor(title):
    return title.lower().replace(" ", "-")


def analysed(new_sdata):
    """All results that a report shows; training worked, and one file was skipped."""
    sdata = new_sdata()
    adata = sdata["table"]
    records = adata.uns["nextmarker"]
    records["train"] |= {"final_loss": 3.1, "temperature": 0.1, "patch_size": 11, "random_state": 7, "steps": 60}
    background = np.array([[0.5, 1.0, 2.0, 0.0], [0.25, 3.0, 1.0, 0.0]])
    records["embed"] |= {"images": np.array(["left", "right"], dtype=object), "background": background}
    records["embed"] |= {"offset": np.zeros((2, 4)), "version": "0.1.0"}
    adata.obsm["X_umap"] = np.random.default_rng(0).normal(size=(40, 2))
    nm.tl.annotate(adata, {"T cell": "CD3+ Ki 67-", "dividing": "Ki 67+", "antigen presenting": "HLA-DR/DP+ CD3-"})
    files = {"a.tif": ["read", "left", ""], "b.tif": ["read", "right", "axes"], "c.txt": ["skipped", "", "no image"]}
    sdata.attrs["nextmarker_report"] = files
    return sdata


@pytest.fixture(scope="module")
def page(new_sdata, tmp_path_factory):
    return Page(report(analysed(new_sdata), tmp_path_factory.mktemp("report") / "report.html"))


def test_all_sections_are_there_and_the_contents_lead_to_them(page):
    expected = ["summary", *map(anchor, TITLES), "versions", "citing"]
    assert page.ids == expected
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links[: len(expected)] == [f"#{name}" for name in expected]
    assert {link[1:] for link in links if link.startswith("#")} <= set(expected)
    for part in sections.PARTS:
        assert not part.missing or part.missing[:20] not in page.text[anchor(part.title)]


def test_pictures_are_inside_the_file_described_and_not_blank(page):
    counts = {name: len(page.drawn(name)) for name in page.ids}
    assert counts == dict.fromkeys(page.ids, 0) | {
        **{"images-and-cells": 2, "training": 1, "normalization": 1, "umap": 2, "clusters": 1, "typical-cells": 1},
        **{"cell-types": 1, "composition": 1, "differences-between-images": 0},
    }
    for name, attributes in page.pictures:
        assert decode(attributes["src"]).std() > 5, name
        assert len(attributes["alt"]) > 10


def test_nothing_is_loaded_or_run(page):
    names = {tag for tag, _ in page.tags}
    assert names.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form"})
    assert all(attributes.get("src", "data:").startswith("data:") for _, attributes in page.tags)
    assert not re.search(r"url\(|@import|srcset", page.source)
    policy = [attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_it_has_headings_a_language_and_a_width(page):
    tags = [tag for tag, _ in page.tags]
    assert tags.count("h1") == tags.count("main") == tags.count("nav") == 1
    assert tags.count("h2") == tags.count("section") == len(page.ids)
    assert dict(page.tags)["html"] == {"lang": "en"}
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags


def test_numbers_and_remarks(page):
    assert "40 cells in 2 images, 4 markers, 3 clusters." in page.text["summary"]
    worked = ("good", "Training worked: the final loss, 3.10, is 3.10 below that of random embeddings, 6.20.")
    skipped = ("check", "Read 2 images, and skipped 1 file or parts of them.")
    assert page.remarks["training"] == [worked]
    assert page.remarks["files"] == [skipped]
    remarks = page.remarks.pop("summary")
    assert remarks == [remark for title in TITLES for remark in page.remarks.get(anchor(title), [])]
    assert page.rows["files"][-1] == ["c.txt", "", "skipped", "no image"]
    assert page.rows["images-and-cells"][1:] == [
        ["left", "20", "90 x 60", "unknown", "4"],
        ["right", "20", "120 x 50", "unknown", "4"],
    ]
    assert page.rows["normalization"][2] == ["CD3", "3", "1", "2", "3", "right", "0"]
    assert page.rows["normalization"][4][4:6] == ["0", ""]
    assert [row[:3] for row in page.rows["clusters"][1:]] == [
        ["0", "20", "50"],
        ["1", "15", "37.5"],
        ["2", "5", "12.5"],
    ]
    assert [row[3].split(", ")[0] for row in page.rows["clusters"][1:]] == ["CD3", "HLA-DR/DP", "Ki 67"]
    assert page.rows["cell-types"][1][:3] == ["0", "20", "T cell"]
    assert ["seed", "7"] in page.rows["parameters"]
    assert ["steps", "60"] in page.rows["parameters"]
    assert f"nextmarker {nm.__version__}" in page.text["versions"]


def test_the_same_after_saving(new_sdata, page, tmp_path):
    nm.io.write(analysed(new_sdata), tmp_path / "all.zarr")
    saved = spatialdata.read_zarr(tmp_path / "all.zarr")
    saved["table"].write_h5ad(tmp_path / "table.h5ad")
    table = anndata.read_h5ad(tmp_path / "table.h5ad")
    table.uns["spatialdata_attrs"]["region"] = list(
        table.uns["spatialdata_attrs"]["region"]
    )  # spatialdata needs a list
    saved.tables["table"] = table
    assert Page(report(saved, tmp_path / "report.html")).source == page.source


def test_missing_results_are_named_with_the_call_that_makes_them(sdata, tmp_path):
    adata = sdata["table"]
    sdata.tables["table"] = TableModel.parse(
        anndata.AnnData(obs=adata.obs[["region", "instance_id", "image"]], var=adata.var),
        **{"region": ["cells_left", "cells_right"], "region_key": "region", "instance_key": "instance_id"},
    )
    page = Page(report(sdata, tmp_path / "report.html"))
    calls = {
        "Files": "nm.io.read(paths)",
        "Images and cells": "nm.pl.report(sdata, path, channels=[...])",
        "Training": "nm.tl.train(sdata)",
        "Normalization": "nm.tl.embed(sdata)",
        "UMAP": 'sc.tl.umap(adata, neighbors_key="nextmarker_neighbors")',
        "Clusters": 'nm.tl.marker_attribution(adata, groupby="nextmarker")',
        "Typical cells": "nm.tl.cluster(adata)",
        "Cell types": "nm.tl.annotate(adata, signatures)",
        "Composition": "nm.tl.cluster(adata)",
        "Differences between images": "nm.tl.cluster(adata)",
        "Parameters": "each step writes it again",
    }
    assert list(calls) == TITLES
    for title, call in calls.items():
        assert call in page.text[anchor(title)], title
    assert {name for name, _ in page.pictures} == {"images-and-cells"}
    assert page.remarks == {}
    assert "<code>nm.tl.train(sdata)</code>" in page.source


def test_names_of_the_user_are_only_text(sdata, tmp_path, only):
    only("Files", "Images and cells", "Clusters", "Typical cells")
    hostile = "<script>alert('1')</script>&amp;$x^$"
    adata = sdata["table"]
    adata.obs["nextmarker"] = adata.obs["nextmarker"].cat.rename_categories({"0": hostile, "1": "<b>"})
    nm.tl.marker_attribution(adata)
    adata.var_names = ["DNA", "<i>CD3", "HLA-DR/DP", "Ki 67"]
    adata.uns["nextmarker"]["embed"]["markers"] = adata.var_names.to_numpy(dtype=object)
    for image in sdata.images:
        sdata.set_channel_names(image, list(adata.var_names))
    table = adata.uns["marker_attribution"]
    table["marker"] = table["marker"].cat.rename_categories({"CD3": "<i>CD3"})
    sdata.attrs["nextmarker_report"] = {"<img src=x>": ["skipped", "", "\"><svg onload='x'>"]}
    page = Page(report(sdata, tmp_path / "report.html"))
    assert {"script", "svg", "b"}.isdisjoint(tag for tag, _ in page.tags if tag != "b")
    assert sum(tag == "i" for tag, _ in page.tags) == sum(tag == "b" for tag, _ in page.tags) * 3  # only our legend
    assert [row[0] for row in page.rows["clusters"][1:]] == [hostile, "<b>", "2"]
    assert page.rows["clusters"][1][3].startswith("<i>CD3")
    assert page.rows["files"][1] == ["<img src=x>", "", "skipped", "\"><svg onload='x'>"]
    assert len(page.drawn("clusters")) == len(page.drawn("typical-cells")) == 1


def test_results_that_no_longer_fit_are_told_and_the_others_drawn(sdata, tmp_path, only):
    only("Clusters", "Typical cells", "Composition")
    adata = sdata["table"]
    adata.obs["nextmarker"] = adata.obs["nextmarker"].cat.rename_categories({"0": "1", "1": "0"})
    adata.obs.loc[adata.obs_names[:9], "nextmarker"] = "2"
    page = Page(report(sdata, tmp_path / "report.html"))
    for name in ("clusters", "typical-cells"):
        ((kind, words),) = page.remarks[name]
        assert kind == "check"
        assert "nm.tl.marker_attribution(adata)" in words
    assert len(page.drawn("composition")) == 1


def test_training_that_did_not_work(sdata, tmp_path, only):
    only("Training")
    record = sdata["table"].uns["nextmarker"]["train"]
    record |= {"final_loss": 6.1, "temperature": 0.1, "patch_size": 11, "random_state": 0}
    page = Page(report(sdata, tmp_path / "report.html"))
    ((kind, words),) = page.remarks["training"]
    assert kind == "check"
    assert words.startswith("Training did not work: the final loss is 6.10, that of random embeddings 6.20.")


def test_warnings_of_figures_are_in_the_report_once(sdata, tmp_path, recwarn, only):
    only("Composition", "Differences between images")
    adata = sdata["table"]
    adata.obs["nextmarker_embedding"] = pd.Categorical([f"{'b' * 16}-{'0' * 8}"] * 40)
    adata.uns["nextmarker"]["cluster"] = {"embedded_as": np.array([f"{'a' * 16}-{'0' * 8}"], dtype=object)}
    page = Page(report(sdata, tmp_path / "report.html"))
    own = [words for words in page.text.values() if "of an earlier embedding. Cluster again" in words]
    assert len(own) == 2  # in the summary, and where it came up first
    assert not [each for each in recwarn if "earlier embedding" in str(each.message)]


def tissue(scale_factors=None):
    """One image of 400 x 200 pixels with a bright square at each of two cells, one pixel is 0.5 micrometres."""
    counts = np.zeros((2, 200, 400), dtype=np.uint16)
    centres = np.array([[100.0, 40.0], [220.0, 120.0]])
    for x, y in centres.astype(int):
        counts[0, y - 30 : y + 30, x - 30 : x + 30] = 1000
    image = Image2DModel.parse(counts, dims=("c", "y", "x"), c_coords=["DNA", "CD3"], scale_factors=scale_factors)
    circles = ShapesModel.parse(GeoDataFrame({"geometry": points(centres), "radius": 5.0}))
    obs = pd.DataFrame({"region": pd.Categorical(["cells"] * 2), "instance_id": [0, 1], "image": "one"}, ["a", "b"])
    adata = anndata.AnnData(obs=obs, var=pd.DataFrame(index=["DNA", "CD3"]))
    table = TableModel.parse(adata, region="cells", region_key="region", instance_key="instance_id")
    return SpatialData(images={"one": image}, shapes={"cells": circles}, tables={"table": table})


def test_further_results_have_sections_of_their_own(new_sdata, page, tmp_path, only):
    assert FURTHER == ["Transferred types", "Neighbours", "Niches", "Differences between groups"]
    assert not {anchor(title) for title in FURTHER} & set(page.ids)
    sdata = new_sdata()
    adata = sdata["table"]
    adata.obs["group"] = adata.obs["patient"] = adata.obs["image"]
    adata.obsm["spatial"] = np.random.default_rng(0).uniform(0, 50, (40, 2))
    nm.tl.neighborhood(adata, "nextmarker", permutations=10)
    nm.tl.niches(adata, "nextmarker", n_niches=2)
    with pytest.warns(UserWarning, match="Nothing could be compared"):
        nm.tl.compare_groups(adata, groupby="nextmarker")
    nm.io.write(sdata, tmp_path / "all.zarr")
    only("Neighbours", "Niches", "Differences between groups", "Transferred types")
    saved = Page(report(spatialdata.read_zarr(tmp_path / "all.zarr"), tmp_path / "report.html"))
    assert saved.ids == ["summary", "neighbours", "niches", "differences-between-groups", "versions", "citing"]
    assert {name: len(saved.drawn(name)) for name in saved.ids[1:4]} == {
        **{"neighbours": 1, "niches": 4, "differences-between-groups": 1}
    }
    ((kind, said),) = saved.remarks["differences-between-groups"]
    assert (kind, said[:25]) == ("check", "Nothing could be compared")
    nm.pl.report(sdata, tmp_path / "other.html")
    assert Page(tmp_path / "other.html").source == saved.source


@pytest.mark.parametrize("scale_factors", [None, [2, 2]])
def test_centres_lie_on_their_nuclei(scale_factors, tmp_path, monkeypatch):
    monkeypatch.setattr("nextmarker.pl.html.thumbnails.LARGEST", 200)
    page = Page(report(tissue(scale_factors), tmp_path / "report.html", channels="DNA"))
    (picture,) = page.drawn("images-and-cells")
    assert picture.shape == (100, 200, 3)
    for x, y in [(50, 20), (110, 60)]:
        red, _, blue = picture[y, x].astype(int)
        assert red - blue > 50  # orange
        assert picture[y - 10, x].min() > 180
        assert picture[y - 19, x].max() < 60


def test_centres_are_on_black_without_a_nuclear_channel(tmp_path):
    page = Page(report(tissue(), tmp_path / "report.html"))
    (picture,) = page.drawn("images-and-cells")
    assert np.median(picture[:200, :300]) == 0
    assert picture.shape[1] == 640


def test_many_images_share_several_figures(sdata, tmp_path, monkeypatch, only):
    only("Composition")
    monkeypatch.setattr(clusters, "MOST_IMAGES", 1)
    page = Page(report(sdata, tmp_path / "report.html"))
    assert len(page.drawn("composition")) == 2


def test_other_clusters_and_their_results(new_sdata, tmp_path, only):
    only("Images and cells", "Clusters")
    sdata = analysed(new_sdata)
    adata = sdata["table"]
    adata.obs["fine"] = adata.obs["nextmarker"].cat.rename_categories({"0": "first"})
    nm.tl.marker_attribution(adata, groupby="fine", key_added="of_fine")
    page = Page(report(sdata, tmp_path / "report.html", groupby="fine"))
    assert [row[0] for row in page.rows["clusters"][1:]] == ["first", "1", "2"]
    assert "fine" in page.text["images-and-cells"]  # the types are of other clusters
    with pytest.raises(KeyError, match=r"No 'coarse' in .obs"):
        report(sdata, tmp_path / "other.html", groupby="coarse")


def test_figures_and_style_of_the_user_are_left_alone(tmp_path):
    mine, _ = plt.subplots()
    with plt.style.context("dark_background"):
        page = Page(report(tissue(), tmp_path / "report.html"))
        assert plt.rcParams["axes.facecolor"] == "black"
    assert plt.get_fignums() == [mine.number]
    assert len(page.pictures) == 1


def test_existing_files_are_replaced_only_if_asked(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        report(tissue(), path)
    assert path.read_text() == "old"
    assert report(tissue(), str(path), overwrite=True) == path
    assert path.read_text().startswith("<!DOCTYPE html>")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_an_error_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(*_):
        raise RuntimeError

    monkeypatch.setattr("nextmarker.pl.html.thumbnails.read_frame", fail)
    with pytest.raises(RuntimeError):
        report(tissue(), path, channels="DNA", overwrite=True)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("error", "match", "change"),
    [
        (FileNotFoundError, "No folder", lambda folder: {"path": folder / "no" / "report.html"}),
        (IsADirectoryError, "is a folder", lambda folder: {"path": folder}),
        (TypeError, "path is of type int", lambda _: {"path": 1}),
        (TypeError, "Expected SpatialData with the images, got AnnData", lambda _: {"sdata": tissue()["table"]}),
        (KeyError, "No table 'other'", lambda _: {"table_key": "other"}),
        (KeyError, "No channel 'dna' in image 'one'", lambda _: {"channels": "dna"}),
    ],
)
def test_what_cannot_be_written(error, match, change, tmp_path):
    with pytest.raises(error, match=match):
        report(**{"sdata": tissue(), "path": tmp_path / "report.html", **change(tmp_path)})
    assert list(tmp_path.iterdir()) == []
