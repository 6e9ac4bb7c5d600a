"""Groups of patients in which two cell types attract each other, or not: how often the comparison finds it.

Usage: ``python -m experiments.attraction [--simulations N] [--patients N]``

Patients have one to four images of 300 to 1,500 cells. The nine types have the shares of ``nm.datasets.dense_tissue``,
which vary as in ``experiments.groups``; each type prefers some places of an image, more in some images than in others.
In patients with an attraction, cytotoxic T cells are placed next to B cells: a part of the B cells get one as nearest
neighbour, in exchange with another cell of the image, so the image keeps its cells of each type. Only positions and
types are simulated, no pixels.

Neighbours are counted once, by ``nm.tl.neighborhood``, for many patients of each kind; each simulation draws two groups
of 12 of them without replacement and compares all pairs of types by ``nm.tl.compare_groups``. Prints how often p < 0.05
and q < 0.05 for the planted pair, in both directions, and for pairs without one of the two types.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.spatial import KDTree
from tqdm import trange

import nextmarker as nm
from experiments.groups import SEED, SHARES

PAIR = ("B cell", "cytotoxic T")
GROUP_SIZE = 12
PARTS = (0.0, 0.1, 0.2, 0.4)
"""Parts of the B cells that get a cytotoxic T cell as nearest neighbour; the first is compared with the others."""
PERMUTATIONS = 100
ALIKE = 25  # sum of the parameters of the Dirichlet distribution, as in experiments.groups
SPACING = 10.0
WAVES = 4  # of which the preferred places of a type are made


def main() -> None:
    """Print a row for each part of the B cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=500, help="number of simulations (default: 500)")
    parser.add_argument("--patients", type=int, default=120, help="patients to draw from, of each kind (default: 120)")
    arguments = parser.parse_args()
    print(compare_attractions(arguments.simulations, arguments.patients).to_string())


def compare_attractions(simulations: int, patients: int, parts: tuple[float, ...] = PARTS) -> pd.DataFrame:
    """How often pairs of types are found to differ, by the part of the B cells that attract a cytotoxic T cell."""
    pools = [make_patients(np.random.default_rng([SEED, kind]), patients, part) for kind, part in enumerate(parts)]
    rows = {}
    for part, pool in zip(parts, pools, strict=True):
        rng = np.random.default_rng([SEED, 1000])  # the same patients for each part
        found = pd.concat([compare(rng, pools[0], pool) for _ in trange(simulations, desc=f"{part:.0%}")])
        first, second = (found[name].astype(str) for name in ("cell_type", "neighbor"))
        planted = ((first == PAIR[0]) & (second == PAIR[1])) | ((first == PAIR[1]) & (second == PAIR[0]))
        neither = ~first.isin(PAIR) & ~second.isin(PAIR)
        one = ~planted & ~neither
        rows[f"{part:.0%}"] = {
            "median effect": found.loc[planted, "effect"].median(),
            **{
                f"{name}, {column} < 0.05": (found.loc[which, column] < 0.05).mean()
                for name, which in {"the pair": planted, "pairs with one": one, "other pairs": neither}.items()
                for column in ("p", "q")
            },
        }
    return pd.DataFrame(rows).T.round(3)


def make_patients(rng: np.random.Generator, patients: int, part: float) -> AnnData:
    """Make patients with types and positions of cells, and count the neighbours in their images."""
    images = []
    for patient in range(patients):
        own = rng.dirichlet(SHARES * ALIKE)
        for image in range(rng.integers(1, 5)):
            shares = rng.dirichlet(np.maximum(own * ALIKE * 2.5, 1e-6))
            places, types = make_image(rng, int(np.exp(rng.uniform(*np.log([300, 1500])))), shares)
            images.append((f"P{patient}", f"P{patient}_{image}", places, attract(rng, places, types, part)))
    sizes = [len(types) for *_, types in images]
    obs = pd.DataFrame(
        {
            "patient": pd.Categorical(np.repeat([patient for patient, *_ in images], sizes)),
            "image": pd.Categorical(np.repeat([image for _, image, *_ in images], sizes)),
            "cell_type": pd.Categorical.from_codes(np.concatenate([types for *_, types in images]), SHARES.index),
        },
        index=np.arange(sum(sizes)).astype(str),
    )
    adata = AnnData(obs=obs, obsm={"spatial": np.concatenate([places for _, _, places, _ in images])})
    nm.tl.neighborhood(adata, permutations=PERMUTATIONS)
    return adata


def make_image(rng: np.random.Generator, cells: int, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Make the positions of cells, float (cells, 2), and their types, each of which prefers some places."""
    side = int(np.ceil(np.sqrt(cells)))
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)[:cells]
    places = SPACING * (grid + rng.uniform(-0.4, 0.4, (cells, 2)))
    strength = np.exp(rng.normal(-0.5, 0.4))
    frequency = rng.normal(0, 2 * np.pi / (8 * SPACING), (2, len(shares), WAVES))
    phase = rng.uniform(0, 2 * np.pi, (len(shares), WAVES))
    preference = np.cos(np.einsum("cx,xtw->ctw", places, frequency) + phase).sum(2)  # (cells, types)
    chance = shares * np.exp(strength * preference)
    cumulative = np.cumsum(chance / chance.sum(1, keepdims=True), axis=1)
    return places, (rng.random((cells, 1)) > cumulative[:, :-1]).sum(1)


def attract(rng: np.random.Generator, places: np.ndarray, types: np.ndarray, part: float) -> np.ndarray:
    """Give a part of the B cells a cytotoxic T cell as nearest neighbour, in exchange with another cell."""
    types = types.copy()
    centre, partner = (SHARES.index.get_loc(name) for name in PAIR)
    nearest = KDTree(places).query(places, k=2)[1][:, 1]
    centres = rng.permutation(np.flatnonzero(types == centre))
    free = list(rng.permutation(np.flatnonzero(types == partner)))
    for cell in centres[: round(part * len(centres))]:
        neighbour = nearest[cell]
        if free and types[neighbour] not in (centre, partner):
            other = free.pop()
            types[neighbour], types[other] = types[other], types[neighbour]
    return types


def compare(rng: np.random.Generator, controls: AnnData, cases: AnnData) -> pd.DataFrame:
    """Draw two groups of patients and compare all pairs of types between them."""
    n_patients = controls.obs["patient"].nunique()
    names = [f"P{number}" for number in rng.permutation(n_patients)[: 2 * GROUP_SIZE]]
    groups = {"control": (controls, names[:GROUP_SIZE]), "case": (cases, names[GROUP_SIZE:])}
    images, tables = [], []
    for group, (pool, chosen) in groups.items():
        rows = pool.obs[pool.obs["patient"].isin(chosen)].drop_duplicates("image")
        images.append(rows.assign(group=group))
        table = pool.uns["neighborhood"]
        tables.append(table[table["image"].isin(rows["image"])])
    adata = AnnData(obs=pd.concat(images).reset_index(drop=True).rename(index=str))
    nm.tl.compare_groups(adata, "group", reference="control", value=pd.concat(tables))
    return adata.uns["group_comparison"]


if __name__ == "__main__":
    main()
