"""Cell types by signatures, on activations whose types are known."""

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextmarker as nm

MARKERS = ["CD45", "CD3", "CD4", "CD8", "CD20", "PanCK"]
SIGNATURES = {
    "T cell": "CD45+ CD3+ CD20-",
    "CD4 T": {"parent": "T cell", "markers": "CD4+ CD8-"},
    "CD8 T": {"parent": "T cell", "markers": "CD8+ CD4-"},
    "B cell": "CD45+ CD20+ CD3-",
    "tumour": "PanCK+ CD45-",
}
TYPES = {
    "CD4 T": [1, 1, 1, 0, 0, 0],
    "CD8 T": [1, 1, 0, 1, 0, 0],
    "B cell": [1, 0, 0, 0, 1, 0],
    "tumour": [0, 0, 0, 0, 0, 1],
    "T cell": [1, 1, 0, 0, 0, 0],
    "unknown": [0, 0, 0, 0, 0, 0],
}


def make_table(types=tuple(TYPES), cells=30, noise=0.05, markers=MARKERS, seed=0):
    """A cluster of each type, numbered in this order; the true types are in `truth`."""
    rng = np.random.default_rng(seed)
    profile = np.array([TYPES[name] for name in types], float).repeat(cells, axis=0)
    activation = (0.8 * profile + 0.1 + rng.normal(0, noise, profile.shape)).clip(min=0).astype(np.float32)
    obs = pd.DataFrame(
        {
            "nextmarker": pd.Categorical(np.arange(len(types)).repeat(cells).astype(str)),
            "truth": np.array(types, dtype=object).repeat(cells),
        },
        index=[f"cell_{row}" for row in range(len(profile))],
    )
    return ad.AnnData(
        activation, obs=obs, var=pd.DataFrame(index=markers), layers={"interpretability": activation.copy()}
    )


def mixed_table():
    """Cluster 0 holds two B cells for each tumour cell; cluster 1 and 2 are pure."""
    adata = make_table(("B cell", "tumour", "B cell", "tumour"))
    clusters = np.array(["0", "0", "2", "1"]).repeat(30)
    clusters[:15] = "0"
    adata.obs["nextmarker"] = pd.Categorical(clusters)
    return adata[np.r_[0:30, 30:45, 60:120]].copy()


@pytest.mark.parametrize("by", ["cluster", "cell"])
def test_clusters_and_cells_get_their_true_types(by):
    adata = make_table()
    nm.tl.annotate(adata, SIGNATURES, by=by)
    assert adata.obs["cell_type"].tolist() == adata.obs["truth"].tolist()
    assert adata.obs["cell_type"].cat.categories.tolist() == [*SIGNATURES, "unknown"]
    assert (adata.obs["cell_type_margin"][adata.obs["truth"] == "B cell"] > 0.5).all()


def test_dense_tissue_by_its_activations():
    sdata = nm.datasets.dense_tissue(1, 150, random_state=3)
    types = pd.concat([sdata[f"truth_{image}"]["cell_type"] for image in sdata.images])
    markers = sorted({marker for own in nm.datasets.DENSE_TYPES.values() for marker in own})
    activation = np.array([[marker in nm.datasets.DENSE_TYPES[name] for marker in markers] for name in types], float)
    adata = ad.AnnData(activation, obs=pd.DataFrame({"c": pd.Categorical(types)}, np.arange(len(types)).astype(str)))
    adata.var_names, adata.layers["interpretability"] = markers, activation
    table = pd.DataFrame(-1, index=list(nm.datasets.DENSE_TYPES), columns=markers)
    for name, own in nm.datasets.DENSE_TYPES.items():
        table.loc[name, list(own)] = 1
    nm.tl.annotate(adata, table, groupby="c")
    assert adata.obs["cell_type"].tolist() == types.tolist()


def test_the_table_of_clusters_says_what_was_chosen_and_why():
    adata = make_table(("CD4 T", "B cell", "tumour"))
    nm.tl.annotate(adata, {"T cell": "CD3+ CD45+ [CD8+]", "B cell": "CD20+", "tumour": "PanCK+"})
    table = adata.uns["cell_type_annotation"].set_index("cluster")
    assert table["cell_type"].tolist() == table["best"].tolist() == ["T cell", "B cell", "tumour"]
    assert table.loc["0", "weakest"] == "[CD8+]"
    assert 0.5 <= table.loc["0", "score"] < 0.7  # an optional marker costs no more than half of it
    np.testing.assert_allclose(table["margin"], table["score"] - table["second_score"])
    assert table["n_cells"].tolist() == [30, 30, 30]
    scores = adata.uns["cell_type_scores"].pivot(index="cluster", columns="cell_type", values="score")
    np.testing.assert_allclose([scores.loc["1", "B cell"], scores.loc["1"].max()], table.loc["1", "score"])


def test_a_score_is_the_worst_condition_of_each_cell_averaged_over_the_cluster():
    adata = ad.AnnData(
        obs=pd.DataFrame({"nextmarker": pd.Categorical(["0", "0", "1", "1"])}, index=list("abcd")),
        var=pd.DataFrame(index=["CD3", "CD20"]),
        layers={"interpretability": np.array([[0.9, 0.0], [0.7, 0.2], [0.1, 0.8], [0.3, 0.4]])},
    )
    nm.tl.annotate(adata, {"T": "CD3+ CD20-", "B": "CD20+"}, by="cell", thresholds={"CD3": 0.5, "CD20": 0.3})
    # CD3: 0.2 and 0.8 are the means below and above 0.5; CD20: 0.1 and 0.6 those of 0.3
    cd3, cd20 = [1, 0.5 + 0.2 / 0.6, 0, 0.5 * 0.1 / 0.3], [0, 0.25, 1, 0.5 + 0.5 * 0.1 / 0.3]
    expected = np.array([np.minimum(cd3, 1 - np.array(cd20)), cd20])
    np.testing.assert_allclose(adata.obs["cell_type_score"], expected.max(axis=0), rtol=1e-6)
    scores = adata.uns["cell_type_scores"].pivot(index="cell_type", columns="cluster", values="score")
    np.testing.assert_allclose(scores, expected.reshape(2, 2, 2).mean(axis=2))


def test_thresholds_are_kept_and_may_be_given_for_one_type():
    adata = make_table(("CD4 T", "B cell", "tumour"))
    nm.tl.annotate(adata, SIGNATURES, thresholds={"CD4": 0.4, "B cell": {"CD20": 2.0}})
    used = adata.uns["nextmarker"]["annotate"]["thresholds"].set_index(["cell_type", "marker"])["threshold"]
    assert used["CD4 T", "CD4"] == 0.4
    assert (used["B cell", "CD20"], used["T cell", "CD20"]) == pytest.approx((2.0, 0.5), abs=0.05)
    assert adata.obs["cell_type"].cat.categories.tolist() == ["CD4 T", "tumour", "unknown"]


def test_means_in_masks_that_do_not_divide_clusters_divide_cells():
    """Unlike activations, they have no level of their own below which a marker is faint."""
    adata = make_table(("B cell", "B cell", "tumour"), cells=100)
    adata.layers["arcsinh"] = 0.2 * adata.layers["interpretability"]
    positive = np.tile(np.arange(100) < 10, 3)  # the same share of every cluster
    adata.layers["arcsinh"][:, MARKERS.index("CD8")] = np.where(positive, 0.2, 0.02)
    nm.tl.annotate(adata, {"B cell": "CD20+", "CD8 T": "CD8+"}, by="cell", layer="arcsinh")
    used = adata.uns["nextmarker"]["annotate"]["thresholds"].set_index("marker")["threshold"]
    assert used["CD20"] == pytest.approx(0.1, abs=0.02)
    assert 0.02 <= used["CD8"] < 0.2
    assert (adata.obs["cell_type"][positive & (adata.obs["truth"] == "tumour")] == "CD8 T").all()


def test_small_clusters_decide_on_thresholds_too():
    adata = make_table(("tumour",) * 40 + ("B cell",))  # a large cluster of tumour cells, and a rare type
    adata.obs["nextmarker"] = pd.Categorical(np.where(adata.obs["truth"] == "B cell", "1", "0"))
    nm.tl.annotate(adata, SIGNATURES)
    assert (adata.obs["cell_type"] == adata.obs["truth"]).all()


def test_a_marker_that_no_cluster_or_every_cluster_has():
    adata = make_table(("B cell", "CD4 T"))  # no tumour; all are immune cells
    adata.layers["interpretability"] *= 2
    nm.tl.annotate(adata, {"B cell": "CD45+ CD20+ PanCK-", "T cell": "CD45+ CD3+ PanCK-", "tumour": "PanCK+"})
    assert adata.obs["cell_type"].tolist() == ["B cell"] * 30 + ["T cell"] * 30
    assert (adata.obs["cell_type_score"] > 0.9).all()


def test_types_that_fit_alike_are_both_named():
    adata = make_table(("B cell", "tumour"))
    nm.tl.annotate(adata, {"B cell": "CD20+", "plasma cell": "CD45+", "lymphocyte": "CD45+ PanCK-", "tumour": "PanCK+"})
    assert adata.obs["cell_type"].cat.categories.tolist() == ["tumour", "B cell or plasma cell"]
    nm.tl.annotate(adata, {"a": "CD20+", "b": "CD45+", "c": "PanCK-"})
    assert adata.obs["cell_type"].cat.categories.tolist() == ["unsure", "unknown"]


def test_clusters_of_two_types_are_reported():
    adata = mixed_table()
    with pytest.warns(UserWarning, match=r"'0' \(33 % tumour\).*restrict_to=\('nextmarker', \['0'\]\)"):
        nm.tl.annotate(adata, SIGNATURES)
    table = adata.uns["cell_type_annotation"].set_index("cluster")
    assert table["mixed"].tolist() == [True, False, False]
    assert table.loc["0", ["cell_type", "other"]].tolist() == ["B cell", "tumour"]
    np.testing.assert_allclose(table.loc["0", ["agreement", "other_share"]].astype(float), [2 / 3, 1 / 3])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        nm.tl.annotate(adata, SIGNATURES, by="cell")  # which is what the warning advises


def weak_table():
    """In cluster 0 fewer than half of the cells are B cells, and the others are of no type."""
    adata = make_table(("B cell", "tumour"), cells=100)
    adata.layers["interpretability"][45:100] = make_table(("unknown",), cells=55).layers["interpretability"]
    return adata


def test_clusters_whose_cells_rarely_fit_their_type_are_reported():
    adata = weak_table()
    with pytest.warns(UserWarning, match=r"'0' \(45 % B cell\).*nm.pl.thresholds") as told:
        nm.tl.annotate(adata, SIGNATURES)
    assert sum(issubclass(warning.category, UserWarning) for warning in told) == 1
    assert adata.uns["cell_type_annotation"]["agreement"].tolist() == [0.45, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        nm.tl.annotate(adata, SIGNATURES, overrule={"0": "B cell"})
        nm.tl.annotate(adata, SIGNATURES, by="cell")


def test_mixed_clusters_are_not_reported_twice():
    adata = weak_table()
    adata.layers["interpretability"][70:100] = make_table(("tumour",), cells=30).layers["interpretability"]
    with pytest.warns(UserWarning, match=r"'0' \(30 % tumour\)") as told:
        nm.tl.annotate(adata, SIGNATURES)
    assert sum(issubclass(warning.category, UserWarning) for warning in told) == 1


def test_an_expert_overrules_and_both_names_are_kept():
    adata = make_table(("CD4 T", "B cell", "tumour"))
    nm.tl.annotate(adata, SIGNATURES, overrule={"0": "Treg"})
    assert adata.obs["cell_type"].unique().tolist() == ["Treg", "B cell", "tumour"]
    table = adata.uns["cell_type_annotation"]
    assert table["overruled"].tolist() == ["CD4 T", "", ""]
    nm.tl.annotate(adata, SIGNATURES, by="cell", overrule={"0": "Treg"})
    assert adata.obs["cell_type"].unique().tolist() == ["Treg", "B cell", "tumour"]


def test_markers_are_found_whatever_their_spelling():
    adata = make_table(("CD4 T", "B cell", "tumour"), markers=["LCA", "cd-3", "CD4", "CD8", "CD20", "c6"])
    adata.var["original_name"] = ["LCA", "CD3", "CD4", "CD8", "CD20", "Pan CK"]
    nm.tl.annotate(adata, SIGNATURES, aliases={"CD45": "LCA"})
    assert adata.obs["cell_type"].tolist() == adata.obs["truth"].tolist()


def test_types_without_their_markers_are_not_assigned():
    adata = make_table(("CD4 T", "B cell", "tumour"))
    signatures = SIGNATURES | {"plasma cell": "CD138+", "IgA": {"parent": "plasma cell", "markers": "CD45+"}}
    signatures |= {"tumour": "PanCK+ CD138- [CD56+] CD45- or CD57-"}
    with pytest.warns(
        UserWarning, match="No markers 'CD138', 'CD56', 'CD57'.*cannot be assigned: 'IgA', 'plasma cell'"
    ):
        nm.tl.annotate(adata, signatures)
    assert adata.obs["cell_type"].tolist() == adata.obs["truth"].tolist()
    assert adata.uns["nextmarker"]["annotate"]["markers_lacking"].tolist() == ["CD138", "CD56", "CD57"]
    text = dict(zip(*(adata.uns["nextmarker"]["annotate"][key] for key in ("cell_types", "signatures")), strict=True))
    assert text["tumour"] == "PanCK+ CD45-"
    with pytest.raises(ValueError, match="None of the cell types.*CD138"):
        nm.tl.annotate(adata, {"plasma cell": "CD138+"})


def test_a_type_of_which_no_condition_is_left_is_not_assigned():
    adata = make_table(("CD4 T", "B cell", "tumour"))
    with pytest.warns(UserWarning, match="No marker 'CD138'.*cannot be assigned: 'other'"):
        nm.tl.annotate(adata, SIGNATURES | {"other": "CD138-"})
    assert adata.obs["cell_type"].tolist() == adata.obs["truth"].tolist()
    with pytest.raises(ValueError, match="None of the cell types.*No marker 'PanCK CD45'.*with [+] or -"):
        nm.tl.annotate(adata, {"tumour": "PanCK CD45-"})


def test_cells_without_a_cluster_get_a_type_only_by_themselves():
    adata = make_table(("CD4 T", "B cell", "tumour"))
    adata.obs.loc["cell_0", "nextmarker"] = np.nan
    nm.tl.annotate(adata, SIGNATURES)
    assert adata.obs["cell_type"].isna().tolist() == [True] + [False] * 89
    nm.tl.annotate(adata, SIGNATURES, by="cell")
    assert adata.obs["cell_type"].tolist() == adata.obs["truth"].tolist()


def test_another_layer_such_as_intensities_in_masks():
    adata = make_table(("CD4 T", "B cell", "tumour"))
    adata.layers["arcsinh"] = adata.layers.pop("interpretability")
    nm.tl.annotate(adata, SIGNATURES, layer="arcsinh", key_added="ie_type")
    assert adata.obs["ie_type"].tolist() == adata.obs["truth"].tolist()
    assert adata.uns["nextmarker"]["annotate_ie_type"]["layer"] == "arcsinh"


@pytest.mark.parametrize("store", ["h5ad", "zarr"])
def test_survives_files_and_can_be_repeated_from_what_is_recorded(tmp_path, store):
    adata = make_table()
    nm.tl.annotate(adata, SIGNATURES, overrule={"2": "B"})
    path = tmp_path / f"table.{store}"
    getattr(adata, f"write_{store}")(path)
    again = getattr(ad, f"read_{store}")(path)
    record = again.uns["nextmarker"]["annotate"]
    pd.testing.assert_frame_equal(
        again.uns["cell_type_annotation"], adata.uns["cell_type_annotation"], check_dtype=False
    )
    signatures = {
        name: {"markers": text, **({"parent": parent} if parent else {})}
        for name, text, parent in zip(record["cell_types"], record["signatures"], record["parents"], strict=True)
    }
    nm.tl.annotate(again, signatures)
    nm.tl.annotate(adata, SIGNATURES)
    assert again.obs["cell_type"].tolist() == adata.obs["cell_type"].tolist()


def test_cells_cut_and_put_in_another_order():
    adata = make_table()
    part = adata[adata.obs["truth"] != "tumour"][::-1].copy()
    nm.tl.annotate(part, SIGNATURES)
    assert part.obs["cell_type"].tolist() == part.obs["truth"].tolist()


@pytest.mark.parametrize(
    ("arguments", "error", "problem"),
    [
        ({"groupby": "leiden"}, KeyError, "'leiden'"),
        ({"layer": "activation"}, KeyError, "'activation'.*embed"),
        ({"by": "cells"}, ValueError, "'cluster', 'cell'"),
        ({"min_score": 30}, ValueError, "from 0 to 1"),
        ({"thresholds": {"CD33": 1.0}}, ValueError, "CD33.*thresholds"),
        ({"thresholds": {"T": {"CD3": 1.0}}}, ValueError, "'T'.*thresholds"),
        ({"thresholds": {"T cell": {"CD33": 1.0}}}, ValueError, "CD33.*thresholds"),
        ({"overrule": {"99": "Treg"}}, KeyError, "99.*overrule"),
        ({"aliases": {"CD45": "LCA"}}, KeyError, "LCA.*aliases"),
        ({"key_added": "truth"}, ValueError, "did not write 'truth'"),
    ],
)
def test_bad_arguments_change_nothing(arguments, error, problem):
    adata = make_table()
    before = adata.copy()
    with pytest.raises(error, match=problem):
        nm.tl.annotate(adata, SIGNATURES, **arguments)
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert not adata.uns


def test_activations_must_be_finite():
    adata = make_table()
    adata.layers["interpretability"][3, 1] = np.nan
    with pytest.raises(ValueError, match="'cell_3'"):
        nm.tl.annotate(adata, SIGNATURES)


@pytest.mark.parametrize("types", [("B cell",), ("B cell", "B cell", "B cell")])
def test_few_cells_and_markers_that_are_alike_everywhere(types):
    adata = make_table(types, cells=1, noise=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        nm.tl.annotate(adata, SIGNATURES, thresholds={"CD20": 0.5, "CD45": 0.5})
    assert set(adata.obs["cell_type"]) == {"B cell"}


def test_types_of_another_step_are_not_replaced():
    adata = make_table()
    nm.tl.annotate(adata, SIGNATURES)
    adata.obsm["X_nextmarker"] = adata.layers["interpretability"]
    with pytest.raises(ValueError, match="The step 'annotate' wrote 'cell_type'.*key_added"):
        nm.tl.cluster(adata, n_neighbors=10, key_added="cell_type")
    nm.tl.rename_clusters(adata, {"B cell": "B"}, groupby="cell_type")
    nm.tl.annotate(adata, SIGNATURES)  # may replace its own result, also under other names
    assert "B cell" in set(adata.obs["cell_type"])


@pytest.mark.parametrize("by", ["cluster", "cell"])
def test_figures_refuse_clusters_that_were_changed_since(by):
    adata = make_table(("CD4 T", "B cell", "tumour"))
    adata = adata[:85].copy()  # clusters of different size
    nm.tl.annotate(adata, SIGNATURES, by=by)
    nm.pl.annotation(adata[::2].copy())  # some cells left out
    swapped = adata.copy()
    swapped.obs["nextmarker"] = swapped.obs["nextmarker"].cat.rename_categories({"1": "2", "2": "1"})
    for draw in (nm.pl.annotation, nm.pl.thresholds):
        with pytest.raises(ValueError, match="changed since. Annotate again"):
            draw(swapped)
    if by == "cluster":
        adata.obs["cell_type"] = adata.obs["cell_type"].cat.rename_categories({"tumour": "B cell", "B cell": "tumour"})
        with pytest.raises(ValueError, match="changed since. Annotate again"):
            nm.pl.annotation(adata)


def test_a_type_without_a_cluster_is_named_if_cells_have_it():
    adata = make_table(("B cell", "tumour"), cells=120)
    adata.layers["interpretability"][:25] = make_table(("CD8 T",), cells=25).layers["interpretability"]
    with pytest.warns(UserWarning, match=r'named CD8 T \(25 cells\).*by="cell"'):
        nm.tl.annotate(adata, SIGNATURES)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        nm.tl.annotate(adata, SIGNATURES, by="cell")
    assert (adata.obs["cell_type"] == "CD8 T").sum() == 25


def test_a_type_whose_subtypes_have_clusters_is_not_hidden():
    adata = make_table(("CD4 T", "tumour"), cells=120)
    adata.layers["interpretability"][:25] = make_table(("T cell",), cells=25).layers["interpretability"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        nm.tl.annotate(adata, SIGNATURES)
    nm.tl.annotate(adata, SIGNATURES, by="cell", key_added="own")
    assert (adata.obs["own"] == "T cell").sum() == 25
