"""`igvg verify`: names every damaged, missing or extra file and record of what igvg made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from igvg_cli import options, render
from igvg_cli.sizes import format_size

if TYPE_CHECKING:
    from pipelines.inspection.findings import Verification

_SHOWN = 10
# Folders without a record, and whose files hold no digests either.
_WITHOUT_DIGESTS = frozenset({"raw outputs", "checkpoint", "training state"})


def verify(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Folder that a command of igvg made, or one that holds such folders.",
            show_default=False,
        ),
    ],
    full: Annotated[
        bool, typer.Option("--full", help="Compare SHA-256, and read every record, mask, prediction and tensor.")
    ] = False,
    format_: options.Format = "table",
) -> None:
    """Check what igvg made for damaged, missing or extra files and records.

    Example: igvg verify runs/first-val

    Example: igvg verify data/grefcoco --full

    Without --full, names, sizes, indexes and records are checked. Exit status 1 means that something is wrong.
    """
    from pipelines.inspection.verification import verify as check
    from shards.errors import ArtifactError

    with render.show_progress("verifying"):
        report = check(folder, full=full)
    if format_ == "json":
        render.print_json(report.to_json())
    else:
        _print(report)
    if report.findings:
        files = len({finding.file for finding in report.findings})
        count = f"{len(report.findings)} finding{'s' if len(report.findings) > 1 else ''} in {files} file"
        raise ArtifactError(
            f"{folder} is damaged: {count}{'s' if files > 1 else ''}, the first {report.findings[0]}; copy these files "
            "again, or make the folder again with --force"
        )


def _print(report: Verification) -> None:
    for finding in report.findings[:_SHOWN]:
        render.print_line(str(finding))
    if len(report.findings) > _SHOWN:
        render.print_line(f"and {len(report.findings) - _SHOWN} more; --format json lists all")
    for note in report.notes:
        render.note(f"Note: {note}")
    if report.findings:
        return
    units = ", ".join(f"{count} × {name}" for name, count in report.units.items())
    read = f"{report.records} records read" if report.full else "names, sizes and indexes"
    if report.full and set(report.units) - _WITHOUT_DIGESTS:
        read = f"SHA-256 compared, {read}"
    render.print_line(f"{report.path}: sound ({units}; {report.files} files, {format_size(report.bytes)}; {read})")
