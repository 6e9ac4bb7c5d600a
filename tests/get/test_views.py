"""nm.get.views: the cell as it is, and views as training draws them."""

from collections import Counter

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

import nextmarker as nm
from nextmarker._regions import read_regions
from nextmarker.nn.training import random_views
from nextmarker.tl._sampler import CellSampler


def centre_on_pixels(sdata):
    """Put cells into the middle of pixels: inside the first image, and at two of its corners."""
    frame = pd.DataFrame({"x": [40, 0, 131], "y": [30, 0, 95], "image": "image_0"})
    nm.pp.add_cells(sdata, frame, images=["image_0"], overwrite=True)
    return sdata


def test_the_first_is_the_cell_as_it_is(tissue):
    cell, *views = nm.get.views(centre_on_pixels(tissue), 0, patch_size=7)
    np.testing.assert_array_equal(cell, tissue.images["image_0"].to_numpy()[:, 27:34, 37:44])
    assert cell.dims == ("marker", "y", "x")
    assert cell["marker"].to_numpy().tolist() == ["DNA", "CD3", "CD20"]
    assert cell["x"].to_numpy().tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert cell.attrs == {"cell": tissue["table"].obs_names[0], "image": "image_0"}
    assert [view.name for view in [cell, *views]] == ["cell", "view 1", "view 2"]
    assert not any(np.array_equal(cell, view) for view in views)


def test_views_are_those_of_training(make):
    """The same seed draws the same views of the only cell, be it for training or for looking at them."""
    sdata = make((None,))
    sdata.tables["table"] = sdata["table"][31:32].copy()
    training = nm.nn.TrainingConfig(patch_scales=(1.0, 0.6))
    generator = torch.Generator()
    sampler = CellSampler(
        read_regions(sdata), ["DNA", "CD3", "CD20"], 10, None, training, generator, torch.device("cpu")
    )
    tile = sampler.draw(1)
    generator.manual_seed(5)
    expected = [random_views(tile, size, training, generator)[0][0] for size in (10, 10, 6, 6)]
    _, *views = nm.get.views(sdata, 0, patch_size=10, training=training, random_state=5)
    for view, theirs in zip(views, expected, strict=True):
        np.testing.assert_array_equal(view, theirs)
    _, *other = nm.get.views(sdata, 0, patch_size=10, training=training, random_state=6)
    assert not np.array_equal(views[0], other[0])


@pytest.mark.parametrize("cell", [0, 1, 2])
def test_counts_are_scaled_by_marker_and_no_corner_is_empty(tissue, cell):
    centre_on_pixels(tissue).images["image_0"].data[:] = 100
    training = nm.nn.TrainingConfig(size_scaling=(0.5, 1.5), patch_scales=(1.0, 0.8), marker_dropout=0.0)
    whole, *views = nm.get.views(tissue, cell, patch_size=10, training=training)
    np.testing.assert_allclose(whole, 100, rtol=1e-5)
    gains = np.array([view.mean(("y", "x")) for view in views]) / 100
    for view, gain in zip(views, gains, strict=True):
        np.testing.assert_allclose(view, 100 * gain[:, None, None] + np.zeros(view.shape), rtol=1e-5)
    assert ((gains >= 0.5) & (gains <= 2)).all()
    assert len(np.unique(gains)) == gains.size == 12


def test_hidden_markers_are_zero_in_the_views_and_shown_in_the_cell(tissue):
    centre_on_pixels(tissue).images["image_0"].data[:] = 100
    training = nm.nn.TrainingConfig(views=100, marker_dropout=0.3)
    whole, *views = nm.get.views(tissue, 0, patch_size=9, training=training)
    np.testing.assert_allclose(whole, 100, rtol=1e-5)
    hidden = np.array([(view == 0).all(("y", "x")) for view in views])
    shown = np.array([(view >= 49.9).all(("y", "x")) for view in views])
    assert (hidden != shown).all()
    assert 0.2 < hidden.mean() < 0.4


@pytest.mark.filterwarnings("ignore:Training did not work")  # one step
@pytest.mark.parametrize("marker_dropout", [0.0, 0.6])
def test_patch_size_and_settings_are_those_of_the_training(tissue, tmp_path, marker_dropout):
    training = nm.nn.TrainingConfig(
        steps=1,
        batch_size=8,
        views=3,
        patch_scales=(1.0, 0.5),
        size_scaling=(0.9, 1.1),
        marker_dropout=marker_dropout,
        swap_surroundings=marker_dropout > 0,
    )
    nm.tl.train(tissue, 12, training=training, progress=False)
    expected = nm.get.views(tissue, 7, patch_size=12, training=training)
    assert [view.shape[-1] for view in expected] == [12, 12, 12, 12, 6, 6, 6]
    tissue["table"].write_h5ad(tmp_path / "table.h5ad")
    read = ad.read_h5ad(tmp_path / "table.h5ad").uns["nextmarker"]
    for record in (tissue["table"].uns["nextmarker"], read):
        tissue["table"].uns["nextmarker"] = record
        for view, theirs in zip(nm.get.views(tissue, 7), expected, strict=True):
            np.testing.assert_array_equal(view, theirs)


def test_pixel_size_of_the_training_is_kept(make, training):
    """A patch of 11 px of 1 um shows 22 px of 0.5 um."""
    trained, sdata = make((1.0,)), make((0.5,))
    nm.tl.train(trained, 11, training=training, progress=False)
    sdata["table"].uns["nextmarker"]["train"] = trained["table"].uns["nextmarker"]["train"]
    image = sdata.images["image_0"]
    image.data = np.broadcast_to(np.arange(image.sizes["x"], dtype=np.float32), image.shape)
    (cell, *_), x = nm.get.views(sdata, 40), sdata["table"].obsm["spatial"][40, 0] / 0.5
    np.testing.assert_allclose(cell[0, 0], x - 0.5 + 2 * cell["x"], rtol=1e-4)


def test_a_cell_by_its_name(tissue):
    name = tissue["table"].obs_names[50]
    for ours, theirs in zip(*(nm.get.views(tissue, cell, patch_size=9) for cell in (name, 50)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.attrs["cell"] == name


def test_a_name_of_several_cells_is_refused(tissue):
    names = tissue["table"].obs_names.tolist()
    names[7] = names[2]
    tissue["table"].obs_names = names
    with pytest.raises(ValueError, match=r"2 cells.*row number, such as 2.*obs_names_make_unique"):
        nm.get.views(tissue, names[2], patch_size=9)
    nm.get.views(tissue, 2, patch_size=9)
    nm.get.views(tissue, names[3], patch_size=9)


def test_only_the_surroundings_are_read(tissue):
    reads = Counter()
    image = centre_on_pixels(tissue).images["image_0"]

    def count(block, block_info=None):
        reads[tuple(block_info[0]["chunk-location"][1:])] += 1
        return block

    image.data = image.data.map_blocks(count, dtype=image.dtype, meta=np.empty((0, 0, 0), image.dtype))
    nm.get.views(tissue, 1, patch_size=9, training=nm.nn.TrainingConfig(swap_surroundings=False))
    assert set(reads) == {(0, 0)}


def test_the_cell_itself_is_seen_in_the_surroundings_of_another(tissue):
    """Left of x = 90 there is 1 count, right of it 3."""
    image = centre_on_pixels(tissue).images["image_0"]
    image.data = np.broadcast_to(np.where(np.arange(image.sizes["x"]) < 90, 1.0, 3.0), image.shape).astype(np.float32)
    frame = pd.DataFrame({"x": [30, 110, 112], "y": [30, 30, 60], "image": "image_0"})
    nm.pp.add_cells(tissue, frame, images=["image_0"], overwrite=True)
    plain = {"views": 20, "intensity_scaling": (1.0, 1.0), "marker_dropout": 0.0}
    _, *views = nm.get.views(tissue, 0, patch_size=15, training=nm.nn.TrainingConfig(**plain))
    for view in views:
        assert view[0, 7, 7] == pytest.approx(1, abs=0.05)
        assert view[0, 0, 0] == pytest.approx(3, abs=0.1)
    _, *views = nm.get.views(tissue, 0, patch_size=15, training=nm.nn.TrainingConfig(**plain, swap_surroundings=False))
    np.testing.assert_allclose(views, 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, KeyError, "patch_size="),
        ({"patch_size": 2}, ValueError, "at least 3"),
        ({"patch_size": 9, "cell": "nobody"}, KeyError, r"'nobody'.*0 to \d+"),
        ({"patch_size": 9, "cell": 10_000}, KeyError, "no cell 10000"),
        ({"patch_size": 9, "cell": -1}, KeyError, "no cell -1"),
        ({"patch_size": 9, "table_key": "none"}, KeyError, "No table 'none'"),
    ],
)
def test_errors(tissue, arguments, error, message):
    with pytest.raises(error, match=message):
        nm.get.views(tissue, **arguments)


@pytest.mark.filterwarnings("ignore:Training did not work")  # one step
def test_settings_of_a_training_may_be_lists(tissue):
    training = nm.nn.TrainingConfig(steps=1, batch_size=8, patch_scales=[1.0, 0.6], size_scaling=[0.9, 1.1])
    nm.tl.train(tissue, 10, training=training, progress=False)
    assert [view.sizes["x"] for view in nm.get.views(tissue)] == [10, 10, 10, 6, 6]


def test_a_record_of_another_version_is_refused(tissue):
    record = {"views": 2, "hidden_markers": 0.3, "patch_scales": [1.0], "patch_size": 9}
    tissue["table"].uns["nextmarker"] = {"train": record}
    with pytest.raises(ValueError, match=r"another version.*'marker_dropout'.*training=nm\.nn\.TrainingConfig"):
        nm.get.views(tissue, 0)
    nm.get.views(tissue, 0, training=nm.nn.TrainingConfig())
