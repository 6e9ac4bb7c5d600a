"""Cells for QuPath, against the form it reads: detections in pixels from the top left corner."""

import errno
import json
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from shapely.geometry import shape
from spatialdata import SpatialData
from spatialdata.models import Image2DModel
from spatialdata.transformations import Scale

import nextmarker as nm
from nextmarker.io import _geojson
from nextmarker.pl._colors import category_colors

CENTRES = {"a": [(0.5, 0.5), (20.25, 11.5)], "b": [(3.0, 4.0)]}
PROPERTIES = {"objectType", "name", "classification", "measurements"}


def cells(images=("a", "b")):
    """Images that are not square, of 0.5 um per pixel, with known centres."""
    scale = Scale([0.5, 0.5], ("x", "y"))
    pixels = np.arange(2 * 20 * 30, dtype=np.uint16).reshape(2, 20, 30)
    form = {"dims": ("c", "y", "x"), "c_coords": ["CD3", "HLA-DR/DP"]}
    sdata = SpatialData(
        images={name: Image2DModel.parse(pixels, **form, transformations={name: scale}) for name in images}
    )
    rows = [(name, x - 0.5, y - 0.5) for name in images for x, y in CENTRES[name]]
    nm.pp.add_cells(sdata, pd.DataFrame(rows, columns=["image", "x", "y"]), progress=False)
    kinds = ["T cell", "B cell", "T cell"][: len(rows)]
    sdata["table"].obs["type"] = pd.Categorical(kinds, categories=["T cell", "B cell"])
    return sdata


def read(file):
    """Read what must be valid GeoJSON in QuPath's form."""
    collection = json.loads(file.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert collection["type"] == "FeatureCollection"
    for feature in collection["features"]:
        assert feature["type"] == "Feature"
        assert feature["properties"]["objectType"] == "detection"
        assert set(feature["properties"]) <= PROPERTIES
        assert feature["geometry"]["isEllipse"] is True
        outline = shape(feature["geometry"])
        assert outline.is_valid
        assert outline.exterior.is_ccw
    return collection["features"]


def bounds(feature):
    """Centre and radius of the ellipse that QuPath makes of the bounds."""
    left, top, right, bottom = shape(feature["geometry"]).bounds
    assert right - left == pytest.approx(bottom - top, abs=0.02)
    return (left + right) / 2, (top + bottom) / 2, (right - left) / 2


def test_circles_are_in_pixels_from_the_top_left_corner(tmp_path):
    sdata = cells(["a"])
    (file,) = nm.io.write_geojson(sdata, tmp_path / "cells.geojson", groupby="type")
    assert file == tmp_path / "cells.geojson"
    features = read(file)
    radius = sdata["cells"]["radius"].iloc[0]
    for feature, (x, y) in zip(features, CENTRES["a"], strict=True):  # the first pixel has its centre at 0.5, 0.5
        assert bounds(feature) == pytest.approx((x, y, radius), abs=0.011)


def test_each_image_has_its_file(tmp_path):
    files = nm.io.write_geojson(cells(), tmp_path / "cells.geojson", groupby="type")
    assert [file.name for file in files] == ["cells_a.geojson", "cells_b.geojson"]
    assert sorted(files) == sorted(tmp_path.iterdir())
    first, second = map(read, files)
    assert [feature["properties"]["name"] for feature in first] == ["a_0", "a_1"]
    assert [feature["properties"]["name"] for feature in second] == ["b_0"]
    assert bounds(second[0])[:2] == pytest.approx(CENTRES["b"][0], abs=0.011)


def test_classes_have_the_colours_of_the_figures(tmp_path):
    sdata = cells(["a"])
    path = tmp_path / "cells.geojson"
    nm.io.write_geojson(sdata, path, groupby="type")
    drawn = category_colors(sdata["table"], sdata["table"].obs["type"])
    assert [feature["properties"]["classification"] for feature in read(path)] == [
        {"name": name, "color": [round(255 * part) for part in to_rgb(drawn[name])]} for name in ("T cell", "B cell")
    ]
    sdata["table"].uns["type_colors"] = np.array(["#ff8000", "blue"])
    nm.io.write_geojson(sdata, path, groupby="type")
    assert [feature["properties"]["classification"] for feature in read(path)] == [
        {"name": "T cell", "color": [255, 128, 0]},
        {"name": "B cell", "color": [0, 0, 255]},
    ]


def test_a_cell_without_a_class_has_none(tmp_path):
    sdata = cells(["a"])
    sdata["table"].obs["type"] = [None, "B cell"]
    nm.io.write_geojson(sdata, tmp_path / "cells.geojson", groupby="type")
    lone, typed = read(tmp_path / "cells.geojson")
    assert "classification" not in lone["properties"]
    assert typed["properties"]["classification"]["name"] == "B cell"


def test_very_many_classes_are_left_to_qupath(tmp_path):
    sdata = cells(["a"])
    sdata["table"].obs["type"] = pd.Categorical(["0", "1"], [str(number) for number in range(31)])
    nm.io.write_geojson(sdata, tmp_path / "cells.geojson", groupby="type")
    assert read(tmp_path / "cells.geojson")[0]["properties"]["classification"] == {"name": "0"}


def test_measurements_are_numbers_by_name(tmp_path):
    sdata = cells()
    adata = sdata["table"]
    adata.obs["score"] = [1.5, np.nan, 2.5]
    files = nm.io.write_geojson(sdata, tmp_path / "c.geojson", groupby="type", measurements=["score", "HLA-DR/DP"])
    found = [feature["properties"]["measurements"] for file in files for feature in read(file)]
    assert [entry.get("score") for entry in found] == [1.5, None, 2.5]
    assert [entry["HLA-DR/DP"] for entry in found] == pytest.approx(adata[:, "HLA-DR/DP"].X.ravel().tolist())


def test_cells_follow_their_circles_in_a_table_of_another_order(tmp_path):
    sdata = cells()
    adata = sdata["table"][[2, 1]].copy()
    del sdata.tables["table"]
    sdata.tables["table"] = adata
    of_b, of_a = nm.io.write_geojson(sdata, tmp_path / "cells.geojson", groupby="type")
    assert [feature["properties"]["name"] for feature in read(of_b) + read(of_a)] == ["b_0", "a_1"]
    assert bounds(read(of_a)[0])[:2] == pytest.approx(CENTRES["a"][1], abs=0.011)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"groupby": "cluster"}, KeyError, r"No 'cluster' in .obs.*groupby=\.\.\."),
        ({}, KeyError, r"nm\.tl\.cluster\(adata\)"),
        ({"groupby": "instance_id"}, TypeError, r"contains numbers.*measurements=\['instance_id'\]"),
        ({"groupby": "type", "measurements": ["CD4"]}, KeyError, "No column or marker 'CD4'.*'CD3'"),
        ({"groupby": "type", "measurements": ["type"]}, TypeError, "contains no numbers"),
        ({"groupby": "type", "table_key": "other"}, KeyError, "No table 'other'"),
    ],
)
def test_what_is_not_there_is_named_and_nothing_written(tmp_path, options, error, message):
    with pytest.raises(error) as refused:
        nm.io.write_geojson(cells(), tmp_path / "cells.geojson", **options)
    assert re.search(message, str(refused.value))
    assert not any(tmp_path.iterdir())


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="No folder .*missing"):
        nm.io.write_geojson(cells(), tmp_path / "missing" / "cells.geojson", groupby="type")


def test_a_stop_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "cells.geojson").write_text("old")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setitem(nm.io.write_geojson.__globals__, "_circle", stop)
    with pytest.raises(KeyboardInterrupt):
        nm.io.write_geojson(cells(["a"]), tmp_path / "cells.geojson", groupby="type")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_all_files_are_written_or_none(tmp_path, monkeypatch):
    sdata = cells()
    old = nm.io.write_geojson(sdata, tmp_path / "cells.geojson", groupby="type")
    before = {file: file.read_bytes() for file in old}
    write = _geojson._write_features
    written = []

    def fill(file, features):
        write(file, features)
        written.append(file)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    sdata["table"].obs_names = ["x", "y", "z"]
    monkeypatch.setattr(_geojson, "_write_features", fill)
    with pytest.raises(OSError, match="No space left on device") as told:
        nm.io.write_geojson(sdata, tmp_path / "cells.geojson", groupby="type")
    assert told.value.errno == errno.ENOSPC
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_drafts_follow_no_link_and_files_have_the_ordinary_mode(tmp_path):
    (tmp_path / "a.txt").write_text("dear")
    (tmp_path / ".cells.geojson.unfinished").symlink_to("a.txt")
    (tmp_path / "cells.geojson").symlink_to("a.txt")
    (file,) = nm.io.write_geojson(cells(["a"]), tmp_path / "cells.geojson", groupby="type")
    assert len(read(file)) == 2
    assert (tmp_path / "a.txt").read_text() == "dear"
    assert file.lstat().st_mode == (tmp_path / "a.txt").lstat().st_mode
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("path", "error"), [("", IsADirectoryError), ("cells_a.geojson", IsADirectoryError), (3, TypeError)]
)
def test_a_path_that_cannot_be_a_file_is_refused(tmp_path, monkeypatch, path, error):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cells_a.geojson").mkdir()
    with pytest.raises(error, match=r"is a folder|of type int"):
        nm.io.write_geojson(cells(), path, groupby="type")
    with pytest.raises(IsADirectoryError, match=r"'cells_a\.geojson' is a folder"):
        nm.io.write_geojson(cells(), "cells.geojson", groupby="type")
