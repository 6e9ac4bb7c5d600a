"""Settings other than the default, on real and on synthetic tissue.

Usage: ``python -m experiments.trials DATA [TRIAL ...]`` with the DATA of ``experiments.dcis``

Each trial trains once on the images of DATA and once on each of two synthetic tissues. On real tissue, types are
classified, leaving out one patient at a time; on both, clusters are compared with the types. Prints one row per trial.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from unittest.mock import patch

import pandas as pd
import torch

import nextmarker as nm
from experiments.dcis import PATCH_SIZE, read
from nextmarker.nn import training
from nextmarker.nn.loss import nt_xent

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData
    from spatialdata import SpatialData
    from torch import Tensor

TISSUES = (0, 3)  # seeds
TISSUE_PATCH_SIZE = 11  # pixels, the default there


class Trial(NamedTuple):
    """A setting that differs from the default."""

    training: nm.nn.TrainingConfig = nm.nn.TrainingConfig()
    network: nm.nn.NetworkConfig = nm.nn.NetworkConfig()
    patch: float = 1.0  # times the default patch size
    loss: Callable[[Tensor, float], Tensor] = nt_xent


def main() -> None:
    """Run the named trials, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of NAME_image.ome.tif, NAME_mask.tif and NAME_cells.csv")
    parser.add_argument("trials", nargs="*", metavar="TRIAL", help=f"some of {list(trials())} (default: all)")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.trials if name not in trials()]
    if unknown:
        parser.error(f"no such trials: {unknown}; choose among {list(trials())}")
    sdata = read(arguments.data)
    for name in arguments.trials or trials():
        scores = measure(sdata, trials()[name])
        print(pd.DataFrame(scores, index=[name]).to_string(float_format="{:.3f}".format), flush=True)


def trials() -> dict[str, Trial]:
    """All trials by name."""
    config, network = nm.nn.TrainingConfig, nm.nn.NetworkConfig
    return {
        "default": Trial(),
        "plain average": Trial(network=network(pool_sigmas=())),
        "pool_sigmas 0.15": Trial(network=network(pool_sigmas=(0.15,))),
        "log_threshold 0.1": Trial(network=network(log_threshold=0.1)),
        "linear scale of I": Trial(network=network(log_threshold=None)),
        "linear axis": Trial(config(sigmoid_start=0.25), network(axis="linear")),
        "sigmoid_start 0.125": Trial(config(sigmoid_start=0.125)),
        "nothing subtracted": Trial(network=network(zero=False)),
        "patch of 18 px": Trial(patch=0.75),
        "patch of 32 px": Trial(patch=4 / 3),
        "three patch sizes": Trial(config(patch_scales=(1.0, 0.8, 0.6))),
        "four views": Trial(config(views=4)),
        "temperature 0.1": Trial(config(temperature=0.1)),
        "no marker hidden": Trial(config(marker_dropout=0.0)),
        "images mixed": Trial(config(batch_by_image=False)),
        "600 steps": Trial(config(steps=600)),
        "batches of 1,024": Trial(config(batch_size=1024)),
        "no block": Trial(network=network(blocks=0)),
        "two blocks": Trial(network=network(blocks=2)),
        "16 features per marker": Trial(network=network(features=16)),
        "decoupled loss": Trial(loss=decoupled),
        "Barlow Twins": Trial(loss=barlow_twins),
    }


def measure(sdata: SpatialData, trial: Trial) -> dict[str, float]:
    """Train on all tissues; return balanced accuracy for types, and NMI and ARI of clusters."""
    embed(sdata, round(PATCH_SIZE * trial.patch), trial)
    adata = sdata["table"]
    representations = {"F": "X_nextmarker", "I": "X_interpretability"}
    scores = {name: probe(adata, key, "logistic") for name, key in representations.items()}
    scores |= {"kNN": probe(adata, "X_nextmarker", "knn"), "NMI": agreement(adata)["nmi"]}
    for seed in TISSUES:
        tissue = make_tissue(seed)
        embed(tissue, round(TISSUE_PATCH_SIZE * trial.patch), trial)
        scores[f"tissue {seed}, ARI"] = agreement(tissue["table"])["ari"]
    return scores


def embed(sdata: SpatialData, patch_size: int, trial: Trial) -> None:
    """Train, embed and cluster with the setting of a trial."""
    with patch.object(training, "nt_xent", trial.loss):
        model = nm.tl.train(sdata, patch_size, training=trial.training, network=trial.network, progress=False)
    nm.tl.embed(sdata, model, progress=False)
    nm.tl.cluster(sdata)


def probe(adata: AnnData, key: str, classifier: str) -> float:
    """Balanced accuracy for types, leaving out one image at a time."""
    table = nm.metrics.probe(adata, "cell_type", use_rep=key, classifier=classifier)
    return table["balanced_accuracy"].iloc[0]


def agreement(adata: AnnData) -> pd.Series:
    """Agreement of the clusters with the types."""
    return nm.metrics.agreement(adata, "cell_type", "nextmarker").iloc[0]


def make_tissue(seed: int) -> SpatialData:
    """Synthetic tissue with a table of its cells at their true centres, and their types."""
    sdata = nm.datasets.synthetic_tissue(random_state=seed)
    truths = {image: sdata[f"truth_{image}"] for image in sdata.images}
    centres = {
        image: pd.DataFrame({"x": truth.geometry.x - 0.5, "y": truth.geometry.y - 0.5})
        for image, truth in truths.items()
    }
    nm.pp.add_cells(sdata, centres, progress=False)
    sdata["table"].obs["cell_type"] = pd.concat(list(truths.values()))["cell_type"].to_numpy()
    return sdata


def decoupled(projections: Tensor, temperature: float) -> Tensor:
    """NT-Xent without the positive pair in the denominator (Yeh et al., 2022), for two views."""
    z = torch.nn.functional.normalize(projections, dim=-1)  # (cells, 2, dimensions)
    cells = len(z)
    similarity = torch.einsum("ivd,jwd->viwj", z, z) / temperature  # (2, cells, 2, cells)
    same = torch.eye(cells, dtype=torch.bool, device=z.device)[:, None]
    negatives = similarity.masked_fill(same, -torch.inf).logsumexp((2, 3))  # (2, cells)
    return (negatives - (z[:, 0] * z[:, 1]).sum(1) / temperature).mean()


def barlow_twins(projections: Tensor, _: float) -> Tensor:
    """Deviation of the cross-correlation of two views from the identity (Zbontar et al., 2021)."""
    one, other = ((view - view.mean(0)) / (view.std(0) + 1e-6) for view in projections.unbind(1))
    correlation = one.T @ other / len(one)  # (dimensions, dimensions)
    diagonal = correlation.diagonal()
    return ((1 - diagonal) ** 2).sum() + 0.005 * (correlation.square().sum() - diagonal.square().sum())


if __name__ == "__main__":
    main()
