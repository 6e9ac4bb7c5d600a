"""nm.tl.transfer: right types for known cells, "unsure" for unknown ones, and clear errors otherwise."""

import sys
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn.neighbors import NearestNeighbors
from spatialdata import SpatialData

import nextmarker as nm
from nextmarker.tl import transfer
from nextmarker.tl.cell_types.classifier import choose_training_cells, divide, train_classifier

MODEL, OTHER = "0123456789abcdef", "fedcba9876543210"
TYPES = ["T cell", "B cell", "macrophage", "tumour"]  # not in the order of the alphabet
CENTRES = dict(zip([*TYPES, "mast cell"], np.random.default_rng(5).normal(size=(5, 12)) * 2.5, strict=True))
COLORS = ["#0072b2", "#d55e00", "#cc79a7", "#009e73"]


def make(sizes, seed, model=MODEL, spread=1.0, images=("left", "right")):
    """Cells around the centre of their type, each image a little shifted."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(list(sizes), list(sizes.values())))
    where = rng.integers(0, len(images), len(truth))
    shift = rng.normal(size=(len(images), 12)) * 0.1
    embedding = np.stack([CENTRES[name] for name in truth]) + rng.normal(size=(len(truth), 12)) * spread + shift[where]
    obs = pd.DataFrame(
        {"truth": truth, "image": np.array(images)[where], "nextmarker_embedding": f"{model}-0000000{seed}"},
        index=[f"cell{seed}_{i}" for i in range(len(truth))],
    )
    return AnnData(obs=obs, obsm={"X_nextmarker": embedding.astype(np.float32)})


@pytest.fixture
def reference():
    adata = make({"T cell": 120, "B cell": 90, "macrophage": 60, "tumour": 90}, 0)
    adata.obs["cell_type"] = pd.Categorical(adata.obs["truth"], TYPES)
    adata.uns["cell_type_colors"] = np.array(COLORS, dtype=object)
    return adata


@pytest.fixture
def new():
    return make({"T cell": 50, "B cell": 50, "macrophage": 50, "tumour": 50}, 1, images=["third"])


def right(adata, key="cell_type"):
    return (adata.obs[key].astype(str) == adata.obs["truth"]).mean()


def lacking(adata, markers):
    adata.uns["nextmarker"] = {"embed": {"filled_with_zero": {name: np.array(own) for name, own in markers.items()}}}


def test_markers_that_the_new_images_lack_are_named(reference, new):
    lacking(new, {"third": ["CD3", "CD20"], "of other cells": ["CD4"]})
    lacking(reference, {"left": ["CD20"], "right": ["CD20"]})  # no type rests on it
    with pytest.warns(UserWarning, match=r"zero: CD3 in the image\. Types that differ in them may be wrong"):
        transfer(new, reference, "cell_type")
    assert new.uns["nextmarker"]["transfer_cell_type"]["missing_markers"].tolist() == ["CD3"]
    lacking(reference, {"left": ["CD20"]})
    with pytest.warns(UserWarning, match=r"zero: CD3 in the image, CD20 in the image\."):
        transfer(new, reference, "cell_type", key_added="other")


def test_markers_that_the_reference_lacks_as_well_are_no_reason_to_warn(reference, new, recwarn):
    for adata, names in ((new, ["third"]), (reference, ["left", "right"])):
        lacking(adata, dict.fromkeys(names, ["CD3"]))
    transfer(new, reference, "cell_type")
    assert not [warning for warning in recwarn if "zero" in str(warning.message)]
    assert "missing_markers" not in new.uns["nextmarker"]["transfer_cell_type"]


def test_known_types_are_found(reference, new):
    transfer(new, reference, "cell_type")
    assert right(new) > 0.95
    assert new.obs["cell_type"].cat.categories.tolist() == [*TYPES, "unsure"]
    assert new.uns["cell_type_colors"].tolist() == [*COLORS, "#b3b3b3"]
    assert new.obs["cell_type_probability"].dtype == new.obs["cell_type_distance"].dtype == np.float32
    unsure = new.obs["cell_type"] == "unsure"
    assert ((new.obs["cell_type_probability"] < 0.5) | (new.obs["cell_type_distance"] > 1)).equals(unsure)


def test_an_unknown_type_is_unsure_and_named_by_image(reference):
    new = make({"T cell": 80, "mast cell": 20}, 1, images=["third"])
    with pytest.warns(UserWarning, match=r"unlike all.*'third' \(2\d of 100\).*nm.tl.cluster\(data\)"):
        transfer(new, reference, "cell_type")
    unknown = new.obs["truth"] == "mast cell"
    assert (new.obs["cell_type"][unknown] == "unsure").all()
    assert right(new[~unknown]) > 0.95
    new.obs = new.obs.drop(columns="image")
    with pytest.warns(UserWarning, match=r"'all cells' \(2\d of 100\)"):
        transfer(new, reference, "cell_type")


def test_probabilities_are_calibrated():
    """Of cells whose type is given with probability p, a share p has this type, also where types overlap."""
    sizes = dict.fromkeys(TYPES, 400)
    reference, new = make(sizes, 0, spread=4.0), make(sizes, 1, spread=4.0)
    transfer(new, reference, "truth", threshold=0.0, quantile=1.0, key_added="type")
    bins = pd.cut(new.obs["type_probability"], [0, 0.5, 0.6, 0.7, 0.8, 0.9, 1])
    cells = pd.DataFrame(
        {"said": new.obs["type_probability"], "right": new.obs["type"].astype(str) == new.obs["truth"]}
    )
    by_bin = cells.groupby(bins, observed=True).agg(["mean", "size"])
    error = (by_bin["said", "mean"] - by_bin["right", "mean"]).abs()
    assert len(error) == 6
    assert np.average(error, weights=by_bin["said", "size"]) < 0.05


def test_the_threshold_trades_cells_for_certainty():
    sizes = dict.fromkeys(TYPES, 300)
    reference, new = make(sizes, 0, spread=4.0), make(sizes, 1, spread=4.0)
    shares, accuracies = [], []
    for threshold in (0, 0.6, 0.9):
        transfer(new, reference, "truth", threshold=threshold, quantile=1.0, key_added="type")
        sure = new[new.obs["type"] != "unsure"]
        shares.append(sure.n_obs / new.n_obs)
        accuracies.append(right(sure, "type"))
    assert shares[0] > shares[1] > shares[2] > 0
    assert accuracies[0] < accuracies[1] < accuracies[2]


def test_only_cells_among_their_own_are_learned_from():
    cells = np.concatenate([np.arange(20.0), np.arange(100.0, 140.0)])[:, None]
    codes = np.repeat([0, 1], [20, 40])
    codes[40] = 0  # a wrong label: it is not learned, nor are the five cells on either side of it
    training = choose_training_cells(cells, codes, 0)
    assert np.flatnonzero(~training).tolist() == list(range(35, 46))


def test_wrong_labels_in_the_reference_do_no_harm(reference, new):
    wrong = np.random.default_rng(0).choice(reference.n_obs, 10, replace=False)
    reference.obs.iloc[wrong, reference.obs.columns.get_loc("cell_type")] = "tumour"
    transfer(new, reference, "cell_type")
    assert right(new) > 0.93


def test_cells_without_a_type_or_unsure_are_not_used(reference, new):
    used = reference.copy()
    reference = ad.concat([reference, make({"mast cell": 30}, 7)])
    reference.obs["cell_type"] = pd.Categorical(used.obs["cell_type"].reindex(reference.obs_names), [*TYPES, "unsure"])
    reference.obs.loc[reference.obs_names[-15:], "cell_type"] = "unsure"
    transfer(new, reference, "cell_type", key_added="some")
    transfer(new, used, "cell_type", key_added="all")
    assert new.obs["some"].astype(str).tolist() == new.obs["all"].astype(str).tolist()
    assert new.uns["nextmarker"]["transfer_some"]["n_reference"] == 360
    assert "some_colors" not in new.uns


def test_a_reference_types_its_own_cells(reference):
    reference.obs["partly"] = reference.obs["cell_type"].where(np.arange(360) % 3 > 0)
    with pytest.raises(ValueError, match=r"obs\['partly'\] has other types.*key_added"):
        transfer(reference, reference, "partly")
    transfer(reference, reference, "partly", key_added="filled")
    assert right(reference, "filled") > 0.95
    assert reference.uns["nextmarker"]["transfer_filled"]["n_reference"] == 240


def test_rare_types_are_named_and_not_assigned(reference, new):
    rare = reference[reference.obs["cell_type"] == "macrophage"].obs_names[8:]
    few = reference[~reference.obs_names.isin(rare)].copy()
    with pytest.warns(UserWarning, match=r"never assigned.*'macrophage' \(0\)"), pytest.warns(match="unlike all"):
        transfer(new, few, "cell_type")
    assert not (new.obs["cell_type"] == "macrophage").any()
    assert "macrophage" in new.obs["cell_type"].cat.categories
    assert (new.obs["cell_type"][new.obs["truth"] == "macrophage"] == "unsure").mean() > 0.9
    record = new.uns["nextmarker"]["transfer_cell_type"]
    assert record["not_learned"].tolist() == ["macrophage"]
    assert record["types"].tolist() == ["T cell", "B cell", "tumour"]


def test_a_type_of_one_image_is_assigned(reference, new):
    only_left = (reference.obs["cell_type"] != "tumour") | (reference.obs["image"] == "left")
    transfer(new, reference[only_left.to_numpy()], "cell_type")
    assert right(new[new.obs["truth"] == "tumour"]) > 0.9


def test_folds_are_images_where_types_allow_it():
    codes, images = np.repeat([0, 1], 60), np.tile(["a", "b", "c"], 40)
    training = np.ones(120, dtype=bool)
    folds = divide(codes, training, images, 0)
    assert pd.crosstab(folds, images).astype(bool).to_numpy().sum() == 3
    images[codes == 1] = "a"
    folds = divide(codes, training, images, 0)
    assert np.bincount(folds[codes == 1]).min() > 15
    assert pd.crosstab(folds[codes == 0], images[codes == 0]).astype(bool).to_numpy().sum() == 3
    for one in (None, np.full(120, "a")):
        assert np.bincount(divide(codes, training, one, 0)).tolist() == [24] * 5


def test_copies_of_reference_cells_lie_inside():
    cells, codes = np.repeat([[0.0], [1.0]], 30, axis=0), np.repeat([0, 1], 30)
    training = np.ones(60, dtype=bool)
    classifier = train_classifier(cells, codes, training, divide(codes, training, None, 0), 0.99)
    prediction = classifier.predict(np.array([[0.0], [1.0], [1.1]]))
    assert prediction.codes.tolist() == [0, 1, 1]
    assert prediction.distance.tolist() == [0, 0, np.inf]


def test_large_references_are_searched_approximately_and_thinned(reference, new, monkeypatch):
    class NNDescent:
        def __init__(self, data, n_neighbors, random_state):
            assert (n_neighbors, random_state) == (11, 3)
            distances, indices = NearestNeighbors(n_neighbors=n_neighbors).fit(data).kneighbors(data)
            self.neighbor_graph = indices, distances

    transfer(new, reference, "cell_type")
    exact = new.obs["cell_type"].tolist()
    monkeypatch.setattr(sys.modules["nextmarker.tl._neighbors"], "EXACT_UP_TO", 100)
    monkeypatch.setitem(sys.modules, "pynndescent", SimpleNamespace(NNDescent=NNDescent))
    transfer(new, reference, "cell_type", random_state=3)
    assert np.mean(new.obs["cell_type"] == np.array(exact)) > 0.98  # other folds

    monkeypatch.setattr(sys.modules["nextmarker.tl.cell_types.classifier"], "MOST", 120)
    monkeypatch.setattr(sys.modules["nextmarker.tl.cell_types.classifier"], "SMALL", 30)
    transfer(new, reference, "cell_type", random_state=3)
    assert 110 <= new.uns["nextmarker"]["transfer_cell_type"]["n_examples"].sum() <= 150
    assert right(new) > 0.9


def test_the_same_seed_gives_the_same_types(reference, new):
    again = new.copy()
    for adata in (new, again):
        transfer(adata, reference, "cell_type", random_state=2)
    pd.testing.assert_frame_equal(new.obs, again.obs)


def test_results_survive_a_file_and_are_replaced_by_the_next_run(reference, new, tmp_path):
    transfer(new, reference, "cell_type")
    new.write_h5ad(tmp_path / "new.h5ad")
    new.write_zarr(tmp_path / "new.zarr")
    reference.write_h5ad(tmp_path / "reference.h5ad")
    for back in (ad.read_h5ad(tmp_path / "new.h5ad"), ad.read_zarr(tmp_path / "new.zarr")):
        pd.testing.assert_series_equal(back.obs["cell_type"], new.obs["cell_type"])
        pd.testing.assert_series_equal(back.obs["cell_type_distance"], new.obs["cell_type_distance"])
        assert back.uns["cell_type_colors"].tolist() == [*COLORS, "#b3b3b3"]
        record = back.uns["nextmarker"]["transfer_cell_type"]
        assert record["model"] == MODEL
        assert list(record["reference_embedded_as"]) == [f"{MODEL}-00000000"]
        assert len(record["limits"]) == len(record["n_examples"]) == len(record["types"]) == 4
        transfer(back, ad.read_h5ad(tmp_path / "reference.h5ad"), "cell_type", threshold=0.9)
        assert back.uns["nextmarker"]["transfer_cell_type"]["threshold"] == 0.9


def test_takes_spatialdata(reference, new):
    transfer(SpatialData(tables={"a": new}), SpatialData(tables={"a": reference}), "cell_type", table_key="a")
    assert right(new) > 0.95


def test_joined_tables_of_one_model(reference, new):
    """A reference of two runs of nm.tl.embed; .uns is lost."""
    joined = ad.concat([reference, make({"T cell": 50, "B cell": 50}, 3)])
    joined.obs["cell_type"] = joined.obs["truth"]
    joined = joined[::-1].copy()
    transfer(new, joined, "cell_type")
    assert right(new) > 0.95
    assert len(new.uns["nextmarker"]["transfer_cell_type"]["reference_embedded_as"]) == 2


def test_few_new_cells(reference):
    new = make({"T cell": 2, "B cell": 1}, 1)
    transfer(new, reference, "cell_type", quantile=1.0)
    assert right(new) == 1


def with_types(values):
    def spoil(new, reference):
        reference.obs["cell_type"] = values

    return spoil


def of_another_model(new, reference):
    new.obs["nextmarker_embedding"] = f"{OTHER}-00000001"


def of_an_unknown_model(new, reference):
    del new.obs["nextmarker_embedding"]


def of_two_models(new, reference):
    reference.obs.loc[reference.obs_names[:9], "nextmarker_embedding"] = f"{OTHER}-00000001"


def not_embedded(new, reference):
    del new.obsm["X_nextmarker"]


def not_finite(new, reference):
    reference.obsm["X_nextmarker"][3, 2] = np.nan


def typed_by_hand(new, reference):
    new.obs["cell_type"] = "T cell"
    new.uns["nextmarker"] = {"written": np.array(["obs/cell_type"], dtype=object)}


def with_a_column_of_that_name(new, reference):
    new.obs["cell_type_distance"] = 0


def of_other_width(new, reference):
    new.obsm["X_nextmarker"] = new.obsm["X_nextmarker"][:, :5]


def three_cells(new, reference):
    reference.obs["cell_type"] = pd.Series(["T cell", "B cell", "B cell"], reference.obs_names[:3])


@pytest.mark.parametrize(
    ("spoil", "arguments", "error", "message"),
    [
        (with_types("T cell"), {}, ValueError, "two types or more, and has 'T cell'.*label_key"),
        (with_types(None), {}, ValueError, "No cell has a value in .obs"),
        (with_types("unsure"), {}, ValueError, "two types or more, and has nothing"),
        (with_types(["T", "B"] * 180), {}, ValueError, r"cannot be learned.*10 cells.*'B' \(0\), 'T' \(0\).*broader"),
        (three_cells, {}, ValueError, "Only 3 cells have a type"),
        (of_another_model, {}, ValueError, rf"{OTHER}.*{MODEL}.*nm.tl.embed\(data, model\)"),
        (of_an_unknown_model, {}, ValueError, r"200 cells of data is unknown.*nm.tl.embed\(data, model\)"),
        (of_two_models, {}, ValueError, r"2 models.*\n.*the reference"),
        (not_embedded, {}, KeyError, r"'X_nextmarker'.*nm.tl.embed"),
        (not_finite, {}, ValueError, r"not finite(.|\n)*the reference"),
        (of_other_width, {}, ValueError, "5 features in the new cells and 12"),
        (typed_by_hand, {}, ValueError, "other types.*key_added"),
        (with_a_column_of_that_name, {}, ValueError, "'cell_type_distance' in .obs.*key_added"),
        (lambda *_: None, {"label_key": "type"}, KeyError, "'type'.*'truth'.*label_key"),
        (lambda *_: None, {"threshold": 1}, ValueError, "threshold=1"),
        (lambda *_: None, {"quantile": 99}, ValueError, "quantile=99"),
    ],
)
def test_bad_input_changes_nothing(new, reference, spoil, arguments, error, message):
    spoil(new, reference)
    before = list(new.obs), list(new.uns)
    with pytest.raises(error) as raised:
        transfer(new, reference, **{"label_key": "cell_type", **arguments})
    raised.match(message)
    assert (list(new.obs), list(new.uns)) == before


def test_markers_must_be_the_same_where_they_matter(reference, new):
    def with_activation(adata, markers):
        features = np.repeat(np.exp(adata.obsm["X_nextmarker"][:, :, None] / 4), 8, axis=2)
        return AnnData(
            obs=adata.obs,
            var=pd.DataFrame(index=markers),
            layers={"interpretability": features.mean(2)},
            obsm={"X_interpretability": features.reshape(adata.n_obs, -1)},
        )

    markers = [f"M{number}" for number in range(12)]
    known = with_activation(reference, markers)
    for use_rep in ("layers/interpretability", "X_interpretability"):
        with pytest.raises(ValueError, match="depends on the markers.*use_rep='X_nextmarker'"):
            transfer(with_activation(new, markers[::-1]), known, "cell_type", use_rep=use_rep)
        same = with_activation(new, markers)
        transfer(same, known, "cell_type", use_rep=use_rep)
        assert right(same) > 0.9
    with pytest.raises(ValueError, match="does not fit the 12 markers"):
        transfer(same, known[:, ::-1].copy(), "cell_type", use_rep="X_interpretability", key_added="type")


def embed(model, n_images, seed):
    sdata = nm.datasets.synthetic_tissue(n_images, 250, random_state=seed)
    frames = [sdata[f"truth_{name}"].assign(image=name) for name in sdata.images]
    cells = pd.concat(
        [pd.DataFrame({"x": f.geometry.x - 0.5, "y": f.geometry.y - 0.5, "image": f["image"]}) for f in frames],
        ignore_index=True,
    )
    nm.pp.add_cells(sdata, cells)
    if model is None:
        model = nm.tl.train(
            sdata, 12, training=nm.nn.TrainingConfig(steps=8, batch_size=64, whiten_features=False), progress=False
        )
    nm.tl.embed(sdata, model, progress=False)
    sdata["table"].obs["truth"] = np.concatenate([frame["cell_type"].astype(str) for frame in frames])
    return sdata["table"], model


@pytest.fixture(scope="module")
def tissue():
    reference, model = embed(None, 2, 0)
    return reference, embed(model, 1, 100)[0]


@pytest.mark.parametrize("unknown", ["B cell", "cytotoxic T", "tumour"])
def test_an_unknown_type_of_tissue_is_unsure(tissue, unknown):
    """Each of these has a near relative in the reference: macrophages share HLA-DR, T helper CD3, the third Ki67."""
    reference, new = tissue[0][tissue[0].obs["truth"] != unknown].copy(), tissue[1].copy()
    with pytest.warns(UserWarning, match="'tissue_1'"):
        transfer(new, reference, "truth", key_added="cell_type")
    is_unknown = new.obs["truth"] == unknown
    assert (new.obs["cell_type"][is_unknown] == "unsure").mean() > 0.9
    known = new[~is_unknown]
    assert (known.obs["cell_type"] == "unsure").mean() < 0.1
    assert right(known[known.obs["cell_type"] != "unsure"]) > 0.98
