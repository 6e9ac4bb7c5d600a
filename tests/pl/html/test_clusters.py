import numpy as np
import pytest
from anndata import AnnData

import nextmarker as nm
from nextmarker.pl.html.blocks import Picture, Table, Words
from nextmarker.pl.html.clusters import transferred

NAME = f"{'a' * 16}-{'0' * 8}"
CENTRES = {"tumour": 0, "T": 10, "B": 20, "new": 60}


def embed(adata, types, seed):
    rng = np.random.default_rng(seed)
    adata.obs["nextmarker_embedding"] = NAME
    centres = np.array([CENTRES[name] for name in types])
    adata.obsm["X_nextmarker"] = rng.normal(centres[:, None], size=(len(types), 5))


@pytest.fixture
def reference(source):
    adata = AnnData(obs=source.adata.obs[["cell_type"]].copy())
    embed(adata, adata.obs["cell_type"], 1)
    return adata


def words(blocks, kind=None):
    return " ".join(block.text for block in blocks if isinstance(block, Words) and kind in (None, block.kind))


def test_a_table_without_transferred_types_has_no_such_section(source):
    assert transferred(source) == []


def test_transferred_types_are_counted(source, reference):
    adata = source.adata
    embed(adata, adata.obs["cell_type"], 2)
    nm.tl.transfer(adata, reference, "cell_type", key_added="transferred", quantile=1)
    blocks = transferred(source)
    unsure = (adata.obs["transferred"] == "unsure").sum()
    assert unsure < 0.01 * adata.n_obs
    said = words(blocks)
    assert (
        f"{adata.n_obs:,} cells have types in `transferred`, learned from a reference of 1,728 cells with 3 ty" in said
    )
    assert f"{unsure:,} of them are unsure ({100 * unsure / adata.n_obs:.1f} %)" in said
    (table,) = (block for block in blocks if isinstance(block, Table))
    counts = {row[0]: int(row[1].replace(",", "")) for row in table.rows}
    assert counts == adata.obs["transferred"].value_counts().to_dict()
    assert len([block for block in blocks if isinstance(block, Picture)]) == 1
    assert not words(blocks, "check")


def test_an_image_of_cells_that_the_reference_lacks_is_named(source, reference):
    adata = source.adata
    embed(adata, adata.obs["cell_type"].astype(str).where(adata.obs["image"] != "P3", "new"), 2)
    with pytest.warns(UserWarning, match="unlike all"):
        nm.tl.transfer(adata, reference, "cell_type", key_added="transferred")
    said = words(transferred(source), "check")
    assert "Many cells are unlike all of the reference in P3 (100 %)." in said


def test_types_that_could_not_be_learned_are_named(source, reference):
    adata = source.adata
    embed(adata, adata.obs["cell_type"], 2)
    types = reference.obs["cell_type"].astype(str)
    types.iloc[:5] = "rare"
    reference.obs["cell_type"] = types
    with pytest.warns(UserWarning, match="never assigned"):
        nm.tl.transfer(adata, reference, "cell_type", key_added="transferred")
    assert "Types with too few clear examples, which no cell can get: rare." in words(transferred(source), "check")


def test_missing_markers_are_named(source, reference):
    adata = source.adata
    embed(adata, adata.obs["cell_type"], 2)
    adata.uns["nextmarker"] = {"embed": {"filled_with_zero": {"P1": np.array(["CD3"])}}}
    with pytest.warns(UserWarning, match="CD3 in 1 of 6 images"):
        nm.tl.transfer(adata, reference, "cell_type", key_added="transferred")
    assert "Markers that new images lack were taken as zero: CD3." in words(transferred(source), "check")
