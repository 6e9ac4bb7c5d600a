"""``nextmarker demo``: the whole analysis on synthetic tissue, compared with the true cell types."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import nextmarker as nm
from nextmarker import _keys
from nextmarker.cli.output import results_in
from nextmarker.cli.steps import analyse, print_clusters, save

if TYPE_CHECKING:
    import argparse

    import pandas as pd
    from spatialdata import SpatialData


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    parser = commands.add_parser(
        "demo", help="analyse synthetic tissue and compare the clusters with the true cell types", allow_abbrev=False
    )
    parser.set_defaults(command=_demo)
    parser.add_argument("-o", "--output", type=Path, default=Path("demo"), metavar="DIR", help="folder (default: demo)")


def _demo(arguments: argparse.Namespace) -> None:
    if os.path.lexists(arguments.output) and not arguments.output.is_dir():
        msg = f"{str(arguments.output)!r} is not a folder: choose another -o."
        raise FileExistsError(msg)
    arguments.output.mkdir(parents=True, exist_ok=True)
    with results_in(arguments.output / "tissue.zarr", overwrite=True) as unfinished:
        sdata = nm.datasets.synthetic_tissue()
        analyse(sdata, nuclear_channels=["DNA1", "DNA2"])
        save(sdata, unfinished)
        print_clusters(sdata, true_type=_compare_with_truth(sdata))


def _compare_with_truth(sdata: SpatialData) -> pd.Series:
    """Print how well cells and clusters match the truth; return the true type at each centre, NaN for none."""
    import numpy as np
    import pandas as pd
    from sklearn.metrics import adjusted_rand_score

    from nextmarker._regions import read_regions

    obs = sdata[_keys.TABLE].obs
    true_type = pd.Series(np.nan, index=obs.index, dtype=object)
    n_true = n_found = 0
    for region in read_regions(sdata):
        truth = sdata.shapes[f"truth_{region.image}"]["cell_type"]
        columns, rows = np.floor(region.centres).astype(int).T
        label = sdata.labels[f"masks_{region.image}"].to_numpy()[rows, columns]
        true_type.iloc[region.rows] = truth.reindex(label).to_numpy()
        n_true += len(truth)
        n_found += len(np.unique(label[label > 0]))
    known = true_type.notna()
    agreement = adjusted_rand_score(true_type[known], obs.loc[known, _keys.CLUSTERS])
    print(f"\ncells: {n_found} of {n_true} true cells found, with {len(obs)} centres")
    print(f"clusters: adjusted Rand index {agreement:.3f} against the true types")
    return true_type
