"""`igvg inspect`: what a file or folder is, made from what, with which settings, and how much of it there is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from igvg_cli import options, render
from igvg_cli.sizes import format_size
from igvg_cli.tables import print_table
from pipelines.inspection.printable import escape_control

if TYPE_CHECKING:
    from pipelines.inspection.description import Description, Table

_DIGEST_LENGTH = 12
_DIGESTS = 3
_INPUTS = 12


def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="Anything that igvg makes or takes: an artifact, shards, predictions, raw outputs, a checkpoint, "
            "settings, scores, annotations.",
            show_default=False,
        ),
    ],
    examples: Annotated[
        int,
        typer.Option(min=0, max=100, help="Draw so many examples with their targets, and predictions, into a PNG."),
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="The PNG of --examples; otherwise NAME-examples.png in the working directory."),
    ] = None,
    shards: Annotated[
        Path | None,
        typer.Option(help="With --examples of predictions: the prepared folder, if it does not lie beside them."),
    ] = None,
    format_: options.Format = "table",
) -> None:
    """Say what a file or folder is, made from what, with which settings, and how much of it there is.

    Example: igvg inspect runs/first-val

    Example: igvg inspect data/grefcoco --examples 12 --out examples.png

    Nothing is changed. Settings that differ from the defaults are listed with these.
    """
    if not examples and (out is not None or shards is not None):
        raise typer.BadParameter("--out and --shards go with --examples")
    from pipelines.inspection.inspection import inspect_path

    with render.show_progress("inspecting"):
        description = inspect_path(path)
        drawn = _draw(path, examples, out, shards) if examples else None
    if format_ == "json":
        render.print_json(description.to_json() | ({} if drawn is None else {"examples": drawn}))
        return
    _print(description)
    if drawn is not None:
        render.print_line(f"{drawn['file']}: {drawn['count']} examples")


def _draw(path: Path, examples: int, out: Path | None, shards: Path | None) -> dict[str, Any]:
    """Write the contact sheet; returns its file and how many examples it shows."""
    from pipelines.inspection.examples import write_examples

    out = out or Path(f"{path.resolve().name.removesuffix('.tar')}-examples.png")
    return {"file": str(out), "count": write_examples(path, examples, out, shards)}


def _print(description: Description) -> None:
    render.print_line(escape_control(f"{description.path}: {description.what}"))
    rows = [["files", str(description.files)]] if description.files != 1 else []
    rows += [["size", format_size(description.bytes)], ["changed", description.changed]]
    counts = [(name, value) for name, value in _flatten(description.counts) if name not in description.facts]
    facts = [*description.facts.items(), *counts]
    rows += [[escape_control(name), _format_value(name, value)] for name, value in facts if value not in (None, "", [])]
    print_table("overview", ["property", "value"], rows, left=(0, 1))
    if description.inputs:
        inputs = [[escape_control(name), _shorten_digests(digests)] for name, digests in description.inputs.items()]
        print_table("made from", ["input", "SHA-256"], inputs[:_INPUTS], left=(0, 1))
        if len(inputs) > _INPUTS:
            render.print_line(f"and {len(inputs) - _INPUTS} more inputs; --format json lists all")
    _print_settings(description)
    for table in description.tables:
        _print_table(table)
    notes = list(description.notes)
    if description.versions:
        notes.append("made with " + ", ".join(f"{name} {version}" for name, version in description.versions.items()))
    for note in notes:
        render.print_line(escape_control(note))


def _print_settings(description: Description) -> None:
    changed = [one for one in description.settings if one.changed]
    if changed and all(one.default is None for one in changed):
        print_table(
            "settings", ["setting", "value"], [[_format(one.key), _format(one.value)] for one in changed], left=(0, 1)
        )
    elif changed:
        rows = [[_format(one.key), _format(one.value), _format(one.default)] for one in changed]
        title = "settings that differ from the defaults"
        print_table(title, ["setting", "value", "default"], rows, left=(0, 1, 2))
    defaults = [f"{_format(one.key)} {_format(one.value)}" for one in description.settings if not one.changed]
    if defaults:
        render.print_line(f"as by default: {'; '.join(defaults)}")


def _print_table(table: Table) -> None:
    rows = [[_format_value(name, value) for name, value in zip(table.columns, row, strict=True)] for row in table.rows]
    left = [index for index, _ in enumerate(table.columns) if any(isinstance(row[index], str) for row in table.rows)]
    if rows:
        print_table(table.title, list(table.columns), rows, left=left)


def _format_value(name: str, value: Any) -> str:
    if name.startswith("bytes") and type(value) is int:
        return format_size(value)
    return str(value)[:_DIGEST_LENGTH] if name == "fingerprint" else _format(value)


def _format(value: Any) -> str:
    """A value for people: numbers with separators of thousands, lists with commas."""
    if value in (None, "", [], ()):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_format(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ("; " if any(isinstance(one, dict) for one in value) else ", ").join(map(_format, value))
    return escape_control(str(value))


def _flatten(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted keys and values of nested counts; empty groups are left out."""
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        rows += _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return rows


def _shorten_digests(digests: str) -> str:
    """The beginnings of the first digests of an input."""
    parts = digests.split("+")
    shown = " + ".join(part[:_DIGEST_LENGTH] for part in parts[:_DIGESTS])
    return f"{shown} and {len(parts) - _DIGESTS} more" if len(parts) > _DIGESTS else shown
