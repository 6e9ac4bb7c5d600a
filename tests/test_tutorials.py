"""The tutorials as they are committed: clean, and in the form that all of them have."""

import ast
import json
import re
from pathlib import Path

import pytest

import nextmarker as nm

FOLDER = Path(__file__).parents[1] / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
KEPT = {"7_breast_tissue"}  # run by hand on data that the documentation cannot download, with their outputs
LAST = "## What can go wrong, and how you would notice"
MOST = 3_000_000  # bytes


def read(path):
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return [(cell["cell_type"], "".join(cell["source"]), cell) for cell in cells]


def names(code):
    """Every nm.part.name in the code."""
    tree = ast.parse("\n".join(line for line in code.splitlines() if not line.startswith("%")))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.fullmatch(r"nm(\.\w+)+", ast.unparse(node)):
            yield ast.unparse(node)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_clean_and_name_what_exists(path):
    cells = read(path)
    assert cells[0][1].startswith("# ")
    assert any(kind == "markdown" and LAST in source for kind, source, _ in cells[-2:])
    for kind, source, cell in cells:
        if kind == "code":
            for name in names(source):
                target = nm
                for part in name.split(".")[1:]:
                    target = getattr(target, part)
            if path.stem not in KEPT:
                assert cell["outputs"] == []
                assert cell["execution_count"] is None, "jupyter nbconvert --clear-output --inplace tutorials/*.ipynb"
    assert path.stat().st_size < MOST


def test_all_notebooks_are_listed():
    listed = (FOLDER / "index.md").read_text("utf-8")
    assert [path.stem for path in NOTEBOOKS if f"({path.name})" not in listed] == []
