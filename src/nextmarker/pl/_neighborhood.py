"""Which cell types are neighbours: matrix or network, of all images or of groups of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import CenteredNorm, Normalize
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import pdist

from nextmarker import _keys
from nextmarker._errors import check_option, no_such
from nextmarker._provenance import warn_of_other_cells
from nextmarker._record import read_record, record_name
from nextmarker._table import get_table, require
from nextmarker.pl._colors import GREY, category_colors
from nextmarker.pl._neighbor_pairs import CLEAR, images_agree, mean_ratios

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

Kind = Literal["matrix", "network"]

COLOR_MAP = "RdBu_r"  # red and blue are told apart with any colour vision, and white is no difference
NO_PAIR = "0.88"
NETWORK_SIDE, LETTER = 4.6, 0.065  # width of the network and of a letter, in inches
NAME_AT = 1.18  # distance of a name from the centre; types are at 1


def neighborhood(
    data: AnnData | SpatialData,
    group_key: str | None = None,
    *,
    kind: Kind = "matrix",
    sort: bool = False,
    key: str = _keys.NEIGHBORHOOD,
    table_key: str = _keys.TABLE,
) -> np.ndarray:
    """Draw which cell types are neighbours more or less often than by chance, as the mean over images.

    In the matrix, red means that cells of the type in the row have more neighbours of the type in the column than by
    chance, blue fewer, by the mean log2 ratio. A dot marks pairs with a mean of at least 0.5 (or at most -0.5) for
    which at least 90 % of the images, and at least three, have the same sign. Pairs that no image has are grey. Two
    groups are followed by their difference.

    The network links types whose mean log2 ratio, over both directions, is at least 0.5, and that have a dot in the
    matrix in one direction or both. The width of a line is the ratio, and the area of a dot the number of cells.

    Neither is a test. Images count the same, however many a patient has.

    Parameters
    ----------
    data
        Table after `nm.tl.neighborhood`, or the SpatialData object that contains it.
    group_key
        Column of `.obs` with the groups to be drawn beside each other. Each image belongs to one group.
    kind
        `"matrix"` or `"network"`.
    sort
        Place types with similar neighbours next to each other. By default they are in the order of the categories.
    key
        Name of the result, the `key_added` of `nm.tl.neighborhood`.
    table_key
        Name of the table in the SpatialData object.

    Returns
    -------
    Axes, object array (panels,). In the matrix, the first type is at the top left.

    Warns
    -----
    UserWarning
        If the table has other cells or types than when the neighbours were counted.

    Raises
    ------
    KeyError
        If the table, the result or the column is missing.
    ValueError
        If `kind` is unknown, an image belongs to several groups, or no image has a group.

    Examples
    --------
    >>> import numpy as np, pandas as pd, nextmarker as nm
    >>> from anndata import AnnData
    >>> x, y = np.divmod(np.arange(200), 10)
    >>> types = np.where(x < 10, "T", "B")
    >>> obs = pd.DataFrame({"image": "core_1", "cell_type": types}, np.arange(200).astype(str))
    >>> adata = AnnData(obs=obs, obsm={"spatial": np.column_stack([x, y]).astype(float)})
    >>> nm.tl.neighborhood(adata, permutations=100)
    >>> (ax,) = nm.pl.neighborhood(adata)
    >>> ax.get_title()
    '1 image'
    """
    check_option("kind", kind, get_args(Kind))
    adata = get_table(data, table_key)
    table = require(adata, "uns", key, "nm.tl.neighborhood(adata)")
    record = read_record(adata, record_name(_keys.NEIGHBORHOOD, key))
    warn_of_other_cells(adata, table, record)
    groups = {"": table} if group_key is None else _divide(adata, table, group_key, record)
    means = {name: mean_ratios(part) for name, part in groups.items()}
    if sort:
        order = _similar_first(pd.concat(means.values(), axis=1))
        means = {name: mean.iloc[order, order] for name, mean in means.items()}
    titles = {name: _title(name, part) for name, part in groups.items()}
    if kind == "network":
        colors = _node_colors(adata, record, table)
        axes = _grid(len(means), NETWORK_SIDE)
        for ax, (name, mean) in zip(axes, means.items(), strict=True):
            _draw_network(ax, mean, groups[name], colors)
            ax.set_title(titles[name], fontsize="medium")
        return axes
    return _draw_matrices(means, groups, titles)


def _own(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of each type with itself, one for each image."""
    return table[table["cell_type"].astype(str) == table["neighbor"].astype(str)]


def _divide(adata: AnnData, table: pd.DataFrame, group_key: str, record: Mapping[str, str]) -> dict[str, pd.DataFrame]:
    """Divide the images into groups, in the order of the categories."""
    image_key = record.get("image_key", _keys.IMAGE)
    lacking = [name for name in (group_key, image_key) if name not in adata.obs]
    if lacking:
        raise KeyError(no_such("column", lacking, ".obs of the table", adata.obs, "Choose another: group_key=..."))
    pairs = adata.obs[[image_key, group_key]].dropna().drop_duplicates()
    images = pairs[image_key].astype(str)
    if images.duplicated().any():
        several = images[images.duplicated()].iloc[0]
        msg = f"Image {several!r} has several groups in .obs[{group_key!r}]. Choose a column with one: group_key=..."
        raise ValueError(msg)
    if pairs.empty:
        msg = f"No image has a group in .obs[{group_key!r}]. Choose another column: group_key=..."
        raise ValueError(msg)
    of_image = table["image"].astype(str).map(dict(zip(images, pairs[group_key].astype(str), strict=True)))
    order = pairs[group_key].astype("category").cat.remove_unused_categories().cat.categories.astype(str)
    return {name: table[of_image == name] for name in order}


def _title(name: str, table: pd.DataFrame) -> str:
    n = table["image"].nunique()
    number = f"{n} image{'' if n == 1 else 's'}"
    return f"{name} ({number})" if name else number


def _similar_first(means: pd.DataFrame) -> np.ndarray:
    if len(means) < 3:
        return np.arange(len(means))
    return leaves_list(linkage(pdist(means.fillna(0)), "average", optimal_ordering=True))


def _grid(n_panels: int, side: float, margin: float = 0.0) -> np.ndarray:
    size = (n_panels * (side + 0.6) + margin + 0.8, side + margin + 0.8)
    _, axes = plt.subplots(1, n_panels, figsize=size, squeeze=False, layout="compressed")
    return axes[0]


def _draw_matrices(
    means: Mapping[str, pd.DataFrame], groups: Mapping[str, pd.DataFrame], titles: Mapping[str, str]
) -> np.ndarray:
    names = list(means)
    types = means[names[0]].index
    side = float(np.clip(0.24 * len(types), 2.0, 9.0))
    axes = _grid(len(means) + (len(means) == 2), side, margin=0.09 * max(map(len, types)))
    limit = max(_largest(mean) for mean in means.values())
    for ax, name in zip(axes, names, strict=False):
        colors = _draw_matrix(ax, means[name], limit)
        rows, columns = np.nonzero(images_agree(groups[name]).loc[types, types].to_numpy())
        ax.scatter(columns, rows, s=6, color="black", linewidths=0)
        ax.set_title(titles[name], fontsize="medium")
    shared = axes[: len(means)].tolist()
    axes[0].figure.colorbar(colors, ax=shared, label="mean log2(observed / expected)", shrink=0.7, pad=0.02)
    axes[0].set_ylabel("cells")
    if len(means) == 2:
        change = means[names[1]] - means[names[0]]
        colors = _draw_matrix(axes[2], change, max(_largest(change), CLEAR))
        axes[2].set_title(f"{names[1]} - {names[0]}", fontsize="medium")
        axes[2].figure.colorbar(colors, ax=axes[2], label="difference of the means", shrink=0.7, pad=0.04)
    for ax in axes:
        ax.set_xlabel("neighbours")
    for ax in axes[1:]:
        ax.set_yticklabels([])
    return axes


def _largest(means: pd.DataFrame) -> float:
    values = means.to_numpy()
    return float(np.abs(values[np.isfinite(values)]).max(initial=0)) or 1.0


def _draw_matrix(ax: Axes, means: pd.DataFrame, limit: float) -> plt.cm.ScalarMappable:
    ax.set_facecolor(NO_PAIR)
    colors = ax.imshow(means, cmap=COLOR_MAP, norm=CenteredNorm(0, limit))
    ax.set_xticks(range(len(means)), means.columns, rotation=90)
    ax.set_yticks(range(len(means)), means.index)
    ax.tick_params(length=0, labelsize="small")
    return colors


def _node_colors(adata: AnnData, record: Mapping[str, str], table: pd.DataFrame) -> dict[str, str]:
    """Colours of the types, those of the column if the table still has it."""
    column = record.get("groupby", "")
    labels = adata.obs[column] if column in adata.obs else table["cell_type"].rename(column)
    return {str(name): color for name, color in category_colors(adata, labels.astype("category")).items()}


def _draw_network(ax: Axes, means: pd.DataFrame, table: pd.DataFrame, colors: Mapping[str, str]) -> None:
    """Draw types on a circle, and lines between those that are neighbours more often than by chance."""
    types = list(means.index)
    angles = np.pi / 2 - 2 * np.pi * np.arange(len(types)) / len(types)
    xy = np.column_stack([np.cos(angles), np.sin(angles)])
    agree = images_agree(table).loc[types, types].to_numpy()
    ratios = means.to_numpy()
    strength = np.triu(np.where(agree | agree.T, np.nan_to_num(ratios + ratios.T) / 2, 0), 1)
    width = Normalize(CLEAR, max(strength.max(), 2 * CLEAR))
    for first, second in np.argwhere(strength >= CLEAR):
        line = 0.8 + 4 * width(strength[first, second])
        ax.plot(*xy[[first, second]].T, color="0.35", linewidth=line, alpha=0.7, zorder=1)
    sizes = _own(table).groupby("cell_type", observed=False)["n_cells"].sum().loc[types]
    ax.scatter(
        xy[:, 0], xy[:, 1], s=30 + 400 * sizes / sizes.max(), c=[colors.get(name, GREY) for name in types], zorder=2
    )
    for name, angle, (x, y) in zip(types, np.degrees(angles), xy, strict=True):
        turn, side = (angle + 180, "right") if x < -1e-9 else (angle, "left")
        place = {"ha": side, "va": "center", "rotation": turn, "rotation_mode": "anchor"}
        ax.text(NAME_AT * x, NAME_AT * y, name, fontsize="small", **place)
    half = NETWORK_SIDE / 2
    room = half / np.abs(xy).max(axis=1) - LETTER * np.array([len(name) for name in types])  # inches to each name
    reach = NAME_AT * half / max(room.min(), 0.4 * half)
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    ax.axis("off")
