"""The model, which maps raw patches to interpretability (I) and embedding (F), and its configuration."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from numbers import Integral
from pathlib import Path
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nextmarker._files import check_file_path
from nextmarker.nn.encoder import Encoder
from nextmarker.nn.model_file import check_finite, digest_of, encode, read_file, write_file
from nextmarker.nn.normalization import Axis, Normalization

HALVE_ABOVE = 12
"""Patches wider than this many pixels are halved in resolution."""

MIN_PATCH_SIZE = 3
"""Pixels. A smaller patch shows nothing around the centre."""

MAX_PATCH_SIZE = 1024
"""Pixels. A larger patch suggests a wrong unit."""

PIXEL_SIZES = (0.01, 100.0)
"""Micrometres. A pixel outside this range suggests a wrong unit."""

MAX_BLOCKS = 64


def is_integer(value: object, minimum: int) -> bool:
    """Whether a value is an integer of at least `minimum`."""
    return isinstance(value, Integral) and int(value) >= minimum


def check_fields(config: object, **rules: tuple[bool, str]) -> None:
    """Raise an error for the first invalid field, given whether each is valid, and the rule in words."""
    for name, (valid, rule) in rules.items():
        if not valid:
            msg = f"{name}={getattr(config, name)!r} must be {rule}."
            raise ValueError(msg)


@dataclass(frozen=True)
class NetworkConfig:
    """Architecture of the network: normalization, features, depth, pooling and scale.

    Examples
    --------
    >>> NetworkConfig(axis="linear", pool_sigmas=(), log_threshold=None, zero=False)  # as in the paper
    NetworkConfig(axis='linear', features=8, embedding=256, blocks=1, pool_sigmas=(), log_threshold=None, zero=False)
    """

    axis: Axis = "log"
    """Axis of the counts on which the sigmoids are defined (paper: `"linear"`)."""

    features: int = 8
    """Features per marker (paper: 8)."""
    embedding: int = 256
    """Length of F (paper: 256)."""
    blocks: int = 1
    """Residual blocks of the encoder."""
    pool_sigmas: tuple[float, ...] = (0.1, 0.15, 0.15, 0.2)
    """Standard deviations of the Gaussian weights in the average over the patch, as fractions of its width. The
    features of a marker are divided among them, so together they tell how far from the centre its signal lies. Empty
    gives a plain average (paper)."""
    log_threshold: float | None = 0.2
    """Signal above which features are log-compressed, as a fraction of the marker's bright signal. None keeps them
    linear (paper)."""
    zero: bool = True
    """Subtract the response to empty places of the same image (paper: False)."""

    def __post_init__(self) -> None:
        check_fields(
            self,
            axis=(self.axis in get_args(Axis), f"one of {list(get_args(Axis))}"),
            features=(is_integer(self.features, 1), "an integer, at least 1"),
            embedding=(is_integer(self.embedding, 1), "an integer, at least 1"),
            blocks=(is_integer(self.blocks, 0) and self.blocks <= MAX_BLOCKS, f"an integer from 0 to {MAX_BLOCKS}"),
            pool_sigmas=(all(sigma > 0 for sigma in self.pool_sigmas), "positive fractions"),
            log_threshold=(self.log_threshold is None or self.log_threshold > 0, "positive, or None"),
        )


@dataclass(frozen=True)
class ModelConfig:
    """What a model is made of, and the images it can be applied to.

    Examples
    --------
    >>> ModelConfig(markers=("CD3", "CD20"), patch_size=10).network.features
    8
    """

    markers: tuple[str, ...]
    """Names of the markers, in the order of the channels."""
    patch_size: int
    """Width of a patch in pixels."""
    pixel_size: float | None = None
    """Micrometres per pixel of a patch, to which images are resampled; None if unknown."""
    network: NetworkConfig = NetworkConfig()
    """Architecture of the network."""

    def __post_init__(self) -> None:
        check_fields(
            self,
            markers=(bool(self.markers) and len(set(self.markers)) == len(self.markers), "one or more different names"),
            patch_size=(
                is_integer(self.patch_size, MIN_PATCH_SIZE) and self.patch_size <= MAX_PATCH_SIZE,
                f"an integer from {MIN_PATCH_SIZE} to {MAX_PATCH_SIZE} (pixels)",
            ),
            pixel_size=(
                self.pixel_size is None or PIXEL_SIZES[0] <= self.pixel_size <= PIXEL_SIZES[1],
                f"from {PIXEL_SIZES[0]:g} to {PIXEL_SIZES[1]:g} micrometres, or None",
            ),
        )


class NeXtMarker(nn.Module):
    """The network: a sigmoid per marker, convolutions grouped by marker, and one linear layer across markers (Fig. 1B).

    Before the linear layer, the response to empty places of the same image is subtracted from the response to a cell.
    The rest is put on a scale that is linear up to a threshold and logarithmic above. Each marker has one threshold
    (`threshold`) for all images. The activation of a marker is a weighted sum of its features (`activation_weights`).

    Parameters
    ----------
    config
        Markers, patch size and network.
    start
        Initial centres of the sigmoids in raw counts, (markers,); see `start_centres`. A marker without signal, NaN,
        starts at 1 count.

    Examples
    --------
    >>> import torch
    >>> model = NeXtMarker(ModelConfig(markers=("CD3", "CD20"), patch_size=10), start=[2.0, 300.0])
    >>> interpretability, embedding = model(torch.ones(7, 2, 10, 10))
    >>> interpretability.shape, embedding.shape
    (torch.Size([7, 2, 8]), torch.Size([7, 256]))
    """

    threshold: Tensor
    activation_weights: Tensor

    def __init__(self, config: ModelConfig, start: np.ndarray | list[float]) -> None:
        super().__init__()
        markers = len(config.markers)
        self.config = config
        network = config.network
        self.normalization = Normalization(torch.as_tensor(start).nan_to_num(nan=1.0), network.axis)
        halve = config.patch_size > HALVE_ABOVE
        self.encoder = Encoder(markers, network.features, network.blocks, halve=halve, pool_sigmas=network.pool_sigmas)
        self.crosstalk = nn.Linear(markers * network.features, network.embedding)
        self.register_buffer("threshold", torch.full((markers,), network.log_threshold or 1.0))
        self.register_buffer("activation_weights", torch.full((markers, network.features), 1 / network.features))

    def respond(self, counts: Tensor) -> Tensor:
        """Compute the response to patches of raw counts, (cells, markers, height, width), marker by marker.

        Returns
        -------
        (cells, markers, features), never negative, on a linear scale.
        """
        features = self.encoder(self.normalization.signal(counts.contiguous()))
        return features.reshape(-1, len(self.config.markers), self.config.network.features)

    def locate(self, counts: Tensor) -> Tensor:
        """Compute from which positions of the patches the response comes, (cells, markers, features, height, width).

        The sum over all positions is the response. The resolution of large patches is halved.
        """
        parts = self.encoder.locate(self.normalization.signal(counts))
        return parts.unflatten(1, (len(self.config.markers), self.config.network.features))

    def interpret(self, response: Tensor, zero: Tensor | None = None) -> Tensor:
        """Compute I of responses, (cells, markers, features).

        Parameters
        ----------
        zero
            Response to empty places, (markers, features), or (cells, markers, features) if it differs between cells.
            None subtracts nothing.

        Returns
        -------
        (cells, markers, features): 0 without signal above the zero, near 1 if a marker is bright.
        """
        signal = response if zero is None else F.relu(response - zero)
        log_threshold = self.config.network.log_threshold
        return signal if log_threshold is None else log_scale(signal, self.threshold, log_threshold)

    def activation(self, interpretability: np.ndarray) -> np.ndarray:
        """Compute the activation, (cells, markers), from I, (cells, markers, features)."""
        return np.einsum("nmf,mf->nm", interpretability, self.activation_weights.cpu().numpy())

    def forward(self, counts: Tensor, zero: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Embed patches of raw counts, (cells, markers, height, width).

        Returns
        -------
        I, (cells, markers, features), and F, (cells, embedding).
        """
        interpretability = self.interpret(self.respond(counts), zero)
        return interpretability, self.crosstalk(interpretability.flatten(1))

    def crosstalk_by_marker(self) -> Tensor:
        """Return the weights W_m of F = sum over markers of W_m I_m + b, (markers, embedding, features)."""
        network = self.config.network
        shape = (network.embedding, len(self.config.markers), network.features)
        return self.crosstalk.weight.detach().reshape(shape).transpose(0, 1)

    def digest(self) -> str:
        """Hash of configuration and weights, 16 hexadecimal digits."""
        return digest_of(asdict(self.config), self.state_dict())

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the model as one safetensors file: the tensors, with the configuration as JSON in the header.

        Parameters
        ----------
        path
            The file to write, usually `*.safetensors`. It appears when it is complete.
        overwrite
            Replace an existing file or link.

        Raises
        ------
        FileExistsError
            If `path` exists and `overwrite` is not set.
        FileNotFoundError
            If the folder does not exist.
        IsADirectoryError
            If `path` is a folder.
        OSError
            If the folder is not writable, or the disk is full; an existing file is kept.
        ValueError
            If a weight is infinite or NaN.

        Examples
        --------
        >>> import tempfile
        >>> model = NeXtMarker(ModelConfig(markers=("CD3", "CD20"), patch_size=10), start=[2.0, 300.0])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(f"{folder}/model.safetensors")
        ...     load_model(f"{folder}/model.safetensors").digest() == model.digest()
        True
        """
        check_file_path(Path(path))
        if os.path.lexists(path) and not overwrite:
            msg = f"{str(path)!r} exists already: choose another path, or replace it with overwrite=True."
            raise FileExistsError(msg)
        tensors = self.state_dict()
        try:
            check_finite(tensors)
        except ValueError as error:
            msg = f"The model is not saved: {error}. Train it again, with a lower learning rate."
            raise ValueError(msg) from error
        write_file(Path(path), encode(asdict(self.config), tensors, self.digest()))


def log_scale(signal: Tensor, threshold: Tensor, log_threshold: float) -> Tensor:
    """Put signal, (cells, markers, features), on a scale that is linear up to a threshold and logarithmic above.

    A signal of 1 / `log_threshold` thresholds, (markers,), becomes 1.
    """
    return torch.log1p(signal / threshold[:, None]) / math.log1p(1 / log_threshold)


def load_model(path: str | Path) -> NeXtMarker:
    """Load a model written by `NeXtMarker.save`. Nothing in the file is executed.

    Parameters
    ----------
    path
        The safetensors file.

    Returns
    -------
    The model, in evaluation mode.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    TypeError
        If `path` is neither a string nor a `Path`.
    ValueError
        If the file is not a nextmarker model, is damaged, or has a format before 3 or of a later version. A pickle, as
        written by `torch.save`, is not opened.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     NeXtMarker(ModelConfig(markers=("CD3",), patch_size=10), start=[2.0]).save(f"{folder}/model.safetensors")
    ...     load_model(f"{folder}/model.safetensors").config.markers
    ('CD3',)
    """
    if not isinstance(path, str | Path):
        msg = f"path is of type {type(path).__name__}. Give the path of a model, from nm.tl.train(sdata).save(path)."
        raise TypeError(msg)
    path = Path(path)
    if not path.is_file():
        msg = f"No model at {path}. Write one with nm.tl.train(sdata).save({str(path)!r})."
        raise FileNotFoundError(msg)
    try:
        return _load(path)
    except ValueError as error:
        msg = f"{path} is not a model of nextmarker, or is damaged: {error}. Save it again: model.save(path)."
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
    if (model.activation_weights < 0).any():
        msg = "some of its activation_weights are negative"
        raise ValueError(msg)
    return model.eval()


def _expected_tensors(config: ModelConfig) -> dict[str, Tensor]:
    """Tensors of a configuration, with shapes but without memory."""
    with torch.device("meta"):
        return NeXtMarker(config, [1.0] * len(config.markers)).state_dict()
