"""Sphinx configuration."""

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

project = "gueststar"
author = "the gueststar developers"
copyright = "2026, the gueststar developers"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
html_theme = "furo"
html_title = "gueststar"
exclude_patterns = ["_build", "supplement/_generated"]
myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 3
autodoc_typehints = "description"
napoleon_numpy_docstring = True


def setup(app: Any) -> None:
    """Make the tables that come from the code before the pages are read."""
    from tables import write_tables

    app.connect("builder-inited", lambda _: write_tables(HERE / "supplement" / "_generated"))
