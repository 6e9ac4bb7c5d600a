"""Model files: tensors, and JSON that describes them. Nothing in a file is ever executed.

A model file is a safetensors file with one entry in its header, ``nextmarker``: the number of the format, the
architecture, and a digest of both. The number increases when a field or tensor is added, removed, renamed or changes
its meaning. Older formats are converted by a function each (`MIGRATIONS`); otherwise all fields must be present.
"""

from __future__ import annotations

import json
from dataclasses import is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from nextmarker._files import check_file_path, replaced_files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

Added: TypeAlias = dict[str, list[Any]]
"""Tensors that an older format lacks."""

FORMAT = 7
KEY = "nextmarker"
LARGEST_NUMBER = 2**16
RENAMED = {"focus": "pool_sigma", "faint": "log_threshold"}
"""Fields of the network that had other names up to format 4."""


def _from_3(architecture: dict[str, Any]) -> tuple[dict[str, Any], Added]:
    """Format 3 subtracted no background, and `faint` was the threshold of all markers."""
    network = architecture["network"]
    threshold = [network["faint"] or 1.0] * len(architecture["markers"])
    present, added = _from_4({**architecture, "network": {**network, "zero": False}})
    return present, {**added, "threshold": threshold}


def _from_4(architecture: dict[str, Any]) -> tuple[dict[str, Any], Added]:
    """Format 4 had other names for two fields of the network."""
    network = {RENAMED.get(name, name): value for name, value in architecture["network"].items()}
    return _from_5({**architecture, "network": network})


def _from_5(architecture: dict[str, Any]) -> tuple[dict[str, Any], Added]:
    """Up to format 5, all features were averaged with the same weights."""
    network = {**architecture["network"]}
    sigma = network.pop("pool_sigma")
    return _from_6({**architecture, "network": {**network, "pool_sigmas": [] if sigma is None else [sigma]}})


def _from_6(architecture: dict[str, Any]) -> tuple[dict[str, Any], Added]:
    """Up to format 6, the activation was the mean of the features."""
    features = architecture["network"]["features"]
    return architecture, {"activation_weights": [[1 / features] * features] * len(architecture["markers"])}


MIGRATIONS = {3: _from_3, 4: _from_4, 5: _from_5, 6: _from_6}
"""For each older format, a function that converts its architecture to the present one and adds missing tensors."""


def encode(
    architecture: Mapping[str, Any], tensors: Mapping[str, Tensor], digest: str = "", number: int = FORMAT
) -> bytes:
    """Return the bytes of a model file of the format `number`. The same model gives the same bytes."""
    content = {"format": number, "digest": digest, "architecture": architecture}
    ours = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(ours, metadata={KEY: json.dumps(content)})


def digest_of(architecture: Mapping[str, Any], tensors: Mapping[str, Tensor], number: int = FORMAT) -> str:
    """Hash of architecture and weights in a format, 16 hexadecimal digits."""
    return sha256(encode(architecture, tensors, number=number)).hexdigest()[:16]


def write_file(path: Path, content: bytes) -> None:
    """Write a file, which appears when it is complete.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    IsADirectoryError
        If `path` is a folder.
    OSError
        If the folder is not writable, or the disk is full.
    """
    check_file_path(path)
    with replaced_files(path.parent) as drafts:
        (drafts / path.name).write_bytes(content)


def read_file(path: Path, kind: type, expect: Callable[[Any], Mapping[str, Tensor]]) -> tuple[Any, dict[str, Tensor]]:
    """Read the architecture, as an instance of the dataclass `kind`, and the tensors of a model.

    Parameters
    ----------
    expect
        Returns the tensors that an architecture has; they may be on the device "meta".

    Raises
    ------
    ValueError
        If the file is not a safetensors file or not a model; if its tensors have other names, shapes or types than
        expected, which is checked before loading; if a value is infinite or NaN, or the content does not match the
        digest.
    """
    _refuse_pickle(path)
    try:
        with safe_open(path, "pt") as file:
            written = _read_header(file.metadata() or {})
            migrated, added = _migrate(written)
            architecture = _read_value(kind, migrated)
            expected = {name: tensor for name, tensor in expect(architecture).items() if name not in added}
            _check_shapes(file, expected)
            tensors = {name: file.get_tensor(name).clone() for name in expected}
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    check_finite(tensors)
    if digest_of(written["architecture"], tensors, written["format"]) != written["digest"]:
        msg = "its content does not match its digest"
        raise ValueError(msg)
    return architecture, tensors | {name: torch.tensor(values) for name, values in added.items()}


def _refuse_pickle(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(9)
    if (
        start.startswith((b"PK\x03\x04", b"\x80")) and start[8:] != b"{"
    ):  # these bytes can also be the length of a header
        msg = "it is a pickle of torch.save, which could execute code when loaded"
        raise ValueError(msg)


def _read_header(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Read format, digest and architecture, unchanged."""
    if set(metadata) != {KEY}:
        msg = f"its header has the entries {sorted(metadata)} instead of {KEY!r}"
        raise ValueError(msg)
    try:
        content = json.loads(metadata[KEY])
    except RecursionError as error:
        msg = "its header is nested too deeply"
        raise ValueError(msg) from error
    number = content.get("format") if isinstance(content, dict) else None
    if number not in (*MIGRATIONS, FORMAT):
        newer = isinstance(number, int) and number > FORMAT
        remedy = "update nextmarker" if newer else "train it again, or load it with the version that wrote it"
        msg = f"its format is {number}, and this version reads {min(MIGRATIONS)} to {FORMAT}: {remedy}"
        raise ValueError(msg)
    if set(content) != {"format", "digest", "architecture"}:
        msg = f"its header has the fields {sorted(content)}"
        raise ValueError(msg)
    return content


def _migrate(written: Mapping[str, Any]) -> tuple[Any, Added]:
    """Convert the architecture of a file to the present format, and add the tensors that its format lacks."""
    number, architecture = written["format"], written["architecture"]
    if number == FORMAT:
        return architecture, {}
    try:
        return MIGRATIONS[number](architecture)
    except (AttributeError, KeyError, TypeError) as error:
        msg = f"its architecture is not one of format {number}"
        raise ValueError(msg) from error


def _read_value(kind: Any, value: Any) -> Any:
    """Convert JSON to the type that a field declares, or raise an error."""
    if is_dataclass(kind):
        fields = get_type_hints(kind)
        if not isinstance(value, dict) or set(value) != set(fields):
            found = sorted(value) if isinstance(value, dict) else value
            msg = f"its architecture has the fields {found} instead of {sorted(fields)}"
            raise ValueError(msg)
        return kind(**{name: _read_value(fields[name], value[name]) for name in fields})  # type: ignore[operator]
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_read_value(get_args(kind)[0], entry) for entry in value)
    if not _fits(kind, value):
        msg = f"its architecture has the value {value!r}, which is not {kind}"
        raise ValueError(msg)
    return value


def _fits(kind: Any, value: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    allowed = get_args(kind) or (kind,)
    if isinstance(value, (int, float)) and not abs(value) <= LARGEST_NUMBER:  # NaN too
        return False
    return type(value) in allowed or (type(value) is int and float in allowed)


def _check_shapes(file: Any, expected: Mapping[str, Tensor]) -> None:
    """Raise an error unless the tensors are those expected, without loading any."""
    names = set(file.keys())
    if names != set(expected):
        msg = f"it has the tensors {sorted(names)} instead of {sorted(expected)}"
        raise ValueError(msg)
    for name, tensor in expected.items():
        shape, dtype = file.get_slice(name).get_shape(), file.get_slice(name).get_dtype()
        if shape != list(tensor.shape) or dtype != "F32":
            msg = f"{name} has the shape {shape} and the type {dtype} instead of {list(tensor.shape)} and F32"
            raise ValueError(msg)


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise an error if weights are infinite or NaN.

    Raises
    ------
    ValueError
        If there are any.
    """
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        msg = f"the weights {broken} are not finite"
        raise ValueError(msg)
