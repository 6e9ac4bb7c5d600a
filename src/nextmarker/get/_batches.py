"""Whether clusters and markers differ between images or patients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import entr

from nextmarker import _keys
from nextmarker._errors import no_such
from nextmarker._origins import find_largest
from nextmarker._provenance import check_clusters
from nextmarker._table import get_table, read_labels, read_representations

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

EXACT = 500  # cells of a cluster up to which chance is computed exactly
LEAST_CELLS = 10  # of a cluster in an image, to compare its markers
LEAST_SPREAD = 0.1  # between images, relative to that of the cells: smaller differences do not matter
LEAST_IMAGES = 3  # with fewer, none can be called unusual
UNUSUAL = 6.0  # z beyond which an image is remarked on by the report and the command line
SCALE = 1.4826  # from the median absolute deviation to the standard deviation of a normal distribution


def batches(
    data: AnnData | SpatialData,
    groupby: str = _keys.CLUSTERS,
    *,
    batch_key: str = _keys.IMAGE,
    table_key: str = _keys.TABLE,
) -> pd.DataFrame:
    """List how evenly the cells of each cluster come from the images, or from the patients.

    Parameters
    ----------
    data
        Table of cells, or the SpatialData object that contains it.
    groupby
        Column of `.obs` with clusters or cell types.
    batch_key
        Column of `.obs` with images, patients or other batches. Cells without a cluster or a batch are left out.
    table_key
        Name of the table in the SpatialData object.

    Returns
    -------
    One row for each cluster, and the columns

    - `cluster`, `n_cells`, and `n_batches` that have cells of it
    - `largest`: the batch with most cells of the cluster, `share` of its cells in the cluster, and `share_of_all`, its
      share of all cells
    - `entropy`: entropy of the batches in the cluster, divided by the entropy that as many cells drawn at random from
      all cells would have on average: about 1 for an even cluster of any size, 0 for cells of one batch
    - `is_one`: whether the cluster consists mostly of this batch, far more than the sizes of the batches explain; the
      clusters that `nm.tl.cluster` warns of

    Warns
    -----
    UserWarning
        If `groupby` is a clustering of an earlier embedding, or combines clusterings of tables that were joined.

    Raises
    ------
    KeyError
        If the table or a column is missing.
    ValueError
        If no cell has both a cluster and a batch.

    See Also
    --------
    nextmarker.get.unusual_images : images in which markers differ.
    nextmarker.metrics.batch_mixing : how well batches mix in the embedding.

    Examples
    --------
    >>> import pandas as pd, nextmarker as nm
    >>> from anndata import AnnData
    >>> obs = pd.DataFrame({"image": ["P1", "P2"] * 40, "type": ["T"] * 40 + ["B", "T"] * 20})
    >>> nm.get.batches(AnnData(obs=obs.set_axis(obs.index.astype(str))), "type").round(2)
      cluster  n_cells  n_batches largest  share  share_of_all  entropy  is_one
    0       B       20          1      P1   1.00           0.5     0.00    True
    1       T       60          2      P2   0.67           0.5     0.92   False
    """
    adata = get_table(data, table_key)
    _, (clusters, of_batch) = read_labels(adata, {"groupby": groupby, "batch_key": batch_key})
    check_clusters(adata, groupby)
    counts = np.zeros((len(clusters.categories), len(of_batch.categories)), dtype=int)
    np.add.at(counts, (clusters.codes, of_batch.codes), 1)
    largest = find_largest(clusters, pd.Series(of_batch.astype(object)))
    sizes = counts.sum(axis=1)
    table = pd.DataFrame(
        {
            "cluster": pd.Categorical(clusters.categories, clusters.categories),
            "n_cells": sizes,
            "n_batches": (counts > 0).sum(axis=1),
            "largest": largest["name"].to_numpy(),
            "share": largest["share"].to_numpy(),
            "share_of_all": (counts.sum(axis=0) / counts.sum())[counts.argmax(axis=1)],
            "entropy": [_entropy(own, counts.sum(axis=0)) for own in counts],
            "is_one": largest["is_one"].to_numpy(),
        }
    )
    return table.set_axis(table.index.astype(str))


def unusual_images(
    data: AnnData | SpatialData,
    groupby: str = _keys.CLUSTERS,
    *,
    use_rep: str = f"layers/{_keys.INTERPRETABILITY}",
    image_key: str = _keys.IMAGE,
    table_key: str = _keys.TABLE,
) -> pd.DataFrame:
    """List by how much each marker is brighter or dimmer in each image than in the others, in the same kinds of cells.

    Images have other activations because they have other cells, which is biology, or because they were stained or
    imaged differently. To tell the two apart, cells are compared with cells of the same cluster: for each cluster, the
    mean of the image minus the median of the means of the other images; then the mean over the clusters, weighted by
    the cells of the image. Clusters with fewer than 10 cells in an image do not count there.

    Parameters
    ----------
    data
        Table of embedded cells, or the SpatialData object that contains it.
    groupby
        Column of `.obs` with clusters or cell types. Cells without one are left out. Clusters that consist of one image
        hide its difference: cell types are better.
    use_rep
        What is compared: `"layers/interpretability"`, the activation, `"X"`, or another layer.
    image_key
        Column of `.obs` with images or other batches.
    table_key
        Name of the table in the SpatialData object.

    Returns
    -------
    One row for each image and marker, from the largest `z` of either sign, and the columns

    - `image`, `marker`
    - `n_cells` that could be compared with other images
    - `difference` from the other images
    - `z`: the difference minus its median over the images, in robust standard deviations over the images (from the
      median absolute deviation), which count as at least a tenth of the standard deviation over all cells. Beyond 3 or
      4, look at the image. NaN if fewer than three images can be compared

    Raises
    ------
    KeyError
        If the table, a column or the layer is missing.
    ValueError
        If no cell has both a cluster and an image, or the values are not finite.

    See Also
    --------
    nextmarker.get.batches : clusters that come from one image.

    Examples
    --------
    >>> import numpy as np, pandas as pd, nextmarker as nm
    >>> from anndata import AnnData
    >>> image, kind = np.repeat([f"P{n}" for n in range(1, 6)], 40), np.tile(["T", "B"], 100)
    >>> values = np.random.default_rng(0).normal((kind == "T") + 2.0 * (image == "P2"), 0.1)
    >>> obs = pd.DataFrame({"image": image, "type": kind}, np.arange(200).astype(str))
    >>> adata = AnnData(values[:, None], obs=obs, var=pd.DataFrame(index=["CD3"]))
    >>> nm.get.unusual_images(adata, "type", use_rep="X")[["image", "marker", "difference"]].head(1).round(1)
      image marker  difference
    0    P2    CD3         2.0
    """
    adata = get_table(data, table_key)
    known, (clusters, images) = read_labels(adata, {"groupby": groupby, "image_key": image_key})
    (values,) = read_representations(adata, use_rep, known).values()
    if values.shape[1] != adata.n_vars:
        raise KeyError(no_such("layer", use_rep, "the table", ["X", *adata.layers], "Name another: use_rep=..."))
    check_clusters(adata, groupby)
    n_images = len(images.categories)
    cells = np.zeros((n_images, len(clusters.categories)))
    differences = np.full((n_images, len(clusters.categories), adata.n_vars), np.nan)
    for code in range(len(clusters.categories)):
        own = clusters.codes == code
        cells[:, code] = np.bincount(images.codes[own], minlength=n_images)
        differences[:, code] = _from_others(values[own], images.codes[own], cells[:, code] >= LEAST_CELLS)
    weights = np.where(np.isfinite(differences[:, :, 0]), cells, 0)
    n_compared = weights.sum(axis=1)
    total = np.einsum("ic,icm->im", weights, np.nan_to_num(differences))
    difference = np.divide(total, n_compared[:, None], out=np.full(total.shape, np.nan), where=n_compared[:, None] > 0)

    image, marker = np.indices(difference.shape).reshape(2, -1)
    table = pd.DataFrame(
        {
            "image": pd.Categorical.from_codes(image, images.categories),
            "marker": pd.Categorical.from_codes(marker, adata.var_names),
            "n_cells": n_compared.astype(int)[image],
            "difference": difference.ravel(),
            "z": _robust(difference, LEAST_SPREAD * values.std(axis=0, dtype=np.float64)).ravel(),
        }
    )
    order = table["z"].abs().sort_values(ascending=False, kind="stable").index
    table = table.loc[order].reset_index(drop=True)
    return table.set_axis(table.index.astype(str))


def _entropy(counts: np.ndarray, sizes: np.ndarray) -> float:
    """Entropy of the batches of a cluster, divided by that of as many cells at random; NaN if there is one batch."""
    n, total = counts.sum(), sizes.sum()
    if n <= EXACT:
        count = np.arange(n + 1)
        chance = stats.hypergeom.pmf(count, total, sizes[:, None], n)
        expected = float((chance @ entr(count / n)).sum())
    else:  # the entropy of a sample is a little lower than that of all (Miller and Madow)
        missing = (1 - n / total) * ((sizes > 0).sum() - 1) / (2 * n)
        expected = float(entr(sizes / total).sum() - missing)
    return float(entr(counts / n).sum() / expected) if expected > 0 else np.nan


def _from_others(values: np.ndarray, images: np.ndarray, compared: np.ndarray) -> np.ndarray:
    """Mean of each image minus the median of the means of the others, (images, markers); NaN without others."""
    means = np.full((len(compared), values.shape[1]), np.nan)
    for code in np.flatnonzero(compared):
        means[code] = values[images == code].mean(axis=0, dtype=np.float64)
    result = np.full_like(means, np.nan)
    if compared.sum() > 1:
        for code in np.flatnonzero(compared):
            others = compared & (np.arange(len(compared)) != code)
            result[code] = means[code] - np.median(means[others], axis=0)
    return result


def _robust(difference: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Differences in robust standard deviations over the images, but not below `least`, (images, markers)."""
    known = np.isfinite(difference[:, 0])
    result = np.full_like(difference, np.nan)
    if known.sum() >= LEAST_IMAGES:
        centred = difference[known] - np.median(difference[known], axis=0)
        spread = np.maximum(SCALE * np.median(np.abs(centred), axis=0), least)
        result[known] = np.divide(centred, spread, out=np.full(centred.shape, np.nan), where=spread > 0)
    return result
