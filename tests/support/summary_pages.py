"""The summary of a report as a page of its own."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader

from pipelines.report.summary import Summary
from tests.support.paths import ROOT

_STATIC = ROOT / "pipelines/report/static"


def write_summary_page(file: Path, summary: Summary) -> Path:
    """Write the summary with the style sheets of the report."""
    template = Environment(loader=PackageLoader("pipelines.report"), autoescape=True).get_template("summary.html.j2")
    styles = "".join((_STATIC / name).read_text(encoding="utf-8") for name in ("page.css", "summary.css"))
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Summary</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{styles}</style></head>'
    )
    file.write_text(f'{head}<body><div class="page">{template.render(summary=summary)}</div></body></html>', "utf-8")
    return file
