import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import nextmarker as nm


@pytest.fixture
def adata():
    """T cells at 0 to 6 and B cells from 19 to 22 on a line; T6 is nearest to the B cells. One cell has no type."""
    place = np.array([0, 1, 2, 3, 4, 5, 6, 19, 20, 22, 100.0])
    names = [f"T{i}" for i in range(7)] + ["B0", "B1", "B2", "none"]
    kind = pd.Categorical(["T"] * 7 + ["B"] * 3 + [None], ["T", "other", "B"])
    return AnnData(obs=pd.DataFrame({"type": kind}, index=names), obsm={"X_nextmarker": place[:, None]})


def test_typical_cells_are_nearest_to_the_mean_of_their_group(adata):
    table = nm.get.example_cells(adata, 3, groupby="type")
    assert table.index.tolist() == ["T3", "T2", "T4", "B1", "B0", "B2"]
    assert table["cluster"].tolist() == ["T"] * 3 + ["B"] * 3
    np.testing.assert_allclose(table["distance"], [0, 1, 1, 1 / 3, 4 / 3, 5 / 3])


def test_borderline_cells_are_nearest_to_another_group(adata):
    table = nm.get.example_cells(adata, 2, groupby="type", which="borderline")
    assert table.index.tolist() == ["T6", "T5", "B0", "B1"]
    assert table["nearest_other"].tolist() == ["B", "B", "T", "T"]
    np.testing.assert_allclose(table["margin"], [34 / 3, 40 / 3, 44 / 3, 50 / 3])
    adata.obsm["X_nextmarker"][6] = 18
    table = nm.get.example_cells(adata, 1, groupby="type", which="borderline")
    assert table.loc["T6", "margin"] < 0


@pytest.mark.parametrize("file_format", ["h5ad", "zarr"])
def test_the_same_from_a_file_and_in_another_order(adata, tmp_path, file_format):
    expected = nm.get.example_cells(adata, 2, groupby="type", which="borderline")
    write = adata.write_h5ad if file_format == "h5ad" else adata.write_zarr
    write(tmp_path / "table")
    again = (anndata.read_h5ad if file_format == "h5ad" else anndata.read_zarr)(tmp_path / "table")
    found = nm.get.example_cells(again[::-1].copy(), 2, groupby="type", which="borderline")
    pd.testing.assert_frame_equal(found, expected)


def test_one_group(adata):
    assert nm.get.example_cells(adata[:7].copy(), 1, groupby="type").index.tolist() == ["T3"]
    with pytest.raises(ValueError, match="only one group.*groupby="):
        nm.get.example_cells(adata[:7].copy(), groupby="type", which="borderline")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, KeyError, "'nextmarker'.*groupby="),
        ({"groupby": "type", "which": "random"}, ValueError, "'typical', 'borderline'"),
        ({"groupby": "type", "n": 0}, ValueError, "n=0 must be at least 1"),
        ({"groupby": "type", "use_rep": "X_pca"}, KeyError, "'X_pca'.*use_rep="),
    ],
)
def test_errors(adata, arguments, error, message):
    with pytest.raises(error, match=message):
        nm.get.example_cells(adata, **arguments)
