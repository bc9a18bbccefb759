"""`igvg run`: the stages of an experiment file, each done once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from igvg_cli import options, render


def run(
    experiment: Annotated[Path, typer.Argument(help="TOML file that names the stages.", show_default=False)],
    format_: options.Format = "table",
) -> None:
    """Run the stages that an experiment file names; finished ones are skipped, with the reason.

    Example: igvg run experiment.toml

    Every stage has a folder under the experiment's `out` whose name carries a key of its inputs and settings, so a
    changed setting makes a new folder and leaves the old one.
    """
    from pipelines.experiments.experiment import read_experiment, run_stages
    from pipelines.runtime.signals import exit_on_signal

    with render.show_progress("running"):
        # Reading downloads checkpoints of the hub, in threads that a signal to the main thread does not end.
        with exit_on_signal():
            stages = read_experiment(experiment)
        reports = run_stages(stages).scores
    if format_ == "json":
        render.print_json([report.to_json() for report in reports])
    else:
        render.print_scores(reports)
