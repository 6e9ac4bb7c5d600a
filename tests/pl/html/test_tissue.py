import numpy as np
import pandas as pd
import pytest

import nextmarker as nm
from nextmarker.pl.html import tissue as sections
from nextmarker.pl.html.blocks import Gallery, Picture, Table, Words


def words(blocks, kind=None):
    return " ".join(block.text for block in blocks if isinstance(block, Words) and kind in (None, block.kind))


def only(blocks, form):
    return [block for block in blocks if isinstance(block, form)]


def test_a_table_without_results_has_no_such_sections(source):
    assert sections.neighbors(source) == sections.niches(source) == []


def test_types_that_are_neighbours_are_named(source):
    nm.tl.neighborhood(source.adata, graph="radius", radius=1, permutations=50)
    blocks = sections.neighbors(source)
    said = words(blocks)
    assert "in 6 images" in said
    assert "up to a distance of 1" in said
    more, less = said.split("Less often than by chance: ")
    named = more.split("More often than by chance: ")[1]
    assert {named[0], named.split(" beside ")[1][0]} == {"T", "B"}
    assert named.count("beside") == 1
    factor = float(named.partition("(")[2].partition(" times")[0])
    links = source.adata.uns["neighborhood"].query("cell_type == 'T' and neighbor == 'B'")
    assert factor == pytest.approx(2 ** links["log2_ratio"].mean(), rel=0.2)
    assert "tumour" in less
    assert less.count("beside") == 2
    assert "may be chance" not in said
    assert len(only(blocks, Picture)) == 1


def test_cells_of_unknown_type_are_no_type(source):
    obs = source.adata.obs
    obs["cell_type"] = obs["cell_type"].cat.rename_categories({"T": "unknown", "B": "unsure"})
    nm.tl.neighborhood(source.adata, graph="radius", radius=1, permutations=50)
    assert "No two types are neighbours clearly" in words(sections.neighbors(source))


def test_a_result_of_one_image_is_said_to_be_of_one(source):
    nm.tl.neighborhood(source.adata, graph="radius", radius=1, permutations=50)
    links = source.adata.uns["neighborhood"]
    source.adata.uns["neighborhood"] = links[links["image"] == "P1"]
    with pytest.warns(UserWarning, match="other cells than when"):
        said = words(sections.neighbors(source))
    assert "in 1 image," in said
    assert "With fewer than 3 images, this may be chance." in said


def test_types_at_random_are_not_named(source):
    obs = source.adata.obs
    obs["cell_type"] = np.random.default_rng(0).permutation(obs["cell_type"])
    nm.tl.neighborhood(source.adata, graph="radius", radius=1, permutations=50)
    assert "No two types are neighbours clearly more or less often than by chance." in words(sections.neighbors(source))


def test_each_result_is_shown(source):
    for name in ("neighborhood", "wide"):
        nm.tl.neighborhood(source.adata, n_neighbors=4, permutations=20, key_added=name)
    blocks = sections.neighbors(source)
    assert len(only(blocks, Picture)) == 2
    assert words(blocks).count("the 4 nearest cells") == 2
    del source.adata.uns["wide"]
    assert len(only(sections.neighbors(source), Picture)) == 1


def test_the_types_of_niches_are_named(source):
    nm.tl.niches(source.adata, use_rep=None, n_niches=2)
    blocks = sections.niches(source)
    obs = source.adata.obs
    tumour = str(obs.loc[obs["cell_type"] == "tumour", "niche"].mode()[0])
    said = words(blocks)
    share = 100 * (obs["cell_type"][obs["niche"] == tumour] == "tumour").mean()
    of_all = 100 * (obs["cell_type"] == "tumour").mean()
    assert f"What sets niches apart most: niche {tumour} by tumour ({share:.0f} % of its cells, {of_all:.0f} %" in said
    assert "2 niches in 6 images" in said
    assert "by `cell_type`." in said
    (table,) = only(blocks, Table)
    rows = {row[0]: row for row in table.rows}
    assert rows[tumour][1] == f"{(obs['niche'] == tumour).sum()}"
    assert rows[tumour][3] == f"tumour ({share:.0f} %)"
    assert rows["1" if tumour == "0" else "0"][3].startswith(("T (", "B ("))
    assert len(only(blocks, Gallery)[0].pictures) == 6
    assert len(only(blocks, Picture)) == 2
    assert not words(blocks, "check")


def test_niches_that_are_unstable_or_of_one_image_are_remarked_on(source):
    nm.tl.niches(source.adata, use_rep=None, n_niches=[2, 3])
    record = source.adata.uns["nextmarker"]["niches"]
    obs = source.adata.obs
    own = np.where(obs["image"] == "P1", "0", np.where(np.arange(len(obs)) % 9, "1", ""))
    obs["niche"] = pd.Categorical(own, ["0", "1"])
    assert "No number of niches is stable" not in words(sections.niches(source))
    record["stability"] = np.array([0.3, 0.42])
    said = words(sections.niches(source), "check")
    assert "No number of niches is stable: repeated runs agree by 0.42 at most" in said
    assert "Niches whose cells come mostly from one image: 0." in said
    assert f"{(own == '').sum()} cells of {len(obs):,} have no niche." in said
