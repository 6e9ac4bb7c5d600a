"""The file of a model: damaged, foreign and hostile files are refused, and nothing in them is executed."""

import errno
import json
import math
import pickle
import struct
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from nextmarker.nn import ModelConfig, NetworkConfig, NeXtMarker, load_model
from nextmarker.nn.model_file import FORMAT

REFUSED = "is not a model of nextmarker, or is damaged: "


def make_model():
    torch.manual_seed(0)
    config = ModelConfig(("CD3", "HLA-DR/DP"), 10, 0.5, NetworkConfig(features=2, embedding=3))
    return NeXtMarker(config, [2.0, 500.0]).eval()


@pytest.fixture
def path(tmp_path):
    make_model().save(tmp_path / "model.safetensors", overwrite=True)
    return tmp_path / "model.safetensors"


def header(path):
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    return json.loads(path.read_bytes()[8 : 8 + length])


def content(path):
    return json.loads(header(path)["__metadata__"]["nextmarker"])


def rewrite(path, change=None, tensors=None, **entries):
    """Write the file again with another header or other tensors, and a right digest where one can be had."""
    changed = content(path)
    if change is not None:
        change(changed)
    metadata = {"nextmarker": json.dumps(changed), **entries}
    save_file(load_file(path) if tensors is None else tensors, path, metadata)


def test_only_tensors_and_one_json_are_in_the_file(path):
    written = content(path)
    assert set(header(path)["__metadata__"]) == {"nextmarker"}
    assert set(written) == {"format", "digest", "architecture"}
    assert written["architecture"]["markers"] == ["CD3", "HLA-DR/DP"]
    assert load_model(path).digest() == make_model().digest() == written["digest"]


def test_the_format_is_numbered(path):
    """When this fails, what the file holds has changed: raise the number, write a migration, then adapt this."""
    assert FORMAT == 7
    assert {field.name for field in fields(ModelConfig)} == {"markers", "patch_size", "pixel_size", "network"}
    of_network = "axis features embedding blocks pool_sigmas log_threshold zero"
    assert {field.name for field in fields(NetworkConfig)} == set(of_network.split())
    names = "normalization.start normalization.log_centre normalization.log_slope encoder.stem.weight"
    names += " encoder.blocks.0.spatial.weight encoder.blocks.0.expand.weight encoder.blocks.0.project.weight"
    assert set(load_file(path)) == {
        *names.split(),
        "crosstalk.weight",
        "crosstalk.bias",
        "threshold",
        "activation_weights",
    }


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (FORMAT + 1, f"its format is {FORMAT + 1}, and this version reads 3 to {FORMAT}: update nextmarker"),
        (2, f"its format is 2, and this version reads 3 to {FORMAT}: train it again"),
        ("1", f"its format is 1, and this version reads 3 to {FORMAT}: train it again"),
        (None, "its format is None, and this version reads"),
        (True, "its format is True, and this version reads"),
        ("newest", "its format is newest, and this version reads"),
    ],
)
def test_a_format_that_is_not_read_is_refused(path, number, reason):
    rewrite(path, lambda written: written.update(format=number, future="field"))
    with pytest.raises(ValueError, match=f"{REFUSED}.*({reason})"):
        load_model(path)


class Exploit:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


@pytest.mark.parametrize("kind", ["torch", "torch, old", "pickle"])
def test_a_pickle_is_refused_by_name_and_not_executed(path, kind, monkeypatch):
    monkeypatch.chdir(path.parent)
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Exploit()))
    else:
        torch.save({"weights": Exploit()}, path, _use_new_zipfile_serialization=kind == "torch")
    with pytest.raises(ValueError, match="it is a pickle"):
        load_model(path)
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: b"", "[Hh]eader"),
        (lambda data: b"not a model", "[Hh]eader"),
        (lambda data: data[:-100], "[Ii]nvalid|[Ii]ncomplete"),
        (lambda data: data[:20], "[Hh]eader"),
        (lambda data: data + b"more", "[Ii]nvalid|[Ii]ncomplete"),
        (lambda data: struct.pack("<Q", 10**15) + data[8:], "[Hh]eader"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "its content does not match its digest"),
    ],
)
def test_a_damaged_file_is_refused(path, damage, reason):
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{REFUSED}.*({reason})"):
        load_model(path)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("markers", "CD3"),
        ("markers", 10**9),
        ("markers", []),
        ("markers", ["CD3", "CD3"]),
        ("markers", ["CD3", 4]),
        ("patch_size", 10**9),
        ("patch_size", "10"),
        ("patch_size", 10.0),
        ("patch_size", True),
        ("pixel_size", -1),
        ("pixel_size", 0.009),
        ("pixel_size", 1e-6),
        ("pixel_size", 101),
        ("pixel_size", float("nan")),
        ("pixel_size", float("inf")),
        ("pixel_size", 10**400),
        ("network", None),
        ("network.axis", "cubic"),
        ("network.axis", None),
        ("network.axis", ["log"]),
        ("network.features", 10**9),
        ("network.embedding", 10**9),
        ("network.embedding", 60_000),
        ("network.blocks", 10**9),
        ("network.blocks", 60_000),
        ("network.pool_sigmas", "wide"),
        ("network.pool_sigmas", ["wide"]),
        ("network.zero", None),
        ("network.zero", 1),
        ("network.new", 1),
        ("new", 1),
    ],
)
def test_an_impossible_architecture_is_refused_before_memory_is_taken(path, entry, value, monkeypatch):
    def put(written):
        *parents, name = entry.split(".")
        target = written["architecture"]
        for parent in parents:
            target = target[parent]
        target[name] = value

    rewrite(path, put)
    monkeypatch.setattr(NeXtMarker, "load_state_dict", lambda *_: pytest.fail("the model was built"))
    with pytest.raises(ValueError, match=REFUSED):
        load_model(path)


def test_a_missing_field_is_not_guessed(path):
    rewrite(path, lambda written: written["architecture"]["network"].pop("log_threshold"))
    with pytest.raises(
        ValueError,
        match=r"has the fields \['axis', 'blocks', 'embedding', 'features', 'pool_sigmas', 'zero'\] instead of",
    ):
        load_model(path)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "null", "{", f'{{"format": {FORMAT}}}'])
def test_a_header_that_is_not_ours_is_refused(path, text):
    save_file(load_file(path), path, {"nextmarker": text})
    with pytest.raises(ValueError, match=REFUSED):
        load_model(path)


def test_other_entries_in_the_header_are_refused(path):
    rewrite(path, code="import os")
    with pytest.raises(ValueError, match=r"the entries \['code', 'nextmarker'\] instead of 'nextmarker'"):
        load_model(path)
    save_file(load_file(path), path)
    with pytest.raises(ValueError, match=r"the entries \[\] instead of"):
        load_model(path)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("crosstalk.bias", None, "it has the tensors"),
        ("extra", torch.zeros(1), "it has the tensors"),
        (
            "crosstalk.bias",
            torch.zeros(4),
            r"crosstalk.bias has the shape \[4\] and the type F32 instead of \[3\] and F32",
        ),
        ("crosstalk.bias", torch.zeros(3, dtype=torch.float64), "the type F64 instead of"),
        ("crosstalk.bias", torch.zeros(3, dtype=torch.int32), "the type I32 instead of"),
        ("crosstalk.bias", torch.tensor([0, float("nan"), 0]), r"the weights \['crosstalk.bias'\] are not finite"),
        ("encoder.stem.weight", torch.full((4, 1, 3, 3), float("inf")), "are not finite"),
    ],
)
def test_other_tensors_are_refused(path, name, value, reason):
    tensors = load_file(path)
    tensors[name] = value
    rewrite(path, tensors={key: tensor for key, tensor in tensors.items() if tensor is not None})
    with pytest.raises(ValueError, match=f"{REFUSED}.*({reason})"):
        load_model(path)


@pytest.mark.parametrize(("name", "value"), [("start", -1.0), ("start", 0.0), ("log_slope", 1000.0)])
def test_a_normalization_that_cannot_work_is_refused(path, name, value):
    model = make_model()
    with torch.no_grad():
        getattr(model.normalization, name).fill_(value)
    model.save(path, overwrite=True)
    with pytest.raises(ValueError, match="its normalization"):
        load_model(path)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_threshold_that_cannot_work_is_refused(path, value):
    model = make_model()
    model.threshold[1] = value
    model.save(path, overwrite=True)
    with pytest.raises(ValueError, match="its threshold"):
        load_model(path)


def test_negative_weights_of_the_activation_are_refused(path):
    model = make_model()
    model.activation_weights[1, 0] = -1
    model.save(path, overwrite=True)
    with pytest.raises(ValueError, match="some of its activation_weights are negative"):
        load_model(path)


OLD_SHAPES = {
    "normalization.start": (2,),
    "normalization.log_centre": (2,),
    "normalization.log_slope": (2,),
    "encoder.stem.weight": (4, 1, 3, 3),
    "encoder.blocks.0.spatial.weight": (4, 1, 3, 3),
    "encoder.blocks.0.expand.weight": (8, 2, 1, 1),
    "encoder.blocks.0.project.weight": (4, 4, 1, 1),
    "crosstalk.weight": (3, 4),
    "crosstalk.bias": (3,),
}
# format, faint: the digest, I and F of two patches, as the last version that wrote this format gave them
OLD_MODELS = {
    (3, 0.01): (
        "d9a9ed6291221d54",
        [[[0.81056416, 0.90740114], [0.77150619, 0.62270147]], [[0.80976546, 0.90991455], [0.76864409, 0.59595233]]],
        [[-0.09720939, 0.45540991, -0.14330587], [-0.10639051, 0.45242968, -0.13584048]],
    ),
    (3, None): (
        "6f8e5e716930148a",
        [[[0.41133833, 0.64875418], [0.34184092, 0.16704911]], [[0.40978825, 0.65644002], [0.33722398, 0.14648761]]],
        [[-0.18991481, 0.27508888, -0.01919967], [-0.19550821, 0.27120650, -0.01184719]],
    ),
    (4, 0.2): (
        "3c579b54a1ee1002",
        [[[0.54293263, 0.71412963], [0.29076609, 0.16087851]], [[0.54162300, 0.71888214], [0.28769681, 0.14340426]]],
        [[-0.20967729, 0.26701969, -0.02598708], [-0.21481979, 0.26421061, -0.02018484]],
    ),
    (5, 0.2): (
        "f335626ead17e853",
        [[[0.54293263, 0.71412963], [0.29076609, 0.16087851]], [[0.54162300, 0.71888214], [0.28769681, 0.14340426]]],
        [[-0.20967729, 0.26701969, -0.02598708], [-0.21481979, 0.26421061, -0.02018484]],
    ),
}


def write_old(path, number, faint, change=None, **tensors):
    """Write the bytes of an old format for a model with weights known exactly, changed after the digest was taken."""
    sigma, threshold = ("focus", "faint") if number < 5 else ("pool_sigma", "log_threshold")
    network = {"axis": "log", "features": 2, "embedding": 3, "blocks": 1, sigma: 0.15, threshold: faint}
    weights = {
        name: ((7 * torch.arange(math.prod(shape)) % 11 - 4) / 16).reshape(shape) for name, shape in OLD_SHAPES.items()
    }
    weights["normalization.start"] = torch.tensor([2.0, 500.0])
    if number > 3:
        network["zero"] = True
        weights["threshold"] = torch.tensor([0.25, 0.5])
    architecture = {"markers": ["CD3", "HLA-DR/DP"], "patch_size": 10, "pixel_size": 0.5, "network": network}
    written = {"format": number, "digest": OLD_MODELS[number, faint][0], "architecture": architecture}
    if change is not None:
        change(written)
    path.write_bytes(save({**weights, **tensors}, {"nextmarker": json.dumps(written)}))


@torch.inference_mode()
@pytest.mark.parametrize(("number", "faint"), OLD_MODELS)
def test_a_model_of_an_old_format_embeds_as_it_did(path, number, faint):
    write_old(path, number, faint)
    model = load_model(path)
    network = NetworkConfig(features=2, embedding=3, pool_sigmas=(0.15,), log_threshold=faint, zero=number > 3)
    assert model.config == ModelConfig(("CD3", "HLA-DR/DP"), 10, 0.5, network)
    counts = (torch.arange(400) % 37).reshape(2, 2, 10, 10) * torch.tensor([1.0, 100.0])[:, None, None]
    assert (model.activation_weights == 1 / 2).all()
    for now, before in zip(model(counts), OLD_MODELS[number, faint][1:], strict=True):
        torch.testing.assert_close(now, torch.tensor(before), rtol=1e-5, atol=1e-6)
    model.save(path, overwrite=True)
    assert content(path)["format"] == FORMAT
    assert load_model(path).digest() == model.digest()


@pytest.mark.parametrize(("number", "faint"), [(3, 0.01), (4, 0.2)])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda written: written["architecture"]["network"].update(faint=0.02),
            "its content does not match its digest",
        ),
        (lambda written: written["architecture"].update(pixel_size=0.25), "its content does not match its digest"),
        (lambda written: written.update(digest=""), "its content does not match its digest"),
        (lambda written: written["architecture"].update(network=None), "its architecture is not one of format"),
        (lambda written: written.update(architecture=[]), "its architecture is not one of format"),
        (
            lambda written: written["architecture"]["network"].update(faint="low"),
            "its architecture has the value 'low'",
        ),
        (
            lambda written: written["architecture"]["network"].pop("focus"),
            "its architecture is not one of format",
        ),
        (lambda written: written.update(format=FORMAT), "its architecture has the fields"),
    ],
)
def test_a_damaged_header_of_an_old_format_is_refused(path, number, faint, change, reason):
    write_old(path, number, faint, change)
    with pytest.raises(ValueError, match=f"{REFUSED}{reason}"):
        load_model(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda written: written["architecture"]["network"].pop("faint"),
        lambda written: written["architecture"].update(markers=10**9),
    ],
)
def test_a_threshold_that_cannot_be_taken_from_format_3_is_refused(path, change):
    write_old(path, 3, 0.01, change)
    with pytest.raises(ValueError, match=f"{REFUSED}its architecture is not one of format 3"):
        load_model(path)


@pytest.mark.parametrize(("number", "faint"), [(3, 0.01), (4, 0.2)])
def test_damaged_tensors_of_an_old_format_are_refused(path, number, faint):
    write_old(path, number, faint, **{"crosstalk.bias": torch.zeros(3)})
    with pytest.raises(ValueError, match="does not match its digest"):
        load_model(path)
    write_old(path, number, faint, more=torch.ones(2))
    with pytest.raises(ValueError, match="it has the tensors"):
        load_model(path)


def test_format_3_has_no_threshold(path):
    write_old(path, 3, 0.01, threshold=torch.ones(2))
    with pytest.raises(ValueError, match="it has the tensors"):
        load_model(path)


def test_a_threshold_of_format_3_that_cannot_work_is_refused(path):
    def negative(written):
        written["architecture"]["network"]["faint"] = -0.01

    write_old(path, 3, 0.01, negative)
    with pytest.raises(ValueError, match=r"log_threshold=-0.01 must be positive"):
        load_model(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.none() | st.integers(0, 4000),
)
@example(edits=[(0, 128)], cut=None)
def test_changed_bytes_give_an_error_of_ours_or_the_same_model(path, edits, cut):
    make_model().save(path, overwrite=True)
    data = bytearray(path.read_bytes())
    for position, value in edits:
        data[position % len(data)] = value
    path.write_bytes(data[:cut])
    refusal = None
    try:
        model = load_model(path)
    except ValueError as error:
        refusal = str(error)
    assert REFUSED in refusal if refusal else model.digest() == make_model().digest()


def test_a_model_that_diverged_is_not_saved(path):
    before = path.read_bytes()
    model = make_model()
    with torch.no_grad():
        model.crosstalk.bias[0] = float("nan")
    with pytest.raises(ValueError, match=r"not saved: the weights \['crosstalk.bias'\] are not finite"):
        model.save(path, overwrite=True)
    assert path.read_bytes() == before


def test_a_save_that_stops_half_way_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()

    def stop(draft, content):
        draft.open("wb").write(content[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", stop)
    with pytest.raises(KeyboardInterrupt):
        make_model().save(path, overwrite=True)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_place_that_cannot_hold_the_file_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        make_model().save(tmp_path / "missing" / "model.safetensors", overwrite=True)
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        make_model().save(tmp_path, overwrite=True)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("size", [1e-6, 0.0099, 100.1, 500, -1, float("nan")])
def test_a_pixel_size_in_another_unit_is_refused(size):
    with pytest.raises(ValueError, match="must be from 0.01 to 100 micrometres, or None"):
        ModelConfig(("CD3",), 10, size)


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_what_others_put_beside_a_model_is_neither_followed_nor_removed(tmp_path, kind):
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "a.txt").write_text("dear")
    draft = tmp_path / ".model.safetensors.unfinished"
    draft.symlink_to(tmp_path / "victim" / "a.txt") if kind == "link" else draft.mkdir()
    before = sorted(tmp_path.rglob("*"))
    make_model().save(tmp_path / "model.safetensors", overwrite=True)
    assert (tmp_path / "victim" / "a.txt").read_text() == "dear"
    (tmp_path / "model.safetensors").unlink()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_in_the_place_of_a_model_is_replaced(tmp_path):
    (tmp_path / "a.txt").write_text("dear")
    (tmp_path / "model.safetensors").symlink_to("a.txt")
    make_model().save(tmp_path / "model.safetensors", overwrite=True)
    assert (tmp_path / "a.txt").read_text() == "dear"
    assert load_model(tmp_path / "model.safetensors").digest() == make_model().digest()


def test_a_model_has_the_mode_of_an_ordinary_file(path):
    (path.parent / "ordinary").touch()
    assert path.stat().st_mode == (path.parent / "ordinary").stat().st_mode


def test_a_full_disk_leaves_the_old_model(path, monkeypatch):
    def fill(draft, _):
        draft.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr(Path, "write_bytes", fill)
    with pytest.raises(OSError, match=r"the disk of .* is full, and nothing was written") as told:
        make_model().save(path, overwrite=True)
    assert told.value.errno == errno.ENOSPC
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_an_existing_file_is_replaced_only_if_asked_to(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="exists already.*overwrite=True"):
        make_model().save(path)
    assert path.read_bytes() == b"mine"
    make_model().save(path, overwrite=True)
    assert load_model(path).digest() == make_model().digest()
