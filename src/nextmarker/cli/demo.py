"""``nextmarker demo``: the whole analysis on synthetic tissue, compared with the true cell types."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nextmarker import _keys
from nextmarker.cli.output import results_in
from nextmarker.cli.places import CLUSTERS, FIGURES, MODEL, REPORT, STORE, TRAINING, places_of

if TYPE_CHECKING:
    import pandas as pd
    from spatialdata import SpatialData


@click.command()
@click.option("-o", "--output", default="demo", show_default=True, metavar="DIR", help="Folder of the results.")
def demo(output: str) -> None:
    """Analyse synthetic tissue of known cell types."""
    folder = Path(output)
    if os.path.lexists(folder) and not folder.is_dir():
        msg = f"{output!r} is not a folder: choose another -o."
        raise FileExistsError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    places = places_of(f"{output}/tissue.zarr", STORE, FIGURES, MODEL, REPORT)
    with results_in(places, overwrite=True) as drafts:
        import nextmarker as nm
        from nextmarker.cli import saving, summary

        sdata = nm.datasets.synthetic_tissue()
        nm.pp.detect_cells(sdata, nuclear_channels=["DNA1", "DNA2"])
        adata = sdata[_keys.TABLE]
        model = nm.tl.train(sdata)
        model.save(drafts / MODEL)
        nm.tl.embed(sdata, model)
        nm.tl.cluster(adata)
        nm.tl.marker_attribution(adata)
        saving.save(sdata, drafts, [*TRAINING, *CLUSTERS], report=True)
        summary.print_clusters(adata, true_type=_compare_with_truth(sdata))
    summary.print_end(adata, places[STORE], places[REPORT])


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
