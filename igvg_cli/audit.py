"""`igvg audit`: what prepared sets share between training and held-out splits, duplicates and contradictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from igvg_cli import options, render
from igvg_cli.tables import print_table

if TYPE_CHECKING:
    from pipelines.inspection.audit import AuditReport, Contradiction

_SHOWN = 10


def audit(
    shards: options.ShardFolders,
    train_split: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Split to train on, besides those whose names begin with train; all others are held out. Repeatable.",
        ),
    ] = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="Confirm by SHA-256 that images of one size and CRC-32 have the same bytes."),
    ] = False,
    format_: options.Format = "table",
) -> None:
    """Compare prepared sets: training images in held-out splits, images under two ids, contradicting expressions.

    Example: igvg audit --shards data/grefcoco --shards data/refcoco

    What is found is no error: the exit status is 0.
    """
    from pipelines.inspection.audit import audit as compare

    with render.show_progress("auditing"):
        report = compare(shards, train_splits=train_split or (), full=full)
    if format_ == "json":
        render.print_json(report.to_json())
    else:
        _print(report)


def _print(report: AuditReport) -> None:
    rows = [
        [str(each["split"]), "held out" if each["held_out"] else "training", f"{each['images']:,}",
         f"{each['expressions']:,}", str(each["compared_by"])]
        for each in report.splits
    ]  # fmt: skip
    print_table("Splits", ["split", "use", "images", "expressions", "compared by"], rows, left=(0, 1, 4))
    if report.leaks:
        _print_leaks(report)
    elif all(each["held_out"] for each in report.splits):
        render.print_line("No split is trained on; --train-split NAME says that one is.")
    else:
        render.print_line("No training image is in a held-out split.")
    if report.duplicates:
        rows = [[", ".join(f"{name} {image_id}" for name, image_id in each.records)] for each in
                report.duplicates[:_SHOWN]]  # fmt: skip
        title = f"Images under several ids: {report.num_duplicates:,}"
        print_table(title, ["split and image id"], rows, _note_rest(report.num_duplicates, len(report.duplicates)))
    if report.contradictions:
        rows = [[each.text, str(each.image_id), _list_expressions(each)] for each in report.contradictions[:_SHOWN]]
        title = f"Same words about the same image, different targets: {report.num_contradictions:,}"
        notes = _note_rest(report.num_contradictions, len(report.contradictions))
        print_table(title, ["text", "image id", "expressions (targets)"], rows, notes, left=(0, 2))


def _print_leaks(report: AuditReport) -> None:
    rows = [
        [leak.training, leak.held_out, f"{leak.images:,}", f"{leak.same_bytes:,}",
         f"{100 * leak.images / leak.held_out_images:.1f} %", f"{leak.training_expressions:,}"]
        for leak in report.leaks
    ]  # fmt: skip
    columns = ["training", "held out", "images", "same bytes", "of held out", "training expressions"]
    count = f"{report.leaked_images:,} training images ({report.leaked_expressions:,} expressions)"
    note = f"{count} are in a held-out split; igvg train --set exclude_held_out=true leaves them out"
    print_table("Training images in held-out splits", columns, rows, [note], left=(0, 1), labels=2)


def _list_expressions(contradiction: Contradiction) -> str:
    return ", ".join(f"{name} {id_} ({targets})" for name, id_, targets in contradiction.expressions)


def _note_rest(count: int, listed: int) -> list[str]:
    if count <= _SHOWN:
        return []
    shown = "all" if listed == count else f"the first {listed:,}"
    return [f"and {count - _SHOWN:,} more; --format json lists {shown}"]
