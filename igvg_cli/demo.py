"""`igvg demo`: the whole pipeline on the embedded data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from igvg_cli import options, render


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo"),
    format_: options.Format = "table",
    from_scratch: Annotated[
        bool,
        typer.Option("--from-scratch", help="Train without the shipped network; takes four times as long or more."),
    ] = False,
    images: Annotated[
        int | None, typer.Option(min=8, help="Images to draw for training.", show_default="by --from-scratch")
    ] = None,
    pictures: Annotated[int | None, typer.Option(min=8, hidden=True, help="The earlier name of --images.")] = None,
    held_out: Annotated[int, typer.Option(min=1, help="Images to draw for each benchmark's evaluation.")] = 120,
    max_steps: Annotated[int, typer.Option(min=0, help="Stop training after so many steps; 0: do not.")] = 0,
) -> None:
    """Draw images of shapes, prepare, train, predict and score, beside baselines that need no training; write a report.

    Example: igvg demo --out demo

    Training starts from the shipped network "shapes", which knows expressions with exactly one target, and adds
    expressions with several targets or none. Less than 5 minutes on two cores. Run it again and every stage is found
    finished. The last line is the page of the report, which opens in a browser.
    """
    from dataclasses import replace

    from pipelines.experiments import demo as stage

    plan = stage.FROM_SCRATCH if from_scratch else stage.SHORT
    train_images = next((count for count in (images, pictures) if count is not None), plan.train_images)
    plan = replace(plan, train_images=train_images, held_out_images=held_out, max_steps=max_steps)
    with render.show_progress("demo"):
        report = stage.run(out, plan)
    if format_ == "json":
        render.print_json(report.to_json())
    else:
        for split, scores in report.scores.items():
            render.print_baselines(split, scores)
    render.note(f"drawn examples: {report.overlays}")
    # Standard output of --format json is one document.
    (render.note if format_ == "json" else render.print_line)(str(report.page))
