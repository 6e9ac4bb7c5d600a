"""An image's own zero: what it takes off, what does not move it, what is recorded and what is warned of."""

import warnings

import anndata
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import torch
from spatialdata.models import Image2DModel

import nextmarker as nm
from nextmarker._regions import read_regions
from nextmarker.tl._zero import measure_zero
from tests.copies import made_once

CPU = torch.device("cpu")
MARKERS = ["DNA", "CD3", "CD20"]
BACKGROUND = np.array([[2.0, 0.3, 1.0], [0.5, 1.5, 0.2]])  # counts per pixel, (images, markers)


@made_once
def sparse(n_images=2):
    """Round cells 9 px wide, 27 px apart: DNA in all, CD3 in one half of them and CD20 in the other."""
    images, cells = {}, []
    for number in range(n_images):
        rng = np.random.default_rng(number)
        rates = np.zeros((3, 162, 189))
        y, x = np.mgrid[:162, :189]
        for index, (row, column) in enumerate(np.ndindex(6, 7)):
            cy, cx = 27 * np.array([row, column]) + 13 + rng.uniform(-3, 3, 2)
            inside = (x - cx) ** 2 + (y - cy) ** 2 < 4.5**2
            rates[0, inside], rates[1 + index % 2, inside] = 20, 6
            cells.append({"x": cx, "y": cy, "image": f"image_{number}"})
        counts = da.from_array(rng.poisson(rates).astype(np.uint16), (1, 40, 40))
        images[f"image_{number}"] = Image2DModel.parse(counts, dims=("c", "y", "x"), c_coords=MARKERS)
    sdata = sd.SpatialData(images=images)
    nm.pp.add_cells(sdata, pd.DataFrame(cells))
    return sdata


def change(sdata, edit):
    """Replace the pixels of all images by `edit(pixels, number of the image)`."""
    for number, image in enumerate(sdata.images.values()):
        image.data = da.from_array(np.asarray(edit(image.to_numpy().copy(), number)), (1, 40, 40))
    return sdata


def with_background(pixels, number):
    rng = np.random.default_rng(number)
    return (pixels + rng.poisson(BACKGROUND[number][:, None, None], pixels.shape)).astype(pixels.dtype)


def embed(sdata, model, **arguments):
    nm.tl.embed(sdata, model, progress=False, **arguments)
    return sdata["table"].layers["interpretability"]


def zero_of(sdata, model):
    return measure_zero(model, read_regions(sdata)[0], CPU)


@pytest.fixture(scope="module")
def model(training):
    return nm.tl.train(sparse(), 11, training=training, progress=False)


@pytest.fixture(scope="module")
def plain(training):
    """A model without a zero."""
    return nm.tl.train(sparse(), 11, training=training, network=nm.nn.NetworkConfig(zero=False), progress=False)


@pytest.fixture(scope="module")
def activation(model):
    """Of the images as they are."""
    return embed(sparse(), model)


@pytest.fixture(scope="module")
def hazy(model):
    """The same images with background, embedded."""
    sdata = change(sparse(), with_background)
    embed(sdata, model)
    return sdata


def test_background_moves_cells_far_less_than_without_a_zero(activation, hazy, plain):
    """Of the markers that differ between cells, relative to how much they do."""

    def moved(before, after):
        return np.sqrt(((after - before) ** 2).mean(0) / before.var(0))[1:]

    without = moved(embed(sparse(), plain), embed(change(sparse(), with_background), plain))
    assert (moved(activation, hazy["table"].layers["interpretability"]) < 0.6 * without).all()


def test_images_that_differ_in_background_alone_agree(model, plain):
    def apart(known):
        both = [embed(change(sparse(1), lambda p, _, n=n: with_background(p, n)), known) for n in (0, 1)]
        return (np.abs(both[0].mean(0) - both[1].mean(0)) / both[0].std(0))[1:]

    assert (apart(model) < apart(plain) / 2).all()


def test_an_offset_of_a_camera_changes_nothing(model, activation):
    raised = change(sparse(), lambda pixels, _: pixels + 100)
    np.testing.assert_allclose(embed(raised, model), activation, atol=1e-4)
    record = raised["table"].uns["nextmarker"]["embed"]
    np.testing.assert_array_equal(record["offset"], np.full((2, 3), 100))


def test_training_with_an_offset_gives_the_same_model(training, model):
    raised = change(sparse(), lambda pixels, _: pixels + 100)
    other = nm.tl.train(raised, 11, training=training, progress=False)
    assert model.normalization.start.tolist() == other.normalization.start.tolist()
    np.testing.assert_allclose(other.threshold, model.threshold, rtol=1e-3)


def test_a_model_without_a_zero_is_trained_on_the_pixels_as_they_are(training):
    raised = change(sparse(), lambda pixels, _: pixels + 100)
    plain = nm.tl.train(raised, 11, training=training, network=nm.nn.NetworkConfig(zero=False), progress=False)
    assert (plain.normalization.start > 40).all()
    embed(raised, plain)
    assert "background" not in raised["table"].uns["nextmarker"]["embed"]


def hot(pixels, _):
    rows, columns = np.random.default_rng(0).integers(0, 80, (2, 8))
    pixels[:, rows, columns] = 65_535
    return pixels


def saturated(pixels, _):
    return np.where(pixels > 110, 65_535, pixels)


def dead(pixels, _):
    rows, columns = np.random.default_rng(0).integers(0, 80, (2, 8))
    pixels[:, rows, columns] = 0
    return pixels


def smeared(pixels, _):
    y, x = np.mgrid[: pixels.shape[1], : pixels.shape[2]]
    pixels[:, x + y < 60] += 30
    return pixels


@pytest.mark.parametrize("fault", [hot, saturated, dead, smeared])
def test_faults_do_not_move_the_zero(model, fault):
    """By no more than a tenth of what places differ; the offset not at all."""
    whole = change(sparse(1), lambda pixels, _: pixels + 100)
    before = zero_of(whole, model)
    after = zero_of(change(whole, fault), model)
    assert after.offset.tolist() == [100, 100, 100]
    assert ((after.response - before.response).abs().mean(1) < 0.1 * before.noise.mean(1)).all()


def test_the_zero_is_that_of_the_image_whichever_cells_and_tiles(model):
    whole, part = sparse(), sparse()
    kept = np.random.default_rng(0).permutation(whole["table"].n_obs)[:40]
    part.tables["table"] = part["table"][kept].copy()
    expected = embed(whole, model, tile_size=1000)
    np.testing.assert_array_equal(embed(part, model, tile_size=40), expected[kept])
    for name in ("offset", "background", "zero_response"):
        ours, theirs = (sdata["table"].uns["nextmarker"]["embed"][name] for sdata in (part, whole))
        order = [part["table"].uns["nextmarker"]["embed"]["images"].tolist().index(i) for i in ("image_0", "image_1")]
        np.testing.assert_array_equal(ours[order], theirs)


def test_the_record_holds_the_background_of_each_image_and_survives_files(model, tmp_path):
    sdata = change(sparse(), lambda pixels, number: with_background(pixels, number) + 100)
    embed(sdata, model)
    record = sdata["table"].uns["nextmarker"]["embed"]
    assert record["images"].tolist() == ["image_0", "image_1"]
    assert record["zero"] is True
    assert {record[name].shape for name in ("offset", "background", "zero_response")} == {(2, 3)}
    assert record["background"] == pytest.approx(100 + BACKGROUND, abs=0.25)
    assert (record["zero_response"] > 0).all()
    sdata["table"].write_h5ad(tmp_path / "cells.h5ad")
    nm.io.write(sdata, tmp_path / "slides.zarr")
    for again in (anndata.read_h5ad(tmp_path / "cells.h5ad"), sd.read_zarr(tmp_path / "slides.zarr")["table"]):
        for name in ("images", "offset", "background", "zero_response"):
            np.testing.assert_array_equal(again.uns["nextmarker"]["embed"][name], record[name])


def only_background(pixels, number):
    """CD3 is nowhere in the second image; CD20 is in two of its cells."""
    if number == 1:
        rng = np.random.default_rng(0)
        pixels[1:] = rng.poisson(0.5, pixels[1:].shape)
        for corner in (12, 48):
            pixels[2, corner : corner + 9, corner : corner + 9] += 8
    return pixels


def test_the_marker_that_an_image_lacks_is_named_and_no_rare_one(model):
    with pytest.warns(UserWarning, match=r"without signal.*: CD3 in 1 of \d+ images \('image_1'\)"):
        embed(change(sparse(), only_background), model)


def test_single_counts_are_no_signal(model):
    sdata = change(sparse(1), lambda p, _: np.stack([p[0], np.random.default_rng(0).poisson(0.02, p[1].shape), p[2]]))
    with pytest.warns(UserWarning, match=r"CD3 in the image[.]"):
        embed(sdata, model)


def test_nothing_is_warned_of_where_all_markers_have_signal(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        embed(sparse(), model)
        embed(change(sparse(), with_background), model)


def test_attribution_stays_exact(hazy):
    adata = hazy["table"]
    features = adata.obsm["X_interpretability"].reshape(adata.n_obs, 3, 8)
    linear = np.einsum("mef,cmf->ce", adata.varm["nextmarker_crosstalk"].reshape(3, 256, 8), features)
    rest = adata.obsm["X_nextmarker"] - linear
    np.testing.assert_allclose(rest, np.broadcast_to(rest[:1], rest.shape), atol=1e-5)
    nm.tl.cluster(adata)
    nm.tl.marker_attribution(adata)
    shares = adata.uns["marker_attribution"].groupby("cluster", observed=True)["contribution"].sum()
    np.testing.assert_allclose(shares, 1, atol=1e-5)


ODD = {
    "bright everywhere": lambda p: np.stack([np.random.default_rng(0).poisson(40, p[0].shape), *p[1:]]),
    "constant": lambda p: np.stack([p[0], np.full_like(p[1], 7), p[2]]),
    "empty": lambda p: np.stack([p[0], np.zeros_like(p[1]), p[2]]),
    "all constant": lambda p: np.full_like(p, 7),
    "negative": lambda p: (p + np.random.default_rng(0).normal(0, 1, p.shape)).astype(np.float32),
    "all negative": lambda p: -1 - p.astype(np.float32),
    "from 0 to 1": lambda p: (p / p.max()).astype(np.float32),
    "tiny values": lambda p: (p * 1e-6).astype(np.float32),
    "saturated": lambda p: np.full_like(p, 65_535),
}


@pytest.mark.filterwarnings("ignore:Markers without signal", "ignore:Training did not work")
@pytest.mark.parametrize("name", ODD)
def test_odd_images_give_finite_results(model, training, name):
    sdata = change(sparse(1), lambda pixels, _: ODD[name](pixels))
    for known in (model, nm.tl.train(sdata, 11, training=training, progress=False)):
        nm.tl.embed(sdata, known, progress=False)
        assert np.isfinite(sdata["table"].obsm["X_nextmarker"]).all()
        assert np.isfinite(sdata["table"].obsm["X_interpretability"]).all()
        record = sdata["table"].uns["nextmarker"]["embed"]
        for array in ("offset", "background", "zero_response"):
            assert np.isfinite(record[array]).all()


@pytest.mark.parametrize("value", [0, 7])
def test_a_constant_marker_is_named_and_has_no_activation(model, value):
    sdata = change(sparse(1), lambda p, _: np.stack([p[0], np.full_like(p[1], value), p[2]]))
    with pytest.warns(UserWarning, match=r"CD3 in the image[.]"):
        assert (embed(sdata, model)[:, 1] < 1e-6).all()


@pytest.mark.filterwarnings("ignore:Markers without signal", "ignore:Training did not work")
@pytest.mark.parametrize("shape", [(10, 10), (1, 10), (3, 2), (130, 7)])
def test_tiny_images(training, model, shape):
    counts = np.random.default_rng(0).poisson(3, (3, *shape)).astype(np.uint16)
    sdata = sd.SpatialData(images={"tiny": Image2DModel.parse(counts, dims=("c", "y", "x"), c_coords=MARKERS)})
    nm.pp.add_cells(sdata, pd.DataFrame({"x": [0, shape[1] - 1], "y": [0, shape[0] - 1]}))
    for known in (model, nm.tl.train(sdata, 11, training=training, progress=False)):
        assert np.isfinite(embed(sdata, known)).all()
