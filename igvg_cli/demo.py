"""`igvg demo`: the whole pipeline on the embedded data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from igvg_cli import options, render


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo"),
    format_: options.Format = options.OutputFormat.table,
    pictures: Annotated[int, typer.Option(min=8, help="Pictures to draw for training.")] = 6000,
    held_out: Annotated[int, typer.Option(min=1, help="Pictures to draw for each benchmark's evaluation.")] = 120,
    max_steps: Annotated[int, typer.Option(min=0, help="Stop training after so many steps; 0: do not.")] = 0,
) -> None:
    """Draw pictures of shapes, prepare, train, predict and score; then compare with answers that need no learning.

    Example: igvg demo --out demo

    Less than 20 minutes on two cores. Run it again and every stage is found finished.
    """
    from pipelines import demo as stage

    size = stage.DemoSize(train_pictures=pictures, held_out_pictures=held_out, max_steps=max_steps)
    with render.show_progress("demo") as progress:
        comparisons, overlays = stage.run(out, size, note=render.note, progress=progress)
    if format_ is options.OutputFormat.json:
        render.print_json({comparison.title: comparison.scores for comparison in comparisons})
    else:
        for comparison in comparisons:
            render.print_comparison(comparison.title, comparison.scores)
    render.note(f"drawn examples: {overlays}")
