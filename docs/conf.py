"""Sphinx's settings: the pages are plain Markdown that reads well where the repository is hosted, too.

`just docs` builds them into build/docs. Nothing is fetched from anywhere, by the build or by a reader's browser.
"""  # noqa: INP001 - no package: Sphinx reads it by its path

import re
import tomllib
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
project = "reprobuild"
author = "The reprobuild authors"
release = version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
extensions = ["myst_parser"]
exclude_patterns = ["README.md"]
nitpicky = True
#: Anchors of headings are made as on the usual hosts of repositories, so that one link works in both places.
myst_heading_anchors = 4
html_theme = "furo"
html_last_updated_fmt = None  # a clock would be in every page
html_title = f"reprobuild {release}"
html_copy_source = False
html_show_sphinx = False
pygments_style = "friendly"
highlight_language = "text"


def _outside_as_paths(app: Sphinx, docname: str, source: list[str]) -> None:  # noqa: ARG001 - Sphinx's signature
    """Links to files of the repository that are no pages become their paths: the site has no such files."""
    folder = (DOCS / docname).parent

    def path_of(link: re.Match[str]) -> str:
        target = (folder / link["target"].partition("#")[0]).resolve()
        if "://" in link["target"] or target.is_relative_to(DOCS):
            return link[0]
        return f"{link['text']} (`{target.relative_to(ROOT)}`)"

    source[0] = re.sub(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)", path_of, source[0])


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _outside_as_paths)
