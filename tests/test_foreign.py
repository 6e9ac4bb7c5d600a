"""SpatialData of the shapes that the readers of spatialdata-io give: found, embedded and clustered unchanged."""

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from spatialdata import SpatialData, read_zarr
from spatialdata.models import Image2DModel, Labels2DModel, TableModel
from spatialdata.transformations import Affine, Identity, Scale, Sequence, Translation, get_transformation

import nextmarker as nm
from nextmarker import _keys
from nextmarker._regions import read_regions

MARKERS = ["DNA1", "CD3", "CK"]
SETTINGS = nm.nn.TrainingConfig(steps=4, batch_size=32)
SPACING, RADIUS, SHAPE = 16, 4, (80, 112)
YY, XX = np.mgrid[: SHAPE[0], : SHAPE[1]]
NEAREST = ((YY // SPACING) * (SHAPE[1] // SPACING) + XX // SPACING + 1).astype(int)
INSIDE = np.hypot(YY % SPACING - SPACING / 2 + 0.5, XX % SPACING - SPACING / 2 + 0.5) < RADIUS
LABELS = np.where(INSIDE, NEAREST, 0)
N_CELLS = (SHAPE[0] // SPACING) * (SHAPE[1] // SPACING)
AFFINE = Affine([[0, 0.5, 3], [0.5, 0, 7], [0, 0, 1]], input_axes=("x", "y"), output_axes=("x", "y"))


def counts(dtype=np.uint16):
    """Every second cell has CD3, the others CK; all have DNA."""
    rng = np.random.default_rng(0)
    marked = np.stack([LABELS > 0, (LABELS > 0) & (LABELS % 2 == 0), LABELS % 2 == 1])
    return (rng.poisson(1, (3, *SHAPE)) + rng.poisson(60, (3, *SHAPE)) * marked).astype(dtype)


def image(pixels=None, names=MARKERS, **kwargs):
    pixels = counts() if pixels is None else pixels
    return Image2DModel.parse(da.from_array(pixels, chunks=(1, 64, 64)), dims=("c", "y", "x"), c_coords=names, **kwargs)


def labels(dtype=np.uint32, **kwargs):
    return Labels2DModel.parse(da.from_array(LABELS.astype(dtype)), dims=("y", "x"), **kwargs)


def codex():
    """One image for each CYX stack, pixels in the system "global"."""
    return SpatialData(images={"sample": image(transformations={"global": Identity()})})


def mcmicro():
    """A whole slide with cell and nuclei masks and a table of them, in the system of the sample."""
    to_sample = {"exemplar": Identity()}
    masks = {"exemplar_cell": labels(np.int32, transformations=to_sample), "exemplar_nuclei": labels()}
    obs = pd.DataFrame({"CellID": np.arange(1, N_CELLS + 1), "region": pd.Categorical(["exemplar_cell"] * N_CELLS)})
    table = AnnData(np.ones((N_CELLS, 3), np.float32), obs=obs.set_axis(obs["CellID"].astype(str).to_list()))
    annotated = TableModel.parse(table, region="exemplar_cell", region_key="region", instance_key="CellID")
    return SpatialData(
        images={"exemplar": image(transformations=to_sample)}, labels=masks, tables={"segmentation": annotated}
    )


def macsima():
    """A pyramid in micrometres, besides in pixels."""
    systems = {"global": Scale([0.17, 0.17], axes=("x", "y")), "pixels": Identity()}
    return SpatialData(images={"roi": image(transformations=systems, scale_factors=[2, 2])})


def steinbock():
    """Several images with names of their own, floats, and masks beside them."""
    images = {f"core_{i}": image(counts(np.float32), transformations={f"core_{i}": Identity()}) for i in "12"}
    masks = {f"masks_core_{i}": labels(np.int16, transformations={f"core_{i}": Identity()}) for i in "12"}
    return SpatialData(images=images, labels=masks)


def xenium():
    """A pyramid whose channels are numbers, aligned by an affine, with masks in a pyramid."""
    aligned = {"global": AFFINE, "aligned": Sequence([AFFINE, Translation([5, 6], axes=("x", "y"))])}
    morphology = image(names=[0, 1, 2], transformations=aligned, scale_factors=[2])
    cells = labels(np.uint32, transformations=aligned, scale_factors=[2])
    return SpatialData(images={"morphology_focus": morphology}, labels={"cell_labels": cells})


READERS = {reader.__name__: reader for reader in (codex, mcmicro, macsima, steinbock, xenium)}


# reader, its nuclear channel, its masks
OBJECTS = [
    (codex, "DNA1", None),
    (mcmicro, "DNA1", "exemplar_cell"),
    (macsima, "DNA1", None),
    (steinbock, "DNA1", "masks"),
    (xenium, "0", "cell_labels"),
]


def names_of(value):
    return getattr(value, "__name__", None)


def intrinsic_centres(sdata):
    """Centres of the cells in pixels of their images, by image, row by row."""
    return {r.image: r.centres[np.lexsort((r.centres // SPACING).T)] for r in read_regions(sdata)}


def true_centres():
    grid = np.stack(np.meshgrid(np.arange(8, SHAPE[1], SPACING), np.arange(8, SHAPE[0], SPACING)), -1)
    return grid.reshape(-1, 2)


@pytest.mark.parametrize(("reader", "nuclear", "masks"), OBJECTS, ids=names_of)
def test_cells_are_found_embedded_and_clustered(reader, nuclear, masks, tmp_path):
    sdata = reader()
    before = {name: get_transformation(sdata.images[name], get_all=True) for name in sdata.images}
    nm.pp.detect_cells(sdata, nuclear_channels=nuclear, diameter=2 * RADIUS, progress=False)
    for centres in intrinsic_centres(sdata).values():
        np.testing.assert_allclose(centres, true_centres(), atol=2)
    nm.tl.embed(sdata, nm.tl.train(sdata, 11, training=SETTINGS, progress=False), progress=False)
    table = sdata["table"]
    assert table.var_names.tolist() == (["0", "1", "2"] if reader is xenium else MARKERS)
    assert np.isfinite(table.obsm[_keys.EMBEDDING]).all()
    nm.tl.cluster(sdata)
    nm.tl.marker_attribution(sdata)
    assert {name: get_transformation(sdata.images[name], get_all=True) for name in sdata.images} == before
    sdata.write(tmp_path / "all.zarr")
    assert read_zarr(tmp_path / "all.zarr")["table"].n_obs == N_CELLS * len(before)


@pytest.mark.parametrize(("reader", "nuclear", "masks"), [o for o in OBJECTS if o[2]], ids=names_of)
def test_masks_give_centres_in_the_pixels_of_the_image(reader, nuclear, masks):
    sdata = reader()
    nm.pp.add_cells(sdata, masks, progress=False)
    for centres in intrinsic_centres(sdata).values():
        np.testing.assert_allclose(centres, true_centres(), atol=0.6)
    dna = sdata["table"].to_df().iloc[:, 0]
    assert dna.min() > 10  # circles lie on the cells, the background is 1


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_masks_of_any_integer_type(dtype):
    sdata = SpatialData(images={"a": image()}, labels={"a_masks": labels(dtype)})
    nm.pp.add_cells(sdata, "a_masks", progress=False)
    assert sdata["table"].obs["source_id"].tolist() == list(range(1, N_CELLS + 1))
    np.testing.assert_allclose(intrinsic_centres(sdata)["a"], true_centres(), atol=0.6)


def test_pyramids_and_systems_do_not_change_the_result():
    plain, pyramid = (SpatialData(images={"a": image(**how)}) for how in ({}, {"scale_factors": [2, 2]}))
    for sdata in (plain, pyramid):
        nm.pp.detect_cells(sdata, nuclear_channels="DNA1", diameter=2 * RADIUS, progress=False)
    np.testing.assert_array_equal(plain["table"].X, pyramid["table"].X)


# floats after compensation


def compensated(offset=-0.6):
    """Counts of which more was subtracted than was there: slightly negative between the cells."""
    return SpatialData(images={"a": image(counts(np.float32) + np.float32(offset))})


def test_negative_pixels_are_weaker_than_none_and_change_nothing_else():
    sdata = compensated()
    nm.pp.detect_cells(sdata, nuclear_channels="DNA1", diameter=2 * RADIUS, progress=False)
    np.testing.assert_allclose(intrinsic_centres(sdata)["a"], true_centres(), atol=2)
    model = nm.tl.train(sdata, 11, training=SETTINGS, progress=False)
    nm.tl.embed(sdata, model, progress=False)
    table = sdata["table"]
    assert np.isfinite(table.obsm[_keys.EMBEDDING]).all()
    assert (table.layers[_keys.INTERPRETABILITY] >= 0).all()


def test_a_channel_of_negative_pixels_alone_has_no_signal():
    pixels = counts(np.float32)
    pixels[1] = -1
    sdata = SpatialData(images={"a": image(pixels)})
    nm.pp.detect_cells(sdata, nuclear_channels="DNA1", diameter=2 * RADIUS, progress=False)
    with pytest.warns(UserWarning, match="CD3"):
        model = nm.tl.train(sdata, 11, training=SETTINGS, progress=False)
    nm.tl.embed(sdata, model, progress=False)
    assert np.isfinite(sdata["table"].obsm[_keys.EMBEDDING]).all()


def test_pixels_that_are_no_numbers_are_refused_by_name():
    pixels = counts(np.float32)
    pixels[1, 5, 5] = np.nan
    sdata = SpatialData(images={"a": image(pixels)})
    with pytest.raises(ValueError, match=r"'a'.*'CD3'.*fillna"):
        nm.pp.detect_cells(sdata, nuclear_channels="DNA1", diameter=2 * RADIUS, progress=False)
