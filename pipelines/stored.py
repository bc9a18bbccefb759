"""A finished prediction's raw outputs as the input of a stage: where they are, and how they were post-processed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.artifact import RECORD, UNFINISHED, ArtifactError, read_artifact
from pipelines.overrides import overlay_settings
from pipelines.raw import INDEX
from pipelines.settings import PostprocessSettings
from shards.errors import DataError
from shards.files import digest_file

if TYPE_CHECKING:
    from pathlib import Path

RAW_FOLDER = "raw"


def locate_raw(path: Path) -> Path:
    """The folder of raw outputs: the path itself, or `raw` in a folder that `igvg predict` made.

    Raises:
        ArtifactError: a file of the prediction is missing or has another size than it was finished with.
        DataError: there are no raw outputs, or the prediction is unfinished.
    """
    for folder in (path, path / RAW_FOLDER):
        if not (folder / INDEX).is_file():
            continue
        finished = (folder.parent / RECORD).is_file()
        if (folder.parent / UNFINISHED).exists() and not finished:
            remedy = "finish it: run its igvg predict again"
            raise DataError("the prediction is unfinished", file=folder.parent, remedy=remedy)
        if finished:
            read_artifact(folder.parent, "predict")
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
    changes = read_artifact(raw.parent, "predict").options.get("postprocess", {})
    if not isinstance(changes, dict):
        raise ArtifactError(f"{file} is damaged (postprocess is no group); make it again with --force")
    return overlay_settings(PostprocessSettings(), changes, str(file))


def digest_raw(raw: Path) -> str:
    """The content of a folder of raw outputs: its index, which names the chunks, and every chunk."""
    return "+".join(digest_file(file) for file in [raw / INDEX, *sorted(raw.glob("chunk-*.npz"))])
