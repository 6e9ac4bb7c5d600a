"""nm.pp.add_cells with tables, masks and GeoJSON of other programs: cells come out where they are."""

import gzip
import json
import warnings
from pathlib import Path

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import tifffile
import xarray as xr
from skimage.measure import label, regionprops_table
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel

import nextmarker as nm

SHAPE = (60, 90)
UM = 0.5
# centres of the three cells of `mask`, x and y from the corner of the image
CENTRES = np.array([[33.0, 12.0], [6.5, 41.5], [70.0, 50.5]])
MIDDLES = CENTRES - 0.5  # the same, as programs say that put (0, 0) into the middle of the first pixel


def mask(dtype: type = np.int32) -> np.ndarray:
    labels = np.zeros(SHAPE, dtype)
    labels[10:14, 30:36] = 1
    labels[40:43, 5:8] = 2
    labels[50:51, 69:71] = 3
    return labels


def tissue(*names: str, um: float | None = UM) -> SpatialData:
    """Empty images of two markers."""
    names = names or ("core",)
    images = {
        name: Image2DModel.parse(np.zeros((2, *SHAPE)), dims=("c", "y", "x"), c_coords=["DNA", "CD3"]) for name in names
    }
    sdata = SpatialData(images=images)
    if um is not None:
        nm.pp.set_pixel_size(sdata, um)
    return sdata


def add(sdata: SpatialData, cells: object, **kwargs: object) -> SpatialData:
    nm.pp.add_cells(sdata, cells, progress=False, **kwargs)
    return sdata


def centres(sdata: SpatialData, element: str = "cells") -> np.ndarray:
    points = sdata.shapes[element].geometry
    return np.column_stack([points.x, points.y])


def source_ids(sdata: SpatialData) -> list:
    return sdata["table"].obs["source_id"].tolist()


def assert_refused(sdata: SpatialData, cells: object, match: str, **kwargs: object) -> None:
    """Refused in our words, and nothing is changed."""
    before = {name: element for _, name, element in sdata.gen_elements()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=match):
            add(sdata, cells, **kwargs)
    assert {name: element for _, name, element in sdata.gen_elements()} == before


# --- tables

FORMS = {
    "ours": {"x": MIDDLES[:, 0], "y": MIDDLES[:, 1]},
    "QuPath": {"Centroid X µm": CENTRES[:, 0] * UM, "Centroid Y µm": CENTRES[:, 1] * UM},
    "QuPath, other micro": {"Centroid X μm": CENTRES[:, 0] * UM, "Centroid Y μm": CENTRES[:, 1] * UM},
    "QuPath, mojibake": {"Centroid X Âµm": CENTRES[:, 0] * UM, "Centroid Y Âµm": CENTRES[:, 1] * UM},
    "QuPath, lost": {"Centroid X \ufffdm": CENTRES[:, 0] * UM, "Centroid Y \ufffdm": CENTRES[:, 1] * UM},
    "QuPath, pixels": {"Centroid X px": CENTRES[:, 0], "Centroid Y px": CENTRES[:, 1]},
    "brackets": {"x [µm]": CENTRES[:, 0] * UM, "y [µm]": CENTRES[:, 1] * UM},
    "snakes": {"center_x_um": CENTRES[:, 0] * UM, "center_y_um": CENTRES[:, 1] * UM},
    "mcquant": {"DNA": 1.0, "X_centroid": MIDDLES[:, 0], "Y_centroid": MIDDLES[:, 1]},
    "steinbock": {"area": 9, "centroid-0": MIDDLES[:, 1], "centroid-1": MIDDLES[:, 0]},
    "CellProfiler": {"Location_Center_X": MIDDLES[:, 0], "Location_Center_Y": MIDDLES[:, 1]},
    "CellProfiler, shape": {"AreaShape_Center_X": MIDDLES[:, 0], "AreaShape_Center_Y": MIDDLES[:, 1]},
    "histoCAT": {"X_position": MIDDLES[:, 0] + 1, "Y_position": MIDDLES[:, 1] + 1},
    "Xenium": {"x_centroid": CENTRES[:, 0] * UM, "y_centroid": CENTRES[:, 1] * UM, "transcript_counts": 5},
}


@pytest.mark.parametrize("form", FORMS)
def test_tables_of_each_program(form: str, tmp_path: Path) -> None:
    frame = pd.DataFrame(FORMS[form])
    frame.to_csv(tmp_path / "cells.csv")
    for source in (frame, tmp_path / "cells.csv"):
        np.testing.assert_allclose(centres(add(tissue(), source)), CENTRES)


def test_regionprops_table_of_a_mask_gives_the_centres_of_the_mask() -> None:
    props = pd.DataFrame(regionprops_table(mask(), properties=("label", "centroid")))
    np.testing.assert_allclose(centres(add(tissue(), props)), centres(add(tissue(), mask())))
    assert source_ids(add(tissue(), props)) == [1, 2, 3]


@pytest.mark.parametrize(
    "column", ["label", "CellID", "CellId", "Object ID", "ObjectNumber", "Object", "cell_id"], ids=str
)
def test_names_of_cells_are_kept(column: str) -> None:
    frame = pd.DataFrame({column: ["p", "q", "r"], **FORMS["mcquant"]})
    assert source_ids(add(tissue(), frame)) == ["p", "q", "r"]
    assert source_ids(add(tissue(), frame.assign(**{column: [7, 8, 9]}))) == [7, 8, 9]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_separators_and_encodings(separator: str, encoding: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"Image": "Köln.tif", "Name": ["a, b", "c; d", "e"], **FORMS["QuPath"]})
    frame.to_csv(tmp_path / "cells.txt", sep=separator, index=False, encoding=encoding)
    np.testing.assert_allclose(centres(add(tissue("Köln"), tmp_path / "cells.txt")), CENTRES)


def test_decimal_commas_excel_and_compression(tmp_path: Path) -> None:
    frame = pd.DataFrame(FORMS["QuPath"])
    frame.to_csv(tmp_path / "commas.tsv", sep="\t", decimal=",")
    frame.to_csv(tmp_path / "excel.txt", sep="\t", encoding="utf-16")
    (tmp_path / "cells.csv.gz").write_bytes(gzip.compress(frame.to_csv().encode()))
    for name in ("commas.tsv", "excel.txt", "cells.csv.gz"):
        np.testing.assert_allclose(centres(add(tissue(), tmp_path / name)), CENTRES)


def test_files_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nextmarker.pp.sources.tables.CHUNK", 2)
    frame = pd.DataFrame({"CellID": [7, 8, 9], "note": [1, "x", None], **FORMS["mcquant"]})
    frame.to_csv(tmp_path / "cells.csv", index=False)
    sdata = add(tissue(), tmp_path / "cells.csv")
    np.testing.assert_allclose(centres(sdata), CENTRES)
    assert source_ids(sdata) == [7, 8, 9]


@pytest.mark.parametrize("form", ["ours", "mcquant", "CellProfiler"])
def test_unit_of_the_user_makes_micrometres(form: str, tmp_path: Path) -> None:
    x, y = [column for column in FORMS[form] if column != "DNA"]
    frame = pd.DataFrame({x: CENTRES[:, 0] * UM, y: CENTRES[:, 1] * UM})
    frame.to_csv(tmp_path / "cells.csv")
    adata = ad.AnnData(np.zeros((3, 1)), obsm={"spatial": frame.to_numpy()})
    for source in (frame, tmp_path / "cells.csv", adata, {"core": frame}):
        np.testing.assert_allclose(centres(add(tissue(), source, unit="micrometre")), CENTRES)
    assert_refused(tissue(um=None), frame, "'core'.*nm.pp.set_pixel_size", unit="micrometre")


def test_units_of_each_image() -> None:
    sdata = tissue("a", "b", um=None)
    nm.pp.set_pixel_size(sdata, {"a": 0.5, "b": 1.0})
    frame = pd.DataFrame({"image": ["a", "b"], "x": [10.0, 10.0], "y": [5.0, 5.0]})
    add(sdata, frame, unit="micrometre")
    np.testing.assert_allclose(centres(sdata, "cells_a"), [[20, 10]])
    np.testing.assert_allclose(centres(sdata, "cells_b"), [[10, 5]])


def test_micrometres_of_the_whole_image_after_a_crop() -> None:
    box = {"min_coordinate": [10, 5], "max_coordinate": [45, 30]}  # micrometres
    cropped = tissue().query.bounding_box(axes=("x", "y"), **box, target_coordinate_system="micrometre")
    assert cropped["core"].shape == (2, 50, 70)
    add(cropped, pd.DataFrame(FORMS["QuPath"]).iloc[[0, 2]])
    np.testing.assert_allclose(centres(cropped), CENTRES[[0, 2]] - [20, 10])


def test_header_and_unit_must_not_contradict_each_other() -> None:
    micrometres = pd.DataFrame(FORMS["QuPath"])
    assert_refused(tissue(), micrometres, "unit='pixel'.*'Centroid X µm'", unit="pixel")
    both = micrometres.assign(**FORMS["QuPath, pixels"])
    for unit in (None, "pixel", "micrometre"):
        np.testing.assert_allclose(centres(add(tissue(), both, unit=unit)), CENTRES)
    assert_refused(tissue(), micrometres, "must be one of", unit="mm")
    assert_refused(tissue(um=None), micrometres, "'core'.*nm.pp.set_pixel_size")


def test_columns_of_unclear_unit_need_one() -> None:
    frame = pd.DataFrame(FORMS["Xenium"]).drop(columns="transcript_counts")
    assert_refused(tissue(), frame, "'x_centroid'.*unit=")
    np.testing.assert_allclose(centres(add(tissue(), frame, unit="micrometre")), CENTRES)


def test_cells_in_one_corner_may_be_micrometres() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.uniform(0, 90, 40), "y": rng.uniform(0, 59, 40)}) * UM
    with pytest.warns(UserWarning, match="'core'.* unit=\"micrometre\""):
        in_pixels = add(tissue(), frame)
    np.testing.assert_allclose(centres(in_pixels), frame + 0.5)
    np.testing.assert_allclose(centres(add(tissue(), frame, unit="pixel")), frame + 0.5)  # no warning
    np.testing.assert_allclose(centres(add(tissue(), frame, unit="micrometre")), frame / UM)


@pytest.mark.parametrize("name", ["core", "core.tif", "core.ome.tiff", "C:\\slides\\core.ome.tif", "raw/core.qptiff"])
@pytest.mark.parametrize("column", ["image", "Image", "fov", "imageid"])
def test_images_are_known_by_their_files(name: str, column: str) -> None:
    sdata = tissue("core", "core.1")
    frame = pd.DataFrame({column: [name, name, "core.1"], **FORMS["mcquant"]})
    add(sdata, frame)
    np.testing.assert_allclose(centres(sdata, "cells_core"), CENTRES[:2])
    np.testing.assert_allclose(centres(sdata, "cells_core.1"), CENTRES[2:])


def test_images_of_one_file_are_known_by_their_names_in_it() -> None:
    sdata = tissue("left", "right")
    names = ["slide.ome.tif - left", "slide.ome.tif - right", "slide.ome.tif - left"]
    add(sdata, pd.DataFrame({"Image": names, **FORMS["QuPath"]}))
    assert sdata["table"].obs["image"].tolist() == ["left", "left", "right"]


def test_another_name_of_the_only_image_is_announced() -> None:
    frame = pd.DataFrame({"Image": "slide.tif", **FORMS["QuPath"]})
    with pytest.warns(UserWarning, match="'slide.tif'.*assigned to 'core'"):
        assert len(add(tissue(), frame)["table"]) == 3
    assert_refused(tissue("a", "b"), frame, r"'slide.tif'.*'a', 'b'")
    frame.loc[0, "Image"] = "other.tif"
    assert_refused(tissue(), frame, r"'other.tif', 'slide.tif'.*'core'")


def test_only_the_images_that_a_table_names_get_cells() -> None:
    sdata = tissue("he", "if")
    sdata.images["he"] = Image2DModel.parse(
        np.zeros((3, *SHAPE), np.uint8), dims=("c", "y", "x"), c_coords=["r", "g", "b"]
    )
    add(sdata, pd.DataFrame({"image": "if", **FORMS["ours"]}))
    assert sdata["table"].obs["image"].unique().tolist() == ["if"]
    assert sdata["table"].var_names.tolist() == ["DNA", "CD3"]


def test_each_image_gets_its_own_rows_of_one_table() -> None:
    frame = pd.DataFrame({"Image": ["a.tif", "b.tif", "a.tif"], **FORMS["QuPath"]})
    sdata = add(tissue("a", "b"), {"a": frame, "b": frame})
    np.testing.assert_allclose(centres(sdata, "cells_a"), CENTRES[[0, 2]])
    np.testing.assert_allclose(centres(sdata, "cells_b"), CENTRES[[1]])
    np.testing.assert_allclose(centres(add(tissue("a", "b"), frame, images="b")), CENTRES[[1]])
    assert_refused(tissue("a", "b", "c"), {"c": frame}, r"'a.tif', 'b.tif'.*'c'")
    twice = frame.replace("b.tif", "a.ome.tif")
    assert_refused(tissue("a", "b"), twice, "several names for the same image")
    assert_refused(tissue("a", "b"), frame.assign(Image=["a", None, "b"]), "'(nan|None)'")


def test_numbers_of_images_are_not_names() -> None:
    frame = pd.DataFrame({"ImageNumber": 1, **FORMS["CellProfiler"]})
    assert len(add(tissue(), frame)["table"]) == 3
    assert_refused(tissue(), frame.assign(ImageNumber=[1, 1, 2]), r"'1', '2'.*'core'")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "cannot be read as a table"),
        ("a,b\n1,2\n", r"columns 'x', 'y'.*'a', 'b'"),
        ("x,y\n1,2\n1,2,3,4\n", "cannot be read as a table"),
        ("name,x,y\na, b,1,2\nc, d,1,2\n", "cannot be read as a table"),
        ("x,y\n1\n", "1 of 1 centres are NaN"),
        ("x,y\n", "No cells"),
        ("x,y,x\n1,2,3\n", r"columns \['x'\]"),
        ("x_mm,y_mm\n1,2\n", "columns 'x', 'y'"),
        ("Area µm^2,Centroid X µm\n1,2\n", "columns 'x', 'y'"),
        ("x,y\n1,left\n", "1 of 1 centres are NaN"),
    ],
)
def test_tables_without_cells(content: str, match: str, tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_text(content, encoding="utf-8")
    assert_refused(tissue(), tmp_path / "cells.csv", match)


def test_files_of_other_kinds(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR")
    (tmp_path / "cells.csv.gz").write_bytes(b"x,y\n1,2\n")
    for path in sorted(tmp_path.iterdir()):
        assert_refused(tissue(), path, f"{path.name}.* cannot be read as a table.* label .tif")


def test_columns_that_repeat() -> None:
    frame = pd.DataFrame([[1, 2, 3]], columns=["x", "y", "x"])
    assert_refused(tissue(), frame, r"columns \['x'\]")


# --- masks


def test_masks_in_memory() -> None:
    lazy = da.from_array(mask(), chunks=16)
    arrays = [mask(np.uint8), mask(np.uint64), mask(float), lazy, xr.DataArray(lazy, dims=("y", "x")), mask()[None]]
    for array in arrays:
        for cells in (array, {"core": array}):
            sdata = add(tissue(), cells)
            np.testing.assert_allclose(centres(sdata), CENTRES)
            assert source_ids(sdata) == [1, 2, 3]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_masks_in_files(dtype: type, tmp_path: Path) -> None:
    np.save(tmp_path / "mask.npy", mask(dtype))
    tifffile.imwrite(tmp_path / "mask.tif", mask(dtype), compression="zlib", tile=(32, 32))
    tifffile.imwrite(tmp_path / "mask.ome.tif", mask(dtype))
    for name in ("mask.npy", "mask.tif", "mask.ome.tif"):
        np.testing.assert_allclose(centres(add(tissue(), str(tmp_path / name))), CENTRES)
    sdata = add(tissue("a", "b"), {"a": tmp_path / "mask.tif", "b": tmp_path / "mask.npy"})
    np.testing.assert_allclose(centres(sdata, "cells_a"), centres(sdata, "cells_b"))
    assert sdata["table"].uns["nextmarker"]["add_cells"]["cells"]["a"] == str(tmp_path / "mask.tif")


def test_masks_that_do_not_tell_cells_apart() -> None:
    foreground = mask() > 0
    for array in (foreground, foreground.astype(np.uint8), 255 * foreground.astype(np.uint8)):
        assert_refused(tissue(), array, r"mask of image 'core'.* skimage.measure.label\(mask\)")
    types = np.zeros(SHAPE, np.uint8)
    types[::6, ::6], types[3::6, 3::6] = 1, 2
    assert_refused(tissue(), types, r"'core' has 2 value\(s\) in 300 pieces.*skimage")
    sdata = tissue()
    sdata.labels["foreground"] = Labels2DModel.parse(foreground.astype(np.uint8), dims=("y", "x"))
    assert_refused(sdata, "foreground", "pieces.*skimage")
    np.testing.assert_allclose(centres(add(tissue(), label(foreground))), CENTRES)
    assert len(add(tissue(), np.where(mask() == 1, 7, 0))["table"]) == 1  # the only cell


def test_masks_that_do_not_fit(tmp_path: Path) -> None:
    assert_refused(tissue(), mask()[:, :80], "60 x 80 .*60 x 90")
    assert_refused(tissue(), mask().T, "has 90 x 60 pixels")
    assert_refused(tissue(), np.stack([mask()] * 3), "has 3 x 60 x 90 pixels")
    assert_refused(tissue(), CENTRES, r"DataFrame\(array, columns=\['x', 'y'\]\)")
    assert_refused(tissue(), np.zeros(SHAPE, int), "No cells")
    assert_refused(tissue(), mask().astype(str), "values of type <U")
    assert_refused(tissue("a", "b"), mask(), r"nm.pp.add_cells\(sdata, \{'a': ...\}\)")
    assert_refused(tissue(), mask(), "unit='micrometre' is only for tables", unit="micrometre")
    for broken in (-mask(), mask() / 2, np.where(mask() > 0, np.nan, 0), mask() * 1e300):
        assert_refused(tissue(), broken, "negative or not integers")
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([mask(np.uint16)] * 3), photometric="minisblack")
    assert_refused(tissue(), tmp_path / "stack.tif", "has 3 planes")


def test_files_that_are_no_masks(tmp_path: Path) -> None:
    np.save(tmp_path / "pickled.npy", {"masks": mask()}, allow_pickle=True)
    for name, content in {"empty.npy": b"", "text.npy": b"x,y", "text.tif": b"x,y", "empty.tif": b""}.items():
        (tmp_path / name).write_bytes(content)
    for path in sorted(tmp_path.iterdir()):
        assert_refused(tissue(), path, path.name)


# --- GeoJSON


def square(x: float, y: float, half: float = 2) -> dict:
    corners = [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)]
    return {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}


def feature(geometry: dict | None, kind: str | None = "detection", **properties: object) -> dict:
    kinds = {} if kind is None else {"objectType": kind}
    return {"type": "Feature", "geometry": geometry, "properties": {**kinds, **properties}}


def save(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_our_own_geojson_comes_back(tmp_path: Path) -> None:
    sdata = add(tissue("a", "b"), {"a": mask(), "b": mask()})
    sdata["table"].obs["kind"] = "cell"
    files = nm.io.write_geojson(sdata, tmp_path / "cells.geojson", groupby="kind", measurements=["CD3"])
    back = add(tissue("a", "b"), dict(zip("ab", files, strict=True)))
    for element in ("cells_a", "cells_b"):
        np.testing.assert_allclose(centres(back, element), CENTRES, atol=0.01)
    assert source_ids(back) == sdata["table"].obs_names.tolist()


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: {"type": "FeatureCollection", "features": f}])
def test_geojson_as_qupath_saves_it(wrap: object, tmp_path: Path) -> None:
    holes = {"type": "MultiPolygon", "coordinates": [square(x, 41.5)["coordinates"] for x in (4.5, 8.5)]}
    features = [
        feature(square(33, 12), name="first", classification={"name": "T cell", "color": [1, 2, 3]}),
        {**feature(holes, "cell", measurements={"area": 3}), "id": "a-uuid", "nucleusGeometry": square(0, 0)},
        feature({"type": "Point", "coordinates": [70, 50.5]}),
    ]
    sdata = add(tissue(), save(tmp_path / "cells.geojson", wrap(features)))
    np.testing.assert_allclose(centres(sdata), CENTRES)
    assert source_ids(sdata) == ["first", "a-uuid", ""]


def test_points_of_the_points_tool_are_cells(tmp_path: Path) -> None:
    points = feature({"type": "MultiPoint", "coordinates": CENTRES.tolist()}, "annotation")
    sdata = add(tissue(), save(tmp_path / "cells.json", [points]))
    np.testing.assert_allclose(centres(sdata), CENTRES)
    assert source_ids(sdata) == [0, 1, 2]


@pytest.mark.parametrize("region", [{"objectType": "annotation"}, {"object_type": "tma_core"}, None])
def test_annotations_beside_cells_are_left_out(region: dict | None, tmp_path: Path) -> None:
    outline = {**feature(square(45, 30, 25), None, **region or {}), "id": "PathAnnotationObject"}
    cells = [feature(square(x, y), None, object_type="detection") for x, y in CENTRES]
    with pytest.warns(UserWarning, match="1 annotations"):
        sdata = add(tissue(), save(tmp_path / "cells.geojson", [outline, *cells]))
    np.testing.assert_allclose(centres(sdata), CENTRES)


def test_geojson_in_micrometres(tmp_path: Path) -> None:
    path = save(tmp_path / "cells.geojson", [feature(square(*place)) for place in CENTRES * UM])
    np.testing.assert_allclose(centres(add(tissue(), path, unit="micrometre")), CENTRES)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "cannot be read as GeoJSON"),
        ("x,y\n1,2\n", "cannot be read as GeoJSON"),
        ("[" * 100_000, "cannot be read as GeoJSON"),
        ({"a": 1}, "FeatureCollection"),
        ([1, 2], "FeatureCollection"),
        ("3", "FeatureCollection"),
        ({"type": "FeatureCollection", "features": None}, "FeatureCollection"),
        ([], "No cells"),
        ([feature(None)], "Feature 0 .* has no readable geometry"),
        ([{"type": "Feature"}], "Feature 0 .* has no readable geometry"),
        ([feature({"type": "Polygon", "coordinates": [[[0, 0]]]})], "Feature 0 .* has no readable geometry"),
        ([feature({"type": "Polygon", "coordinates": [["a"]]})], "Feature 0 .* has no readable geometry"),
        ([feature({"type": "Circle", "coordinates": [0, 0]})], "Feature 0 .* has no readable geometry"),
        ([feature(square(9, 9)), feature({"type": "Polygon", "coordinates": []})], "Feature 1 .* empty"),
        ([feature({"type": "LineString", "coordinates": [[0, 0], [1, 1]]})], "LineString"),
        ([feature(square(500, 9))], "1 of 1 centres"),
        ([feature({"type": "Point", "coordinates": [float("nan"), 3]})], "(1 of 1 centres|empty)"),
    ],
)
def test_files_that_are_no_geojson_of_cells(content: object, match: str, tmp_path: Path) -> None:
    assert_refused(tissue(), save(tmp_path / "cells.geojson", content), match)


def test_one_geojson_for_several_images(tmp_path: Path) -> None:
    path = save(tmp_path / "cells.geojson", [feature(square(9, 9))])
    assert_refused(tissue("a", "b"), path, r"\{'a': ...\}")
    assert len(add(tissue("a", "b"), path, images="b")["table"]) == 1
