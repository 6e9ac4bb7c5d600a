"""The table: found, read, protected, and its record."""

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, concat
from scipy import sparse
from spatialdata import SpatialData

import nextmarker as nm
from nextmarker._record import embedded_as, read_record, record_name, refuse_foreign_keys, write_results
from nextmarker._table import get_table, read_features, read_labels, read_representations, require

EVERY = np.ones(4, dtype=bool)


@pytest.fixture
def adata():
    return AnnData(obs=pd.DataFrame(index=["a", "b"]))


@pytest.fixture
def table():
    return AnnData(
        X=sparse.csr_matrix(np.eye(4, 3)),
        obs=pd.DataFrame(
            {
                "type": pd.Categorical(["T", None, "B", "T"], categories=["T", "none", "B"]),
                "patient": [1, 1, 2, 2],
                "note": ["a", "b", " ", "c"],
                "blank": ["", "", np.nan, ""],
            },
            index=list("abcd"),
        ),
        obsm={"X_nextmarker": np.arange(8.0).reshape(4, 2), "frame": pd.DataFrame(np.ones((4, 1)), list("abcd"))},
        layers={"arcsinh": np.full((4, 3), 2)},
    )


def test_the_table_itself_or_out_of_spatialdata(adata):
    assert get_table(adata) is adata
    assert get_table(SpatialData(tables={"mine": adata}), "mine").n_obs == 2
    with pytest.raises(KeyError, match=r"table 'table'.*'mine'.*nm.pp.detect_cells"):
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
    refuse_foreign_keys(adata, ["obsm/X", "obs/new"], "embed")
    with pytest.raises(ValueError, match=r"'theirs' in .obs.*key_added"):
        refuse_foreign_keys(adata, ["obsm/X", "obs/theirs"], "embed")


def test_what_is_missing_is_said_with_what_is_there(adata):
    adata.obsm["X_pca"] = np.ones((2, 2))
    with pytest.raises(KeyError, match=r"'X_nextmarker' in .obsm.*'X_pca'.*nm.tl.embed"):
        require(adata, "obsm", "X_nextmarker", "nm.tl.embed(sdata)")


def embed(adata, names):
    adata.obs["nextmarker_embedding"] = pd.Categorical(names)


def test_default_names_are_ours_where_cells_were_embedded_though_the_record_is_lost(adata):
    embed(adata, ["0123456789abcdef-01234567"] * 2)
    adata.obs["nextmarker"] = adata.obs["mine"] = "0"
    refuse_foreign_keys(adata, ["obs/nextmarker"], "cluster")
    with pytest.raises(ValueError, match=r"'mine' in .obs.*key_added"):
        refuse_foreign_keys(adata, ["obs/mine"], "cluster")
    embed(adata, ["theirs", "theirs"])  # a column of somebody else, who happened upon the name
    for name in ("nextmarker", "nextmarker_embedding"):
        with pytest.raises(ValueError, match=f"'{name}' in .obs"):
            refuse_foreign_keys(adata, [f"obs/{name}"], "cluster")


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


def test_a_representation_is_named_by_a_string(table):
    names = ["X", "X_nextmarker", "frame", "layers/arcsinh"]
    values = read_representations(table, names, np.array([True, False, True, True]))
    assert list(values) == names
    np.testing.assert_array_equal(values["X"], np.eye(4, 3)[[0, 2, 3]])
    np.testing.assert_array_equal(values["X_nextmarker"], [[0, 1], [4, 5], [6, 7]])
    assert values["layers/arcsinh"].tolist() == [[2] * 3] * 3
    assert values["frame"].shape == (3, 1)
    assert list(read_representations(table, "frame", EVERY)) == ["frame"]


def test_by_default_those_of_ours_that_are_there(table):
    assert list(read_representations(table, None, EVERY)) == ["X", "X_nextmarker"]
    table.obsm["X_interpretability"] = np.ones((4, 24))
    assert list(read_representations(table, None, EVERY)) == ["X", "X_interpretability", "X_nextmarker"]


def test_unknown_representations_are_refused_with_what_is_there(table):
    with pytest.raises(KeyError, match=r"'arcsinh'.*'X', 'X_nextmarker', 'frame', 'layers/arcsinh'.*nm.tl.embed"):
        read_representations(table, ["X", "arcsinh"], EVERY)
    with pytest.raises(KeyError, match=r"representation.*there is nothing"):
        read_representations(AnnData(obs=table.obs), None, EVERY)


def test_an_obsm_key_is_not_taken_for_the_intensities(table):
    table.obsm["X"] = np.zeros((4, 2))
    np.testing.assert_array_equal(read_representations(table, "X", EVERY)["X"], np.eye(4, 3))
    without = AnnData(obs=table.obs, obsm=dict(table.obsm))
    assert list(read_representations(without, None, EVERY)) == ["X_nextmarker"]
    with pytest.raises(KeyError, match=r"representation 'X'.*never .obsm\['X'\]"):
        read_representations(without, "X", EVERY)


def test_representations_are_finite_numbers(table):
    table.obsm["words"] = pd.DataFrame({"word": list("abcd")}, list("abcd"))
    with pytest.raises(ValueError, match=r"'words' has no numbers.*object|'words' has no numbers.*str"):
        read_representations(table, "words", EVERY)
    table.obsm["empty"] = np.empty((4, 0))
    with pytest.raises(ValueError, match=r"'empty' has no numbers.*\(4, 0\)"):
        read_representations(table, "empty", EVERY)
    table.obsm["X_nextmarker"][2, 1] = np.nan
    with pytest.raises(ValueError, match=r"of 1 cells is not finite.*'c'"):
        read_representations(table, None, EVERY)
    assert len(read_representations(table, None, np.array([True, True, False, False]))["X_nextmarker"]) == 2


def test_features_in_step_with_the_markers(table):
    features, weights = np.arange(96.0).reshape(4, 3, 8), np.arange(24.0).reshape(3, 8)
    table.obsm["X_interpretability"] = features.reshape(4, -1)
    table.layers["interpretability"] = (features * weights).sum(2)
    table.varm["nextmarker_activation"] = weights
    everything = read_representations(table, None, EVERY)
    np.testing.assert_array_equal(everything["X_interpretability"], features.reshape(4, -1))
    np.testing.assert_array_equal(read_features(table[::-1], 8), features[::-1].reshape(4, -1))
    moved = table[:, [1, 0, 2]].copy()
    embedded_so = moved.copy()
    embedded_so.obsm["X_interpretability"] = features[:, [1, 0, 2]].reshape(4, -1)
    read_features(embedded_so)
    for changed in (table[:, :2], moved, concat([table, embedded_so])):  # .obsm is not put in the order of the first
        with pytest.raises(ValueError, match=r"'X_interpretability'.*nm.tl.embed"):
            read_representations(changed, None, np.ones(changed.n_obs, bool))
        read_representations(changed, ["X", "X_nextmarker", "layers/interpretability"], np.ones(changed.n_obs, bool))
    with pytest.raises(ValueError, match="'X_interpretability'"):
        read_features(table, 7)
    del table.varm["nextmarker_activation"]  # as anndata.concat does
    with pytest.raises(ValueError, match=r"lost its weights.*anndata.concat\(tables, merge='same'\)"):
        read_features(table, 8)
    table.layers["interpretability"] = features.mean(2)  # as earlier versions wrote it
    read_features(table, 8)
    read_features(table)


def test_one_cell_of_many_with_another_order_of_markers_is_found():
    features = np.random.default_rng(0).random((70_000, 3, 2))
    table = AnnData(layers={"interpretability": features.mean(2)}, obsm={"X_interpretability": features})
    table.obsm["X_interpretability"] = features.reshape(len(features), -1).copy()
    read_features(table)
    table.obsm["X_interpretability"][66_000] = features[66_000, ::-1].ravel()
    with pytest.raises(ValueError, match="'X_interpretability'"):
        read_features(table)


def test_embeddings_of_several_models_are_not_compared(table):
    table.obs["nextmarker_embedding"] = [f"{digit * 16}-00000000" for digit in "aabb"]
    with pytest.raises(ValueError, match="2 models"):
        read_representations(table, "X_nextmarker", EVERY)
    assert list(read_representations(table, "X", EVERY)) == ["X"]
    assert len(read_representations(table, "X_nextmarker", np.array([True, True, False, False]))["X_nextmarker"]) == 2


def test_labels_of_the_cells_that_have_all(table):
    known, (types, patients) = read_labels(table, {"label_key": "type", "batch_key": "patient"})
    assert known.tolist() == [True, False, True, True]
    assert types.tolist() == ["T", "B", "T"]
    assert types.categories.tolist() == ["T", "B"]  # in the order of the column, without those of no cell
    assert patients.categories.tolist() == ["1", "2"]
    known, (notes,) = read_labels(table, {"groupby": "note"})
    assert notes.tolist() == ["a", "b", "c"]


def test_labels_that_are_not_made_yet_are_told_with_the_call_that_makes_them(table):
    with pytest.raises(KeyError, match=r"No column 'cell_type'.*nm\.tl\.annotate\(adata, signatures\).*groupby="):
        read_labels(table, {"groupby": "cell_type"})
    with pytest.raises(KeyError, match=r"No column 'nextmarker'.*nm\.tl\.cluster\(adata\).*groupby="):
        read_labels(table, {"groupby": "nextmarker"})


def test_missing_labels_are_refused(table):
    with pytest.raises(KeyError, match=r"'kind'.*'type', 'patient', 'note', 'blank'.*batch_key="):
        read_labels(table, {"label_key": "type", "batch_key": "kind"})
    with pytest.raises(ValueError, match=r"No cell.*'type'.*'blank'"):
        read_labels(table, {"label_key": "type", "groupby": "blank"})


@pytest.fixture
def joined():
    """Image c1 of two sites, each with two cells."""
    obs = pd.DataFrame({"image": "c1", "region": "cells", "instance_id": [0, 1], "cell_type": ["T", "B"]})
    one = AnnData(obs=obs.set_axis(["a", "b"]))
    return concat({"P1": one, "P2": one}, label="site", index_unique="-")


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda adata: nm.pp.add_samples(adata, pd.DataFrame({"image": ["c1"], "patient": ["P1"]})), "on"),
        (nm.get.composition, "by"),
        (lambda adata: nm.pl.composition(adata, "cell_type"), "by"),
        (nm.tl.compare_groups, "image_key"),
    ],
)
def test_images_of_joined_tables_are_not_taken_for_one(joined, call, argument):
    with pytest.raises(ValueError, match=rf"called 'c1'.*\['slide'\] = adata.obs\['site'\].*then {argument}='slide'"):
        call(joined)
    joined.obs["region"] = "cells-" + joined.obs["site"].astype(str)  # as spatialdata.concatenate does
    with pytest.raises(ValueError, match=f"called 'c1'.*: {argument}='region'"):
        call(joined)
    del joined.obs["site"]
    joined.obs["region"] = "cells"
    with pytest.raises(ValueError, match=r"called 'c1'.*anndata.concat\(..., label='site'\)"):
        call(joined)


def test_images_told_apart_are_counted(joined):
    joined.obs["slide"] = joined.obs["site"].astype(str) + "-" + joined.obs["image"].astype(str)
    assert nm.get.composition(joined, by="slide")["n"].tolist() == [1, 1, 1, 1]
    joined.obs["image"] = joined.obs["slide"]
    assert nm.get.composition(joined)["n"].tolist() == [1, 1, 1, 1]
