import dask.array as da
import numpy as np
import pytest
import xarray as xr

from nextmarker.pp._nuclei import (
    METHODS,
    NuclearImage,
    contrast_to_noise,
    detail_by_width,
    estimate_diameter,
    find_nuclei,
)


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
    assert estimate_diameter([detail_by_width(tiled)]) == estimate_diameter([detail_by_width(whole)])
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
    assert estimate_diameter([detail_by_width(nuclear_image(pixels))]) == pytest.approx(4 * width, rel=0.35)


def test_diameter_of_nothing_is_unknown() -> None:
    assert estimate_diameter([detail_by_width(nuclear_image(np.zeros((50, 70))))]) is None


def median_contrast(pixels: np.ndarray, diameter: float, method: str = "maxima", **kwargs: object) -> float:
    image = nuclear_image(pixels, **kwargs)
    return float(np.median(contrast_to_noise(image, find_nuclei(image, method, diameter), diameter)))


NOISE = {
    **{f"{rate} counts": lambda rng, rate=rate: rng.poisson(rate, (180, 200)) for rate in (0.003, 0.05, 0.5, 4, 200)},
    "camera": lambda rng: np.maximum(rng.normal(100, 10, (180, 200)), 0),
    "hot pixels": lambda rng: np.where(rng.random((180, 200)) < 0.001, rng.integers(1, 60_000, (180, 200)), 0),
    "hot pixels in shot noise": lambda rng: rng.poisson(0.3, (180, 200)) + 9_999 * (rng.random((180, 200)) < 0.0005),
    "uneven light": lambda rng: rng.poisson(np.linspace(0.1, 9, 200), (180, 200)),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("diameter", [5, 9, 16])
@pytest.mark.parametrize("kind", NOISE)
def test_peaks_of_noise_do_not_stand_out(kind: str, diameter: float, seed: int) -> None:
    assert median_contrast(NOISE[kind](np.random.default_rng(seed)), diameter) < 2.5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("height", [1, 5, 100])
def test_nuclei_stand_out_even_if_dim(method: str, height: float) -> None:
    rng = np.random.default_rng(0)
    truth = spread_centres((180, 200), 20, rng)
    pixels = rng.poisson(gaussian_nuclei(truth, (180, 200), 2.5, height) + 0.05)
    assert median_contrast(pixels, 10, method) > 3.5


def test_contrast_does_not_depend_on_gain_offset_or_tiles() -> None:
    pixels = tissue(np.random.default_rng(3), (80, 110))
    expected = median_contrast(pixels, 8)
    assert median_contrast(0.001 * pixels, 8) == pytest.approx(expected)
    assert median_contrast(pixels, 8, tile_size=60, chunks=33) == pytest.approx(expected)
    image = nuclear_image(pixels + 500.0)
    centres = find_nuclei(nuclear_image(pixels), "maxima", 8)
    assert np.median(contrast_to_noise(image, centres, 8)) == pytest.approx(expected)


def test_contrast_is_signal_over_the_noise_that_smoothing_leaves() -> None:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:101, :101] - 50.0
    weights = [np.exp(-(rows**2 + columns**2) / (2 * w**2)) / (2 * np.pi * w**2) for w in (2.5, 5)]
    signal = 40 * np.exp(-(rows**2 + columns**2) / 18)
    kernel = weights[0] - weights[1]
    expected = (kernel * signal).sum() / (10 * np.sqrt((kernel**2).sum()))
    found = [
        contrast_to_noise(nuclear_image(signal + rng.normal(200, 10, signal.shape)), np.array([[50.5, 50.5]]), 10)[0]
        for _ in range(100)
    ]
    assert np.mean(found) == pytest.approx(expected, rel=0.05)


def test_contrast_of_noiseless_nuclei_and_of_tiny_images() -> None:
    disc = np.zeros((9, 9))
    disc[4, 4] = 1
    assert np.isfinite(contrast_to_noise(nuclear_image(disc), np.array([[4.5, 4.5], [0.5, 8.5]]), 30)).all()
    step = np.kron(np.eye(3), np.ones((40, 40)))
    assert contrast_to_noise(nuclear_image(step), np.array([[60.0, 60.0]]), 30)[0] > 3
