"""Results kept in a folder: found again if nothing they depend on has changed, whatever happens to the files."""

import pickle

import numpy as np
import pytest

from nextmarker._checkpoint import Checkpoint, digest, progress

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "empty": np.empty((0, 2))}


def test_a_result_is_found_under_its_key_only(tmp_path):
    Checkpoint(tmp_path / "kept", "embed").keep("key", ARRAYS)
    kept = Checkpoint(tmp_path / "kept", "embed")
    found = kept.find("key")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    assert kept.find("other key") is None
    assert Checkpoint(tmp_path / "kept", "train").find("key") is None


@pytest.mark.parametrize("damage", [b"", b"PK", pickle.dumps({"a": 1})])
def test_a_damaged_file_is_no_result(tmp_path, damage):
    kept = Checkpoint(tmp_path, "embed")
    (tmp_path / "embed" / "key.npz").write_bytes(damage)
    assert kept.find("key") is None
    kept.keep("key", ARRAYS)
    assert kept.find("key") is not None


@pytest.mark.parametrize("at", [0.3, 0.6])
def test_a_changed_byte_is_noticed(tmp_path, at):
    kept = Checkpoint(tmp_path, "embed")
    kept.keep("key", {"a": np.arange(1000.0)})
    path = tmp_path / "embed" / "key.npz"
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1
    path.write_bytes(content)
    assert kept.find("key") is None


def test_an_array_of_objects_is_not_loaded(tmp_path):
    kept = Checkpoint(tmp_path, "embed")
    np.savez(tmp_path / "embed" / "key.npz", a=np.array([{}], dtype=object))
    assert kept.find("key") is None


def test_a_write_that_fails_leaves_the_earlier_result(tmp_path, monkeypatch):
    kept = Checkpoint(tmp_path, "embed")
    kept.keep("key", ARRAYS)

    def interrupt(file, **arrays):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupt)
    with pytest.raises(KeyboardInterrupt):
        kept.keep("key", {})
    assert kept.find("key").keys() == ARRAYS.keys()
    assert [path.name for path in (tmp_path / "embed").iterdir()] == ["key.npz"]


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"does not exist.*checkpoint="):
        Checkpoint(tmp_path / "none" / "kept", "embed")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is a file"):
        Checkpoint(tmp_path / "file", "embed")
    with pytest.raises(FileNotFoundError, match="No folder"):
        progress(tmp_path / "none")


def test_progress_counts_images_and_steps(tmp_path):
    assert progress(tmp_path) == {}
    embed = Checkpoint(tmp_path, "embed")
    embed.plan("image", 2, {"one": ["1a", "1b"], "two": ["2"]})
    embed.keep("1a", {})
    assert progress(tmp_path) == {"embed": {"done": 0, "total": 2, "unit": "image"}}
    embed.keep("1b", {})
    train = Checkpoint(tmp_path, "train")
    train.plan("step", 200, {"training": ["key"]})
    assert progress(tmp_path)["train"] == {"done": 0, "total": 200, "unit": "step"}
    train.keep("key", {"loss": np.ones(7)})
    assert list(progress(tmp_path)) == ["train", "embed"]
    assert progress(tmp_path)["train"]["done"] == 7
    assert progress(tmp_path)["embed"]["done"] == 1


def test_a_digest_changes_with_values_types_shapes_and_names():
    base = {"x": np.zeros(4, np.int32), "y": 1.5}
    others = [
        {"x": np.zeros(4, np.float32), "y": 1.5},
        {"x": np.zeros((2, 2), np.int32), "y": 1.5},
        {"x": np.zeros(4, np.int32), "y": 1.25},
        {"x": np.zeros(4, np.int32), "z": 1.5},
        {"x": np.array([0, 0, 0, 1], np.int32), "y": 1.5},
        {"x": None, "y": 1.5},
    ]
    assert digest(**base) == digest(x=np.zeros(8, np.int32)[::2], y=1.5)
    assert len({digest(**parts) for parts in [base, *others]}) == len(others) + 1
