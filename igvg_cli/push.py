"""`igvg push`: a finished run becomes a repository on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from igvg_cli import render


def push(
    run: Annotated[Path, typer.Argument(help="Folder that igvg train or igvg import made.", show_default=False)],
    repo: Annotated[
        str, typer.Argument(metavar="USER/REPO", help="Repository; made if it is not there.", show_default=False)
    ],
    scores: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder that igvg score --out made, for the model card; repeatable. Otherwise those beside the run "
            "that belong to it.",
            show_default=False,
        ),
    ] = None,
    license_: Annotated[
        str, typer.Option("--license", help="License of the weights, e.g. apache-2.0.", show_default=False)
    ] = "",
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch; made if it is not there.", show_default=False)] = None,
    with_log: Annotated[bool, typer.Option("--with-log", help="Upload log.jsonl, too.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write what would be uploaded into a folder, and print its path.")
    ] = False,
) -> None:
    """Upload a checkpoint to the Hugging Face hub, with a model card made from the records of its run.

    Example: igvg push runs/first someone/first --scores runs/first-val-scores --license apache-2.0

    Log in before with hf auth login, or set HF_TOKEN. Others then write --checkpoint someone/first.
    """
    from pipelines.runtime.signals import exit_on_signal
    from pipelines.stages import push as stage

    settings = stage.PushSettings(private=private, revision=revision, license=license_, with_log=with_log)
    # The library uploads in threads, which a signal to the main thread does not end; nothing is half-committed.
    with render.show_progress("uploading"), exit_on_signal():
        report = stage.run(run, repo, settings, scores or (), dry_run=dry_run)
    if not report.license:
        render.note("The model card names no license: fill it in at its top, or add --license.")
    if not report.scores:
        render.note(
            "The model card has no scores: keep them with igvg score --out, and name that folder with --scores."
        )
    render.print_line(report.place)
