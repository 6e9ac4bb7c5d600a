"""The rules that keep the parts of the package apart, and what every public name owes its users."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Collection, Iterable
from functools import cache
from importlib import import_module
from itertools import chain
from pathlib import Path

import pytest

import nextmarker

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "nextmarker"
FILES = sorted(SOURCE.rglob("*.py"))
PARTS = ["datasets", "get", "io", "metrics", "nn", "pl", "pp", "tl"]
HEAVY = {"torch", "scanpy", "squidpy", "matplotlib", "spatialdata", "anndata", "skimage", "sklearn", "dask", "pandas"}

# distributions whose modules have another name
MODULES = {"pyyaml": "yaml", "scikit-image": "skimage", "scikit-learn": "sklearn"}


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULE_FILES = {module_name(path): path for path in FILES}

# the report shows all figures, and the tables of `get`
REPORT = {name for name in MODULE_FILES if name.startswith(("nextmarker.pl._report", "nextmarker.pl.html"))}
IMAGES_OF_CELLS = {f"nextmarker.get.{name}" for name in ("_cells", "_views", "_cell_attribution")}


class ImportCollector(ast.NodeVisitor):
    """Collects what a file imports, also inside functions, but not what only type checkers see."""

    def __init__(self, path: Path) -> None:
        name = module_name(path)
        self.package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        self.names: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test).removeprefix("typing.") != "TYPE_CHECKING":
            self.generic_visit(node)
        else:
            for statement in node.orelse:
                self.visit(statement)

    def visit_Import(self, node: ast.Import) -> None:
        self.names.update(alias.name for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        parents = self.package.split(".")
        prefix = parents[: len(parents) - node.level + 1] if node.level else []
        origin = ".".join([*prefix, *([node.module] if node.module else [])])
        submodules = [f"{origin}.{alias.name}" for alias in node.names if f"{origin}.{alias.name}" in MODULE_FILES]
        self.names.update(submodules)
        if origin != "nextmarker":  # the package itself loads nothing
            self.names.add(origin)


@cache
def imports(module: str) -> frozenset[str]:
    """Full names of the modules that one of our modules imports."""
    collector = ImportCollector(MODULE_FILES[module])
    collector.visit(ast.parse(MODULE_FILES[module].read_text()))
    return frozenset(collector.names - {"nextmarker"})


@cache
def reachable(module: str) -> frozenset[str]:
    """Full names of everything that one of our modules imports, directly or through others of ours."""
    seen: set[str] = set()
    ahead = {module}
    while ahead:
        found = set().union(*(imports(name) for name in ahead))
        ahead = {name for name in found - seen if name in MODULE_FILES}
        seen |= found
    return frozenset(seen)


def libraries(modules: frozenset[str]) -> set[str]:
    top = {name.partition(".")[0] for name in modules}
    return top - set(sys.stdlib_module_names) - {"nextmarker"}


def within(modules: frozenset[str], *parts: str) -> set[str]:
    """The modules that belong to some parts of the package."""
    return {name for name in modules if any(f"{name}.".startswith(f"nextmarker.{part}.") for part in parts)}


def modules_of(*parts: str) -> list[str]:
    return sorted(within(frozenset(MODULE_FILES), *parts))


def test_the_collector_sees_lazy_imports_but_not_those_for_types() -> None:
    path = SOURCE / "pp" / "made_up.py"
    collector = ImportCollector(path)
    code = """
from typing import TYPE_CHECKING
from .. import _keys
from nextmarker import _regions
if TYPE_CHECKING:
    import torch
def later():
    import scanpy.tools
"""
    collector.visit(ast.parse(code))
    assert collector.names == {"typing", "nextmarker._keys", "nextmarker._regions", "scanpy.tools"}


def faults(modules: Iterable[str], fault: Callable[[str], Collection[str]]) -> dict[str, Collection[str]]:
    """The modules that break a rule, each with what it should not import."""
    return {module: found for module in modules if (found := fault(module))}


def verbs(part: str) -> set[str]:
    """The files of a part whose functions are public: those that its `__init__` imports."""
    return within(imports(f"nextmarker.{part}"), part) - {f"nextmarker.{part}"}


def test_keys_files_and_progress_import_nothing_of_ours() -> None:
    for module, allowed in (("_keys", set()), ("_files", set()), ("_progress", {"tqdm"})):
        assert not imports(f"nextmarker.{module}") & MODULE_FILES.keys()
        assert libraries(imports(f"nextmarker.{module}")) == allowed


def test_nn_knows_tensors_only() -> None:
    known = {"torch", "numpy", "scipy", "numba", "safetensors", "tqdm"}
    assert not faults(modules_of("nn"), lambda module: libraries(reachable(module)) - known)
    allowed = {*modules_of("nn"), "nextmarker._files", "nextmarker._progress"}
    assert not faults(modules_of("nn"), lambda module: reachable(module) & MODULE_FILES.keys() - allowed)


def test_only_tools_views_and_network_need_torch() -> None:
    others = MODULE_FILES.keys() - {*modules_of("nn", "tl", "cli"), "nextmarker.get", *IMAGES_OF_CELLS}
    assert not faults(others - {"nextmarker.__main__"}, lambda module: libraries(reachable(module)) & {"torch"})


def test_tools_never_draw() -> None:
    assert not faults(modules_of("tl", "get"), lambda module: libraries(reachable(module)) & {"matplotlib"})
    assert not faults(modules_of("tl", "get"), lambda module: within(reachable(module), "pl"))


def test_figures_never_compute() -> None:
    others = set(modules_of("pl")) - REPORT
    assert not faults(modules_of("pl"), lambda module: within(reachable(module), "tl", "nn"))
    assert not faults(others - {"nextmarker.pl"}, lambda module: within(reachable(module), "get"))


def test_metrics_only_read() -> None:
    assert not faults(modules_of("metrics"), lambda module: libraries(reachable(module)) & {"torch", "matplotlib"})
    assert not faults(modules_of("metrics"), lambda module: within(reachable(module), "tl", "pl", "nn", "get"))


def test_verbs_do_not_import_verbs_and_helpers_only_helpers() -> None:
    allowed = {"nextmarker.tl._embed": {"nextmarker.tl._train"}}  # which trains when it is given no model
    allowed |= dict.fromkeys(REPORT, verbs("pl"))
    for part in ("cli", "datasets", "get", "metrics", "pl", "pp", "tl"):
        assert verbs(part)
        files = set(modules_of(part)) - {f"nextmarker.{part}"}
        assert not faults(files, lambda module, part=part: imports(module) & verbs(part) - allowed.get(module, set()))


def test_private_files_beside_the_parts_serve_more_than_one() -> None:
    users = {name: [user for user in MODULE_FILES if name in imports(user)] for name in MODULE_FILES}
    private = [name for name in MODULE_FILES if re.fullmatch(r"nextmarker\._[a-z]\w*", name)]
    parts = {name: {user.split(".")[1] for user in users[name]} for name in private}
    assert not {name: used_by for name, used_by in parts.items() if len(used_by) < 2}


def test_only_tools_and_views_join_tiles_and_network() -> None:
    others = MODULE_FILES.keys() - {*modules_of("tl"), *IMAGES_OF_CELLS}
    assert not [module for module in others if within(imports(module), "_tiles") and within(imports(module), "nn")]


@pytest.mark.parametrize(
    ("library", "file"), [("squidpy", "nextmarker.tl._space"), ("napari", "nextmarker.pl._napari")]
)
def test_one_file_imports_squidpy_or_napari_and_only_when_it_is_used(library: str, file: str) -> None:
    assert [module for module in MODULE_FILES if library in libraries(imports(module))] == [file]
    at_the_top = [ast.unparse(node) for node in ast.parse(MODULE_FILES[file].read_text()).body]
    assert not [line for line in at_the_top if line.startswith((f"import {library}", f"from {library}"))]


def test_libraries_are_declared_if_and_only_if_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    names = [re.match(r"[\w-]+", requirement)[0] for requirement in requirements]
    imported = set().union(*(libraries(imports(module)) for module in MODULE_FILES))
    assert {MODULES.get(name, name) for name in names} == imported


def test_import_is_light() -> None:
    code = "import sys, nextmarker; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "nextmarker" in loaded
    assert HEAVY.isdisjoint(loaded)


def test_parts_load_when_asked_for() -> None:
    assert dir(nextmarker) == sorted([*PARTS, "__version__"])
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = nextmarker.nonsense


def is_ours(value: object) -> bool:
    """Whether a value is a function or class of this package."""
    return (inspect.isfunction(value) or inspect.isclass(value)) and value.__module__.startswith("nextmarker.")


def public_objects() -> dict[str, object]:
    """Functions and classes by the name under which users call them, such as `tl.embed`."""
    modules = {part: import_module(f"nextmarker.{part}") for part in PARTS}
    return {
        f"{part}.{name}": value
        for part, module in modules.items()
        for name, value in vars(module).items()
        if is_ours(value) and not name.startswith("_")
    }


PUBLIC = public_objects()


def test_all_agrees_with_the_public_names() -> None:
    modules = {part: import_module(f"nextmarker.{part}") for part in PARTS}
    listed = [
        f"{part}.{name}" for part, module in modules.items() for name in module.__all__ if is_ours(vars(module)[name])
    ]
    assert sorted(listed) == sorted(PUBLIC)


def test_public_names_are_documented() -> None:
    documentation = {name: inspect.getdoc(value) or "" for name, value in PUBLIC.items()}
    assert not [name for name, text in documentation.items() if "Examples\n--------\n>>> " not in text]
    asking = [n for n, value in PUBLIC.items() if inspect.isfunction(value) and inspect.signature(value).parameters]
    assert not [name for name in asking if "Parameters\n----------" not in documentation[name]]


def test_api_page_lists_exactly_the_public_names() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    listed = re.findall(rf"^\s+((?:{'|'.join(PARTS)})\.\w+)$", page, re.MULTILINE)
    assert sorted(listed) == sorted(PUBLIC)


def test_every_figure_is_in_the_gallery() -> None:
    figures = ast.parse((ROOT / "docs" / "figures.py").read_text()).body
    drawn = {node.name for node in figures if isinstance(node, ast.FunctionDef)}
    sections = re.findall(r"^\(gallery-(\w+)\)=$", (ROOT / "docs" / "gallery.md").read_text(), re.MULTILINE)
    returned = {
        name: str(inspect.signature(value).return_annotation) for name, value in PUBLIC.items() if "pl." in name
    }
    functions = {name.removeprefix("pl.") for name, kind in returned.items() if "Axes" in kind or "ndarray" in kind}
    assert functions <= drawn
    assert sorted(sections) == sorted(functions)


def test_links_of_the_readme_lead_to_files() -> None:
    targets = re.findall(r"\]\(([^)#:]+)[^):]*\)", (ROOT / "README.md").read_text())
    assert "docs/installation.md" in targets
    assert not [target for target in targets if not (ROOT / target).is_file()]
