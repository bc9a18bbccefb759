"""The networks that the package ships, and how a name becomes a path.

`shapes` is a `tiny` network that knows the RefCOCO layout of the embedded data set, in which every expression has
exactly one target.
`python -m pipelines.experiments.pretraining` makes it.
"""

from __future__ import annotations

from pathlib import Path

SHIPPED = {"shapes": Path(__file__).parent / "shapes"}
"""Checkpoint folders inside the package, by name."""


def resolve_checkpoint(name: str | Path, home: Path = Path()) -> Path:
    """The path of a checkpoint: a shipped network by its name, or a path relative to `home`.

    A folder of that name has priority if it is a checkpoint; other folders of that name, such as prepared shards, do
    not hide the shipped network.
    """
    path = home / name
    shipped = SHIPPED.get(str(name))
    if shipped is None or path.is_file() or (path / "config.json").is_file():
        return path
    return shipped
