import dask.array as da
import numpy as np
import pytest
import xarray as xr

from nextmarker._centres import METHODS, NuclearImage, estimate_diameter, find_nuclei, label_centroids


def nuclear_image(pixels: np.ndarray, *, tile_size: int = 2048, chunks: int | None = None) -> NuclearImage:
    pixels = np.atleast_3d(pixels.T).T  # (y, x) or (c, y, x)
    names = [f"DNA{i}" for i in range(len(pixels))]
    array = pixels if chunks is None else da.from_array(pixels, chunks=(1, chunks, chunks))
    lazy = xr.DataArray(array, dims=("c", "y", "x"), coords={"c": names})
    return NuclearImage("tissue", lazy, names, tile_size=tile_size)


def gaussian_nuclei(centres: np.ndarray, shape: tuple[int, int], width: float, height: float) -> np.ndarray:
    """Nuclei around centres (x, y) in intrinsic coordinates."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    return sum(height * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * width**2)) for x, y in centres)


def spread_centres(shape: tuple[int, int], spacing: float, rng: np.random.Generator) -> np.ndarray:
    rows, columns = np.mgrid[spacing : shape[0] - spacing : spacing, spacing : shape[1] - spacing : spacing]
    return np.column_stack([columns.ravel(), rows.ravel()]) + rng.uniform(-2, 2, (rows.size, 2))


def tissue(rng: np.random.Generator, shape: tuple[int, int] = (150, 210)) -> np.ndarray:
    centres = spread_centres(shape, 12, rng)
    return rng.poisson(gaussian_nuclei(centres, shape, 2.5, 12) + 0.3)


def assert_same_points(found: np.ndarray, truth: np.ndarray, tolerance: float) -> None:
    assert len(found) == len(truth)
    distance = np.linalg.norm(found[:, None] - truth[None], axis=2)
    assert distance.min(axis=0).max() <= tolerance
    assert distance.min(axis=1).max() <= tolerance


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("height", "dtype"), [(1.0, float), (40, np.uint8), (10_000, np.uint16)])
def test_nuclei_are_found_where_they_are(method: str, height: float, dtype: type) -> None:
    shape = (150, 210)
    truth = spread_centres(shape, 20, np.random.default_rng(0))
    pixels = gaussian_nuclei(truth, shape, 2.5, height).astype(dtype)
    assert_same_points(find_nuclei(nuclear_image(pixels), method, 10), truth, 1)


@pytest.mark.parametrize("method", METHODS)
def test_nuclei_are_found_in_shot_noise(method: str) -> None:
    rng = np.random.default_rng(0)
    shape = (150, 210)
    truth = spread_centres(shape, 25, rng)
    pixels = rng.poisson(gaussian_nuclei(truth, shape, 2.5, 30) + 0.3)
    assert_same_points(find_nuclei(nuclear_image(pixels), method, 10), truth, 1.5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("tile_size", "chunks"), [(17, None), (40, 33), (64, 1000)])
def test_tiles_and_chunks_do_not_matter(method: str, tile_size: int, chunks: int | None) -> None:
    pixels = tissue(np.random.default_rng(1))
    whole = find_nuclei(nuclear_image(pixels), method, 8)
    tiled = find_nuclei(nuclear_image(pixels, tile_size=tile_size, chunks=chunks), method, 8)
    assert len(whole) > 50
    np.testing.assert_array_equal(tiled, whole)


def test_tiles_do_not_matter_to_several_channels_and_to_the_diameter() -> None:
    rng = np.random.default_rng(2)
    pixels = np.stack([tissue(rng), 1000 * tissue(rng)])
    whole, tiled = nuclear_image(pixels), nuclear_image(pixels, tile_size=37, chunks=50)
    np.testing.assert_array_equal(tiled.weights, whole.weights)
    assert estimate_diameter([tiled]) == estimate_diameter([whole])
    np.testing.assert_array_equal(find_nuclei(tiled, "maxima", 8), find_nuclei(whole, "maxima", 8))


@pytest.mark.parametrize("method", METHODS)
def test_nucleus_on_the_corner_of_four_tiles_is_found_once(method: str) -> None:
    truth = np.array([[32.0, 32.0], [64.0, 20.0], [20.0, 64.0]])  # tiles meet at 32 and 64
    pixels = gaussian_nuclei(truth, (90, 110), 3, 50)
    assert_same_points(find_nuclei(nuclear_image(pixels, tile_size=32), method, 12), truth, 1)


@pytest.mark.parametrize("method", METHODS)
def test_equally_high_pixels_are_one_centre(method: str) -> None:
    pixels = np.zeros((40, 60), np.uint8)
    pixels[10:14, 20:24] = 1
    pixels[30:32, 40:42] = 1
    found = find_nuclei(nuclear_image(pixels), method, 4)
    np.testing.assert_allclose(found, [[22, 12], [41, 31]])


@pytest.mark.parametrize("method", ["maxima", "threshold"])
def test_wide_plateau_is_one_centre(method: str) -> None:
    rows, columns = np.mgrid[:100, :120]
    pixels = np.where(np.hypot(rows - 50, columns - 60) < 25, 255, 0).astype(np.uint8)
    np.testing.assert_allclose(find_nuclei(nuclear_image(pixels), method, 8), [[60.5, 50.5]], atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0, 7])
def test_flat_image_has_no_nuclei(method: str, value: int) -> None:
    assert find_nuclei(nuclear_image(np.full((50, 70), value)), method, 8).shape == (0, 2)


def test_touching_nuclei_are_two_maxima_and_one_component() -> None:
    pixels = gaussian_nuclei(np.array([[30.0, 25.0], [39.0, 25.0]]), (50, 70), 2.5, 50)
    image = nuclear_image(pixels)
    assert len(find_nuclei(image, "maxima", 10)) == len(find_nuclei(image, "blobs", 10)) == 2
    assert len(find_nuclei(image, "threshold", 10)) == 1


def test_u_shaped_component_over_tiles_is_one() -> None:
    pixels = np.zeros((60, 60))
    pixels[5:50, 10:16] = pixels[5:50, 40:46] = pixels[44:50, 10:46] = 9
    image = nuclear_image(pixels, tile_size=13)
    assert len(find_nuclei(image, "threshold", 8)) == 1


def test_no_channel_dominates_by_its_scale() -> None:
    first = gaussian_nuclei(np.array([[20.0, 25.0]]), (50, 70), 3, 1)
    second = gaussian_nuclei(np.array([[50.0, 25.0]]), (50, 70), 3, 1)
    image = nuclear_image(np.stack([first, 5000 * second]))
    assert_same_points(find_nuclei(image, "maxima", 12), np.array([[20.0, 25.0], [50.0, 25.0]]), 0.5)


def test_silent_channel_is_no_harm() -> None:
    pixels = gaussian_nuclei(np.array([[20.0, 25.0]]), (50, 70), 3, 9)
    image = nuclear_image(np.stack([pixels, np.zeros_like(pixels)]))
    assert len(find_nuclei(image, "maxima", 12)) == 1


@pytest.mark.parametrize("width", [2.0, 3.5, 6.0])
@pytest.mark.parametrize("height", [0.5, 20, 3000])
def test_diameter_is_four_widths_of_a_gaussian_nucleus(width: float, height: float) -> None:
    rng = np.random.default_rng(0)
    shape = (300, 310)
    pixels = gaussian_nuclei(spread_centres(shape, 7 * width, rng), shape, width, height)
    pixels = pixels if height < 1 else rng.poisson(pixels + 0.2)
    assert estimate_diameter([nuclear_image(pixels)]) == pytest.approx(4 * width, rel=0.35)


def test_diameter_of_nothing_is_unknown() -> None:
    assert estimate_diameter([nuclear_image(np.zeros((50, 70)))]) is None


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint64])
@pytest.mark.parametrize("tile_size", [7, 1000])
def test_label_centroids(dtype: type, tile_size: int) -> None:
    labels = np.zeros((30, 50), dtype)
    labels[2:5, 10:20] = 7
    labels[6:8, 6:8] = 3
    labels[20:29, 40:45] = 100
    lazy = xr.DataArray(da.from_array(labels, chunks=16), dims=("y", "x"))
    names, centres = label_centroids(lazy, tile_size)
    assert names.tolist() == [3, 7, 100]
    np.testing.assert_allclose(centres, [[7, 7], [15, 3.5], [42.5, 24.5]])
