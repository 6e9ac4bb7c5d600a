"""What results were made from: older embeddings, joined tables, parts of a table, renamed and merged clusters."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from nextmarker._provenance import (
    check_clusters,
    choose_examples,
    name_embedding,
    read_attribution,
    warn_of_replaced_embedding,
)
from nextmarker._record import embedded_as, made_from, refuse_several_models, write_results

A, B = "a" * 16, "b" * 16  # digests of two models
SIZES = {"0": 12, "1": 12, "2": 6}
MERGED = {"0": "T", "1": "T", "2": "B"}
RENAMED = {"0": "T cell", "1": "B cell", "2": "other"}


def make(first: str = "cell", embedding: str = f"{A}-00000001") -> ad.AnnData:
    """A table as nm.tl.embed, nm.tl.cluster and nm.tl.marker_attribution leave it, as far as it is looked at here."""
    clusters = np.random.default_rng(0).permutation(np.repeat(list(SIZES), list(SIZES.values())))
    obs = {"nextmarker": pd.Categorical(clusters), "nextmarker_embedding": pd.Categorical([embedding] * 30)}
    adata = ad.AnnData(obs=pd.DataFrame(obs, index=[f"{first}{i}" for i in range(30)]))
    write_results(adata, "cluster", {}, {"clustering": f"of {first}", "use_rep": "X_nextmarker", **made_from(adata)})
    attribute(adata)
    return adata


def attribute(adata: ad.AnnData, groupby: str = "nextmarker") -> None:
    clusters = pd.Categorical(adata.obs[groupby]).remove_unused_categories()
    rows = pd.DataFrame({"cluster": clusters.categories, "n_cells": np.bincount(clusters.codes)})
    rows["cluster"] = pd.Categorical(rows["cluster"], categories=clusters.categories)
    record = {
        "groupby": groupby,
        "examples": choose_examples(clusters, adata.obs_names),
        "clustering": adata.uns["nextmarker"]["cluster"]["clustering"] if groupby == "nextmarker" else None,
        **made_from(adata),
    }
    write_results(adata, "marker_attribution", {"uns/marker_attribution": rows}, record)


def embed_again(adata: ad.AnnData, name: str = f"{B}-00000002") -> None:
    adata.obs["nextmarker_embedding"] = pd.Categorical([name] * adata.n_obs)


def sizes(table: pd.DataFrame) -> dict:
    return dict(zip(table["cluster"], table["n_cells"], strict=True))


@pytest.fixture
def adata() -> ad.AnnData:
    return make()


def test_the_name_of_an_embedding_is_that_of_its_values_and_its_model():
    values = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    name = name_embedding(A, values)
    assert name == name_embedding(A, np.asfortranarray(values))
    assert len({name, name_embedding(B, values), name_embedding(A, values[::-1])}) == 3
    table = ad.AnnData(obs=pd.DataFrame({"nextmarker_embedding": [name] * 5}, index=list("abcde")))
    assert embedded_as(table).tolist() == [name] * 5
    assert made_from(table)["model"] == A
    assert made_from(table)["embedded_as"].tolist() == [name]
    assert made_from(ad.AnnData(np.ones((2, 2)))) == {}


@pytest.mark.parametrize("rows", [slice(None), slice(None, None, -1), slice(0, 20), [3, 1, 29]])
def test_whole_tables_parts_and_other_orders_are_not_older(adata, rows):
    part = adata[rows].copy()
    check_clusters(part, "nextmarker", strict=True)
    refuse_several_models(part)
    if len(part) == 30:
        assert sizes(read_attribution(part, "marker_attribution")) == SIZES
    else:  # still what the clusters were found to be in all cells
        with pytest.warns(UserWarning, match=rf"30 cells.* {len(part)} of them"):
            assert sizes(read_attribution(part, "marker_attribution")) == SIZES


def test_an_attribution_of_another_embedding_is_refused(adata):
    embed_again(adata)
    with pytest.raises(ValueError, match=r"another embedding.*nm.tl.marker_attribution\(adata\)"):
        read_attribution(adata, "marker_attribution")


@pytest.mark.parametrize("strict", [False, True])
def test_clusters_of_an_earlier_embedding_are_told(adata, strict):
    embed_again(adata)
    adata.obs["nextmarker"] = adata.obs["nextmarker"].cat.rename_categories(RENAMED)
    with pytest.warns(UserWarning, match=r"'nextmarker'.*earlier embedding.*nm.tl.cluster\(adata\)"):
        check_clusters(adata, "nextmarker", strict=strict)
    adata.obs["cell_type"] = adata.obs["nextmarker"]
    check_clusters(adata, "cell_type", strict=strict)  # not one that nm.tl.cluster wrote


def test_clusters_of_another_representation_do_not_depend_on_the_embedding(adata):
    adata.uns["nextmarker"]["cluster"]["use_rep"] = "X_pca"
    embed_again(adata)
    check_clusters(adata, "nextmarker", strict=True)


def test_results_that_stay_behind_are_named(adata):
    warn_of_replaced_embedding(adata, f"{A}-00000001")
    with pytest.warns(UserWarning, match="cluster, marker_attribution.*nm.tl.cluster"):
        warn_of_replaced_embedding(adata, f"{A}-00000002")


@pytest.mark.parametrize("how", [{}, {"uns_merge": "same"}, {"uns_merge": "unique"}, {"uns_merge": "first"}])
def test_numbers_of_clusterings_one_by_one_are_not_joined(adata, how):
    joined = ad.concat([adata, make("other", f"{A}-00000003")], **how)
    with pytest.warns(UserWarning, match=r"cluster 0 of one.*nm.tl.cluster\(adata\)"):
        check_clusters(joined, "nextmarker")
    with pytest.raises(ValueError, match="cluster 0 of one"):
        check_clusters(joined, "nextmarker", strict=True)
    if "marker_attribution" in joined.uns:
        with pytest.raises(ValueError, match="nm.tl.marker_attribution"):
            read_attribution(joined, "marker_attribution")
    refuse_several_models(joined)  # it was one model
    joined.obs["nextmarker"] = joined.obs["nextmarker"].cat.rename_categories(RENAMED)
    check_clusters(joined, "nextmarker", strict=True)  # a T cell is a T cell in every table

    joined.obs["nextmarker"] = joined.obs["nextmarker"].cat.rename_categories(list("012"))
    write_results(joined, "cluster", {}, made_from(joined))  # clustered together
    check_clusters(joined, "nextmarker", strict=True)


def test_parts_of_one_table_may_be_joined_again(adata):
    joined = ad.concat([adata[:10], adata[10:]], uns_merge="first")
    check_clusters(joined, "nextmarker", strict=True)
    assert sizes(read_attribution(joined, "marker_attribution")) == SIZES


def test_clusters_joined_and_then_embedded_together(adata):
    joined = ad.concat([adata, make("other", f"{A}-00000003")])
    embed_again(joined)
    write_results(joined, "embed", {}, {})
    with pytest.warns(UserWarning, match="cluster 0 of one.*nm.tl.cluster"):
        check_clusters(joined, "nextmarker")


def test_cells_of_several_models_are_refused(adata):
    joined = ad.concat([adata, make("other", f"{B}-00000003")[:20]])
    with pytest.raises(ValueError, match=rf"2 models.*'{A}': 30, '{B}': 20.*nm.tl.embed\(sdata, model\)"):
        refuse_several_models(joined)
    refuse_several_models(joined, np.arange(50) < 30)
    refuse_several_models(joined[:30])


def test_renamed_clusters_keep_their_attribution(adata):
    before = read_attribution(adata, "marker_attribution")
    adata.obs["nextmarker"] = adata.obs["nextmarker"].cat.rename_categories(RENAMED)
    table = read_attribution(adata, "marker_attribution")
    assert table["cluster"].tolist() == list(RENAMED.values())
    assert table["n_cells"].tolist() == before["n_cells"].tolist()
    assert adata.uns["marker_attribution"]["cluster"].tolist() == list("012")
    check_clusters(adata, "nextmarker", strict=True)


def test_new_names_do_not_go_by_the_order_of_categories_or_by_size(adata):
    """Clusters 0 and 1 are of one size, and a column made by map has its categories in the order of the alphabet."""
    adata.obs["nextmarker"] = adata.obs["nextmarker"].map(RENAMED).astype(str).astype("category")
    assert sizes(read_attribution(adata, "marker_attribution")) == {"T cell": 12, "B cell": 12, "other": 6}
    assert read_attribution(adata, "marker_attribution")["cluster"].tolist() == ["T cell", "B cell", "other"]
    adata.obs["type"] = adata.obs["nextmarker"]
    assert read_attribution(adata, "marker_attribution", "type")["cluster"].tolist() == ["T cell", "B cell", "other"]
    adata.obs["nextmarker"] = adata.obs["nextmarker"].map({"T cell": "1", "B cell": "0", "other": "2"})
    assert read_attribution(adata, "marker_attribution")["cluster"].tolist() == ["1", "0", "2"]


def test_renamed_and_then_cut(adata):
    adata.obs["nextmarker"] = adata.obs["nextmarker"].cat.rename_categories(RENAMED)
    with pytest.warns(UserWarning, match="25 of them"):
        table = read_attribution(adata[5:], "marker_attribution")
    assert table["cluster"].tolist() == list(RENAMED.values())
    with pytest.warns(UserWarning, match="12 of them"):
        read_attribution(adata[adata.obs["nextmarker"] == "T cell"], "marker_attribution")


def test_renamed_with_other_names_of_cells(adata):
    adata.obs["nextmarker"] = adata.obs["nextmarker"].cat.rename_categories(RENAMED)
    adata.obs_names = ["same"] * 30
    assert read_attribution(adata, "marker_attribution")["cluster"].tolist() == list("012")  # nobody can know
    with pytest.raises(ValueError, match="other clusters"):
        read_attribution(adata, "marker_attribution", "nextmarker")  # where new names are needed


@pytest.mark.parametrize("groupby", [None, "cell_type"])
def test_merged_clusters_need_an_attribution_of_their_own(adata, groupby):
    adata.obs[groupby or "nextmarker"] = adata.obs["nextmarker"].map(MERGED).astype("category")
    with pytest.raises(ValueError, match=r"merged since: \{'0': 'T', '1': 'T'\}.*nm.tl.marker_attribution\("):
        read_attribution(adata, "marker_attribution", groupby)
    attribute(adata, groupby or "nextmarker")
    assert sizes(read_attribution(adata, "marker_attribution", groupby)) == {"B": 6, "T": 24}


def test_clusters_that_took_cells_from_others_are_other_clusters(adata):
    adata.obs.loc[adata.obs_names[:3], "nextmarker"] = "2"
    with pytest.raises(ValueError, match=r"other clusters.*nm.tl.marker_attribution"):
        read_attribution(adata, "marker_attribution")


def test_clusters_made_again_of_the_same_sizes(adata):
    adata.uns["nextmarker"]["cluster"]["clustering"] = "another"
    with pytest.raises(ValueError, match=r"other clusters.*clustered again.*nm.tl.marker_attribution"):
        read_attribution(adata, "marker_attribution")


def test_an_attribution_without_more_than_its_column(adata):
    """Sizes by name are all that is known then."""
    table = pd.DataFrame({"cluster": ["T", "T", "B", "B"], "n_cells": [1, 1, 1, 1]})
    adata = ad.AnnData(obs=pd.DataFrame({"type": pd.Categorical(["T", "B"], categories=["T", "B", "none"])}))
    write_results(adata, "marker_attribution_why", {"uns/why": table}, {"groupby": "type"})
    assert read_attribution(adata, "why").equals(table)
    adata.obs["type"] = pd.Categorical(["T", "T"])
    with pytest.raises(ValueError, match=r"'why'.*\{'T': 2\}.*nm.tl.marker_attribution\(adata, key_added='why'"):
        read_attribution(adata, "why")
    with pytest.raises(KeyError, match=r"'other' in .uns.*groupby='type'\), or else"):
        read_attribution(adata, "other", "type", ", or else")


def test_names_of_embeddings_survive_a_file(adata, tmp_path):
    adata.write_h5ad(tmp_path / "table.h5ad")
    adata.write_zarr(tmp_path / "table.zarr")
    for back in (ad.read_h5ad(tmp_path / "table.h5ad"), ad.read_zarr(tmp_path / "table.zarr")):
        check_clusters(back, "nextmarker", strict=True)
        assert sizes(read_attribution(back, "marker_attribution")) == SIZES
        embed_again(back)
        with pytest.raises(ValueError, match="another embedding"):
            read_attribution(back, "marker_attribution")
