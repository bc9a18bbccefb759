"""How the name of a checkpoint becomes a path, and the networks that the package ships.

`shapes` is a `tiny` network that knows the RefCOCO layout of the embedded data set, in which every expression has
exactly one target.
`python -m pipelines.experiments.pretraining` makes it.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.hub.download import download
from pipelines.hub.names import parse_hub_name
from shards.errors import CheckpointError

SHIPPED = {"shapes": Path(__file__).parent / "shapes"}
"""Checkpoint folders inside the package, by name."""


def resolve_checkpoint(name: str | Path, home: Path = Path(), revision: str | None = None) -> Path:
    """The path of a checkpoint: the path itself, or that of a shipped network or of a model on the hub.

    A path that exists wins over a name of the hub. Over a shipped network's name it wins if it is a checkpoint; other
    folders of that name, such as prepared shards, do not hide the network. A model on the hub is downloaded into the
    hub's cache; the path that is returned is that of one commit, whose content never changes.

    Args:
        name: a path, the name of a shipped network, or a name of the hub (`pipelines.hub.names.parse_hub_name`).
        home: the folder to which the path is relative.
        revision: branch, tag or commit of a model on the hub.

    Raises:
        CheckpointError: the hub has no such model or cannot be reached, or a revision is given for a path.
    """
    path = home / name
    shipped = SHIPPED.get(str(name))
    if shipped is not None and not path.is_file() and not (path / "config.json").is_file():
        path = shipped
    elif not path.exists() and (on_hub := parse_hub_name(name)) is not None:
        return download(on_hub.at(revision))
    if revision is not None:
        raise CheckpointError(f"{name} has no revision {revision}: only hub names have revisions; leave it out")
    return path
