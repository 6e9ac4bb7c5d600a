import dask.array as da
import numpy as np
import pytest
import xarray as xr

from nextmarker._regions import Region
from nextmarker.pp._intensity import circle_means

MARKERS = ["CD3", "CD8", "DNA"]


def make_region(chunks: int, reads: list | None = None) -> Region:
    rng = np.random.default_rng(0)
    raw = rng.poisson(5, (3, 47, 71)).astype(np.uint16)

    def read(block: np.ndarray, block_info: dict | None = None) -> np.ndarray:
        if reads is not None and block_info:
            reads.append(tuple(block_info[0]["chunk-location"]))
        return block

    array = da.from_array(raw, chunks=(1, chunks, chunks)).map_blocks(read, dtype=raw.dtype, meta=raw[:0])
    pixels = xr.DataArray(array, dims=("c", "y", "x"), coords={"c": MARKERS})
    edge = np.array([[0, 0], [70.9, 46.9], [0, 46.9], [16, 16], [32, 16], [70.9, 0.5]])
    centres = np.concatenate([edge, rng.uniform(0, [71, 47], (40, 2))])
    return Region("cells", "tissue", pixels, centres, np.arange(len(centres)), None)


def by_hand(region: Region, radius: float) -> np.ndarray:
    raw = region.pixels.to_numpy().astype(float)
    rows, columns = np.mgrid[:47, :71] + 0.5
    return np.array([raw[:, np.hypot(columns - x, rows - y) <= radius].mean(axis=1) for x, y in region.centres])


@pytest.mark.parametrize("radius", [1, 3.7, 30])
def test_means_equal_a_plain_loop(radius: float) -> None:
    region = make_region(16)
    means = circle_means(region, MARKERS, radius, tile_size=16)
    assert means.dtype == np.float32
    np.testing.assert_allclose(means, by_hand(region, radius), rtol=1e-6)


@pytest.mark.parametrize(("chunks", "tile_size"), [(16, 16), (10, 25), (100, 8)])
def test_tiles_and_chunks_do_not_matter(chunks: int, tile_size: int) -> None:
    whole = circle_means(make_region(100), MARKERS, 4.2, tile_size=1000)
    np.testing.assert_array_equal(circle_means(make_region(chunks), MARKERS, 4.2, tile_size=tile_size), whole)


def test_markers_come_in_the_order_asked_for() -> None:
    region = make_region(16)
    swapped = circle_means(region, ["DNA", "CD3"], 3)
    np.testing.assert_array_equal(swapped, circle_means(region, MARKERS, 3)[:, [2, 0]])


def test_each_chunk_is_read_once() -> None:
    reads: list = []
    circle_means(make_region(16, reads), MARKERS, 5, tile_size=16)
    assert len(reads) == len(set(reads)) == 3 * 3 * 5
