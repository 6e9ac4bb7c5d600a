"""nm.pl.matches: outlines, centres, and their numbers in the crop."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel
from spatialdata.transformations import Affine

import nextmarker as nm
from nextmarker.pl import _matches
from tests.copies import made_once


@pytest.fixture
def sdata() -> SpatialData:
    return squares()


@made_once
def squares() -> SpatialData:
    """Four squares of 4 x 4 pixels: two matched, one without a centre, one that the table lacks; two lone centres."""
    labels = np.zeros((20, 50), np.int32)
    for label, x in [(1, 2), (2, 12), (3, 22), (4, 32)]:
        labels[4:8, x : x + 4] = label
    image = Image2DModel.parse(
        np.random.default_rng(0).poisson(5, (2, 20, 50)),
        dims=("c", "y", "x"),
        c_coords=["DNA", "CD3"],
        chunks=(1, 8, 8),
    )
    sdata = SpatialData(images={"a": image}, labels={"seg": Labels2DModel.parse(labels, dims=("y", "x"))})
    nm.pp.integrate(sdata, "seg", progress=False)
    sdata["intensity"] = sdata["intensity"][:3].copy()
    centres = pd.DataFrame({"x": [3, 14, 33, 45], "y": [5, 5, 5, 15]})
    nm.pp.add_cells(sdata, centres, progress=False)
    nm.pp.match_cells(sdata, progress=False)
    return sdata


def legend(ax: plt.Axes) -> list[str]:
    return [entry.get_text() for entry in ax.get_legend().get_texts()]


def outlines(ax: plt.Axes) -> dict[str, np.ndarray]:
    """Ends of the edges, (edges, 2, 2), by colour."""
    return {
        to_hex(lines.get_color()[0]): np.array(lines.get_segments())
        for lines in ax.collections
        if isinstance(lines, mpl.collections.LineCollection)
    }


def test_what_is_matched_and_what_is_not_is_counted(sdata: SpatialData) -> None:
    ax = nm.pl.matches(sdata, channels="DNA")
    assert legend(ax) == [
        "matched (2)",
        "centre without object (2)",
        "object without centre (1)",
        "object not in 'intensity' (1)",
    ]
    assert ax.get_title() == "a: DNA"
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 50), (20, 0))


def test_outlines_lie_on_the_borders_of_the_objects(sdata: SpatialData) -> None:
    edges = outlines(nm.pl.matches(sdata, channels="DNA"))
    assert {color: len(ends) for color, ends in edges.items()} == {
        _matches.LEFT_OUT.lower(): 16,
        _matches.MATCHED.lower(): 32,
        _matches.LONE_OBJECT.lower(): 16,
    }
    lone = edges[_matches.LONE_OBJECT.lower()]
    assert lone.min(axis=(0, 1)).tolist() == [22, 4]
    assert lone.max(axis=(0, 1)).tolist() == [26, 8]


def test_labels_of_another_resolution_are_drawn_in_place(sdata: SpatialData) -> None:
    fine = np.kron(sdata["seg"].to_numpy(), np.ones((2, 2), np.int32))[2:, 2:]
    half = Affine(np.array([[0.5, 0, 1], [0, 0.5, 1], [0, 0, 1]]), ("x", "y"), ("x", "y"))
    sdata["seg"] = Labels2DModel.parse(fine, dims=("y", "x"), transformations={"global": half})
    lone = outlines(nm.pl.matches(sdata, channels="DNA", crop=(20, 0, 10, 20)))[_matches.LONE_OBJECT.lower()]
    assert len(lone) == 32
    assert (lone.min(axis=(0, 1)).tolist(), lone.max(axis=(0, 1)).tolist()) == ([22, 4], [26, 8])


def test_only_the_crop_is_read_and_counted(sdata: SpatialData) -> None:
    touched = []

    def watch(block: np.ndarray, block_info: dict) -> np.ndarray:
        touched.append(tuple(block_info[0]["chunk-location"]))
        return block

    pixels = sdata["a"]
    meta = np.empty((0, 0, 0), pixels.dtype)
    sdata["a"] = pixels.copy(data=pixels.data.map_blocks(watch, dtype=pixels.dtype, meta=meta))
    ax = nm.pl.matches(sdata, channels="CD3", crop=(0, 0, 16, 8))
    assert sorted(set(touched)) == [(1, 0, 0), (1, 0, 1)]
    assert legend(ax) == ["matched (2)", "centre without object (0)", "object without centre (0)"]


def test_large_images_are_downsampled(sdata: SpatialData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_matches, "MOST_PIXELS", 25)
    ax = nm.pl.matches(sdata, channels="DNA")
    assert ax.images[0].get_array().shape == (10, 25)
    assert legend(ax)[2] == "object without centre (1)"
    lone = outlines(ax)[_matches.LONE_OBJECT.lower()]
    assert (lone.min(axis=(0, 1)).tolist(), lone.max(axis=(0, 1)).tolist()) == ([22, 4], [26, 8])


def test_an_image_without_objects_shows_its_centres(sdata: SpatialData) -> None:
    tissue = nm.datasets.dense_tissue(n_images=2, n_cells=50)
    nm.pp.detect_cells(tissue, "DNA", diameter=7, progress=False)
    nm.pp.integrate(tissue, "masks", images="dense_1", progress=False)
    with pytest.warns(UserWarning, match="no objects in 'dense_2'"):
        nm.pp.match_cells(tissue, progress=False)
    ax = nm.pl.matches(tissue, "dense_2")
    n_cells = (tissue["table"].obs["image"] == "dense_2").sum()
    assert legend(ax) == ["matched (0)", f"centre without object ({n_cells})", "object without centre (0)"]
    assert not outlines(ax)


def test_what_is_missing_is_named(sdata: SpatialData) -> None:
    with pytest.raises(KeyError, match=r"channels=..., from 'DNA', 'CD3'"):
        nm.pl.matches(sdata)  # the cells were not detected
    with pytest.raises(KeyError, match="No channel 'CD8'"):
        nm.pl.matches(sdata, channels="CD8")
    with pytest.raises(KeyError, match="No image 'b'"):
        nm.pl.matches(sdata, "b")
    with pytest.raises(KeyError, match=r"No 'other' in .obs of the table.*nm.pp.match_cells\(sdata\)"):
        nm.pl.matches(sdata, key="other")
    with pytest.raises(ValueError, match="lies outside image 'a'"):
        nm.pl.matches(sdata, channels="DNA", crop=(60, 0, 5, 5))
    sdata["intensity"] = sdata["intensity"][1:].copy()
    with pytest.raises(ValueError, match="'intensity' lacks 'a_1', to which cells were matched. Match again"):
        nm.pl.matches(sdata, channels="DNA")
    del sdata["table"].uns["nextmarker"]
    with pytest.raises(KeyError, match="Name it: reference="):
        nm.pl.matches(sdata, channels="DNA")
