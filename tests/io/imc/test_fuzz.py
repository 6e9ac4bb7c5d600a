"""Valid files of imaging mass cytometry and panels, mutated and cut short: an error of ours or a correct read."""

import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nextmarker as nm

SHAPE = (3, 5, 7)
PANEL = b"channel,name,keep\nAg107,silver,1\nPr141,CK,1\nIr191,DNA,0\n"


@pytest.fixture(scope="module")
def files(imc, tmp_path_factory):
    folder = tmp_path_factory.mktemp("valid")
    imc.write_mcd(folder / "core.mcd", imc.Acquisition(1, imc.counts()))
    imc.write_txt(folder / "core.txt", imc.counts())
    return {name: (folder / name).read_bytes() for name in ("core.mcd", "core.txt")} | {"panel.csv": PANEL}


def mutated(data, content):
    """Change, insert and remove some bytes."""
    content = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        end = at + data.draw(st.integers(0, 20))
        content[at:end] = data.draw(st.binary(max_size=5) | st.text("\t\n,<09", max_size=2).map(str.encode))
        content = content or bytearray(b"x")
    return bytes(content)


def read(files, name, content):
    """The pixels and the notes of a file, or None after an error of ours, which names the file."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, name)
        Path(folder, "core.mcd").write_bytes(files["core.mcd"])
        path.write_bytes(content)
        try:
            sdata = nm.io.read(Path(folder, "core.mcd"), panel=path) if name == "panel.csv" else nm.io.read(path)
            [image] = sdata.images.values()
            return image.to_numpy(), "".join(nm.io.report(sdata)["note"])
        except ValueError as error:
            if name not in str(error) and "panel" not in str(error):
                raise
            return None


@pytest.mark.parametrize("name", ["core.mcd", "core.txt", "panel.csv"])
@given(data=st.data())
def test_damage_is_an_error_of_ours_or_the_pixels_are_right(files, imc, name, data):
    """What is read of a file cut short is right, what is missing is told, and no memory is taken for it."""
    whole = files[name]
    is_cut = name != "panel.csv" and data.draw(st.booleans())
    content = whole[: data.draw(st.integers(0, len(whole) - 1))] if is_cut else mutated(data, whole)
    found = read(files, name, content)
    if found is None:
        return
    pixels, notes = found
    height, width = pixels.shape[1:]
    assert name != "core.mcd" or pixels.size <= len(whole)
    assert not is_cut or (height, width) != SHAPE[1:] or notes
    if is_cut and width == SHAPE[2]:  # whole rows; the last may be incomplete, and zero where it is
        np.testing.assert_array_equal(pixels[:, :-1], imc.counts()[:, : height - 1])
        assert ((pixels[:, -1] == imc.counts()[:, height - 1]) | (pixels[:, -1] == 0)).all()
