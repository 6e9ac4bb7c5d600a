"""nm.tl.embed: what it writes, that tiles do not show, what it refuses."""

from collections import Counter
from importlib import import_module

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import concat
from spatialdata import SpatialData, read_zarr
from spatialdata.models import Image2DModel, TableModel

import nextmarker as nm
from nextmarker._checkpoint import progress
from nextmarker._regions import read_regions
from nextmarker.nn.patches import CellTile, cut_patches, fixed_rotations
from nextmarker.tl._missing import fill_with_zero
from nextmarker.tl._zero import measure_zero

MODULE = import_module("nextmarker.tl._features")
KEYS = {
    "obsm": ["X_nextmarker", "X_interpretability"],
    "layers": ["interpretability"],
    "varm": ["nextmarker_crosstalk", "nextmarker_activation"],
}


def results(adata):
    return [np.asarray(getattr(adata, slot)[key]) for slot, keys in KEYS.items() for key in keys]


def embedded(sdata, model, **arguments):
    nm.tl.embed(sdata, model, progress=False, **arguments)
    return results(sdata["table"])


@pytest.fixture(scope="module")
def whole(make, model):
    """The tissue, embedded; not to be changed."""
    sdata = make()
    nm.tl.embed(sdata, model, progress=False)
    return sdata["table"]


@pytest.fixture(scope="module")
def two_markers(make, training):
    """A model that does not know CD3."""
    return nm.tl.train(make(markers=["DNA", "CD20"]), 11, training=training, progress=False)


@pytest.fixture(scope="module")
def physical(make, training):
    """A model with a pixel size of 1 um."""
    return nm.tl.train(make((1.0, 1.0)), 11, training=training, progress=False)


def test_writes_what_the_docs_say(whole, model):
    adata = whole
    n_cells = adata.n_obs
    assert adata.obsm["X_nextmarker"].shape == (n_cells, 256)
    assert adata.obsm["X_interpretability"].shape == (n_cells, 3 * 8)
    assert {value.dtype for value in results(adata)} == {np.dtype("float32")}
    features = adata.obsm["X_interpretability"].reshape(n_cells, 3, 8)
    activation = (features * adata.varm["nextmarker_activation"]).sum(2)
    np.testing.assert_allclose(adata.layers["interpretability"], activation, rtol=1e-5, atol=1e-6)
    weights = adata.varm["nextmarker_crosstalk"].reshape(3, 256, 8)
    rebuilt = np.einsum("mef,cmf->ce", weights, features) + model.crosstalk.bias.detach().numpy()
    np.testing.assert_allclose(adata.obsm["X_nextmarker"], rebuilt, atol=1e-5)
    record = adata.uns["nextmarker"]["embed"]
    assert record["model"] == model.digest()
    assert (record["patch_size"], record["features"], tuple(record["pool_sigmas"])) == (
        11,
        8,
        model.config.network.pool_sigmas,
    )
    assert record["axis"] == model.config.network.axis


@torch.inference_mode()
def test_a_cell_equals_its_patch_sent_through_the_model(tissue, model):
    features = embedded(tissue, model, rotations=3)[1]
    adata = tissue["table"]
    zero = measure_zero(model, read_regions(tissue)[0], torch.device("cpu"))
    pixels = np.pad(tissue.images["image_0"].to_numpy(), ((0, 0), (20, 20), (20, 20)), mode="symmetric")
    tile = torch.from_numpy(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    for cell in (0, 17, 43):
        centre = torch.from_numpy(adata.obsm["spatial"][cell]) - 0.5 + 20
        patches = cut_patches(CellTile(tile, centre.expand(3, 2), 1.0, zero.offset), 11, fixed_rotations(3))
        expected = model.interpret(model.respond(patches).mean(0, keepdim=True), zero.response).flatten()
        np.testing.assert_allclose(features[cell], expected, rtol=1e-5, atol=1e-6)


def test_tiles_and_chunks_do_not_show(make, model, whole):
    for chunks, tile_size in [((3, 200, 200), 1000), ((1, 40, 40), 40), ((2, 17, 33), 1)]:
        for ours, theirs in zip(embedded(make(chunks=chunks), model, tile_size=tile_size), results(whole), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def count_reads(image, reads, name=""):
    def count(block, block_info=None):
        reads[name, *block_info[0]["chunk-location"]] += 1
        return block

    image.data = image.data.map_blocks(count, dtype=image.dtype, meta=np.empty((0, 0, 0), image.dtype))


def test_every_chunk_is_read_once(tissue, model, monkeypatch):
    """But for the sample from which the zero is measured."""
    reads = Counter()
    monkeypatch.setattr(MODULE, "measure_zero", lambda *_: None)
    for name, image in tissue.images.items():
        count_reads(image, reads, name)
    nm.tl.embed(tissue, model, tile_size=40, progress=False)
    assert set(reads.values()) == {1}
    assert len(reads) == sum(image.data.npartitions for image in tissue.images.values())


def test_the_zero_is_measured_on_a_bounded_sample(model):
    """Nine windows of 128 px with their halos, of an image of 4 million pixels."""
    reads = Counter()
    pixels = da.ones((3, 2000, 2000), chunks=(1, 100, 100), dtype=np.uint16)
    sdata = SpatialData(
        images={"huge": Image2DModel.parse(pixels, dims=("c", "y", "x"), c_coords=["DNA", "CD3", "CD20"])}
    )
    nm.pp.add_cells(sdata, pd.DataFrame({"x": [700.0], "y": [900.0]}))
    count_reads(sdata["huge"], reads)
    measure_zero(model, read_regions(sdata)[0], torch.device("cpu"))
    assert set(reads.values()) == {1}
    assert len(reads) <= 3 * 9 * 3**2  # of 1,200 chunks


def test_i_in_half_precision(make, model, whole, tmp_path):
    """Attributions, and what reads I, are the same to three digits, also from a file."""
    sdata = make()
    nm.tl.embed(sdata, model, store_features="float16", progress=False)
    nm.io.write(sdata, tmp_path / "tissue.zarr")
    sdata = read_zarr(tmp_path / "tissue.zarr")
    half, full = sdata["table"], whole.copy()
    assert half.obsm["X_interpretability"].dtype == np.float16
    np.testing.assert_allclose(half.obsm["X_interpretability"], full.obsm["X_interpretability"], rtol=1e-3, atol=1e-6)
    for key in ("X_nextmarker", "interpretability", "nextmarker_crosstalk", "nextmarker_embedding"):
        slot = next(slot for slot in ("obsm", "layers", "varm", "obs") if key in getattr(half, slot))
        np.testing.assert_array_equal(getattr(half, slot)[key], getattr(full, slot)[key])
    for adata in (half, full):
        adata.obs["side"] = pd.Categorical(np.where(adata.obsm["spatial"][:, 0] < 60, "left", "right"))
        nm.tl.marker_attribution(adata, groupby="side")
        nm.tl.cluster(adata, use_rep="X_interpretability", n_neighbors=10, key_added="by_i")
    ours, theirs = (adata.uns["marker_attribution"].set_index(["cluster", "marker"]) for adata in (half, full))
    pd.testing.assert_frame_equal(ours, theirs.loc[ours.index], rtol=0.01, check_index_type=False)
    # these cells have no types, so a few other edges can join other clusters: the graph is compared, not the clusters
    links = [(adata.obsp["by_i_distances"] > 0).toarray() for adata in (half, full)]
    assert (links[0] & links[1]).sum() > 0.97 * links[1].sum()
    mixing = [nm.metrics.separation(adata, "side", use_rep="X_interpretability") for adata in (half, full)]
    pd.testing.assert_frame_equal(*mixing, rtol=1e-2)
    attribution = nm.get.cell_attribution(sdata, 5, model)
    assert float(attribution["contribution"].sum()) == pytest.approx(1, abs=1e-3)
    with pytest.raises(ValueError, match="'X_interpretability'.*nm.tl.embed"):
        nm.metrics.separation(half[:, ::-1], "side", use_rep="X_interpretability")


def test_i_left_out_and_stored_again(make, model, whole):
    sdata = make()
    nm.tl.embed(sdata, model, progress=False)
    nm.tl.embed(sdata, model, store_features=False, progress=False)
    adata = sdata["table"]
    assert "X_interpretability" not in adata.obsm
    for ours, theirs in zip(results_without_features(adata), results_without_features(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    nm.tl.cluster(adata, n_neighbors=10)
    call = r"'X_interpretability'.*nm.tl.embed\(sdata, model, store_features=True\)"
    with pytest.raises(KeyError, match=call):
        nm.tl.marker_attribution(adata)
    with pytest.raises(KeyError, match=call):
        nm.get.cell_attribution(sdata, 5, model)
    for step in (nm.tl.cluster, lambda adata, **rest: nm.metrics.separation(adata, "image", **rest)):
        with pytest.raises(KeyError, match=call):
            step(adata, use_rep="X_interpretability")
    assert list(nm.metrics.separation(adata, "image")["representation"]) == ["X", "X_nextmarker"]
    nm.tl.embed(sdata, model, progress=False)
    nm.tl.marker_attribution(adata)  # the clusters are still valid
    np.testing.assert_array_equal(adata.obsm["X_interpretability"], whole.obsm["X_interpretability"])


def results_without_features(adata):
    return [adata.obsm["X_nextmarker"], adata.layers["interpretability"], adata.varm["nextmarker_crosstalk"]]


def test_how_i_may_be_stored(tissue, model):
    refuse(tissue, ValueError, "store_features='half'.*True, False.*'float16'", model, store_features="half")


def test_the_number_of_threads_changes_nothing(make, model, whole):
    before = torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            computed = embedded(make(), model)
        finally:
            torch.set_num_threads(before)
        for ours, theirs in zip(computed, results(whole), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_order_of_the_table_is_kept(make, model, whole):
    mixed = make()
    order = np.random.default_rng(0).permutation(whole.n_obs)
    mixed.tables["table"] = mixed["table"][order].copy()
    for ours, theirs in zip(embedded(mixed, model)[:3], results(whole)[:3], strict=True):
        np.testing.assert_allclose(ours, theirs[order], atol=1e-6)


def test_trains_when_no_model_is_given(make, monkeypatch, training):
    monkeypatch.setitem(nm.nn.PRESETS, "default", (training, nm.nn.NetworkConfig()))
    first, again, other = make(), make(), make()
    nm.tl.embed(first, progress=False)
    nm.tl.embed(again, tile_size=40, progress=False)
    nm.tl.embed(other, random_state=1, progress=False)
    for ours, theirs in zip(results(first["table"]), results(again["table"]), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(first["table"].obsm["X_nextmarker"], other["table"].obsm["X_nextmarker"])
    assert "loss" in first["table"].uns["nextmarker"]["train"]


def test_a_saved_model_by_its_path(make, model, whole, tmp_path):
    model.save(tmp_path / "model.safetensors")
    for ours, theirs in zip(embedded(make(), str(tmp_path / "model.safetensors")), results(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("markers", [["CD20", "DNA"], ["CD20", "CD3", "DNA"]])
def test_channels_in_another_order_and_more_of_them(make, two_markers, markers):
    expected = embedded(make(markers=["DNA", "CD20"]), two_markers)
    embedding, features, activation, *_ = embedded(make(markers=markers), two_markers)
    at = [markers.index(marker) for marker in ("DNA", "CD20")]
    np.testing.assert_array_equal(embedding, expected[0])
    np.testing.assert_array_equal(features.reshape(-1, len(markers), 8)[:, at].reshape(len(features), -1), expected[1])
    np.testing.assert_array_equal(activation[:, at], expected[2])


def test_a_marker_the_model_does_not_know_has_no_activation(tissue, two_markers):
    nm.tl.embed(tissue, two_markers, progress=False)
    adata = tissue["table"]
    assert (adata[:, "CD3"].layers["interpretability"] == 0).all()
    assert (adata.varm["nextmarker_crosstalk"][1] == 0).all()
    assert (adata[:, "CD20"].layers["interpretability"] > 0).any()
    nm.tl.cluster(adata)
    nm.tl.marker_attribution(adata)


def test_images_of_other_pixel_sizes_give_alike_embeddings(make, physical):
    """The same model sees cells of 10 um alike, at 1 um and at 0.5 um per pixel."""
    coarse, fine = make((1.0,)), make((0.5,))
    activation = [embedded(sdata, physical)[2].mean(0) for sdata in (coarse, fine)]
    np.testing.assert_allclose(activation[0], activation[1], rtol=0.2)


def test_pixels_of_a_marker_change_only_its_block_of_i(tissue, model, whole):
    before = results(whole)[1].reshape(-1, 3, 8)
    for image in tissue.images.values():
        image.data[1] = image.data[1][::-1] * 3
    after = embedded(tissue, model)[1].reshape(-1, 3, 8)
    np.testing.assert_array_equal(after[:, [0, 2]], before[:, [0, 2]])
    assert (after[:, 1] != before[:, 1]).any(axis=1).all()


def test_zero_pixels_are_zero_activation(tissue, model):
    for image in tissue.images.values():
        image.data[1] = 0
    with pytest.warns(UserWarning, match=r"CD3 in all 2 images"):
        nm.tl.embed(tissue, model, progress=False)
    assert (tissue["table"].layers["interpretability"][:, 1] == 0).all()


def unchanged(adata, before):
    return (
        adata.obsm.keys() == before.obsm.keys()
        and adata.layers.keys() == before.layers.keys()
        and adata.varm.keys() == before.varm.keys()
        and adata.uns["nextmarker"].keys() == before.uns["nextmarker"].keys()
    )


def refuse(sdata, error, message, *arguments, **named):
    before = sdata["table"].copy()
    with pytest.raises(error, match=message):
        nm.tl.embed(sdata, *arguments, progress=False, **named)
    assert unchanged(sdata["table"], before)


def test_a_panel_without_a_marker_of_the_model_is_refused_by_name(make, model):
    refuse(make(markers=["DNA", "CD3"]), ValueError, r"'CD20' in the table.*nm.tl.train.*missing=\"zero\"", model)


def without_channel(sdata, image, marker):
    """Take a channel from one image, and leave the table as it is."""
    pixels = sdata.images[image]
    sdata.images[image] = pixels.sel(c=[name for name in pixels["c"].to_numpy() if name != marker])
    return sdata


def test_one_image_without_a_marker_of_the_model_is_refused_by_name(make, model):
    message = r"'CD3' in image 'image_1'.*missing=\"zero\""
    refuse(without_channel(make(), "image_1", "CD3"), ValueError, message, model)


def test_the_name_of_another_marker_of_the_model_is_not_suggested(make, training):
    similar = nm.tl.train(make(markers=["DNA", "CD20", "CD3"]), 9, training=training, progress=False)
    sdata = make(markers=["DNA", "CD20"])
    with pytest.raises(ValueError, match="No marker 'CD3'") as error:
        nm.tl.embed(sdata, similar, progress=False)
    assert "mean" not in str(error.value)


def test_one_image_is_called_the_image(make, model):
    part = make((None,), markers=["DNA", "CD20"])
    with pytest.warns(UserWarning, match="CD3 in the image[.]"):
        nm.tl.embed(part, model, missing="zero", progress=False)


def test_a_panel_that_shares_no_marker_is_refused_even_with_zero(make, training):
    stranger = nm.tl.train(make(markers=["CD20"]), 9, training=training, progress=False)
    refuse(make(markers=["DNA", "CD3"]), ValueError, r"'CD20'.*'image_0'.*nm.tl.train", stranger, missing="zero")


def test_missing_is_one_of_two_words(tissue, model):
    refuse(tissue, ValueError, "missing='mean'.*'error', 'zero'", model, missing="mean")


def test_markers_that_the_table_lacks_are_filled_with_zero(make, model, whole):
    part = make(markers=["CD3", "DNA"])
    expected = results(whole)[1].reshape(-1, 3, 8)
    with pytest.warns(UserWarning, match="CD20 in all 2 images"):
        embedding, features, _, crosstalk, _ = embedded(part, model, missing="zero")
    np.testing.assert_allclose(features.reshape(-1, 2, 8), expected[:, [1, 0]], atol=1e-6)
    rebuilt = np.einsum("mef,cmf->ce", crosstalk.reshape(2, 256, 8), features.reshape(-1, 2, 8))
    np.testing.assert_allclose(embedding, rebuilt + model.crosstalk.bias.detach().numpy(), atol=1e-5)
    record = part["table"].uns["nextmarker"]["embed"]
    assert {image: names.tolist() for image, names in record["filled_with_zero"].items()} == {
        "image_0": ["CD20"],
        "image_1": ["CD20"],
    }
    assert whole.uns["nextmarker"]["embed"]["filled_with_zero"] == {}
    nm.tl.cluster(part["table"])
    nm.tl.marker_attribution(part["table"])


def test_a_marker_that_one_image_lacks_is_zero_there_and_unchanged_elsewhere(tissue, model, whole):
    part = without_channel(tissue, "image_1", "CD3")
    expected = results(whole)[1].reshape(-1, 3, 8)
    with pytest.warns(UserWarning, match="CD3 in 1 of 2 images"):
        features = embedded(part, model, missing="zero")[1].reshape(-1, 3, 8)
    lacks = (part["table"].obs["image"] == "image_1").to_numpy()
    assert (features[lacks, 1] == 0).all()
    assert (expected[lacks, 1] > 0).any()
    np.testing.assert_array_equal(features[lacks][:, [0, 2]], expected[lacks][:, [0, 2]])
    np.testing.assert_array_equal(features[~lacks], expected[~lacks])


def test_a_marker_of_the_images_that_the_table_lacks_counts_as_missing(make, model):
    """Else F would rest on a marker of which the table tells nothing."""
    part, images = make(markers=["DNA", "CD20"]), make()
    images.tables["table"] = images["table"][:, ["DNA", "CD20"]].copy()
    with pytest.warns(UserWarning, match="CD3 in all 2 images"):
        expected = embedded(part, model, missing="zero")
    with pytest.warns(UserWarning, match="CD3 in all 2 images"):
        ours = embedded(images, model, missing="zero")
    for mine, theirs in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_zeros_are_made_tile_by_tile(make, model, monkeypatch):
    """Channels of zeros stay lazy, in the chunks of the image, and no other channel is read for them."""
    reads = Counter()
    sdata = without_channel(make(chunks=(1, 40, 40)), "image_0", "CD20")
    image = sdata.images["image_0"]
    count_reads(image, reads)
    monkeypatch.setattr(MODULE, "measure_zero", lambda *_: None)
    with pytest.warns(UserWarning, match="CD20 in 1 of 2 images"):
        nm.tl.embed(sdata, model, tile_size=40, missing="zero", progress=False)
    assert set(reads.values()) == {1}
    assert len(reads) == image.data.npartitions
    filled = fill_with_zero(image, ["CD20", "CD8"])
    assert filled["c"].to_numpy().tolist() == ["DNA", "CD3", "CD20", "CD8"]
    assert (filled.dtype, filled.chunksizes["y"]) == (image.dtype, image.chunksizes["y"])
    assert set(reads.values()) == {1}


@pytest.mark.parametrize("argument", ["rotations", "tile_size"])
def test_numbers_below_one(tissue, model, argument):
    refuse(tissue, ValueError, f"{argument}=0", model, **{argument: 0})


def test_a_model_with_a_pixel_size_needs_one(tissue, physical):
    refuse(tissue, ValueError, "'image_0'.*nm.pp.set_pixel_size", physical)


def test_a_key_of_somebody_else_is_kept(tissue, model):
    tissue["table"].obsm["X_nextmarker"] = np.ones((tissue["table"].n_obs, 2))
    refuse(tissue, ValueError, r"'X_nextmarker' in .obsm.*del adata.obsm", model)
    assert (tissue["table"].obsm["X_nextmarker"] == 1).all()


def test_running_again_replaces_its_own_result(tissue, model, whole):
    embedded(tissue, model)
    for ours, theirs in zip(embedded(tissue, model), results(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_each_cell_carries_the_name_of_its_embedding(make, model, whole):
    again, fewer_turns = make(), make()
    nm.tl.embed(again, model, progress=False)
    nm.tl.embed(fewer_turns, model, rotations=1, progress=False)
    tables = whole, again["table"], fewer_turns["table"]
    names = [adata.obs["nextmarker_embedding"].unique().tolist() for adata in tables]
    assert names[0] == names[1] != names[2]
    assert {name.partition("-")[0] for (name,) in names} == {model.digest()}
    assert whole.uns["nextmarker"]["embed"]["embedded_as"] == names[0][0]


def test_embedding_again_names_the_results_that_are_older(tissue, model):
    nm.tl.embed(tissue, model, progress=False)
    nm.tl.cluster(tissue)
    nm.tl.cluster(tissue, key_added="fine")
    nm.tl.marker_attribution(tissue)
    nm.tl.embed(tissue, model, progress=False)  # the same again
    nm.get.top_markers(tissue)
    with pytest.warns(UserWarning, match="cluster, cluster_fine, marker_attribution.*nm.tl.cluster"):
        nm.tl.embed(tissue, model, rotations=1, progress=False)
    with pytest.raises(ValueError, match="another embedding"):
        nm.get.top_markers(tissue)
    nm.tl.cluster(tissue)
    nm.tl.marker_attribution(tissue)
    nm.get.top_markers(tissue)


def test_a_table_joined_after_embedding_is_embedded_again(tissue, model, whole):
    half = whole.n_obs // 2
    tissue.tables["table"] = TableModel.parse(concat([whole[:half], whole[half:]]))  # .uns and .varm are lost
    for ours, theirs in zip(embedded(tissue, model), results(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_pixels_that_are_not_finite(make, model):
    sdata = make(dtype=np.float32)
    raw = sdata.images["image_1"].data.compute()
    raw[2, 3, 4] = np.nan
    sdata.images["image_1"].data = raw
    refuse(sdata, ValueError, r"'image_1'.*'CD20'", model)


def test_a_run_that_is_interrupted_leaves_the_table_as_it_was(tissue, model, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "interpret", interrupt)
    refuse(tissue, KeyboardInterrupt, None, model)


def assert_same_bytes(ours, theirs):
    for mine, other in zip(results(ours), results(theirs), strict=True):
        assert mine.tobytes() == other.tobytes()
    records = [adata.uns["nextmarker"]["embed"] for adata in (ours, theirs)]
    assert records[0].keys() == records[1].keys()
    for name in records[0].keys() - {"tile_size"}:
        np.testing.assert_array_equal(*(record[name] for record in records))


class Interruption:
    """Counts the images whose zero is measured, and interrupts the computation at one of them."""

    def __init__(self, monkeypatch, at=None):
        self.images = []

        def measure(model, region, device):
            self.images.append(region.image)
            if len(self.images) == at:
                raise KeyboardInterrupt
            return measure_zero(model, region, device)

        monkeypatch.setattr(MODULE, "measure_zero", measure)


@pytest.fixture
def interrupted(make, model, monkeypatch, tmp_path):
    """A checkpoint that holds the first of two images."""
    sdata = make()
    before = sdata["table"].copy()
    Interruption(monkeypatch, at=2)
    with pytest.raises(KeyboardInterrupt):
        nm.tl.embed(sdata, model, checkpoint=tmp_path, progress=False)
    assert unchanged(sdata["table"], before)
    assert progress(tmp_path) == {"embed": {"done": 1, "total": 2, "unit": "image"}}
    return tmp_path


def test_an_interrupted_embedding_goes_on(make, model, whole, interrupted, monkeypatch):
    sdata, count = make(), Interruption(monkeypatch)
    nm.tl.embed(sdata, model, tile_size=50, checkpoint=interrupted, progress=False)
    assert count.images == ["image_1"]
    assert_same_bytes(sdata["table"], whole)
    assert progress(interrupted)["embed"]["done"] == 2


@pytest.mark.parametrize("change", ["pixels", "centres", "intensities", "model", "rotations", "order"])
def test_kept_results_of_something_else_are_not_used(make, model, two_markers, interrupted, monkeypatch, change):
    sdata, arguments = make(), {"model": model}
    if change == "pixels":
        sdata["image_0"].data = sdata["image_0"].data + 1
    elif change == "centres":
        shapes = sdata.shapes["cells_image_0"]
        shapes.geometry = shapes.geometry.translate(0.25, 0)
    elif change == "intensities":
        sdata["table"].X[0] += 1e-3
    elif change == "model":
        arguments["model"] = two_markers
    elif change == "rotations":
        arguments["rotations"] = 3
    else:
        sdata.tables["table"] = sdata["table"][::-1].copy()
    fresh = SpatialData(images=dict(sdata.images), shapes=dict(sdata.shapes), tables={"table": sdata["table"].copy()})
    nm.tl.embed(fresh, progress=False, **arguments)
    count = Interruption(monkeypatch)
    nm.tl.embed(sdata, checkpoint=interrupted, progress=False, **arguments)
    assert sorted(count.images) == ["image_0", "image_1"]
    assert_same_bytes(sdata["table"], fresh["table"])


def test_parts_of_a_large_image_are_kept_and_give_the_same(make, model, whole, monkeypatch, tmp_path):
    monkeypatch.setattr(MODULE, "PART_SIZE", 40)
    sdata = make()
    Interruption(monkeypatch, at=4)
    with pytest.raises(KeyboardInterrupt):
        nm.tl.embed(sdata, model, checkpoint=tmp_path, progress=False)
    assert progress(tmp_path)["embed"] == {"done": 0, "total": 2, "unit": "image"}
    count = Interruption(monkeypatch)
    nm.tl.embed(sdata, model, checkpoint=tmp_path, progress=False)
    assert len(count.images) == 3 * 4 + 2 * 2 - 3
    assert_same_bytes(sdata["table"], whole)


def test_a_checkpoint_that_cannot_be_written_is_refused_first(tissue, model, tmp_path):
    refuse(tissue, FileNotFoundError, "does not exist", model, checkpoint=tmp_path / "none" / "here")


def test_without_cells(make, model):
    sdata = make()
    del sdata.tables["table"]
    with pytest.raises(KeyError, match="nm.pp.detect_cells"):
        nm.tl.embed(sdata, model)


def test_cells_and_table_out_of_step(tissue, model):
    tissue.shapes["cells_image_0"] = tissue.shapes["cells_image_0"].iloc[3:]
    refuse(tissue, ValueError, "3 cells.*'cells_image_0'", model)


def test_the_model_can_be_trained_afterwards(tissue, model):
    copy = nm.nn.NeXtMarker(model.config, model.normalization.start.tolist())
    nm.tl.embed(tissue, copy, progress=False)
    assert copy.training
    assert {weight.device.type for weight in copy.parameters()} == {"cpu"}
    counts = torch.ones(2, len(model.config.markers), 10, 10)
    copy(counts)[1].sum().backward()
    assert copy.crosstalk.weight.grad is not None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_models_live_on_the_cpu_though_a_gpu_trains_and_embeds(tissue, training):
    model = nm.tl.train(tissue, 11, training=training, device="cuda", progress=False)
    assert {value.device.type for value in model.state_dict().values()} == {"cpu"}
    nm.tl.embed(tissue, model, device="cuda", progress=False)
    assert {value.device.type for value in model.state_dict().values()} == {"cpu"}
