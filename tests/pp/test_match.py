"""nm.pp.match_cells: each centre to the object that it lies in or near, one to one."""

import logging
from pathlib import Path

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from anndata import AnnData
from scipy.spatial import KDTree
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel, TableModel
from spatialdata.transformations import Affine, get_transformation, set_transformation

import nextmarker as nm
from tests.copies import made_once

COLORS = ["#111111", "#222222", "#333333"]


def objects(spots: dict[int, tuple[float, float]], radius: float = 3, shape: tuple[int, int] = (40, 60)) -> np.ndarray:
    """Discs of 29 pixels around (x, y) by label."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    labels = np.zeros(shape, np.int32)
    for label, (x, y) in spots.items():
        labels[np.hypot(columns - x, rows - y) <= radius] = label
    return labels


SPOTS = {4: (10.5, 10.5), 2: (30.5, 10.5), 9: (50.5, 30.5)}
CENTRES = [
    (10.5, 10.5),  # in the middle of 4
    (12.5, 10.5),  # also in 4, but farther
    (35.0, 10.5),  # near 2, 4.5 pixels
    (26.5, 10.5),  # nearer to 2, 4 pixels
    (50.5, 20.5),  # 10 pixels from 9
]


@pytest.fixture
def sdata() -> SpatialData:
    return five_centres()


@made_once
def five_centres() -> SpatialData:
    """Five centres and three objects with types, in one image of unknown pixel size."""
    image = Image2DModel.parse(np.ones((2, 40, 60), np.uint16), dims=("c", "y", "x"), c_coords=["DNA", "CD3"])
    labels = Labels2DModel.parse(objects(SPOTS), dims=("y", "x"))
    sdata = SpatialData(images={"a": image}, labels={"seg": labels})
    nm.pp.add_cells(sdata, pd.DataFrame(CENTRES, columns=["x", "y"]) - 0.5, progress=False)
    obs = pd.DataFrame(
        {
            "region": "seg",
            "instance_id": [9, 4, 2],
            "cell_type": pd.Categorical(["B", "T", "T"], ["T", "B", "NK"]),
            "patient": ["p9", "p4", "p2"],
            "age": [90, 40, 20],
            "alive": [True, False, True],
        },
        index=["nine", "four", "two"],
    ).astype({"region": "category"})
    types = AnnData(obs=obs, uns={"cell_type_colors": COLORS})
    sdata.tables["types"] = TableModel.parse(types, region="seg", region_key="region", instance_key="instance_id")
    return sdata


def match(sdata: SpatialData, reference: str = "types", **kwargs: object) -> pd.DataFrame:
    nm.pp.match_cells(sdata, reference, progress=False, **kwargs)
    return sdata["table"].obs


def record(sdata: SpatialData, key: str = "match_cells") -> dict:
    return sdata["table"].uns["nextmarker"][key]


def names(obs: pd.DataFrame, key: str = "matched") -> list[str]:
    return obs[key].astype(object).where(obs[key].notna(), "").tolist()


def assert_unchanged_by(sdata: SpatialData, error: type[Exception], text: str, *args: str, **kwargs: object) -> None:
    table = sdata["table"].copy()
    with pytest.raises(error, match=text):
        match(sdata, *args, **kwargs)
    pd.testing.assert_frame_equal(sdata["table"].obs, table.obs)
    assert sdata["table"].uns.keys() == table.uns.keys()
    assert "match_cells" not in sdata["table"].uns.get("nextmarker", {})


def test_inside_goes_before_nearest_and_the_nearest_wins(sdata: SpatialData) -> None:
    obs = match(sdata)
    assert names(obs) == ["four", "", "", "two", ""]
    np.testing.assert_allclose(obs["matched_distance"], [0, np.nan, np.nan, 4, np.nan])
    assert record(sdata)["max_distance"] == pytest.approx(2 * np.sqrt(29 / np.pi))  # the median diameter
    assert record(sdata)["unit"] == "pixel"
    assert record(sdata)["counts"].loc["a"].to_dict() == {
        "centres": 5,
        "objects": 3,
        "matched": 2,
        "unmatched_centres": 3,
        "unmatched_objects": 1,
    }


def test_a_centre_inside_goes_before_a_nearer_one_outside(sdata: SpatialData) -> None:
    ring = objects({2: (30.5, 10.5)}, radius=8)
    ring[objects({2: (30.5, 10.5)}, radius=5) > 0] = 0
    sdata["seg"] = Labels2DModel.parse(ring, dims=("y", "x"))
    sdata["types"] = sdata["types"][["two"]].copy()
    spots = pd.DataFrame({"x": [30.0, 36.0], "y": [10.0, 10.0]})  # in the hole, and on the ring
    nm.pp.add_cells(sdata, spots, overwrite=True, progress=False)
    assert names(match(sdata)) == ["", "two"]


def test_the_limit_holds_for_centres_outside_only(sdata: SpatialData) -> None:
    assert names(match(sdata, max_distance=0)) == ["four", "", "", "", ""]
    assert names(match(sdata, max_distance=10)) == ["four", "", "", "two", "nine"]


def test_distances_are_in_micrometres_where_pixel_sizes_are_known(sdata: SpatialData) -> None:
    nm.pp.set_pixel_size(sdata, 0.5)
    obs = match(sdata, max_distance=5)
    np.testing.assert_allclose(obs["matched_distance"], [0, np.nan, np.nan, 2, 5])
    assert record(sdata)["unit"] == "micrometre"


def test_columns_come_with_types_and_colours(sdata: SpatialData) -> None:
    obs = match(sdata, columns={"cell_type": "ie_type", "patient": "patient", "age": "age", "alive": "alive"})
    assert names(obs, "ie_type") == ["T", "", "", "T", ""]
    assert obs["ie_type"].cat.categories.tolist() == ["T", "B", "NK"]
    assert list(sdata["table"].uns["ie_type_colors"]) == COLORS
    assert names(obs, "patient") == ["p4", "", "", "p2", ""]
    np.testing.assert_array_equal(obs["age"], [40, np.nan, np.nan, 20, np.nan])
    assert obs["alive"].isna().tolist() == [False, True, True, False, True]
    assert obs["alive"].dropna().tolist() == [False, True]
    again = match(sdata, columns={"cell_type": "ie_type"})  # replaces what it wrote
    assert names(again, "ie_type") == ["T", "", "", "T", ""]
    match(sdata, columns="age", key_added="other", max_distance=10)
    assert names(sdata["table"].obs) == ["four", "", "", "two", ""]
    assert names(sdata["table"].obs, "other") == ["four", "", "", "two", "nine"]
    assert record(sdata)["columns_added"].tolist() == ["ie_type"]
    assert record(sdata, "match_cells_other")["max_distance"] == 10


def test_all_matched_columns_keep_their_type(sdata: SpatialData) -> None:
    sdata["table"] = sdata["table"][[0, 3]].copy()
    obs = match(sdata, columns=["age", "alive"])
    assert (obs["age"].dtype.kind, obs["alive"].dtype) == ("i", bool)


def test_results_survive_files(sdata: SpatialData, tmp_path: Path) -> None:
    obs = match(sdata, columns=["cell_type", "patient", "age", "alive"]).copy()
    match(sdata, key_added="plain")
    sdata["table"].write_h5ad(tmp_path / "table.h5ad")
    nm.io.write(sdata, tmp_path / "a.zarr")
    read = sd.read_zarr(tmp_path / "a.zarr")
    for loaded in (ad.read_h5ad(tmp_path / "table.h5ad"), read["table"]):
        pd.testing.assert_frame_equal(loaded.obs[obs.columns], obs, check_categorical=False)
        counts = loaded.uns["nextmarker"]["match_cells"]["counts"]
        pd.testing.assert_frame_equal(counts, record(sdata)["counts"])
        assert loaded.uns["nextmarker"]["match_cells"]["columns"].tolist() == ["cell_type", "patient", "age", "alive"]
    assert names(match(read, columns=["cell_type"])) == names(obs)


def test_objects_that_the_reference_lacks_take_their_centres_with_them(sdata: SpatialData) -> None:
    sdata["types"] = sdata["types"][["two", "nine"]].copy()
    assert names(match(sdata, max_distance=100)) == ["", "", "", "two", "nine"]
    assert record(sdata)["counts"].loc["a", "objects"] == 2


def test_labels_of_another_resolution_and_place(sdata: SpatialData) -> None:
    expected = names(match(sdata, max_distance=10))
    fine = np.kron(objects(SPOTS)[5:, 4:], np.ones((2, 2), np.int32))
    place = Affine(np.array([[0.5, 0, 4], [0, 0.5, 5], [0, 0, 1]]), ("x", "y"), ("x", "y"))
    sdata["seg"] = Labels2DModel.parse(fine, dims=("y", "x"), transformations={"global": place})
    obs = match(sdata, max_distance=10)
    assert names(obs) == expected
    np.testing.assert_allclose(obs["matched_distance"], [0, np.nan, np.nan, 4, 10])


# --- whole tissue with known truth


@pytest.fixture(scope="module")
def measured() -> SpatialData:
    """Two dense images, their detected centres, and the intensity table with the true types."""
    tissue = nm.datasets.dense_tissue(n_images=2, n_cells=150)
    nm.pp.detect_cells(tissue, "DNA", diameter=7, progress=False)
    nm.pp.integrate(tissue, "masks", progress=False)
    truth = pd.concat([tissue[f"truth_{image}"]["cell_type"] for image in tissue.images])
    tissue["intensity"].obs["cell_type"] = truth.to_numpy()
    return tissue


@pytest.fixture
def tissue(measured: SpatialData) -> SpatialData:
    """The same, to be changed."""
    return sd.deepcopy(measured)


def true_labels(tissue: SpatialData) -> np.ndarray:
    """Label of the mask under each centre."""
    labels = []
    for image in tissue.images:
        x, y = tissue[f"cells_{image}"].get_coordinates().to_numpy(int).T
        labels.append(tissue[f"masks_{image}"].to_numpy()[y, x])
    return np.concatenate(labels)


def test_matching_recovers_the_truth(tissue: SpatialData) -> None:
    obs = match(tissue, "intensity", columns=["cell_type"])
    matched = obs[obs["matched"].notna()]
    assert len(matched) > 0.95 * len(obs)
    assert matched["matched"].is_unique
    found = tissue["intensity"].obs.loc[matched["matched"].astype(str)]
    assert found["instance_id"].tolist() == true_labels(tissue)[obs["matched"].notna()].tolist()
    assert found["image"].tolist() == matched["image"].tolist()
    assert found["cell_type"].astype(str).tolist() == matched["cell_type"].astype(str).tolist()
    counts = record(tissue)["counts"]
    assert (counts["matched"] + counts["unmatched_objects"]).tolist() == [150, 150]


def test_without_masks_the_nearest_centroid_counts(tissue: SpatialData) -> None:
    for image in tissue.images:  # single pixels, which hardly any centre lies in
        labels = np.zeros_like(tissue[f"masks_{image}"].to_numpy())
        own = (tissue["intensity"].obs["image"] == image).to_numpy()
        x, y = tissue["intensity"].obsm["spatial"][own].astype(int).T
        labels[y, x] = tissue["intensity"].obs["instance_id"][own]
        masks = tissue[f"masks_{image}"]
        tissue[f"masks_{image}"] = masks.copy(data=da.from_array(labels, chunks=32))
    obs = match(tissue, "intensity", max_distance=1000)
    for image in tissue.images:
        here, own = obs[obs["image"] == image], tissue["intensity"].obs["image"] == image
        spots = np.floor(tissue["intensity"].obsm["spatial"][own]) + 0.5
        distance, nearest = KDTree(spots).query(tissue["table"].obsm["spatial"][obs["image"] == image])
        expected = pd.DataFrame({"object": np.flatnonzero(own)[nearest], "distance": distance}, here.index)
        winners = expected.sort_values("distance").drop_duplicates("object").sort_index()
        matched = here["matched"].dropna().sort_index()
        assert matched.index.tolist() == winners.index.tolist()
        assert matched.tolist() == tissue["intensity"].obs_names[winners["object"]].tolist()


def test_crops_keep_their_matches(tissue: SpatialData) -> None:
    whole = match(tissue, "intensity")["matched"].astype(object)
    crop = tissue.query.bounding_box(("x", "y"), [20, 10], [70, 60], target_coordinate_system="dense_2")
    again = match(crop, "intensity")["matched"].astype(object)
    assert 20 < len(again) < len(whole)
    same = again == whole[again.index]
    assert same.mean() > 0.9  # objects at the new edge are cut
    assert crop["table"].uns["nextmarker"]["match_cells"]["counts"].index.tolist() == ["dense_2"]


def test_renamed_moved_and_joined_objects_keep_their_matches(tissue: SpatialData) -> None:
    expected = match(tissue, "intensity")["matched"].astype(object)
    for name in ("dense_1", "masks_dense_1", "cells_dense_1"):  # the same place in another system
        systems = {"slide": "dense_1", "micrometre": "micrometre"}
        moved = {new: get_transformation(tissue[name], old) for new, old in systems.items()}
        set_transformation(tissue[name], moved, set_all=True)
    tissue["slide"] = tissue["dense_1"]
    del tissue.images["dense_1"], tissue.attrs["nextmarker_pixel_size"]
    for table in tissue.tables.values():
        table.obs["image"] = table.obs["image"].cat.rename_categories({"dense_1": "slide"})
    tissue["intensity"] = tissue["intensity"][::-1].copy()
    assert match(tissue, "intensity")["matched"].astype(object).equals(expected)
    assert record(tissue)["counts"].index.tolist() == ["slide", "dense_2"]

    del tissue["intensity"].obs["image"]  # the coordinate systems tell the image as well
    assert match(tissue, "intensity")["matched"].astype(object).equals(expected)
    part = tissue.filter_by_coordinate_system("dense_2")
    joined = sd.concatenate({"P1": tissue, "P2": part}, concatenate_tables=True)
    assert_unchanged_by(joined, ValueError, "did not write 'matched'", "intensity")  # joining drops the record
    obs = match(joined, "intensity", key_added="again")
    pd.testing.assert_series_equal(obs["again"].isna(), obs["matched"].isna(), check_names=False)
    assert record(joined, "match_cells_again")["counts"].index.tolist() == ["slide-P1", "dense_2-P1", "dense_2-P2"]


def test_log_reports_the_share(tissue: SpatialData, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("nextmarker").propagate = True
    with caplog.at_level(logging.INFO, "nextmarker"):
        nm.pp.match_cells(tissue)
    matched = record(tissue)["counts"]["matched"].sum()
    assert f"matched {matched} of {tissue['table'].n_obs} centres (" in caplog.text
    assert "to the 300 objects of 'intensity'" in caplog.text


def test_images_on_one_side_only_are_counted(tissue: SpatialData) -> None:
    for name, image in [("intensity", "dense_1"), ("table", "dense_2")]:
        part = tissue[name][tissue[name].obs["image"] == image].copy()
        tissue[name] = SpatialData.update_annotated_regions_metadata(part)
    with pytest.warns(UserWarning, match="No centre was matched"), pytest.warns(UserWarning, match="in 'dense_2'"):
        obs = match(tissue, "intensity")
    assert obs["matched"].isna().all()
    counts = record(tissue)["counts"]
    assert counts.loc["dense_1"].tolist() == [0, 150, 0, 0, 150]
    assert counts.loc["dense_2", ["objects", "matched"]].tolist() == [0, 0]


def test_warns_of_objects_that_labels_lack(sdata: SpatialData) -> None:
    sdata["seg"] = sdata["seg"].where(sdata["seg"] != 9, 0)
    with pytest.warns(UserWarning, match="1 objects of 'types' are not in the labels 'seg'"):
        match(sdata)
    assert record(sdata)["counts"].loc["a", "objects"] == 2


# --- what is refused


def test_references_that_annotate_no_labels_are_refused(sdata: SpatialData) -> None:
    assert_unchanged_by(sdata, KeyError, "No table 'intensity' in sdata.tables; .*nm.pp.integrate", "intensity")
    assert_unchanged_by(sdata, ValueError, r"'table' annotates 'cells' in sdata.shapes, not labels", "table")
    sdata.tables["loose"] = AnnData(obs=sdata["types"].obs)
    assert_unchanged_by(sdata, ValueError, "'loose' annotates no labels", "loose")
    sdata.labels["renamed"] = sdata.labels.pop("seg")
    assert_unchanged_by(sdata, KeyError, r"No element 'seg' in sdata.labels.*If it was renamed")


def test_broken_references_are_refused(sdata: SpatialData) -> None:
    types = sdata["types"]
    sdata["types"].obs["instance_id"] = [9, 4, 4]
    assert_unchanged_by(sdata, ValueError, "has object 4 of 'seg' several times")
    sdata["types"].obs["instance_id"] = [9.0, 4.0, 2.0]
    assert_unchanged_by(sdata, TypeError, "float64, not integers")
    sdata["types"].obs["instance_id"] = [9, 4, 2]
    types.obs_names = ["x", "x", "y"]
    assert_unchanged_by(sdata, ValueError, "Names of objects repeat.*obs_names_make_unique")
    types.obs_names = ["x", "y", "z"]
    sdata["seg"].data = sdata["seg"].data.astype(float)
    assert_unchanged_by(sdata, ValueError, "are float64, not integers")


def test_columns_are_checked(sdata: SpatialData) -> None:
    assert_unchanged_by(
        sdata, KeyError, "No column 'celltype' in .obs of the table 'types'.*'cell_type'", columns="celltype"
    )
    sdata["table"].obs["cell_type"] = "mine"
    assert_unchanged_by(sdata, ValueError, "did not write 'cell_type' in .obs.*columns=", columns=["cell_type"])
    assert_unchanged_by(sdata, ValueError, "each once", columns={"cell_type": "a", "age": "a"})
    assert_unchanged_by(sdata, ValueError, "other names than 'matched', 'matched_distance'", columns={"age": "matched"})
    assert_unchanged_by(sdata, ValueError, "max_distance=-1 must be 0 or more", max_distance=-1)
    sdata["table"].obs["matched"] = "mine"
    assert_unchanged_by(sdata, ValueError, "did not write 'matched'.*key_added=")


def test_labels_of_an_unclear_image_are_refused(sdata: SpatialData) -> None:
    sdata["b"] = sdata["a"]
    assert_unchanged_by(sdata, ValueError, "Which of the images 'a', 'b'.*set_transformation")
    sdata["types"].obs["image"] = "a"  # says it
    assert names(match(sdata)) == ["four", "", "", "two", ""]


def test_two_labels_of_one_image_are_refused(sdata: SpatialData) -> None:
    sdata["more"] = sdata["seg"]
    sdata["types"].obs["region"] = pd.Categorical(["seg", "seg", "more"])
    sdata["types"].uns["spatialdata_attrs"]["region"] = ["seg", "more"]
    assert_unchanged_by(sdata, ValueError, "several labels of image 'a': 'seg', 'more'")


def test_columns_of_a_former_match_go_and_columns_of_others_stay(sdata: SpatialData) -> None:
    match(sdata, columns=["cell_type", "age"])
    sdata["table"].obs["mine"] = 1
    obs = match(sdata, columns={"age": "age"})
    assert {"age", "mine", "matched"} <= set(obs)
    assert "cell_type" not in obs
    assert "age" not in match(sdata)
