"""Tiles: every cell once, every chunk read once, the same pixels whatever the tiles."""

from collections import Counter

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from nextmarker import _tiles
from nextmarker._regions import Region
from nextmarker._tiles import WINDOW_SIZE, occupied_windows, read_window, sample_windows, stream_tiles

MARKERS = ["DNA1", "CD3"]


def make_region(height, width, centres, chunks=None, dtype=np.uint16):
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 1000, (2, height, width)).astype(dtype)
    pixels = counts if chunks is None else da.from_array(counts, (1, *chunks))
    image = xr.DataArray(pixels, dims=("c", "y", "x"), coords={"c": MARKERS})
    return Region("cells", "image", image, np.asarray(centres, float), np.arange(len(centres)), None), counts


def all_over(height, width, count=200):
    """Centres everywhere, the corners and pixels around multiples of 16 among them."""
    rng = np.random.default_rng(1)
    borders = [(x, y) for x in (0, 15.5, 16, 16.5, 31.9, width - 0.1) for y in (0, 15.9, 16, 32.1, height - 0.1)]
    return np.vstack([rng.uniform(0, 1, (count, 2)) * (width, height), borders])


def around(tile, margin):
    """Pixels within the margin of every cell of a tile, by its row in the table."""
    column, row = np.floor(tile.centres).astype(int).T
    return {
        name: tile.pixels[y - margin + 1 : y + margin + 1, x - margin + 1 : x + margin + 1]
        for name, y, x in zip(tile.rows.tolist(), row, column, strict=True)
    }


@pytest.mark.parametrize("tile_size", [1, 16, 33, 500])
@pytest.mark.parametrize("chunks", [None, (16, 16), (20, 50)])
def test_stream_hands_out_every_cell_once_with_its_reflected_surroundings(tile_size, chunks):
    margin = 7
    region, counts = make_region(60, 85, all_over(60, 85), chunks)
    padded = np.pad(counts, ((0, 0), (margin, margin), (margin, margin)), mode="symmetric").transpose(1, 2, 0)
    seen = {}
    for tile in stream_tiles(region, MARKERS, tile_size=tile_size, margin=margin):
        found = around(tile, margin)
        assert not seen.keys() & found.keys()
        seen |= found
    assert seen.keys() == set(range(len(region.centres)))
    for name, (x, y) in enumerate(np.floor(region.centres - 0.5).astype(int) + margin):
        np.testing.assert_array_equal(
            seen[name], padded[y - margin + 1 : y + margin + 1, x - margin + 1 : x + margin + 1]
        )


def count_reads(region, counts):
    """Make the pixels lazy, and count how often each chunk is read."""
    reads = Counter()

    def read(block, block_info=None):
        reads[block_info[0]["chunk-location"]] += 1
        return block

    lazy = da.from_array(counts, (1, 16, 16), name="counts").map_blocks(read, dtype=counts.dtype, meta=counts[:0])
    region.pixels.data = lazy
    return reads


def test_stream_reads_every_chunk_once_and_only_the_markers_asked_for():
    region, counts = make_region(60, 85, all_over(60, 85))
    reads = count_reads(region, counts)
    sum(len(tile.rows) for tile in stream_tiles(region, ["CD3"], tile_size=16, margin=9))
    assert set(reads.values()) == {1}
    assert len(reads) == 4 * 6
    assert {channel for channel, _, _ in reads} == {1}


def test_a_tile_holds_the_markers_in_the_order_asked_for_and_the_dtype_of_the_image():
    region, counts = make_region(20, 30, [(3.5, 4.5)], dtype=np.float32)
    (tile,) = stream_tiles(region, ["CD3", "DNA1"], tile_size=100, margin=2)
    assert tile.pixels.dtype == np.float32
    x, y = tile.centres[0].astype(int)
    np.testing.assert_array_equal(tile.pixels[y, x], counts[::-1, 4, 3])


def test_a_tile_is_in_the_byte_order_of_the_machine():
    region, counts = make_region(20, 30, [(3.5, 4.5)], dtype=">u2")
    (tile,) = stream_tiles(region, MARKERS, tile_size=100, margin=2)
    assert tile.pixels.dtype.isnative
    x, y = tile.centres[0].astype(int)
    np.testing.assert_array_equal(tile.pixels[y, x], counts[:, 4, 3])


def test_windows_cover_every_cell_once_and_leave_out_empty_ones():
    region, counts = make_region(60, 85, [(1, 1), (30, 20), (31.99, 20), (32, 20), (84.9, 59.9)])
    windows = occupied_windows(region, size=32)
    tiles = [read_window(region, MARKERS, window, margin=5) for window in windows]
    assert sorted(row for tile in tiles for row in tile.rows) == [0, 1, 2, 3, 4]
    assert len(windows) == 3
    for tile in tiles:
        for centre, row in zip(tile.centres, tile.rows, strict=True):
            x, y = np.floor(centre).astype(int)
            true_x, true_y = np.floor(region.centres[row] - 0.5).clip(0).astype(int)
            np.testing.assert_array_equal(tile.pixels[y, x], counts[:, true_y, true_x])


def test_pixels_that_are_not_finite_are_named():
    region, counts = make_region(20, 30, [(3, 3)], dtype=np.float32)
    region.pixels.data[1, 5, 5] = np.nan
    with pytest.raises(ValueError, match=r"'image'.*'CD3'.*fillna"):
        list(stream_tiles(region, MARKERS, tile_size=16, margin=2))


@pytest.mark.parametrize(("height", "width"), [(60, 85), (10, 10), (1, 3), (600, 1000)])
def test_windows_are_all_over_the_image_whichever_cells(height, width):
    """Their places have their surroundings, and are the same for other cells. Each pixel tells where it lies."""
    margin = 7
    region, _ = make_region(height, width, [(0.5, 0.5)])
    region.pixels.values = np.indices((height, width)).astype(np.uint16)
    other, _ = make_region(height, width, all_over(height, width))
    other.pixels.values = region.pixels.values
    places = []
    for tile, same in zip(*(sample_windows(each, MARKERS, margin=margin) for each in (region, other)), strict=True):
        np.testing.assert_array_equal(tile.centres, same.centres)
        assert max(tile.pixels.shape) <= WINDOW_SIZE + 2 + 4 * margin
        for surroundings in around(tile, margin).values():
            assert surroundings.shape == (2 * margin, 2 * margin, 2)
        column, row = np.floor(tile.centres).astype(int).T
        places.append(tile.pixels[row, column])
    places = np.concatenate(places)
    assert (places.min(0) <= np.array([height, width]) / 6 + 1).all()
    assert (places.max(0) >= np.array([height, width]) * 5 / 6 - 2).all()


def test_windows_of_a_small_image_are_the_same_and_read_every_chunk_once(monkeypatch):
    region, counts = make_region(60, 85, [(3, 3)])

    def windows():
        return [tile.pixels for tile in sample_windows(region, ["CD3"], margin=7)]

    at_once, digest = windows(), _tiles.fingerprint("image", region.pixels)
    reads = count_reads(region, counts)
    windows()
    assert set(reads.values()) == {1}
    assert {channel for channel, _, _ in reads} == {1}
    monkeypatch.setattr(_tiles, "READ_AT_ONCE", 80)
    reads.clear()
    for ours, theirs in zip(at_once, windows(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert max(reads.values()) > 1
    np.testing.assert_array_equal(_tiles.fingerprint("image", region.pixels), digest)
