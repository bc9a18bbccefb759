"""The options that several commands share, written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Out = Annotated[Path, typer.Option(help="Folder for the result.", show_default=False)]
Shards = Annotated[Path, typer.Option(help="Folder that igvg prepare made.", show_default=False)]
ShardFolders = Annotated[
    list[Path],
    typer.Option("--shards", help="Folder that igvg prepare made; repeat to train on several.", show_default=False),
]
Preset = Annotated[
    Literal["tiny", "base", "large"],
    typer.Option(metavar="NAME", help="Size of the network and its recipe: tiny, base or large."),
]
Recipe = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Settings of a published training, over the preset's: grefcoco, ref-zom, rrefcoco, refcoco, ablation.",
        show_default=False,
    ),
]
Split = Annotated[str, typer.Option(help="Split of the shards, e.g. val.", show_default=False)]
Force = Annotated[bool, typer.Option("--force", help="Replace what --out holds, if igvg made it.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; dotted keys reach into groups. Repeatable."),
]
Config = Annotated[Path | None, typer.Option(help="TOML file with settings.", show_default=False)]
Format = Annotated[Literal["table", "json"], typer.Option("--format", help="Print a table or one JSON document.")]
Resolution = Annotated[
    int,
    typer.Option(min=0, max=8192, help="Scale masks to N × N first, as published evaluations do; 0: the image's size."),
]
Bootstrap = Annotated[
    int, typer.Option(min=0, help="Bootstrap samples for the 95 % intervals, over images; 0: no intervals.")
]
