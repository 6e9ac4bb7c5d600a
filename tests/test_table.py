"""The table: found, protected, and its record."""

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from spatialdata import SpatialData

from nextmarker._table import (
    embedded_as,
    get_table,
    read_record,
    record_name,
    refuse_foreign_keys,
    require,
    write_results,
)


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


def embed(adata, names):
    adata.obs["nextmarker_embedding"] = pd.Categorical(names)


def test_default_names_are_ours_where_cells_were_embedded_though_the_record_is_lost(adata):
    embed(adata, ["0123456789abcdef-01234567"] * 2)
    adata.obs["nextmarker"] = adata.obs["mine"] = "0"
    refuse_foreign_keys(adata, ["obs/nextmarker"])
    with pytest.raises(ValueError, match=r"'mine' in .obs.*key_added"):
        refuse_foreign_keys(adata, ["obs/mine"])
    embed(adata, ["theirs", "theirs"])  # a column of somebody else, who happened upon the name
    for name in ("nextmarker", "nextmarker_embedding"):
        with pytest.raises(ValueError, match=f"'{name}' in .obs"):
            refuse_foreign_keys(adata, [f"obs/{name}"])


def test_embeddings_of_the_cells(adata):
    assert embedded_as(adata).isna().all()
    embed(adata, ["0123456789abcdef-01234567", None])
    assert embedded_as(adata).tolist()[0] == "0123456789abcdef-01234567"
    assert embedded_as(adata[1:]).cat.categories.empty


def test_each_result_has_a_record_of_its_own(adata):
    assert record_name("cluster", "nextmarker") == "cluster"
    assert record_name("cluster", "fine") == "cluster_fine"
    assert record_name("marker_attribution", "embed") != "embed"
    write_results(adata, record_name("cluster", "fine"), {}, {"resolution": 2.0})
    assert read_record(adata, "cluster_fine")["resolution"] == 2
    assert read_record(adata, "cluster") == {}


def test_a_part_of_a_table_leaves_the_table_as_it_was(adata):
    write_results(adata, "embed", {"obsm/X": np.ones((2, 3))}, {"seed": 0})
    part = adata[:1]
    with pytest.warns(anndata.ImplicitModificationWarning):
        write_results(part, "other", {"obs/new": [1]}, {"seed": 1})
    assert "other" in part.uns["nextmarker"]
    assert "other" not in adata.uns["nextmarker"]
