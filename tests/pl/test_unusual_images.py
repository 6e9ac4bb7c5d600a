"""The heatmap of images that differ."""

import numpy as np
import pandas as pd
import pytest

import nextmarker as nm


def make_table():
    z = np.array([[0.5, -7.0], [np.nan, 1.0], [4.5, 0.0]])
    rows = [(f"P{i}", marker, z[i, m]) for i in range(3) for m, marker in enumerate(["CD3", "CD20"])]
    table = pd.DataFrame(rows, columns=["image", "marker", "z"])
    return table.assign(image=pd.Categorical(table["image"]), marker=pd.Categorical(table["marker"], ["CD3", "CD20"]))


def test_each_image_and_marker_has_its_z_and_large_ones_are_marked():
    ax = nm.pl.unusual_images(make_table().sample(frac=1, random_state=0))
    np.testing.assert_array_equal(ax.images[0].get_array().filled(np.nan), [[0.5, -7], [np.nan, 1], [4.5, 0]])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["CD3", "CD20"]
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), [[1, 0], [0, 2]])


def test_the_label_of_the_colours_is_not_cut_off():
    figure = nm.pl.unusual_images(make_table()).figure
    figure.canvas.draw()
    label = figure.axes[1].yaxis.label.get_window_extent()
    assert figure.bbox.y0 <= label.y0 < label.y1 <= figure.bbox.y1


def test_another_table_is_refused():
    with pytest.raises(TypeError, match=r"nm\.get\.unusual_images"):
        nm.pl.unusual_images(make_table().drop(columns="z"))
