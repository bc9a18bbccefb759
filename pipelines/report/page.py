"""The report's page: the summary and the gallery of expressions in one HTML file that opens from disk without network.

Styles and scripts are put into the page, and its Content-Security-Policy allows no others than these, by their
SHA-256, and files beside the page. Names and expressions are escaped by Jinja2, or written by scripts as text.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from pipelines.report.summary import Summary

_FOLDER = Path(__file__).parent
_STYLES = ("page.css", "summary.css", "gallery.css")
_THEME = "theme.js"
# In the order in which they use each other.
_SCRIPTS = (
    "masks.js", "layers.js", "elements.js", "details.js", "address.js", "filters.js", "thumbnails.js", "grid.js",
    "panel.js", "facts.js", "viewer.js", "gallery.js",
)  # fmt: skip
_START = "igvg.gallery.start();"


def render_page(summary: Summary, *, title: str, sets: Sequence[str]) -> str:
    """The HTML of index.html.

    Args:
        summary: what stands above the gallery.
        title: data set and split, in the words of the reader.
        sets: the names of one or two sets of predictions; without any there is no gallery.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    theme, script = read_static(_THEME), "\n".join(read_static(name) for name in _SCRIPTS)
    return environment.get_template("index.html.j2").render(
        summary=summary,
        title=title,
        sets=sets,
        policy=write_policy(theme, script, _START),
        # Files of this package: there is nothing in them to escape.
        style=Markup("\n".join(read_static(name) for name in _STYLES)),  # noqa: S704
        theme_script=Markup(theme),  # noqa: S704
        script=Markup(script),  # noqa: S704
        start_script=Markup(_START),  # noqa: S704
    )


def digest_page() -> str:
    """SHA-256 over the templates, styles and scripts that make the page."""
    files = sorted(file for name in ("templates", "static") for file in (_FOLDER / name).iterdir() if file.is_file())
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\n".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def read_static(name: str) -> str:
    """The text of a file in static/."""
    return (_FOLDER / "static" / name).read_text(encoding="utf-8")


def write_policy(*scripts: str) -> str:
    """A Content-Security-Policy: no network, no scripts but those given and the files beside the page."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    # 'self' is the folder's address where a server shows it; from disk it is file:.
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src 'self' file: data:; "
        f"style-src 'unsafe-inline'; script-src 'self' file: {hashes}"
    )
