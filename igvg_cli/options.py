"""The options that several commands share, written once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from shards.remote_addresses import redact_url
from shards.remote_folders import locate_shards

_HUB_OPTIONS = frozenset({"checkpoint", "init", "masks"})
_COLLAPSED_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+:)/")


def refuse_addresses(values: Mapping[str, Any]) -> None:
    """Refuse addresses where a command takes paths alone: a folder of that name would be made or missed.

    Args:
        values: what the command was called with. An address among its paths has lost a slash: http:/HOST.

    Raises:
        typer.BadParameter: one is an address; files of models on the hub are taken by those that know them.
    """
    for name, value in values.items():
        for path in value if isinstance(value, list) else [value]:
            match = _COLLAPSED_URL.match(str(path)) if isinstance(path, Path) else None
            if match is None or Path(match["scheme"]).exists() or (match["scheme"] == "hf:" and name in _HUB_OPTIONS):
                continue
            shown = redact_url(str(path).replace(":/", "://", 1))
            raise typer.BadParameter(f"{shown} is an address; give a file or folder on this machine")


Out = Annotated[Path, typer.Option(help="Folder for the result.", show_default=False)]
_SHARDS = typer.Option(
    metavar="DIR|URL",
    parser=locate_shards,
    help="Folder that igvg prepare made; also at https://, s3://, gs:// or hf://.",
    show_default=False,
)
_SHARD_FOLDERS = typer.Option(
    "--shards",
    metavar="DIR|URL",
    parser=locate_shards,
    help="Folder that igvg prepare made, also at https://, s3://, gs:// or hf://; repeat to train on several.",
    show_default=False,
)
Shards = Annotated[Path, _SHARDS]
OptionalShards = Annotated[Path | None, _SHARDS]
ShardFolders = Annotated[list[Path], _SHARD_FOLDERS]
MixedShardFolders = Annotated[
    list[str] | None,
    typer.Option(
        "--shards",
        metavar="DIR|URL[:RATIO]",
        help="Folder that igvg prepare made, also at https://, s3://, gs:// or hf://; repeat to train on several, with "
        "ratios to mix them: A:2 and B:1.",
        show_default=False,
    ),
]
"""`pipelines.config.ratios.take_ratios` reads the ratios, and `locate_shards` the rest."""
HeldOut = Annotated[
    list[str] | None,
    typer.Option(
        "--held-out",
        metavar="DIR|URL",
        help="Prepared folder that is not trained on: training images in its held-out splits are counted, or left out "
        "if the settings say so. Repeatable.",
        show_default=False,
    ),
]
Preset = Annotated[
    Literal["tiny", "base", "large"],
    typer.Option(metavar="NAME", help="Size of the network and its recipe: tiny, base or large."),
]
OptionalPreset = Annotated[
    Literal["tiny", "base", "large"] | None,
    typer.Option(metavar="NAME", help="Size of the network and its recipe: tiny, base or large.", show_default="base"),
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
