"""The model: raw patches to interpretability (I) and embedding (F), with all it must know to be applied again."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nextmarker.nn.encoder import Encoder
from nextmarker.nn.model_file import check_finite, digest_of, encode, read_file, write_file
from nextmarker.nn.normalization import Axis, Normalization

if TYPE_CHECKING:
    import numpy as np

HALVE_ABOVE = 12
"""Patches larger than this many pixels are halved in resolution."""

MIN_PATCH_SIZE = 3
"""Pixels; a smaller patch shows no surroundings of the centre."""

MAX_PATCH_SIZE = 1024
"""Pixels; a larger one is a mistake of units."""

PIXEL_SIZES = (0.01, 100.0)
"""Micrometres; a pixel below or above is a mistake of units."""

MAX_BLOCKS = 64


def is_whole(value: object, least: int) -> bool:
    """Whether a value is a whole number, and not below the least."""
    return isinstance(value, Integral) and int(value) >= least


def check_fields(training: object, **rules: tuple[bool, str]) -> None:
    """Refuse the first field that breaks its rule, given as whether it holds and in words."""
    for name, (holds, rule) in rules.items():
        if not holds:
            msg = f"{name}={getattr(training, name)!r} must be {rule}."
            raise ValueError(msg)


@dataclass(frozen=True)
class NetworkConfig:
    """Axis of the sigmoids, widths, depth, pooling and scale of a model.

    Examples
    --------
    >>> NetworkConfig(axis="linear", pool_sigma=None, log_threshold=None, zero=False)  # as in the paper
    NetworkConfig(axis='linear', features=8, embedding=256, blocks=1, pool_sigma=None, log_threshold=None, zero=False)
    """

    axis: Axis = "log"
    """Axis of the counts on which the sigmoids stand (paper: `"linear"`)."""

    features: int = 8
    """Features per marker (paper: 8)."""
    embedding: int = 256
    """Length of F (paper: 256)."""
    blocks: int = 1
    """Residual blocks of the encoder."""
    pool_sigma: float | None = 0.15
    """Width (sigma) of the Gaussian weight of the average, as a share of the patch; None: no weight (paper)."""
    log_threshold: float | None = 0.2
    """Share of a marker's bright signal at which the scale of I turns from linear to logarithmic; None: linear
    throughout (paper)."""
    zero: bool = True
    """Subtract what empty places of the same image respond (paper: nothing is subtracted)."""

    def __post_init__(self) -> None:
        check_fields(
            self,
            axis=(self.axis in get_args(Axis), f"one of {list(get_args(Axis))}"),
            features=(is_whole(self.features, 1), "a whole number, at least 1"),
            embedding=(is_whole(self.embedding, 1), "a whole number, at least 1"),
            blocks=(is_whole(self.blocks, 0) and self.blocks <= MAX_BLOCKS, f"a whole number from 0 to {MAX_BLOCKS}"),
            pool_sigma=(self.pool_sigma is None or self.pool_sigma > 0, "positive, or None"),
            log_threshold=(self.log_threshold is None or self.log_threshold > 0, "positive, or None"),
        )


@dataclass(frozen=True)
class ModelConfig:
    """What a model is made of, and for which images.

    Examples
    --------
    >>> ModelConfig(markers=("CD3", "CD20"), patch_size=10).network.features
    8
    """

    markers: tuple[str, ...]
    """Names of the markers, in the order of the channels."""
    patch_size: int
    """Side of a patch in pixels."""
    pixel_size: float | None = None
    """Micrometres per pixel of a patch; None where the images did not say. Other images are resampled to it."""
    network: NetworkConfig = NetworkConfig()
    """Axis of the sigmoids, widths, depth, pooling and scale."""

    def __post_init__(self) -> None:
        check_fields(
            self,
            markers=(bool(self.markers) and len(set(self.markers)) == len(self.markers), "one name or more, each once"),
            patch_size=(
                is_whole(self.patch_size, MIN_PATCH_SIZE) and self.patch_size <= MAX_PATCH_SIZE,
                f"from {MIN_PATCH_SIZE} to {MAX_PATCH_SIZE} whole pixels",
            ),
            pixel_size=(
                self.pixel_size is None or PIXEL_SIZES[0] <= self.pixel_size <= PIXEL_SIZES[1],
                f"from {PIXEL_SIZES[0]:g} to {PIXEL_SIZES[1]:g} micrometres, or None",
            ),
        )


class NeXtMarker(nn.Module):
    """Per-marker sigmoid, grouped convolutions, one linear layer across the markers (Fig. 1B).

    Between the two, what empty places of the same image respond is subtracted from the response of a cell, and what is
    left is put on a scale that is linear for faint signal and logarithmic for bright signal. What counts as faint is
    known for each marker (`threshold`), for all images alike.

    Parameters
    ----------
    config
        Markers, patch size, widths.
    start
        Starting centres of the sigmoids in raw counts, (markers,); see `start_centres`. NaN, for a marker
        without signal, starts at 1 count.

    Examples
    --------
    >>> import torch
    >>> model = NeXtMarker(ModelConfig(markers=("CD3", "CD20"), patch_size=10), start=[2.0, 300.0])
    >>> interpretability, embedding = model(torch.ones(7, 2, 10, 10))
    >>> interpretability.shape, embedding.shape
    (torch.Size([7, 2, 8]), torch.Size([7, 256]))
    """

    threshold: Tensor

    def __init__(self, config: ModelConfig, start: np.ndarray | list[float]) -> None:
        super().__init__()
        markers = len(config.markers)
        self.config = config
        network = config.network
        self.normalization = Normalization(torch.as_tensor(start).nan_to_num(nan=1.0), network.axis)
        halve = config.patch_size > HALVE_ABOVE
        self.encoder = Encoder(markers, network.features, network.blocks, halve=halve, pool_sigma=network.pool_sigma)
        self.crosstalk = nn.Linear(markers * network.features, network.embedding)
        self.register_buffer("threshold", torch.full((markers,), network.log_threshold or 1.0))

    def respond(self, counts: Tensor) -> Tensor:
        """Compute the response of every marker to patches of raw counts, (cells, markers, height, width).

        Returns
        -------
        (cells, markers, features), not negative, on a linear scale.
        """
        features = self.encoder(self.normalization.signal(counts))
        return features.reshape(-1, len(self.config.markers), self.config.network.features)

    def interpret(self, response: Tensor, zero: Tensor | None = None) -> Tensor:
        """Compute I of responses, (cells, markers, features).

        Parameters
        ----------
        zero
            What empty places of the image respond, (markers, features), or of every cell apart; None for nothing.

        Returns
        -------
        (cells, markers, features), not negative: 0 without signal above the zero, near 1 where a marker is bright.
        """
        signal = response if zero is None else F.relu(response - zero)
        log_threshold = self.config.network.log_threshold
        if log_threshold is None:
            return signal
        return torch.log1p(signal / self.threshold[:, None]) / math.log1p(1 / log_threshold)

    def forward(self, counts: Tensor, zero: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Embed patches of raw counts, (cells, markers, height, width).

        Returns
        -------
        I, (cells, markers, features), and F, (cells, embedding).
        """
        interpretability = self.interpret(self.respond(counts), zero)
        return interpretability, self.crosstalk(interpretability.flatten(1))

    def crosstalk_by_marker(self) -> Tensor:
        """Split the crosstalk, F = sum over markers of W_m I_m + b, into its W_m, (markers, embedding, features)."""
        network = self.config.network
        shape = (network.embedding, len(self.config.markers), network.features)
        return self.crosstalk.weight.detach().reshape(shape).transpose(0, 1)

    def digest(self) -> str:
        """Fingerprint of config and weights, 16 hexadecimal digits."""
        return digest_of(asdict(self.config), self.state_dict())

    def save(self, path: str | Path) -> None:
        """Write the model as one safetensors file: the tensors, and the config as JSON in its header.

        Parameters
        ----------
        path
            The file to write, `*.safetensors` by custom. It appears when it is complete, and replaces an old one, or a
            link.

        Raises
        ------
        FileNotFoundError
            If there is no folder to write into.
        IsADirectoryError
            If `path` is a folder.
        OSError
            If the folder cannot be written, or the disk is full; an old file stays.
        ValueError
            If a weight is not finite.

        Examples
        --------
        >>> import tempfile
        >>> model = NeXtMarker(ModelConfig(markers=("CD3", "CD20"), patch_size=10), start=[2.0, 300.0])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(f"{folder}/model.safetensors")
        ...     load_model(f"{folder}/model.safetensors").digest() == model.digest()
        True
        """
        tensors = self.state_dict()
        try:
            check_finite(tensors)
        except ValueError as error:
            msg = f"The model is not saved: {error}. Train it again, with a lower learning rate."
            raise ValueError(msg) from error
        write_file(Path(path), encode(asdict(self.config), tensors, self.digest()))


def load_model(path: str | Path) -> NeXtMarker:
    """Read a model written by `NeXtMarker.save`. Nothing in the file is executed.

    Parameters
    ----------
    path
        The safetensors file.

    Returns
    -------
    The model, ready to embed.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If `path` is neither a string nor a Path.
    ValueError
        If the file is not a model of nextmarker, is one of a format before 3 or of a later version, or is damaged. A
        pickle, as torch.save writes, is refused unopened.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     NeXtMarker(ModelConfig(markers=("CD3",), patch_size=10), start=[2.0]).save(f"{folder}/model.safetensors")
    ...     load_model(f"{folder}/model.safetensors").config.markers
    ('CD3',)
    """
    if not isinstance(path, str | Path):
        msg = f"A model is read from a path, not from {type(path).__name__}. Models come from nm.tl.train(sdata)."
        raise TypeError(msg)
    path = Path(path)
    if not path.is_file():
        msg = f"No model at {path}. Write one with nm.tl.train(sdata).save({str(path)!r})."
        raise FileNotFoundError(msg)
    try:
        return _load(path)
    except ValueError as error:
        msg = f"{path} is not a model of nextmarker, or is damaged: {error}. Models are written by model.save(path)."
        raise ValueError(msg) from error


def _load(path: Path) -> NeXtMarker:
    config, tensors = read_file(path, ModelConfig, _expected_tensors)
    model = NeXtMarker(config, [1.0] * len(config.markers))
    model.load_state_dict(tensors)
    normalization = torch.stack([model.normalization.centre, model.normalization.slope])
    for name, scale in (("normalization", normalization), ("threshold", model.threshold)):
        if not (torch.isfinite(scale) & (scale > 0)).all():
            msg = f"its {name} is not positive and finite"
            raise ValueError(msg)
    return model.eval()


def _expected_tensors(config: ModelConfig) -> dict[str, Tensor]:
    """Tensors of an config, which have shapes and take no memory."""
    with torch.device("meta"):
        return NeXtMarker(config, [1.0] * len(config.markers)).state_dict()
