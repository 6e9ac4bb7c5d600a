"""The cells of a training step: which windows they come from, and that all have their turn."""

import numpy as np
import pandas as pd
import pytest
import torch

import nextmarker as nm
from nextmarker._regions import read_regions
from nextmarker.nn.patches import patch_margin
from nextmarker.nn.training import random_views
from nextmarker.tl._sampler import CellSampler


def test_windows_take_turns_when_memory_is_short(tissue):
    training = nm.nn.TrainingConfig(steps=30, batch_size=8)
    regions = read_regions(tissue)
    generator = torch.Generator().manual_seed(0)
    sampler = CellSampler(regions, ["CD3"], 9, None, training, generator, torch.device("cpu"), size=50, memory=1)
    assert len(sampler.held) == 1
    assert len(sampler.order) == 2 * 3 + 2 * 2
    seen = set()
    for _ in range(training.steps):
        for tile in sampler.draw(8):
            assert len(sampler.held) == 1
            seen.add(tile.pixels.data_ptr())
            margin = patch_margin(9, 1.0, training.size_scaling)
            assert tile.centres.min() >= margin - 1
    assert sampler.drawn == 30


@pytest.mark.parametrize("seed", range(9))
def test_memory_stays_bounded_when_large_windows_follow_small_ones(tissue, seed):
    generator = torch.Generator().manual_seed(seed)
    training = nm.nn.TrainingConfig(steps=30)
    sampler = CellSampler(
        read_regions(tissue), ["CD3"], 9, None, training, generator, torch.device("cpu"), size=80, memory=12_000
    )
    assert len(sampler.held) < len(sampler.order)
    for _ in range(training.steps):
        sampler.draw(8)
        assert sum(tile.pixels.nbytes for tile in sampler.held[:-1]) < 12_000


def test_a_step_has_two_cells_though_each_window_has_one(tissue):
    cells = pd.DataFrame({"x": [15, 45, 75, 105], "y": [15, 45, 75, 15], "image": "image_0"})
    nm.pp.add_cells(tissue, cells, overwrite=True)
    training = nm.nn.TrainingConfig(steps=8)
    generator = torch.Generator()
    sampler = CellSampler(
        read_regions(tissue), ["CD3"], 9, None, training, generator, torch.device("cpu"), size=30, memory=1
    )
    assert [len(sampler.order), len(sampler.held)] == [4, 2]
    for _ in range(training.steps):
        assert sum(len(tile.centres) for tile in sampler.draw(8)) == sampler.n_cells == 2


def test_no_corner_of_a_view_is_empty(make):
    """In an image of ones a view of a cell is one everywhere, also at the edges and corners of the image."""
    images = make((1.0, 0.5))  # a pixel of the model is two of the second image
    for image in images.images.values():
        image.data[:] = 1
    edges = {
        name: pd.DataFrame([(x, y) for x in (0, width // 2, width - 1) for y in (0, height // 2, height - 1)])
        for name, (_, height, width) in ((name, image.shape) for name, image in images.images.items())
    }
    nm.pp.add_cells(
        images,
        pd.concat([frame.set_axis(["x", "y"], axis=1).assign(image=name) for name, frame in edges.items()]),
        overwrite=True,
    )
    training = nm.nn.TrainingConfig(
        patch_scales=(1.0, 0.8, 0.6), size_scaling=(0.4, 1.5), intensity_scaling=(1.0, 1.0), marker_dropout=0.0
    )
    generator = torch.Generator().manual_seed(0)
    sampler = CellSampler(
        read_regions(images), ["DNA", "CD3"], 10, 1.0, training, generator, torch.device("cpu"), zero=False
    )
    for side in (10, 8, 6):
        for _ in range(20):
            view, _ = random_views(sampler.draw(18), side, training, generator)
            assert view.shape == (18, 2, side, side)
            torch.testing.assert_close(view, torch.ones_like(view), rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch_by_image", [True, False])
def test_draw_is_without_replacement_and_covers_all_cells(tissue, batch_by_image):
    training = nm.nn.TrainingConfig(batch_by_image=batch_by_image)
    regions = read_regions(tissue)
    sampler = CellSampler(regions, ["CD3"], 9, None, training, torch.Generator().manual_seed(0), torch.device("cpu"))
    n_cells = tissue["table"].n_obs
    drawn = sampler.draw(10_000)
    assert sum(len(tile.centres) for tile in drawn) == n_cells
    positions = {(tile.pixels.data_ptr(), *centre) for tile in drawn for centre in tile.centres.tolist()}
    assert len(positions) == n_cells


def positions(drawn):
    """Field and centre of each cell that was drawn."""
    return [(tile.pixels.data_ptr(), *centre) for tile in drawn for centre in tile.centres.tolist()]


@pytest.fixture
def make_sampler(tissue):
    """Ten windows of two images, all in memory."""

    def make_sampler(*, batch_by_image, seed=0):
        training = nm.nn.TrainingConfig(batch_by_image=batch_by_image)
        generator = torch.Generator().manual_seed(seed)
        sampler = CellSampler(read_regions(tissue), ["CD3"], 9, None, training, generator, torch.device("cpu"), size=50)
        assert len(sampler.held) == len(sampler.order) == 2 * 3 + 2 * 2
        return sampler

    return make_sampler


def cells_per_window(sampler):
    return {tile.pixels.data_ptr(): len(tile.centres) for tile in sampler.held}


def test_a_batch_by_image_comes_from_one_window_when_it_holds_enough(make_sampler):
    sampler = make_sampler(batch_by_image=True)
    count = min(cells_per_window(sampler).values())
    windows_drawn = []
    for _ in range(100):
        drawn = sampler.draw(count)
        windows_drawn += [tile.pixels.data_ptr() for tile in drawn]
        assert len(drawn) == 1
        assert len(set(positions(drawn))) == count
    assert set(windows_drawn) == set(cells_per_window(sampler))  # every window has its turn
    assert len(set(windows_drawn[:10])) > 3  # in random order


def test_a_batch_by_image_is_filled_up_from_the_next_window(make_sampler):
    sampler = make_sampler(batch_by_image=True)
    held = cells_per_window(sampler)
    for count in (max(held.values()) + 1, 45, 80):
        filled_up = set()
        for _ in range(50):
            drawn = sampler.draw(count)
            assert len(set(positions(drawn))) == len(positions(drawn)) == count
            assert len(drawn) >= 2
            in_part = {tile.pixels.data_ptr() for tile in drawn if len(tile.centres) < held[tile.pixels.data_ptr()]}
            assert len(in_part) <= 1  # all others are used up
            filled_up |= in_part
        assert len(filled_up) > 3


def test_every_cell_has_its_turn_within_images(make_sampler):
    sampler = make_sampler(batch_by_image=True)
    cells = {position for _ in range(400) for position in positions(sampler.draw(8))}
    assert len(cells) == sum(cells_per_window(sampler).values())


def test_a_window_of_few_cells_comes_first_as_often_as_one_of_many(make):
    tissue = make((None,))
    corners = np.repeat([[0, 0], [50, 0], [0, 50]], [2, 20, 200], axis=0)
    centres = pd.DataFrame(corners + np.random.default_rng(0).uniform(0, 40, corners.shape), columns=["x", "y"])
    nm.pp.add_cells(tissue, centres.assign(image="image_0"), overwrite=True)
    training, generator = nm.nn.TrainingConfig(batch_by_image=True), torch.Generator().manual_seed(0)
    sampler = CellSampler(read_regions(tissue), ["CD3"], 9, None, training, generator, torch.device("cpu"), size=50)
    held = cells_per_window(sampler)
    assert sorted(held.values()) == [2, 20, 200]
    drawn = [sampler.draw(2) for _ in range(600)]
    leading = np.array([[key == tile.pixels.data_ptr() for key in held] for (tile,) in drawn])
    np.testing.assert_allclose(leading.mean(0), 1 / 3, atol=0.08)


def test_a_mixed_batch_comes_from_all_windows(make_sampler):
    sampler = make_sampler(batch_by_image=False)
    held = cells_per_window(sampler)
    assert all(len(sampler.draw(20)) > 3 for _ in range(20))
    drawn = np.array([[key == tile[0] for key in held] for _ in range(200) for tile in positions(sampler.draw(20))])
    np.testing.assert_allclose(drawn.mean(0), np.array(list(held.values())) / sum(held.values()), atol=0.03)


@pytest.mark.parametrize("batch_by_image", [True, False])
def test_the_same_seed_draws_the_same_cells(make_sampler, batch_by_image):
    first, again, other = (
        [tile.centres for tile in make_sampler(batch_by_image=batch_by_image, seed=seed).draw(30)] for seed in (0, 0, 1)
    )
    assert torch.equal(torch.cat(first), torch.cat(again))
    assert not torch.equal(torch.cat(first), torch.cat(other))


@pytest.mark.parametrize("batch_by_image", [True, False])
def test_batches_are_by_image_or_mixed_while_training(tissue, monkeypatch, batch_by_image):
    windows_drawn = []

    def draw(self, count):
        drawn = plain(self, count)
        windows_drawn.append(len(drawn))
        return drawn

    plain = CellSampler.draw
    monkeypatch.setattr(CellSampler, "draw", draw)
    training = nm.nn.TrainingConfig(steps=4, batch_size=32, marker_dropout=0.0, batch_by_image=batch_by_image)
    nm.tl.train(tissue, 9, training=training, progress=False)
    assert windows_drawn == [1 if batch_by_image else 2] * 4  # of two images, with 49 cells or more


def test_an_offset_is_no_signal(make):
    """What a camera adds to every pixel is neither in the views nor in the pixels from which sigmoids start."""
    plain, raised = make(), make()
    for image in raised.images.values():
        image.data = image.data + 100
    training = nm.nn.TrainingConfig()
    drawn = []
    for sdata in (plain, raised):
        generator = torch.Generator().manual_seed(0)
        sampler = CellSampler(read_regions(sdata), ["DNA", "CD3"], 10, None, training, generator, torch.device("cpu"))
        drawn.append(
            (torch.from_numpy(sampler.sample_pixels()), random_views(sampler.draw(18), 10, training, generator)[0])
        )
    for ours, theirs in zip(*drawn, strict=True):
        torch.testing.assert_close(ours, theirs, check_dtype=False, rtol=1e-4, atol=1e-4)


def test_places_are_all_over_the_window(tissue):
    generator = torch.Generator().manual_seed(0)
    training = nm.nn.TrainingConfig()
    sampler = CellSampler(read_regions(tissue), ["DNA"], 10, None, training, generator, torch.device("cpu"))
    margin = patch_margin(10, 1.0, training.size_scaling)
    for tile in sampler.held:
        height, width, _ = tile.pixels.shape
        places = sampler.draw_places(tile, 2000) - margin
        assert (places.min(0).values >= 0).all()
        assert (places.min(0).values < 2).all()
        inside = torch.tensor([width, height]) - 2 * margin - 1
        assert (places.max(0).values <= inside).all()
        assert (places.max(0).values > inside - 2).all()


def test_a_sampler_returns_to_the_windows_it_had(tissue):
    """A few of ten windows are in memory, and are exchanged during the training."""

    def make_sampler():
        training = nm.nn.TrainingConfig(steps=12)
        generator = torch.Generator().manual_seed(0)
        memory = 20_000
        return CellSampler(
            read_regions(tissue), ["CD3"], 9, None, training, generator, torch.device("cpu"), size=50, memory=memory
        )

    def drawn(sampler):
        tiles = sampler.draw(5)
        return [(tile.pixels.numpy().tobytes(), tile.centres.tolist(), tile.places.tolist()) for tile in tiles]

    first, seen = make_sampler(), []
    for step in range(12):
        again = make_sampler()
        again.restore(first.state())
        again.generator.set_state(first.generator.get_state())
        seen.append(drawn(first))
        assert drawn(again) == seen[-1], step
    assert 1 < len(first.held) < len(first.order)
    assert len({pixels for tiles in seen for pixels, *_ in tiles}) > len(first.held)
