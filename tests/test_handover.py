"""Objects change hands: what spatialdata does to them between two of our calls changes no result, or is refused."""

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import shapely
import spatialdata as sd
import squidpy as sq
from spatialdata import SpatialData
from spatialdata.transformations import (
    Scale,
    Translation,
    get_transformation,
    remove_transformation,
    set_transformation,
)

import nextmarker as nm
from nextmarker._regions import read_regions
from tests.copies import made_once

SETTINGS = nm.nn.TrainingConfig(steps=3, batch_size=48)
PATCH = 10
MARGIN = 9  # pixels: a patch that is turned reaches no farther


@made_once
def analysed(seed: int = 0, pixel_size: float = 1.0) -> SpatialData:
    """One image with its cells embedded; not square."""
    sdata = nm.datasets.synthetic_tissue(n_images=1, n_cells=150, random_state=seed)
    nm.pp.set_pixel_size(sdata, pixel_size)
    nm.pp.add_cells(sdata, "truth_tissue_1", progress=False)
    nm.tl.embed(sdata, model(), progress=False)
    return sdata


_MODELS: dict[str, nm.nn.NeXtMarker] = {}


def model() -> nm.nn.NeXtMarker:
    if not _MODELS:
        sdata = nm.datasets.synthetic_tissue(n_images=1, n_cells=150, random_state=5)
        nm.pp.add_cells(sdata, "truth_tissue_1", progress=False)
        _MODELS["one"] = nm.tl.train(sdata, PATCH, training=SETTINGS, progress=False)
    return _MODELS["one"]


@pytest.fixture(scope="module")
def original() -> SpatialData:
    return analysed()


def crop(sdata: SpatialData, *, system: str = "tissue_1", corner: tuple[float, float] = (20, 14)) -> SpatialData:
    size = sdata["tissue_1"].sizes
    return sdata.query.bounding_box(
        axes=("x", "y"),
        min_coordinate=list(corner),
        max_coordinate=[size["x"], size["y"]],
        target_coordinate_system=system,
    )


def polygon(sdata: SpatialData) -> SpatialData:
    cut = sdata.query.polygon(shapely.box(20, 14, 90, 80), target_coordinate_system="tissue_1")
    with pytest.raises(ValueError, match=r"outside of image 'tissue_1'.*nm.pp.remove_outside_cells"):
        read_regions(cut)
    assert nm.pp.remove_outside_cells(cut) > 0
    return cut


def moved(sdata: SpatialData) -> SpatialData:
    """Registered to a slide: image and cells are moved alike."""
    copy = sd.deepcopy(sdata)
    shift = Translation([300.0, -40.0], axes=("x", "y"))
    for name in ("tissue_1", "cells"):
        set_transformation(copy[name], shift, "slide")
        for system in ("tissue_1", "micrometre"):
            remove_transformation(copy[name], system)
    del copy.attrs["nextmarker_pixel_size"]
    nm.pp.set_pixel_size(copy, 1.0)
    return copy


def own_system_of_the_cells(sdata: SpatialData) -> SpatialData:
    """The circles have coordinates of their own, from which a transformation leads to the image."""
    copy = sd.deepcopy(sdata)
    circles = copy["cells"]
    circles.geometry = shapely.points(np.column_stack([circles.geometry.x / 2 + 7, circles.geometry.y / 2]))
    circles["radius"] /= 2
    for system in list(get_transformation(circles, get_all=True)):
        remove_transformation(circles, system)
    back = sd.transformations.Sequence([Translation([-7.0, 0.0], axes=("x", "y")), Scale([2.0, 2.0], axes=("x", "y"))])
    set_transformation(circles, back, "tissue_1")
    return copy


def joined(sdata: SpatialData) -> SpatialData:
    """A copy, since spatialdata renames the coordinate systems of what it joins in place."""
    return sd.concatenate({"P1": sd.deepcopy(sdata), "P2": analysed(1)}, concatenate_tables=True)


def renamed(sdata: SpatialData) -> SpatialData:
    copy = sdata.subset(["tissue_1", "cells", "table"])
    copy = SpatialData(
        images={"slide": copy["tissue_1"]}, shapes={"cells": copy["cells"]}, tables={"table": copy["table"].copy()}
    )
    with pytest.raises(KeyError, match=r"image 'tissue_1'.*'slide'.*replace\(\{'tissue_1'"):
        read_regions(copy)
    copy["table"].obs["image"] = copy["table"].obs["image"].cat.rename_categories({"tissue_1": "slide"})
    return copy


OPERATIONS = {
    "crop": crop,
    "crop in micrometres": lambda sdata: crop(sdata, system="micrometre"),
    "polygon": polygon,
    "filtered": lambda sdata: sdata.filter_by_coordinate_system("tissue_1"),
    "transformed": lambda sdata: sdata.transform_to_coordinate_system("tissue_1"),
    "transformed in place": lambda sdata: sdata.transform_to_coordinate_system("tissue_1", maintain_positioning=True),
    "moved": moved,
    "cells of their own": own_system_of_the_cells,
    "joined": joined,
    "renamed": renamed,
    "subset": lambda sdata: sdata.subset(["tissue_1", "cells", "table"]),
    "crop of a crop": lambda sdata: crop(crop(sdata), corner=(33, 20)),
}


def before_and_after(original: SpatialData, changed: SpatialData) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Embedding of the cells that are left and whose patches no new edge cuts, before and after."""
    old, new = (pd.DataFrame(s["table"].obsm["X_nextmarker"], s["table"].obs_names) for s in (original, changed))
    region = next(r for r in read_regions(changed) if r.name in ("cells", "cells-P1"))
    size = np.array([region.pixels.sizes["x"], region.pixels.sizes["y"]])
    within = ((region.centres > MARGIN) & (region.centres < size - MARGIN)).all(1)
    kept = new.iloc[region.rows[within]]
    assert len(kept) > 20
    return old.loc[kept.index.str.removesuffix("-P1")], kept


CROPS = [name for name in OPERATIONS if "crop" in name or name == "polygon"]


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in CROPS])
def test_embedding_is_that_of_before(original, name):
    changed = OPERATIONS[name](original)
    nm.tl.embed(changed, model(), progress=False)
    old, new = before_and_after(original, changed)
    np.testing.assert_allclose(new, old, atol=2e-3 * np.abs(old.to_numpy()).max())


@pytest.fixture(scope="module")
def one_pixel_off(original) -> float:
    """How far F moves if all centres are one pixel off, as a fraction of its spread between cells."""
    off = sd.deepcopy(original)
    off["table"].obsm["spatial"] += [1, 0]
    off["cells"] = off["cells"].assign(geometry=off["cells"].translate(1, 0))
    nm.tl.embed(off, model(), progress=False)
    return movement(*(each["table"].obsm["X_nextmarker"] for each in (original, off)))


def movement(old: np.ndarray, new: np.ndarray) -> float:
    return np.sqrt(((new - old) ** 2).mean() / old.var(0).mean())


@pytest.mark.parametrize("name", CROPS)
def test_embedding_in_a_crop_is_about_that_of_before(original, one_pixel_off, name):
    """A crop is another image: its zero comes from its own empty places, here from half the tissue or less.

    So F moves a little: by 9 to 20 % of its spread between cells. Centres that are one pixel off move it by 33 %.
    """
    changed = OPERATIONS[name](original)
    nm.tl.embed(changed, model(), progress=False)
    old, new = (frame.to_numpy() for frame in before_and_after(original, changed))
    assert movement(old, new) < 2 / 3 * one_pixel_off
    assert 0.2 < one_pixel_off < 0.5


def test_a_store_keeps_places_and_pixel_size(original, tmp_path):
    cut = crop(original)
    nm.io.write(cut, tmp_path / "cut.zarr")
    stored = sd.read_zarr(tmp_path / "cut.zarr")
    before, after = read_regions(cut)[0], read_regions(stored)[0]
    np.testing.assert_allclose(after.centres, before.centres)
    assert after.pixel_size == before.pixel_size == 1.0


@pytest.mark.parametrize("name", ["crop", "cells of their own", "joined"])
def test_every_step_finds_the_same_places(original, name, tmp_path):
    changed = OPERATIONS[name](original)
    region = next(r for r in read_regions(changed) if r.name in ("cells", "cells-P1"))
    # GeoJSON: bounds of the circle around each centre, as large as before
    files = nm.io.write_geojson(changed, tmp_path / "cells.geojson", groupby="region")
    first = json.loads(files[0].read_text())["features"][0]["geometry"]["coordinates"][0]
    low, high = np.min(first, axis=0), np.max(first, axis=0)
    np.testing.assert_allclose((low + high) / 2, region.centres[0], atol=0.02)
    radius = original["table"].uns["nextmarker"]["add_cells"]["radius"]["tissue_1"]
    np.testing.assert_allclose(high - low, 2 * radius, atol=0.03)
    # figure
    ax = nm.pl.cells(changed, region.image, channels="DNA2")
    np.testing.assert_allclose(ax.collections[0].get_offsets(), region.centres)
    # cells taken from these circles
    nm.pp.add_cells(changed, {region.image: region.name}, key_added="again", table_key="again_table", progress=False)
    again = read_regions(changed, "again_table")[0]
    np.testing.assert_allclose(np.sort(again.centres, axis=0), np.sort(region.centres, axis=0))


@pytest.mark.parametrize("corner", [(20.3, 14), (20, 14.4), (20.2, 14.5)])
def test_cells_that_spatialdata_displaces_are_refused(original, corner):
    cut = crop(original, corner=corner)
    nm.pp.remove_outside_cells(cut)
    expected = read_regions(original)[0].centres[original["table"].obs_names.isin(cut["table"].obs_names)]
    start = np.ceil(np.array(corner) - 0.5)  # the first pixel whose centre lies within
    if np.allclose(read_regions(cut)[0].centres, expected - start):  # spatialdata has learned it
        nm.tl.embed(cut, model(), progress=False)
        return
    with pytest.raises(ValueError, match=r"'tissue_1' are shifted by one pixel"):
        nm.tl.embed(cut, model(), progress=False)


def corner_of(part: SpatialData, whole: SpatialData) -> np.ndarray:
    """Column and row of an image at which a part of it begins, by the pixels."""
    wanted, pixels = np.asarray(part["tissue_1"]), np.asarray(whole["tissue_1"])
    height, width = wanted.shape[1:]
    rows, columns = pixels.shape[1] - height + 1, pixels.shape[2] - width + 1
    found = [
        (x, y) for x, y in np.ndindex(columns, rows) if np.array_equal(pixels[:, y : y + height, x : x + width], wanted)
    ]
    assert len(found) == 1
    return np.array(found[0])


def test_displacements_of_several_crops_add_up_and_are_refused(original):
    cut = crop(crop(original, corner=(10.4, 7.4)), corner=(25.4, 20.4))
    nm.pp.remove_outside_cells(cut)
    shift = read_regions(original)[0].centres[original["table"].obs_names == cut["table"].obs_names[0]]
    off = shift - read_regions(cut)[0].centres[0] - corner_of(cut, original)
    if np.allclose(off, 0):  # spatialdata has learned it
        nm.tl.embed(cut, model(), progress=False)
        return
    with pytest.raises(ValueError, match=rf"'tissue_1' are shifted by {off.max():.0f} pixels"):
        nm.tl.embed(cut, model(), progress=False)


@pytest.mark.parametrize("change", [np.log1p, np.zeros_like, lambda X: X[::-1]], ids=["log", "zero", "other"])
def test_intensities_that_were_changed_prove_nothing(original, change):
    copy = sd.deepcopy(original)
    copy["table"].X = change(copy["table"].X)
    nm.tl.embed(copy, model(), progress=False)


def test_resampled_images_are_refused_until_their_pixel_size_is_stated():
    sdata = analysed(2, pixel_size=0.5)
    coarse = sdata.transform_to_coordinate_system("micrometre")
    with pytest.raises(ValueError, match=r"'tissue_1' is contradictory.*nm.pp.set_pixel_size"):
        read_regions(coarse)
    nm.pp.set_pixel_size(coarse, 1.0)
    (region,) = read_regions(coarse) if not nm.pp.remove_outside_cells(coarse) else read_regions(coarse)
    assert region.pixel_size == 1.0
    assert region.pixels.sizes["x"] == sdata["tissue_1"].sizes["x"] // 2


def test_a_transformation_set_on_the_image_alone_is_refused(original):
    copy = sd.deepcopy(original)
    set_transformation(copy["tissue_1"], Scale([2.0, 2.0], axes=("x", "y")), "tissue_1")
    with pytest.raises(ValueError, match=r"'cells' .* by 'tissue_1'.* by 'micrometre'.*set_transformation"):
        nm.tl.embed(copy, model(), progress=False)


@pytest.mark.parametrize("place", [(-3.5, 20.5), (20.5, -0.5), (10_000, 20), (20, 10_000), (np.nan, 20)])
def test_centres_outside_of_the_image_are_refused(original, place):
    copy = sd.deepcopy(original)
    copy["cells"].loc[copy["cells"].index[4], "geometry"] = shapely.Point(*place)
    before = copy["table"].obsm["X_nextmarker"].copy()
    for step in (lambda: nm.tl.embed(copy, model(), progress=False), lambda: nm.tl.train(copy, PATCH, progress=False)):
        with pytest.raises(ValueError, match=r"1 of 150 centres .*tissue_1_4"):
            step()
    np.testing.assert_array_equal(copy["table"].obsm["X_nextmarker"], before)


def test_an_image_replaced_by_a_smaller_one_is_refused(original):
    copy = sd.deepcopy(original)
    copy.images["tissue_1"] = copy["tissue_1"].isel(x=slice(0, 60))
    with pytest.raises(ValueError, match=r"'tissue_1'.*60 pixels wide"):
        nm.tl.embed(copy, model(), progress=False)


@pytest.mark.parametrize("column", ["image", "region"])
def test_rows_without_image_or_region_are_refused(original, column):
    copy = sd.deepcopy(original)
    copy["table"].obs.loc[copy["table"].obs_names[7:12], column] = np.nan
    with pytest.raises(ValueError, match=rf"5 of 150 cells .*no value in .obs\['{column}'\], first 'tissue_1_7'"):
        nm.tl.embed(copy, model(), progress=False)


def test_patients_joined_keep_their_pixel_sizes():
    both = sd.concatenate({"P1": analysed(1), "P2": analysed(2, pixel_size=0.5)}, concatenate_tables=True)
    one, two = read_regions(both)
    assert (one.image, two.image) == ("tissue_1-P1", "tissue_1-P2")
    assert (one.pixel_size, two.pixel_size) == (1.0, 0.5)
    trained = nm.tl.train(both, 6, unit="micrometre", training=SETTINGS, progress=False)
    assert (trained.config.pixel_size, trained.config.patch_size) == (0.5, 12)


@pytest.mark.parametrize("held", [True, False], ids=["in the object", "by itself"])
@pytest.mark.parametrize("pixel_size", [1.0, 0.5])
def test_own_table_given_back_gives_the_same_cells(held, pixel_size):
    sdata = analysed(3, pixel_size)
    table = sdata["table"][::2].copy()
    if held:
        nm.pp.add_cells(sdata, "table", key_added="again", table_key="again_table", progress=False)
        expected = read_regions(sdata)[0].centres
    else:
        nm.pp.add_cells(sdata, table, key_added="again", table_key="again_table", progress=False)
        expected = read_regions(sdata)[0].centres[::2]
    np.testing.assert_allclose(read_regions(sdata, "again_table")[0].centres, expected)


def test_own_tables_joined_without_their_record_give_the_same_cells():
    sdata = analysed(3)
    parts = [sdata["table"][:50].copy(), sdata["table"][50:].copy()]
    nm.pp.add_cells(sdata, ad.concat(parts), key_added="again", table_key="again_table", progress=False)
    np.testing.assert_allclose(read_regions(sdata, "again_table")[0].centres, read_regions(sdata)[0].centres)


def joined_in_spatialdata() -> tuple[ad.AnnData, np.ndarray]:
    """The recipe of docs/joining.md with images, and the patient of each cell."""
    first, second = analysed(1), analysed(2)
    both = sd.concatenate({"P1": first, "P2": second}, concatenate_tables=True)
    nm.tl.embed(both, model(), progress=False)
    adata = both["table"]
    sq.gr.spatial_neighbors_knn(adata, library_key="region")
    return adata, adata.obs_names.str[-2:].to_numpy()


def joined_in_anndata() -> tuple[ad.AnnData, np.ndarray]:
    """The recipe without."""
    first, second = analysed(1), analysed(2)
    adata = ad.concat({"P1": first["table"], "P2": second["table"]}, label="patient", index_unique="-", merge="same")
    adata.obs["slide"] = (adata.obs["patient"].astype(str) + "-" + adata.obs["image"].astype(str)).astype("category")
    sq.gr.spatial_neighbors_knn(adata, library_key="slide")
    return adata, adata.obs["patient"].to_numpy()


@pytest.mark.parametrize("recipe", [joined_in_spatialdata, joined_in_anndata])
def test_patients_analysed_one_by_one_are_joined(recipe):
    adata, patient = recipe()
    assert adata.n_obs == 300
    links = adata.obsp["spatial_connectivities"].tocoo()
    assert (patient[links.row] == patient[links.col]).all()
    nm.tl.cluster(adata, n_neighbors=15)
    nm.tl.marker_attribution(adata)
    shares = adata.uns["marker_attribution"].groupby("cluster", observed=True)["contribution"].sum()
    np.testing.assert_allclose(shares, 1, rtol=1e-4)
    assert nm.pl.marker_attribution(adata).get_ylabel() == "nextmarker"


def test_names_of_patients_may_end_alike():
    names = ["1", "P1-1"]
    both = sd.concatenate({name: analysed(seed) for seed, name in enumerate(names)}, concatenate_tables=True)
    assert [(r.name, r.image) for r in read_regions(both)] == [(f"cells-{n}", f"tissue_1-{n}") for n in names]


def test_coordinates_of_an_unknown_system_are_refused():
    sdata = analysed(3, 0.5)  # its own system is in pixels, and micrometres are twice as long
    table = ad.concat([sdata["table"]])
    with pytest.raises(ValueError, match=r"record.*\['tissue_1', 'micrometre'\].*uns_merge='first'"):
        nm.pp.add_cells(sdata, table, key_added="again", table_key="again_table", progress=False)
    kept = ad.concat([sdata["table"]], uns_merge="first")
    nm.pp.add_cells(sdata, kept, key_added="again", table_key="again_table", progress=False)
    np.testing.assert_allclose(read_regions(sdata, "again_table")[0].centres, read_regions(sdata)[0].centres)


def test_renamed_circles_are_found_again_by_their_old_name(original):
    copy = sd.deepcopy(original)
    copy.shapes["nuclei"] = copy.shapes["cells"]
    del copy.shapes["cells"]
    with pytest.raises(KeyError, match=r"'cells'.*'nuclei'.*sdata.shapes\['cells'\] = "):
        read_regions(copy)
    copy.shapes["cells"] = copy.shapes["nuclei"]
    assert len(read_regions(copy)[0].rows) == 150


VIEWED = {
    "annotate": lambda adata: nm.tl.annotate(adata, {"T cell": "CD3+", "tumour": "PanKRT+"}, groupby="kind"),
    "cluster": nm.tl.cluster,
    "compare_groups": lambda adata: nm.tl.compare_groups(adata, "kind", groupby="kind", patient_key="region"),
    "marker_attribution": lambda adata: nm.tl.marker_attribution(adata, groupby="kind"),
    "neighborhood": lambda adata: nm.tl.neighborhood(adata, "kind"),
    "niches": lambda adata: nm.tl.niches(adata, "kind"),
    "rename_clusters": lambda adata: nm.tl.rename_clusters(adata, {"even": "some"}, groupby="kind"),
    "transfer": lambda adata: nm.tl.transfer(adata, adata.copy(), "kind", key_added="other"),
    "add_samples": lambda adata: nm.pp.add_samples(adata, pd.DataFrame({"image": ["tissue_1"], "patient": ["P1"]})),
}


@pytest.mark.parametrize("name", VIEWED)
def test_views_of_a_table_would_lose_results_and_are_refused(original, name, recwarn):
    adata = original["table"].copy()
    adata.obs["kind"] = pd.Categorical(np.resize(["even", "odd"], adata.n_obs))
    view = adata[:100]
    with pytest.raises(ValueError, match=r"view of another.*adata = adata\[\.\.\.\]\.copy\(\)"):
        VIEWED[name](view)
    assert view.is_view
    assert not [warning for warning in recwarn if "view" in str(warning.message)]


def test_a_copied_view_is_clustered_and_its_table_unchanged(original):
    adata = original["table"].copy()
    part = adata[:100].copy()
    nm.tl.cluster(part, n_neighbors=10)
    nm.tl.niches(part, "nextmarker", n_niches=2)
    assert part.obs["nextmarker"].notna().all()
    assert {"nextmarker", "niche"}.isdisjoint(adata.obs)
