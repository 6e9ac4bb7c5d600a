"""The truth of synthetic data, checked against its pixels."""

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from scipy import ndimage
from scipy.spatial import cKDTree
from spatialdata.transformations import get_transformation

import nextmarker as nm
from nextmarker import _keys


@pytest.fixture(scope="module")
def tissue():
    return nm.datasets.synthetic_tissue(n_images=2, n_cells=300)


@pytest.fixture(scope="module")
def cells():
    return nm.datasets.synthetic_cells(n_cells=700)


def means(sdata, image):
    """Mean counts of each cell in its mask, with its type."""
    truth = sdata[f"truth_{image}"]
    channels = sdata[image]["c"].to_numpy()
    pixels, masks = sdata[image].to_numpy(), sdata[f"masks_{image}"].to_numpy()
    columns = {name: ndimage.mean(pixels[number], masks, truth.index) for number, name in enumerate(channels)}
    return pd.DataFrame(columns, index=truth.index), truth["cell_type"]


def centres(truth):
    return np.column_stack([truth.geometry.x, truth.geometry.y])


def check_form(sdata, names, n_cells):
    """Images, masks and truth agree in name, place, type and number."""
    assert list(sdata.images) == names
    assert sorted(sdata.coordinate_systems) == sorted([*names, "micrometre"])
    assert sdata.attrs[_keys.PIXEL_SIZE] == dict.fromkeys(names, 1.0)
    for name in names:
        image, masks, truth = sdata[name], sdata[f"masks_{name}"], sdata[f"truth_{name}"]
        assert image.dtype == np.uint16
        assert np.issubdtype(masks.dtype, np.integer)
        assert image.shape[1:] == masks.shape
        assert masks.shape[0] != masks.shape[1]
        assert len(truth) == n_cells
        labels, areas = np.unique(masks.to_numpy(), return_counts=True)
        np.testing.assert_array_equal(labels[labels > 0], truth.index)
        np.testing.assert_allclose(np.pi * truth["radius"] ** 2, areas[labels > 0])
        assert isinstance(truth["cell_type"].dtype, pd.CategoricalDtype)
        for element in (image, masks, truth):
            assert list(get_transformation(element, get_all=True)) == [name, "micrometre"]
            matrix = get_transformation(element, name).to_affine_matrix(("x", "y"), ("x", "y"))
            np.testing.assert_array_equal(matrix, np.eye(3))


def check_round_trip(sdata, path):
    sdata.write(path)
    back = sd.read_zarr(path)
    assert back.attrs[_keys.PIXEL_SIZE] == sdata.attrs[_keys.PIXEL_SIZE]
    for name in sdata.images:
        assert back[name]["c"].values.tolist() == sdata[name]["c"].values.tolist()
        np.testing.assert_array_equal(back[name], sdata[name])
        np.testing.assert_array_equal(back[f"masks_{name}"], sdata[f"masks_{name}"])
        truth, read = sdata[f"truth_{name}"], back[f"truth_{name}"]
        assert read["cell_type"].astype(str).tolist() == truth["cell_type"].astype(str).tolist()
        assert read.index.tolist() == truth.index.tolist()
        np.testing.assert_array_equal(centres(read), centres(truth))


def test_tissue_has_the_stated_form(tissue):
    check_form(tissue, ["tissue_1", "tissue_2"], 300)


def test_tissue_has_the_stated_size_and_seed():
    sdata = nm.datasets.synthetic_tissue(n_images=1, n_cells=50, image_size=(60, 90), random_state=3)
    check_form(sdata, ["tissue_1"], 50)
    assert sdata["tissue_1"].shape == (14, 60, 90)
    more = nm.datasets.synthetic_tissue(n_images=2, n_cells=50, image_size=(60, 90), random_state=3)
    np.testing.assert_array_equal(more["tissue_1"], sdata["tissue_1"])
    assert not np.array_equal(more["tissue_2"], sdata["tissue_1"])
    other = nm.datasets.synthetic_tissue(n_images=1, n_cells=50, image_size=(60, 90), random_state=4)
    assert not np.array_equal(other["tissue_1"], sdata["tissue_1"])


def test_own_markers_of_a_type_stand_out(tissue):
    for image in tissue.images:
        mean, cell_type = means(tissue, image)
        for marker in mean.columns.drop(["DNA1", "DNA2"]):
            owners = [name for name, markers in nm.datasets.TISSUE_TYPES.items() if marker in markers]
            owns = cell_type.isin(owners)
            assert owners
            assert mean.loc[owns, marker].quantile(0.05) > 1.5 * mean.loc[~owns, marker].quantile(0.95), marker


def test_every_type_lives_in_every_image(tissue):
    for image in tissue.images:
        sizes = tissue[f"truth_{image}"]["cell_type"].value_counts()
        assert set(sizes.index) == set(nm.datasets.TISSUE_TYPES)
        assert sizes.min() > 0
        assert sizes.max() > 2 * sizes.min()


def test_counts_of_the_markers_span_orders_of_magnitude(tissue):
    mean, cell_type = means(tissue, "tissue_1")
    assert 0.3 < mean.loc[cell_type == "endothelium", "CD31"].mean() < 3
    assert 300 < mean.loc[cell_type == "tumour", "PanKRT"].mean() < 3000


def test_markers_lie_where_they_belong(tissue):
    pixels, truth = tissue["tissue_1"], tissue["truth_tissue_1"]
    x, y = np.floor(centres(truth)).astype(int).T
    at_centre = pd.DataFrame(pixels.to_numpy()[:, y, x].T, index=truth.index, columns=pixels["c"].to_numpy())
    mean, cell_type = means(tissue, "tissue_1")
    relative = at_centre.groupby(cell_type, observed=True).mean() / mean.groupby(cell_type, observed=True).mean()
    assert (relative["DNA1"] > 1.5).all()
    assert relative.loc["proliferating tumour", "Ki67"] > 1.5
    assert relative.loc["B cell", "CD20"] < 0.5
    assert relative.loc["tumour", "PanKRT"] < 0.5


def test_cells_touch_but_keep_their_distance(tissue):
    truth, masks = tissue["truth_tissue_1"], tissue["masks_tissue_1"].to_numpy()
    distance = cKDTree(centres(truth)).query(centres(truth), k=2)[0][:, 1]
    assert distance.min() > truth["radius"].median()
    assert 8 <= 2 * truth["radius"].median() <= 10
    touching = (masks[:, 1:] != masks[:, :-1]) & (masks[:, 1:] > 0) & (masks[:, :-1] > 0)
    assert len(np.unique(masks[:, 1:][touching])) > len(truth) / 3
    x, y = np.floor(centres(truth)).astype(int).T
    np.testing.assert_array_equal(masks[y, x], truth.index)


def test_tissue_is_not_mixed_at_random(tissue):
    truth = tissue["truth_tissue_1"]
    nearest = cKDTree(centres(truth)).query(centres(truth), k=2)[1][:, 1]
    codes = truth["cell_type"].cat.codes.to_numpy()
    same = (codes == codes[nearest]).mean()
    assert same > 2 * (np.bincount(codes) ** 2).sum() / len(codes) ** 2


def test_background_and_staining_differ_between_images(tissue):
    background = [
        tissue[image].to_numpy()[:, tissue[f"masks_{image}"].to_numpy() == 0].mean(axis=1) for image in tissue.images
    ]
    assert np.abs(np.log(background[0] / background[1])).max() > 0.1


def test_tissue_survives_writing(tissue, tmp_path):
    check_round_trip(tissue, tmp_path / "tissue.zarr")


def test_very_few_cells_are_enough():
    check_form(nm.datasets.synthetic_tissue(n_images=1, n_cells=1), ["tissue_1"], 1)
    check_form(nm.datasets.synthetic_cells(n_cells=2), ["cells_1"], 2)


def test_cells_have_the_stated_form(cells):
    check_form(cells, ["cells_1"], 700)
    assert cells["cells_1"]["c"].values.tolist() == ["M1", "M2", "M3", "M4", "M5"]
    sizes = cells["truth_cells_1"]["cell_type"].value_counts()
    assert len(sizes) == 7
    assert sizes.max() > 3 * sizes.min()


def test_each_cell_lies_in_a_field_of_its_own(cells):
    masks, truth = cells["masks_cells_1"].to_numpy(), cells["truth_cells_1"]
    for label, (rows, columns) in zip(truth.index, ndimage.find_objects(masks), strict=True):
        x, y = centres(truth.loc[[label]])[0]
        field = np.s_[int(y // 32) * 32 : int(y // 32) * 32 + 32, int(x // 32) * 32 : int(x // 32) * 32 + 32]
        assert set(np.unique(masks[field])) == {0, label}
        assert field[0].start < rows.start < rows.stop < field[0].stop
        assert field[1].start < columns.start < columns.stop < field[1].stop


def test_size_varies_within_every_type(cells):
    truth = cells["truth_cells_1"]
    np.testing.assert_allclose(truth["size"], np.pi * truth["radius"] ** 2)
    spread = truth.groupby("cell_type", observed=True)["size"].agg(["mean", "std"])
    assert (spread["std"] > 0.1 * spread["mean"]).all()


@pytest.mark.parametrize("pair", [("M2 centre", "M2 border"), ("M3 round", "M3 lobed")])
def test_mean_intensities_cannot_tell_the_pairs(cells, pair):
    mean, cell_type = means(cells, "cells_1")
    first, second = (mean[cell_type == name] for name in pair)
    error = np.sqrt(first.var() / len(first) + second.var() / len(second))
    assert ((first.mean() - second.mean()).abs() < 3 * error).all()
    size = cells["truth_cells_1"]["size"]
    assert abs(size[cell_type == pair[0]].mean() / size[cell_type == pair[1]].mean() - 1) < 0.1


def test_means_tell_all_other_types(cells):
    mean, cell_type = means(cells, "cells_1")
    types = ["M2 centre", "M3 round", "M4", "M4 M5", "M5"]
    for marker in mean.columns[1:]:
        by_type = mean.groupby(cell_type, observed=True)[marker].mean()[types]
        has = by_type.index.str.contains(marker)
        assert by_type[has].min() > 3 * by_type[~has].max()


def test_centre_and_border_differ_in_place(cells):
    truth, pixels = cells["truth_cells_1"], cells["cells_1"].sel(c="M2").to_numpy()
    x, y = np.floor(centres(truth)).astype(int).T
    mean, cell_type = means(cells, "cells_1")
    relative = (pixels[y, x] / mean["M2"]).groupby(cell_type, observed=True).mean()
    assert relative["M2 centre"] > 2
    assert relative["M2 border"] < 0.5


def test_round_and_lobed_nuclei_differ_in_shape(cells):
    truth, masks = cells["truth_cells_1"], cells["masks_cells_1"].to_numpy()
    rows, columns = np.nonzero(masks)
    offset = np.column_stack([columns, rows]) + 0.5 - centres(truth)[masks[rows, columns] - 1]
    spread = ndimage.mean((offset**2).sum(axis=1), masks[rows, columns], truth.index) / truth["size"]
    by_type = spread.groupby(truth["cell_type"], observed=True).mean()
    disc = 1 / (2 * np.pi)
    assert by_type.drop("M3 lobed").to_numpy() == pytest.approx(disc, rel=0.03)
    assert by_type["M3 lobed"] > 1.2 * disc


def test_swapped_pairs_differ_only_in_which_marker_lies_at_the_centre():
    cells = nm.datasets.synthetic_cells(n_cells=1000, swapped=True)
    x, y = np.floor(centres(cells["truth_cells_1"])).astype(int).T
    mean, cell_type = means(cells, "cells_1")
    assert cell_type.nunique() == 8
    for pair, (one, other) in {("M2 in M3", "M3 in M2"): ("M2", "M3"), ("M4 in M5", "M5 in M4"): ("M4", "M5")}.items():
        by_type = mean.groupby(cell_type, observed=True).mean().loc[list(pair)]
        np.testing.assert_allclose(by_type.iloc[0], by_type.iloc[1], rtol=0.15)
        for marker, inner in zip((one, other), pair, strict=True):
            relative = cells["cells_1"].sel(c=marker).to_numpy()[y, x] / mean[marker]
            middle = relative.groupby(cell_type, observed=True).mean()[list(pair)]
            assert middle[inner] > 1.8
            assert middle.drop(inner).item() < 0.6


def test_staining_and_background_differ_from_cell_to_cell():
    """M2 holds 12 counts where it is bright, so its background is 3.6 x exp(N(0, 0.7))."""
    plain, uneven, stained = (
        nm.datasets.synthetic_cells(n_cells=1000, **nuisance)
        for nuisance in ({}, {"background": 0.3}, {"staining": 0.5})
    )
    mean, cell_type = means(plain, "cells_1")
    np.testing.assert_array_equal(cell_type, means(uneven, "cells_1")[1])
    added = np.log((means(uneven, "cells_1")[0] - mean)["M2"][cell_type == "M4"])
    assert added.median() == pytest.approx(np.log(3.6), abs=0.2)
    assert added.std() == pytest.approx(0.7, abs=0.15)
    spread = [np.log(means(each, "cells_1")[0]["M4"][cell_type == "M4"]).std() for each in (plain, stained)]
    assert spread == pytest.approx([0.2, 0.5], abs=0.06)


def test_cells_repeat_with_their_seed(cells):
    np.testing.assert_array_equal(nm.datasets.synthetic_cells(n_cells=700)["cells_1"], cells["cells_1"])
    other = nm.datasets.synthetic_cells(n_cells=700, random_state=1)
    assert not np.array_equal(other["cells_1"], cells["cells_1"])


def test_cells_survive_writing(cells, tmp_path):
    check_round_trip(cells, tmp_path / "cells.zarr")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_images": 0}, ValueError, "n_images must be at least 1, not 0"),
        ({"n_cells": 0}, ValueError, "n_cells must be at least 1, not 0"),
        ({"n_cells": 10.5}, TypeError, "n_cells must be an integer, not 10.5"),
        ({"random_state": -1}, ValueError, "random_state must be at least 0, not -1"),
        ({"random_state": None}, TypeError, "random_state must be an integer"),
        ({"image_size": (10, 20)}, ValueError, "600 cells do not fit into 10 x 20 pixels: they need 30000"),
        ({"image_size": (300,)}, ValueError, r"must be \(height, width\)"),
        ({"image_size": 300}, TypeError, r"must be \(height, width\)"),
        ({"image_size": (300, 0)}, ValueError, "width must be at least 1"),
    ],
)
def test_bad_arguments_of_tissue(arguments, error, message):
    with pytest.raises(error, match=message):
        nm.datasets.synthetic_tissue(**arguments)


@pytest.mark.parametrize(("n_cells", "error"), [(0, ValueError), ("many", TypeError), (True, TypeError)])
def test_bad_arguments_of_cells(n_cells, error):
    with pytest.raises(error, match="n_cells must be"):
        nm.datasets.synthetic_cells(n_cells=n_cells)


@pytest.mark.parametrize("nuisance", [{"staining": -0.1}, {"background": np.nan}])
def test_bad_levels_of_cells(nuisance):
    with pytest.raises(ValueError, match=r"=(-0.1|nan) must be a number of at least 0"):
        nm.datasets.synthetic_cells(n_cells=10, **nuisance)


@pytest.fixture(scope="module")
def dense():
    return nm.datasets.dense_tissue(n_images=2, n_cells=150, random_state=1)


def test_dense_tissue_has_the_stated_form(dense):
    check_form(dense, ["dense_1", "dense_2"], 150)
    assert dense["dense_1"].sizes["c"] == 12
    for image in dense.images:
        assert set(dense[f"truth_{image}"]["cell_type"]) == set(nm.datasets.DENSE_TYPES)


def test_dense_tissue_has_no_gaps_and_the_stated_spacing(dense):
    assert (dense["masks_dense_1"].to_numpy() > 0).all()
    distance = cKDTree(centres(dense["truth_dense_1"])).query(centres(dense["truth_dense_1"]), k=2)[0][:, 1]
    assert 7.5 < np.median(distance) < 9.5


def test_own_markers_of_a_dense_type_stand_out(dense):
    mean, cell_type = means(dense, "dense_1")
    for marker in mean.columns.drop("DNA"):
        owns = cell_type.isin([name for name, markers in nm.datasets.DENSE_TYPES.items() if marker in markers])
        assert mean.loc[owns, marker].median() > 3 * mean.loc[~owns, marker].median(), marker


def test_levels_of_dense_tissue_do_what_they_say():
    def make(**levels):
        sdata = nm.datasets.dense_tissue(n_images=3, n_cells=120, **levels)
        return np.stack([sdata[image].to_numpy()[:, :90, :90].mean(axis=(1, 2)) for image in sdata.images])

    clean = make()
    assert np.median(make(counts=0.25) / clean) == pytest.approx(0.25, rel=0.05)
    assert np.median(make(blur=1.5) / clean) == pytest.approx(1, rel=0.05)
    hazy = make(background=0.1) - clean
    assert (hazy > -0.05).all()
    assert 0.4 < np.log(hazy.clip(0.01)).std() < 1.3  # differs by image and marker
    even = make(staining=0)
    assert np.log(even / clean).std() > 2 * np.log(even[0] / even[1]).std()


def test_offset_of_dense_tissue_is_the_same_whole_number_in_every_pixel(dense):
    def make(offset):
        return nm.datasets.dense_tissue(n_images=1, n_cells=150, offset=offset, random_state=1)["dense_1"].to_numpy()

    counts = dense["dense_1"].to_numpy()
    np.testing.assert_array_equal(make(offset=100), counts + 100)
    np.testing.assert_array_equal(make(offset=99.7), counts + 100)
    assert counts[0].max() > 20
    np.testing.assert_array_equal(make(offset=65_525), np.minimum(counts.astype(int) + 65_525, 65_535))


def test_dense_tissue_repeats_with_its_seed(dense):
    again = nm.datasets.dense_tissue(n_images=1, n_cells=150, random_state=1)
    np.testing.assert_array_equal(again["dense_1"], dense["dense_1"])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_images": 0}, ValueError, "n_images must be at least 1"),
        ({"counts": -1}, ValueError, "counts=-1 must be a number of at least 0"),
        ({"background": float("nan")}, ValueError, "background=nan must be a number"),
        ({"spacing": 2}, ValueError, "spacing=2 must be a number of at least 4"),
    ],
)
def test_bad_arguments_of_dense_tissue(arguments, error, message):
    with pytest.raises(error, match=message):
        nm.datasets.dense_tissue(**arguments)
