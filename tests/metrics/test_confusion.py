import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import nextmarker as nm


@pytest.fixture
def adata():
    first = pd.Categorical(list("TTTBBN") + [None], categories=["N", "T", "absent", "B"])
    return AnnData(obs=pd.DataFrame({"first": first, "second": list("TTBBUXT")}, index=list("abcdefg")))


def test_common_names_come_first_and_in_one_order(adata):
    table = nm.metrics.confusion(adata, "first", "second")
    assert (table.index.tolist(), table.columns.tolist()) == (["T", "B", "N"], ["T", "B", "U", "X"])
    assert (table.index.name, table.columns.name) == ("first", "second")
    assert table.to_numpy().tolist() == [[2, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]]


def test_normalized(adata):
    counts = nm.metrics.confusion(adata, "first", "second").to_numpy()
    for normalize, total in (("row", counts.sum(1, keepdims=True)), ("column", counts.sum(0)), ("all", counts.sum())):
        table = nm.metrics.confusion(adata, "first", "second", normalize=normalize)
        np.testing.assert_allclose(table, counts / total)
    with pytest.raises(ValueError, match="normalize='rows'.*'row'"):
        nm.metrics.confusion(adata, "first", "second", normalize="rows")


def test_clusters_and_types_may_have_no_name_in_common(adata):
    adata.obs["second"] = [0, 0, 1, 1, 2, 2, 2]
    table = nm.metrics.confusion(adata, "first", "second")
    assert (table.index.tolist(), table.columns.tolist()) == (["N", "T", "B"], ["0", "1", "2"])


def test_a_column_with_itself(adata):
    table = nm.metrics.confusion(adata, "first", "first")
    np.testing.assert_array_equal(table, np.diag([1, 3, 2]))
