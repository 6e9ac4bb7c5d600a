"""An image in napari: every channel, the cells and the masks, each a layer."""

from __future__ import annotations

import os
import sys
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import is_color_like, to_hex, to_rgba

from nextmarker import _keys
from nextmarker._channels import describe
from nextmarker._coordinates import scales, to_pixels
from nextmarker._errors import check_each_once, check_value, listed, no_such
from nextmarker._objects import check_integers, image_of, read_label_image
from nextmarker._palette import CHANNEL_COLORS
from nextmarker._provenance import check_clusters
from nextmarker._regions import Region, as_list, choose_images, empty_region, read_regions
from nextmarker._table import get_table, require
from nextmarker.pl._colors import GREY
from nextmarker.pl._dots import COLOR_MAP, NONE, ORANGE, as_drawn, choose_colors
from nextmarker.pl._pixels import check_channels

if TYPE_CHECKING:
    from anndata import AnnData
    from napari.components import ViewerModel
    from napari.layers import Layer
    from spatialdata import SpatialData

MOST_CATEGORIES = 100
"""Most layers of cells: the list of layers is their legend."""
INTERNAL = (_keys.REGION, _keys.INSTANCE, _keys.IMAGE, _keys.EMBEDDED)
"""Columns that say nothing about a cell."""


def napari(
    sdata: SpatialData,
    image: str | None = None,
    *,
    channels: str | Sequence[str] | Mapping[str, str] | None = None,
    color: str | None = None,
    layer: str | None = None,
    table_key: str = _keys.TABLE,
    viewer: ViewerModel | None = None,
) -> ViewerModel:
    """Open an image in napari, with its cells and masks.

    Every channel is a layer, so any of them can be shown together. Pixels are read when they are looked at, and at the
    scale that the screen needs, if the store has several. Cells are points at their centres. If they are coloured by a
    column of categories, each category is a layer, so that the list of layers is the legend, and its eyes show and hide
    them. Point at a cell, and napari writes its columns and markers below the image. Masks are outlines, hidden at
    first. Coordinates and the scale bar are in micrometres if the pixel size is known, otherwise in pixels.

    It needs napari: ``pip install "napari[pyqt6]>=0.9"``. In a script, end with ``napari.run()``, so that the window
    stays open.

    Parameters
    ----------
    sdata
        Images; cells and a table are shown if there are any.
    image
        Name of the image; not needed if there is only one.
    channels
        Channel that is visible at first, in grey, or several, in magenta, cyan, yellow, blue, orange and white. Choose
        other colours with a dict, such as `{"DNA1": "blue", "CD3": "red"}`. By default the first three.
    color
        Column of `.obs` or marker to colour the cells by. Categories, text and True/False have scanpy's colours in
        `.uns[f"{color}_colors"]` if they exist; numbers have those of viridis. Cells without a value are grey.
    layer
        Layer of the table from which to take the values of the markers, such as `"interpretability"`; by default `.X`.
    table_key
        Name of the table.
    viewer
        Viewer to add the layers to; by default a new window.

    Returns
    -------
    The viewer. The layers of channels have their names, those of categories are called ``"<category> (<color>)"``, and
    all cells together ``"cells"``. Their `features` have the name of each cell in the table as `"cell"`, its columns
    and its markers.

    Warns
    -----
    UserWarning
        If `color` is a clustering of an earlier embedding, or combines clusterings of tables that were joined.

    Raises
    ------
    ImportError
        If napari or Qt is not installed.
    KeyError
        If the table, image, channel, column, marker or layer does not exist.
    RuntimeError
        If there is no screen.
    ValueError
        If no image is named and there are several, colours of channels are invalid, or `color` has too many categories.

    Examples
    --------
    >>> import nextmarker as nm
    >>> from napari.components import ViewerModel
    >>> sdata = nm.datasets.synthetic_tissue(n_images=2, n_cells=100)
    >>> nm.pp.detect_cells(sdata, nuclear_channels=["DNA1", "DNA2"], diameter=8, progress=False)
    >>> window = ViewerModel()  # leave it out to open a window on your screen
    >>> viewer = nm.pl.napari(sdata, "tissue_1", channels=["DNA1", "CD3"], color="CD3", viewer=window)
    >>> [layer.name for layer in viewer.layers if layer.visible]
    ['CD3', 'DNA1', 'CD3, 0.102 to 10.4']
    """
    _check_installed(window=viewer is None)
    name = _choose_image(sdata, image)
    asked = color is not None or layer is not None or table_key != _keys.TABLE
    adata = get_table(sdata, table_key) if asked or table_key in sdata.tables else None
    regions = [] if adata is None else read_regions(sdata, table_key)
    region = next((region for region in regions if region.image == name), empty_region(sdata, name))
    layers = [*_channel_layers(sdata, region, channels), *_mask_layers(sdata, region)]
    if adata is not None:
        layers += _cell_layers(region, adata, color, layer)
        if color in adata.obs:
            check_clusters(adata, str(color))
    viewer = _open(name) if viewer is None else viewer
    for each in layers:
        viewer.add_layer(each)
    viewer.canvas.overlays.scale_bar.visible = True
    return viewer


def _check_installed(*, window: bool) -> None:
    """Refuse to go on without napari or, for a window, without Qt or a screen, where Qt would end Python."""
    try:
        import napari.components.canvas

        if window:
            import napari.qt  # noqa: F401
    except ImportError as error:
        msg = 'This needs napari 0.9 or newer, and Qt for its window. Install them: pip install "napari[pyqt6]>=0.9".'
        raise ImportError(msg) from error
    screens = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if window and sys.platform == "linux" and not any(map(os.environ.get, screens)):
        msg = "There is no screen to open napari on: DISPLAY is not set. Save sdata and open it on your own computer."
        raise RuntimeError(msg)


def _choose_image(sdata: SpatialData, image: str | None) -> str:
    names = choose_images(sdata, image)
    if len(names) > 1:
        msg = f"napari opens one image; there is {listed(names)}. Name it: nm.pl.napari(sdata, {names[0]!r})."
        raise ValueError(msg)
    return names[0]


def _open(title: str) -> ViewerModel:
    from napari import Viewer

    return Viewer(title=title)


def _channel_layers(
    sdata: SpatialData, region: Region, channels: str | Sequence[str] | Mapping[str, str] | None
) -> list[Layer]:
    """One layer for each channel, the last below; each in its colour, of which napari shows the sum."""
    from napari.layers import Image

    described = describe(region.pixels["c"].to_numpy().tolist(), region.pixels)
    shown = {channel["label"]: f"#{channel['color']}" for channel in described if channel["active"]}
    if channels is not None:
        shown = _choose_colors(region, channels)
    levels = [level.transpose("c", "y", "x").data for level in scales(sdata.images[region.image])]
    layers = []
    for place, channel in enumerate(described):
        name, window = channel["label"], channel["window"]
        layer = Image(
            _pyramid([level[place] for level in levels]),
            name=name,
            colormap=shown.get(name, f"#{channel['color']}"),
            contrast_limits=(window["start"], window["end"]),
            blending="additive",
            visible=name in shown,
            **_placed(region),
        )
        layer.contrast_limits_range = (window["min"], window["max"])
        layers.append(layer)
    return layers[::-1]


def _choose_colors(region: Region, channels: str | Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Colours of the channels that are visible at first: grey if there is only one."""
    names = as_list(channels)
    check_each_once("channels", names)
    check_channels([region], names, "channels")
    if not isinstance(channels, Mapping):
        colors = ("white",) if len(names) == 1 else CHANNEL_COLORS
        return {name: to_hex(colors[place % len(colors)]) for place, name in enumerate(names)}
    for name, color in channels.items():
        check_value(f"channels[{name!r}]", color, is_color_like(color), "a colour, such as 'red'")
    return {name: to_hex(color) for name, color in channels.items()}


def _mask_layers(sdata: SpatialData, region: Region) -> list[Layer]:
    """The masks of an image as outlines, where they lie in it; they may have other pixels."""
    from napari.layers import Labels

    layers = []
    for name in sdata.labels:
        if not _belongs(sdata, name, region.image):
            continue
        check_integers(name, read_label_image(sdata, name))
        levels = [level.transpose("y", "x").data for level in scales(sdata.labels[name])]
        size = region.pixel_size or 1.0
        affine = to_pixels(sdata, name, region.image)[[1, 0, 2]][:, [1, 0, 2]]  # napari counts rows first
        affine[:2, 2] *= size
        layer = Labels(_pyramid(levels), name=name, visible=False, affine=affine, **_placed(region))
        layer.contour = 1
        layers.append(layer)
    return layers


def _belongs(sdata: SpatialData, labels: str, image: str) -> bool:
    try:
        return image_of(sdata, labels, list(sdata.images), "") == image
    except ValueError:  # it is not clear to which image
        return False


def _cell_layers(region: Region, adata: AnnData, color: str | None, layer: str | None) -> list[Layer]:
    """The cells at their centres, in one layer for each category, the first on top."""
    from napari.layers import Points

    if layer is not None:
        require(adata, "layers", layer, "nm.tl.embed(sdata), or choose another: layer=...")
    if color is not None and color not in adata.obs and color not in adata.var_names:
        fix = "Cluster the cells, nm.tl.cluster(adata), or choose another: color=..."
        raise KeyError(no_such("column or marker", color, "the table", [*adata.obs, *adata.var_names], fix))
    features = _read_features(region, adata, color, layer)
    distances = region.neighbour_distances()
    style: dict[str, Any] = {
        "size": max(float(np.median(distances)) / 2, 1.0) if len(distances) else 5.0,
        "border_color": "white",
        "border_width": 0.1,
        **_placed(region, corner=0),
    }
    return [
        Points(region.centres[rows][:, ::-1], name=name, face_color=face, features=features[rows], **style)
        for name, rows, face in _groups(region, adata, features, color)
        if rows.any()
    ][::-1]


def _read_features(region: Region, adata: AnnData, color: str | None, layer: str | None) -> pd.DataFrame:
    """What is known about each cell, beginning with its colour, since napari writes them in a line."""
    obs = adata.obs.iloc[region.rows].drop(columns=list(INTERNAL), errors="ignore")
    parts = [pd.DataFrame({"cell": obs.index}), obs]
    if layer is not None or adata.X is not None:
        parts.append(adata[region.rows].to_df(layer))
    features = pd.concat([part.reset_index(drop=True) for part in parts], axis=1)
    features = features.loc[:, ~features.columns.duplicated()]
    first = [name for name in (color, _keys.CELL_TYPE, _keys.CLUSTERS) if name in features]
    return features[list(dict.fromkeys([*first, *features]))]


def _groups(
    region: Region, adata: AnnData, features: pd.DataFrame, color: str | None
) -> list[tuple[str, np.ndarray, Any]]:
    """Name, cells, bool (cells,), and colour of each layer."""
    everywhere = np.ones(len(features), dtype=bool)
    if color is None:
        return [("cells", everywhere, ORANGE)]
    values = as_drawn(adata.obs[color]).iloc[region.rows] if color in adata.obs else as_drawn(features[color])
    colors = choose_colors(adata, values)
    if isinstance(colors, Mapping):
        return _by_category(values, colors)
    if colors is None:
        return [(f"{NONE} ({color})", everywhere, to_hex(GREY))]
    faces = np.where(values.notna().to_numpy()[:, None], colormaps[COLOR_MAP](colors(values.to_numpy())), to_rgba(GREY))
    return [(f"{color}, {values.min():.3g} to {values.max():.3g}", everywhere, faces)]


def _by_category(values: pd.Series, colors: Mapping[Hashable, str]) -> list[tuple[str, np.ndarray, Any]]:
    number = values.nunique()
    check_value("color", values.name, number <= MOST_CATEGORIES, f"a column of at most {MOST_CATEGORIES} categories")
    codes = values.cat.codes.to_numpy()
    shades = [*enumerate(colors.items()), (-1, (NONE, GREY))]
    return [(f"{category} ({values.name})", codes == code, to_hex(shade)) for code, (category, shade) in shades]


def _pyramid(levels: list[Any]) -> Any:
    return levels if len(levels) > 1 else levels[0]


def _placed(region: Region, corner: float = 0.5) -> dict[str, Any]:
    """Where napari draws something: in micrometres if known, from the upper left corner of the image.

    Parameters
    ----------
    corner
        Distance in pixels from this corner to where its coordinates begin. Pixels begin at the centre of the first.
    """
    size = region.pixel_size or 1.0
    unit = "pixel" if region.pixel_size is None else "um"
    return {"scale": (size, size), "translate": (corner * size, corner * size), "units": (unit, unit)}
