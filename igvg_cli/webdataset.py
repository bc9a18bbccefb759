"""The part of `igvg prepare` for shards that others wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from igvg_cli import render

NAME = "webdataset"


def prepare_shards(
    annotations: Path | None, out: Path, splits: list[str] | None, *, force: bool, refused: dict[str, Any]
) -> dict[str, Any]:
    """Copy, check and index shards; returns the counts. `refused` holds the options that do not go with it."""
    if given := [name for name, value in refused.items() if value]:
        raise typer.BadParameter(f"{given[0]} does not go with {NAME}")
    if annotations is None:
        raise typer.BadParameter("--annotations is missing: the folder that holds the tars")

    from pipelines.stages import prepare_webdataset as stage

    with render.show_progress("preparing"):
        result = stage.run(annotations, out, splits=splits or (), force=force)
    if result.cached:
        render.note(f"{out} is up to date: same shards; nothing to do.")
    return result.counts


def cache_images(out: Path, size: int, limit: float, workers: int | None) -> None:
    """Build or complete the image caches of a prepared folder."""
    from pipelines.data.image_cache_building import cache_folder

    with render.show_progress("caching"):
        cache_folder(out, size, limit=limit, workers=workers)
