import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_rgb
from skimage.color import rgb2lab

from nextmarker.pl._colors import GREY, PALETTE, category_colors

# Machado, Oliveira and Fernandes (2009), complete loss of a cone, on linear RGB
EYES = {
    "normal": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}


def seen(colors, eye):
    """CIE Lab of colours as an eye sees them."""
    rgb = np.array([to_rgb(color) for color in colors])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = (linear @ np.transpose(EYES[eye])).clip(0, 1)
    return rgb2lab(np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055))


@pytest.mark.parametrize("eye", EYES)
def test_thirty_colours_differ_from_each_other_and_from_what_is_behind_them(eye):
    """Those of scanpy come as close as 0.6 and 0.9 for one of the colour-blind eyes, with 20 and 28 colours."""
    lab = seen(PALETTE, eye)
    distances = np.linalg.norm(lab[:, None] - lab, axis=2)[np.triu_indices(30, 1)]
    assert distances.min() > (19 if eye == "normal" else 14)
    for background, least in {"black": 31, "white": 17, GREY: 7}.items():
        assert np.linalg.norm(lab - seen([background], eye), axis=1).min() > least


def table(n, colors=None):
    names = [f"type {number:03d}" for number in range(n)]
    adata = AnnData(obs=pd.DataFrame({"type": pd.Categorical(names)}, index=names))
    if colors is not None:
        adata.uns["type_colors"] = colors
    return adata


def test_few_categories_have_the_same_colours_as_many():
    few, many = (list(category_colors(table(n), table(n).obs["type"]).values()) for n in (3, 30))
    assert few == many[:3] == ["#E69F00", "#56B4E9", "#009E73"]
    for n in (31, 150):
        assert len(category_colors(table(n), table(n).obs["type"])) == n


@pytest.mark.parametrize("file_format", ["h5ad", "zarr"])
def test_colours_of_scanpy_are_used_also_after_reading_them_from_a_file(tmp_path, file_format):
    adata = table(3, ["#111111", "#222222", "red", "blue"])  # as in scanpy, there may be more
    write = adata.write_h5ad if file_format == "h5ad" else adata.write_zarr
    write(tmp_path / "table")
    again = (anndata.read_h5ad if file_format == "h5ad" else anndata.read_zarr)(tmp_path / "table")
    expected = {"type 000": "#111111", "type 001": "#222222", "type 002": "red"}
    assert category_colors(again, again.obs["type"]) == expected


@pytest.mark.parametrize("colors", [["red", "blue"], ["red", "blue", "no colour"]])
def test_colours_that_do_not_fit_are_not_used(colors):
    adata = table(3, colors)
    assert list(category_colors(adata, adata.obs["type"]).values()) == list(PALETTE[:3])
    assert adata.uns["type_colors"] == colors
