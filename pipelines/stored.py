"""A finished prediction's raw outputs as the input of a stage: where they are, and how they were post-processed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pipelines.artifact import RECORD, ArtifactError, digest_file
from pipelines.overrides import overlay_settings
from pipelines.raw import INDEX
from pipelines.settings import PostprocessSettings
from shards.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

RAW_FOLDER = "raw"


def locate_raw(path: Path) -> Path:
    """The folder of raw outputs: the path itself, or `raw` in a folder that `igvg predict` made.

    Raises:
        DataError: neither is one that is finished.
    """
    for folder in (path, path / RAW_FOLDER):
        if (folder / INDEX).is_file():
            return folder
    remedy = "give a folder that igvg predict made, or its raw/; an unfinished one is finished by its command"
    raise DataError(f"holds no finished raw outputs (no {INDEX})", file=path, remedy=remedy)


def read_postprocessing(raw: Path) -> PostprocessSettings:
    """The settings that the prediction was made with, or the defaults where nothing beside the outputs says so.

    Raises:
        ArtifactError: the record beside them is damaged.
        SettingsError: it holds settings that this igvg does not know.
    """
    file = raw.parent / RECORD
    if not file.is_file():
        return PostprocessSettings()
    try:
        options = json.loads(file.read_text(encoding="utf-8"))["options"]
        changes = options.get("postprocess", {})
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ArtifactError(f"{file} is damaged ({error}); make it again with --force") from error
    return overlay_settings(PostprocessSettings(), changes, str(file))


def digest_raw(raw: Path) -> str:
    """The content of a folder of raw outputs: its index, which names the chunks, and every chunk."""
    return "+".join(digest_file(file) for file in [raw / INDEX, *sorted(raw.glob("chunk-*.npz"))])
