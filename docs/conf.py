"""How the documentation is built."""

import os
import re
import shutil
import sys
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.ext.napoleon import NumpyDocstring
from sphinx.transforms import SphinxTransform

import nextmarker

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))  # for figures.py
FIGURES = DOCS / "generated" / "figures"

project = "nextmarker"
author = "The nextmarker developers"
copyright = f"2026, {author}"
release = version = nextmarker.__version__

extensions = [
    "myst_nb",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_codeautolink",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]

html_theme = "sphinx_book_theme"
html_title = "nextmarker"
html_static_path = ["_static"]
html_css_files = ["tutorials.css"]
html_theme_options = {"repository_url": "https://github.com/nextmarker/nextmarker", "use_repository_button": True}

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_excludepatterns = ["tutorials/7_*"]  # run by hand, with data that are not part of the repository

# Sphinx reads only what is in its folder, and links between notebooks do not work through a symbolic link.
shutil.rmtree(DOCS / "tutorials", ignore_errors=True)
(DOCS / "tutorials").mkdir()
for source in DOCS.parent.joinpath("tutorials").glob("*.*"):
    if source.suffix in {".ipynb", ".md"}:
        shutil.copy2(source, DOCS / "tutorials")

# Names in blocks of code link to their pages.
codeautolink_global_preface = "import nextmarker as nm"
codeautolink_concat_default = True
suppress_warnings = ["codeautolink.match_block"]  # Sphinx hides "# doctest: +SKIP", so such an example has other text

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = False

# Names of other projects can be checked only where their indices can be fetched.
nitpicky = True
if "READTHEDOCS" in os.environ:
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "matplotlib": ("https://matplotlib.org/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/docs/", None),
        "python": ("https://docs.python.org/3", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
        "spatialdata": ("https://spatialdata.scverse.org/en/stable/", None),
        "squidpy": ("https://squidpy.readthedocs.io/en/stable/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
        "xarray": ("https://docs.xarray.dev/en/stable/", None),
    }
nitpick_ignore_regex = [("py:.*", r"(?!nextmarker\b).*")]


# Types stand in signatures. What napoleon would read as a type, before a colon or in a first line, is description.


def _parse_returns(self: NumpyDocstring, section: str) -> list[str]:
    return [*self._format_block(":returns: ", self._dedent(self._consume_to_next_section())), ""]


def _read_attribute(self: NumpyDocstring) -> tuple[str, list[str]]:
    return "", self._dedent(self._consume_to_end())


NumpyDocstring._parse_returns_section = _parse_returns
NumpyDocstring._consume_inline_attribute = _read_attribute


def _draw_figures(app: Sphinx) -> None:
    """Draw the figures of the gallery, unless they are there."""
    import figures

    if any(not (FIGURES / f"{draw.__name__}.png").exists() for draw in figures.FIGURES):
        figures.draw_all(FIGURES)


def _show_figure(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Show the figure of a function of `nm.pl` below the first line of its page."""
    short = name.removeprefix("nextmarker.pl.")
    if (FIGURES / f"{short}.png").exists():
        image = f"/generated/figures/{short}.png"
        figure = ["", f".. figure:: {image}", f"    :alt: Figure of nm.pl.{short}", ""]
        lines[1:1] = [*figure, f"    The :ref:`gallery <gallery-{short}>` has the code of this figure.", ""]


class LinkCalls(SphinxTransform):
    """Link each function that is named as code, such as `nm.tl.cluster(adata)`, to its page.

    Names of ours that do not exist are warnings, and so errors; those of other projects need their indices.
    """

    default_priority = 500
    packages = {"nm": "nextmarker", "sc": "scanpy", "sq": "squidpy", "spatialdata": "spatialdata", "anndata": "anndata"}
    call = re.compile(rf"({'|'.join(packages)})\.((?!\w+$)(?:[a-z]\w*\.)*(?![A-Z_]+\b)[a-zA-Z]\w*)(?=\(|$)")

    def apply(self) -> None:
        """Wrap the code in a reference."""
        if self.env.docname == "changelog":  # names functions that have been renamed since
            return
        for kind in (nodes.literal, nodes.title_reference):
            for node in list(self.document.findall(kind)):
                found = self.call.match(node.astext())
                if not found or isinstance(node.parent, (nodes.reference, pending_xref)):
                    continue
                target = f"{self.packages[found[1]]}.{found[2]}"
                code = nodes.literal("", node.astext(), classes=["xref", "py"])
                where = {"refdoc": self.env.docname, "refdomain": "py", "reftype": "obj", "reftarget": target}
                node.replace_self(pending_xref("", code, refexplicit=True, refwarn=False, **where))


def setup(app: Sphinx) -> None:
    """Connect what is done during the build."""
    app.add_transform(LinkCalls)
    app.connect("builder-inited", _draw_figures)
    app.connect("autodoc-process-docstring", _show_figure)
