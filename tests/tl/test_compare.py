"""nm.tl.compare_groups: patients as units, and nothing said where nothing can be."""

from itertools import combinations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from anndata import AnnData
from scipy import stats

import nextmarker as nm

T_CELLS = {"P1": (10, 14), "P2": (16,), "P3": (12, 8), "P4": (31, 40), "P5": (24,), "P6": (28, 20)}
GROUPS = dict(zip(T_CELLS, ["control"] * 3 + ["case"] * 3, strict=True))
COLUMNS = ["patient", "group", "age", "image"]


def make(t_cells=T_CELLS, groups=GROUPS, size=100):
    """Cells of patients with one or two images, which have the given number of T cells; the others are B cells."""
    rows, types = [], []
    for number, (patient, counts) in enumerate(t_cells.items()):
        for image, n in enumerate(counts):
            rows += [(patient, groups[patient], 50.0 + number % 3, f"{patient}_{image}")] * size
            types += ["T"] * n + ["B"] * (size - n)
    obs = pd.DataFrame(rows, columns=COLUMNS, index=[f"cell{row}" for row in range(len(rows))])
    obs = obs.assign(cell_type=types).astype(dict.fromkeys(["patient", "group", "image", "cell_type"], "category"))
    rng = np.random.default_rng(0)
    activation = rng.random((len(obs), 2)) + 0.3 * (obs["group"] == "case").to_numpy()[:, None] * [1, 0]
    return AnnData(obs=obs, var=pd.DataFrame(index=["CD3", "CD8"]), layers={"interpretability": activation})


def compare(adata, **kwargs):
    nm.tl.compare_groups(adata, **({"reference": "control"} | kwargs))
    return adata.uns["group_comparison"].set_index("variable")


def log2_odds(adata, by="patient"):
    """Written out: pooled shares, with half a cell of the median unit on both sides."""
    counts = pd.crosstab(adata.obs[by], adata.obs["cell_type"])
    share = counts["T"] / counts.sum(axis=1)
    added = 0.5 / counts.sum(axis=1).median()
    return np.log2((share + added) / (1 - share + added))


def test_shares_of_patients_are_compared_by_their_odds():
    adata = make()
    result = compare(adata)
    odds = log2_odds(adata)
    case = odds.index.map(GROUPS) == "case"
    t = result.loc["T"]
    expected = stats.ttest_ind(odds[case], odds[~case])
    assert t["p"] == pytest.approx(expected.pvalue)
    assert t["effect"] == pytest.approx(odds[case].mean() - odds[~case].mean())
    np.testing.assert_allclose([t["low"], t["high"]], expected.confidence_interval(0.95))
    assert (t["n"], t["n_reference"], t["group"], t["reference"]) == (3, 3, "case", "control")
    assert t["mean_reference"] == pytest.approx(np.mean([0.12, 0.16, 0.1]))
    assert (t["unit"], t["note"]) == ("log2 odds ratio", "")
    np.testing.assert_allclose(result["q"], stats.false_discovery_control(result["p"]))
    values = adata.uns["group_comparison_values"]
    assert values.query("variable == 'T' and patient == 'P4'")["value"].tolist() == [0.355]


def test_images_are_no_replicates():
    once = compare(make({patient: counts[:1] for patient, counts in T_CELLS.items()})).loc["T"]
    often = compare(make({patient: counts[:1] * 10 for patient, counts in T_CELLS.items()})).loc["T"]
    assert often["p"] == pytest.approx(once["p"], rel=0.1)
    assert often["n"] == once["n"] == 3


def test_covariates_by_columns_or_formula():
    adata = make()
    frame = pd.DataFrame({"y": log2_odds(adata), "age": adata.obs.groupby("patient", observed=True)["age"].first()})
    frame["case"] = (frame.index.map(GROUPS) == "case").astype(float)
    expected = smf.ols("y ~ case + age", frame).fit()
    for covariates in (["age"], "age", "np.log(np.exp(age))"):
        t = compare(adata, covariates=covariates).loc["T"]
        np.testing.assert_allclose([t["effect"], t["p"]], [expected.params["case"], expected.pvalues["case"]])
    assert t["method"] == "linear model of patients: group + np.log(np.exp(age))"


def test_the_mixed_model_is_that_of_statsmodels_with_degrees_of_freedom_of_patients():
    adata = make()
    units = pd.DataFrame({"y": log2_odds(adata, "image")})
    units["patient"] = units.index.str[:2]
    units["case"] = (units["patient"].map(GROUPS) == "case").astype(float)
    expected = smf.mixedlm("y ~ case", units, groups="patient").fit(reml=True)
    t = compare(adata, mixed=True).loc["T"]
    assert t["effect"] == pytest.approx(expected.params["case"], rel=1e-3)
    assert t["p"] == pytest.approx(2 * stats.t.sf(abs(expected.tvalues["case"]), 4), rel=0.01)
    assert t["method"] == "mixed model of images: group"


def test_groups_within_patients_need_the_mixed_model():
    adata = make({patient: (counts[0], counts[0] + 20) for patient, counts in T_CELLS.items()})
    adata.obs["time"] = adata.obs["image"].str[-1].map({"0": "before", "1": "after"}).astype("category")
    with pytest.raises(ValueError, match="Several values of 'group' in patient 'P1', .*mixed=True"):
        compare(adata, group_key="time", reference="before")
    t = compare(adata, group_key="time", reference="before", mixed=True).loc["T"]
    assert t["p"] < 0.001
    assert t["n"] == t["n_reference"] == 6


def test_permutations_are_exact_if_they_are_few():
    adata = make()
    odds = log2_odds(adata).to_numpy()
    differences = [abs(odds[list(c)].mean() - np.delete(odds, c).mean()) for c in combinations(range(6), 3)]
    expected = np.mean(np.array(differences) >= differences[0] - 1e-9)
    assert compare(adata, permutations=20).loc["T", "p_permutation"] == pytest.approx(expected)
    assert compare(adata, permutations=19).loc["T", "p_permutation"] == pytest.approx(expected, abs=0.1)
    again = compare(adata, permutations=19)["p_permutation"]
    np.testing.assert_array_equal(again, compare(adata[::-1].copy(), permutations=19)["p_permutation"])
    assert compare(adata, permutations=99, covariates=["age"]).loc["T", "p_permutation"] < 0.2


def test_three_groups_are_compared_with_the_reference():
    adata = make()
    adata.obs["arm"] = adata.obs["patient"].map(dict(zip(T_CELLS, "aabbcc", strict=True)))
    result = compare(adata, group_key="arm", reference="b", permutations=50)
    assert result.loc["T", "group"].tolist() == ["a", "c"]
    assert set(result["reference"]) == {"b"}
    assert result["p"].notna().all()
    assert result["p_permutation"].between(0.3, 1).all()  # two patients against two have six permutations


def test_activation_of_markers_within_a_type():
    adata = make()
    result = compare(adata, value="activation")
    assert result.index.tolist() == ["B | CD3", "B | CD8", "T | CD3", "T | CD8"]
    assert result["marker"].tolist() == ["CD3", "CD8"] * 2
    means = pd.Series(adata.layers["interpretability"][:, 0], adata.obs_names)[adata.obs["cell_type"] == "T"]
    means = means.groupby(adata.obs["patient"], observed=True).mean()
    t = result.loc["T | CD3"]
    assert t["effect"] == pytest.approx(means[["P4", "P5", "P6"]].mean() - means[["P1", "P2", "P3"]].mean())
    assert result.loc["B | CD3", "p"] < 0.001 < result.loc["B | CD8", "p"]
    few = compare(adata, value="activation", min_cells=20).loc["T | CD3"]
    assert (few["n"], few["n_reference"]) == (3, 2)  # P2 has 16 T cells


def test_a_tidy_table_of_pairs():
    adata = make()
    images = adata.obs.drop_duplicates("image")
    rng = np.random.default_rng(1)
    pairs = pd.DataFrame(
        [(image, a, b) for image in images["image"] for a in "TB" for b in "TB"],
        columns=["image", "cell_type", "neighbor"],
    )
    pairs["n_cells"], pairs["log2_ratio"] = 5, rng.normal(0, 0.1, len(pairs))
    attracted = pairs["image"].str[:2].map(GROUPS).eq("case") & (pairs["cell_type"] + pairs["neighbor"] == "TB")
    pairs.loc[attracted, "log2_ratio"] += 2
    pairs.loc[(pairs["cell_type"] == "B") & (pairs["neighbor"] == "B"), "log2_ratio"] = np.nan
    adata.uns["neighborhood"] = pairs.assign(patient=pairs["image"].str[:2])
    result = compare(adata, value="neighborhood")
    assert result.index.tolist() == ["T | T", "T | B", "B | T", "B | B"]
    assert (result.loc["T | B", "q"] < 0.01) & (result.loc[["T | T", "B | T"], "q"] > 0.05).all()
    assert result.loc["T | B", "effect"] == pytest.approx(2, abs=0.2)
    assert result.loc["B | B", "note"] == "no patient in 'case' and no patient in 'control'"
    pd.testing.assert_frame_equal(compare(adata, value=pairs), result)
    with pytest.raises(ValueError, match="several rows for an image"):
        compare(adata, value=pd.concat([pairs, pairs]))


def test_neighbourhoods_as_nextmarker_writes_them():
    """B and T cells in two halves of the images of cases, and mixed in those of controls."""
    adata = make(dict.fromkeys(T_CELLS, (50, 50)))
    mixed = np.random.default_rng(0).permutation(100)
    places = [np.arange(100) if group == "case" else mixed for group in adata.obs["group"][::100]]
    place = np.concatenate(places)
    adata.obsm["spatial"] = np.column_stack([place // 10, place % 10]).astype(float)
    nm.tl.neighborhood(adata, graph="knn", n_neighbors=4, permutations=50)
    result = compare(adata, value="neighborhood")
    assert sorted(result.index) == ["B | B", "B | T", "T | B", "T | T"]
    assert (result["q"] < 0.01).all()
    assert (result["effect"] > 0).tolist() == [
        first == second for first, second in result.index.str.split(" | ", regex=False)
    ]
    assert result.loc["T | B", "unit"] == "difference of log2_ratio"

    adata.obs["slide"] = adata.obs["image"]
    with pytest.raises(ValueError, match="image_key='slide' must be 'image', as in nm.tl.neighborhood"):
        compare(adata, value="neighborhood", image_key="slide")
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.rename_categories({"B": "B cell"})
    with pytest.warns(UserWarning, match=r"types in .obs\['cell_type'\] have changed since.*Count again"):
        compare(adata, value="neighborhood")
    del adata.uns["neighborhood"], adata.uns["nextmarker"]["neighborhood"]
    with pytest.raises(KeyError, match=r"Count neighbours first: nm.tl.neighborhood\(adata\)"):
        compare(adata, value="neighborhood")


def test_where_nothing_can_be_compared_a_warning_says_why():
    adata = make({"P1": (10,), "P4": (30,)})
    with pytest.warns(UserWarning, match="Nothing could be compared, mostly since: one patient in 'case' and one"):
        assert compare(adata)["p"].isna().all()


def test_a_covariate_with_several_values_in_a_patient():
    adata = make()
    adata.obs["batch"] = adata.obs["image"].astype(str).str[-1]
    with pytest.raises(ValueError, match="Give each patient one value of 'batch'"):
        compare(adata, covariates=["batch"])


def nothing(row):
    return row[["effect", "low", "high", "p", "q"]].isna().all()


def test_a_group_of_one_patient():
    adata = make()
    result = compare(adata[adata.obs["patient"].isin(["P1", "P2", "P3", "P4"])].copy(), permutations=10)
    assert nothing(result.loc["T"])
    assert np.isnan(result.loc["T", "p_permutation"])
    assert result.loc["T", "note"] == "one patient in 'case'"
    assert result.loc["T", "mean"] == pytest.approx(0.355)


def test_types_that_are_absent():
    counts = {patient: (0,) if GROUPS[patient] == "control" else n for patient, n in T_CELLS.items()}
    one = compare(make(counts)).loc["T"]
    assert one["p"] < 0.01
    assert np.isnan([one["effect"], one["low"], one["high"]]).all()
    assert one["note"] == "absent in 'control', so no effect"
    adata = make({**T_CELLS, "P7": (50,)}, {**GROUPS, "P7": "other"})
    adata = adata[(adata.obs["group"] == "other") | (adata.obs["cell_type"] == "B")].copy()
    both = compare(adata).query("group == 'case'").loc["T"]
    assert nothing(both)
    assert both["note"] == "absent in both groups"


def test_covariates_that_determine_the_group():
    adata = make()
    adata.obs["batch"] = adata.obs["group"].cat.rename_categories({"case": "1", "control": "2"})
    for mixed in (False, True):
        row = compare(adata, covariates=["batch"], mixed=mixed).loc["T"]
        assert nothing(row)
        assert row["note"] == "cannot be told apart from batch"
    adata.obs["site"] = adata.obs["patient"]
    assert nothing(compare(adata, covariates=["site"]).loc["T"])


def test_too_few_patients_and_no_variation():
    adata = make({patient: n for patient, n in T_CELLS.items() if patient in ("P1", "P2", "P4", "P5")})
    adata.obs["height"] = adata.obs["patient"].map({"P1": 1.0, "P2": 2, "P4": 4, "P5": 1}).astype(float)
    row = compare(adata, covariates=["age", "height"]).loc["T"]
    assert nothing(row)
    assert row["note"] == "too few patients for the covariates"
    same = compare(make({patient: (10 if GROUPS[patient] == "case" else 20,) for patient in T_CELLS})).loc["T"]
    assert nothing(same)
    assert same["note"] == "no variation within groups"


def test_what_is_missing_is_left_out_and_named():
    adata = make()
    adata.obs["age"] = adata.obs["age"].where(adata.obs["patient"] != "P2")
    adata.obs.loc[adata.obs["image"] == "P4_1", "group"] = np.nan
    with pytest.warns(UserWarning, match=r"Left out: 'P4_1' \(no group\); 'P2' \(no age\)"):
        row = compare(adata, covariates=["age"]).loc["T"]
    assert row["note"] == "left out: 'P4_1' (no group), 'P2' (no age)"
    assert (row["n"], row["n_reference"]) == (3, 2)
    assert row["mean"] == pytest.approx(np.mean([0.31, 0.24, 0.24]))  # without the second image of P4


def test_errors():
    adata = make()
    adata.obs["empty"] = np.nan
    for kwargs, match in [
        ({"group_key": "arm"}, "No 'arm' in .obs.*add_samples"),
        ({"covariates": ["sex"]}, "No covariate 'sex'"),
        ({"covariates": "age + sexe"}, "No covariate 'sexe'"),
        ({"value": "shares"}, "No values 'shares'.*'composition', 'activation'"),
        ({"value": "activation", "layer": "counts"}, "No 'counts' in .layers"),
    ]:
        with pytest.raises(KeyError, match=match):
            compare(adata, **kwargs)
    for kwargs, match in [
        ({"covariates": "group + age"}, "other columns than the group"),
        ({"covariates": "T ~ age"}, "right side of a formula"),
        ({"covariates": "np.log(age - 51)"}, "give no number for 'P1'"),
        ({"covariates": ["empty"]}, r"No patient is left: 'P1', .*\(no empty\)"),
        ({"reference": "placebo"}, "No group 'placebo'"),
        ({"mixed": True, "permutations": 5}, "permutations=5 must be 0"),
        ({"mixed": True, "image_key": "patient"}, "no patient has several images"),
        ({"group_key": "cell_type"}, "Several values of 'cell_type' in image"),
    ]:
        with pytest.raises(ValueError, match=match), np.errstate(all="ignore"):
            compare(adata, **kwargs)
    with pytest.raises(ValueError, match="only one group"):
        compare(adata[adata.obs["group"] == "case"].copy(), reference=None)
    adata.obs["patient"] = adata.obs["image"].map(lambda name: name[:2]).where(adata.obs_names != "cell0", "P6")
    with pytest.raises(ValueError, match="Several values of 'patient' in image 'P1_0'"):
        compare(adata)
    assert not adata.uns
    adata.uns["group_comparison"] = "mine"
    with pytest.raises(ValueError, match="did not write 'group_comparison'.*key_added"):
        compare(adata)


@pytest.mark.parametrize("file_format", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore:Writing zarr")
def test_files_keep_the_result(tmp_path, file_format):
    adata = make()
    nm.tl.annotate(adata, {"T cell": "CD3+", "other": "CD3- CD8-"}, groupby="cell_type", key_added="by_signature")
    arguments = {"value": "activation", "groupby": "by_signature", "permutations": 5}
    before = compare(adata, **arguments)
    path = tmp_path / f"table.{file_format}"
    getattr(adata, f"write_{file_format}")(path)
    again = getattr(ad, f"read_{file_format}")(path)
    for key in ("group_comparison", "group_comparison_values"):
        pd.testing.assert_frame_equal(again.uns[key], adata.uns[key], check_dtype=False, check_index_type=False)
    pd.testing.assert_frame_equal(compare(again, **arguments), before)
    joined = ad.concat([again[:300], again[300:]])
    assert compare(joined).loc["T", "p"] == pytest.approx(compare(adata).loc["T", "p"])
