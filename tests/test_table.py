"""The table: found, protected, and its record."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from spatialdata import SpatialData

from nextmarker._table import get_table, read_attribution, refuse_foreign_keys, require, write_results


@pytest.fixture
def adata():
    return AnnData(obs=pd.DataFrame(index=["a", "b"]))


def test_the_table_itself_or_out_of_spatialdata(adata):
    assert get_table(adata) is adata
    assert get_table(SpatialData(tables={"mine": adata}), "mine").n_obs == 2
    with pytest.raises(KeyError, match=r"No table 'table'.*\['mine'\].*nm.pp.detect_cells"):
        get_table(SpatialData(tables={"mine": adata}))
    with pytest.raises(TypeError, match="got DataFrame"):
        get_table(adata.obs)


def test_results_and_record_without_none(adata):
    write_results(adata, "embed", {"obsm/X": np.ones((2, 3))}, {"seed": 0, "pixel_size": None})
    assert adata.obsm["X"].shape == (2, 3)
    assert set(adata.uns["nextmarker"]["embed"]) == {"version", "seed"}


def test_own_results_are_replaced_and_others_are_not(adata):
    write_results(adata, "embed", {"obsm/X": np.ones((2, 3))}, {})
    adata.obs["theirs"] = 1
    refuse_foreign_keys(adata, ["obsm/X", "obs/new"])
    with pytest.raises(ValueError, match=r"'theirs' in .obs.*key_added"):
        refuse_foreign_keys(adata, ["obsm/X", "obs/theirs"])


def test_what_is_missing_is_said_with_what_is_there(adata):
    adata.obsm["X_pca"] = np.ones((2, 2))
    with pytest.raises(KeyError, match=r"'X_nextmarker' in .obsm.*\['X_pca'\].*nm.tl.embed"):
        require(adata, "obsm", "X_nextmarker", "nm.tl.embed(sdata)")


def test_an_attribution_of_other_clusters_is_refused(adata):
    adata.obs["type"] = pd.Categorical(["T", "B"], categories=["T", "B", "none"])
    table = pd.DataFrame({"cluster": ["T", "T", "B", "B"], "n_cells": [1, 1, 1, 1]})
    write_results(adata, "why", {"uns/why": table}, {"groupby": "type"})
    assert read_attribution(adata, "why").equals(table)

    adata.obs["type"] = pd.Categorical(["T", "T"])
    with pytest.raises(ValueError, match=r"'why'.*\{'T': 2\}.*nm.tl.marker_attribution"):
        read_attribution(adata, "why")
    with pytest.raises(KeyError, match=r"No 'other'.*groupby='type'\), or else"):
        read_attribution(adata, "other", "type", ", or else")
