"""nm.get.composition: cells of each type by image or patient."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import nextmarker as nm


@pytest.fixture
def adata():
    """Images a and b of patient P1, c of P2; only c has B cells."""
    obs = pd.DataFrame(
        {
            "image": pd.Categorical(["b", "b", "a", "c", "c", "c"], ["b", "a", "c"]),
            "cell_type": pd.Categorical(["T", "T", "T", "B", "T", None], ["T", "NK", "B"]),
            "patient": ["P1", "P1", "P1", "P2", "P2", "P2"],
            "age": [60.0, 60, 60, np.nan, np.nan, np.nan],
            "area": range(6),
        },
        index=list("uvwxyz"),
    )
    return AnnData(obs=obs)


def test_zeros_order_and_what_is_known_of_the_images(adata):
    table = nm.get.composition(adata)
    assert list(table) == ["image", "cell_type", "n", "share", "patient", "age"]
    assert table["image"].tolist() == ["b", "b", "a", "a", "c", "c"]
    assert table["cell_type"].tolist() == ["T", "B"] * 3
    assert table["n"].tolist() == [2, 0, 1, 0, 1, 1]
    assert table["share"].tolist() == [1, 0, 1, 0, 0.5, 0.5]
    assert table["patient"].tolist() == ["P1"] * 4 + ["P2"] * 2
    assert table["age"].isna().tolist() == [False] * 4 + [True] * 2


def test_patients_pool_their_images(adata):
    table = nm.get.composition(adata, by="patient")
    assert table["n"].tolist() == [3, 0, 1, 1]
    assert list(table) == ["patient", "cell_type", "n", "share", "age"]


def test_the_order_of_cells_does_not_matter(adata):
    pd.testing.assert_frame_equal(nm.get.composition(adata[::-1].copy()), nm.get.composition(adata))


def test_errors(adata):
    with pytest.raises(KeyError, match=r"'type' in .obs.*groupby="):
        nm.get.composition(adata, "type")
    with pytest.raises(KeyError, match=r"'sample' in .obs.*by="):
        nm.get.composition(adata, by="sample")
    with pytest.raises(ValueError, match="another column than 'image'"):
        nm.get.composition(adata, "image")
