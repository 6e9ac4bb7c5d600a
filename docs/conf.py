"""How the documentation is built."""

import os

from sphinx.ext.napoleon import NumpyDocstring

import nextmarker

project = "nextmarker"
author = "The nextmarker developers"
copyright = f"2026, {author}"
release = version = nextmarker.__version__

extensions = [
    "myst_nb",
    "sphinx_copybutton",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]

html_theme = "sphinx_book_theme"
html_title = "nextmarker"
html_static_path = ["_static"]
html_theme_options = {"repository_url": "https://github.com/nextmarker/nextmarker", "use_repository_button": True}

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_timeout = 600
nb_execution_raise_on_error = True

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
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
    }
nitpick_ignore_regex = [("py:.*", r"(?!nextmarker\b).*")]


# Types stand in signatures. What napoleon would read as a type, before a colon or in a first line, is description.


def _parse_returns(self: NumpyDocstring, section: str) -> list[str]:
    return [*self._format_block(":returns: ", self._dedent(self._consume_to_next_section())), ""]


def _read_attribute(self: NumpyDocstring) -> tuple[str, list[str]]:
    return "", self._dedent(self._consume_to_end())


NumpyDocstring._parse_returns_section = _parse_returns
NumpyDocstring._consume_inline_attribute = _read_attribute
