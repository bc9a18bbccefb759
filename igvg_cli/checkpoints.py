"""Checkpoints that the command line names: those on the hub are downloaded before the work begins."""

from __future__ import annotations

from pathlib import Path

from igvg_cli import render


def download_checkpoint(name: str | Path, revision: str | None = None) -> Path:
    """The folder or file of the hub's cache for a name of the hub; every other name as it is.

    Raises:
        CheckpointError: as `pipelines.networks.resolve_checkpoint`.
    """
    from pipelines.hub.names import parse_hub_name
    from pipelines.networks import resolve_checkpoint
    from pipelines.runtime.signals import exit_on_signal

    if revision is None and (Path(name).exists() or parse_hub_name(name) is None):
        return Path(name)
    # The library downloads in threads, which a signal to the main thread does not end.
    with render.show_progress("downloading"), exit_on_signal():
        return resolve_checkpoint(name, revision=revision)
