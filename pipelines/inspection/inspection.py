"""`igvg inspect`: what a path holds, found by names and first bytes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from pipelines.inspection.artifact_checks import is_artifact
from pipelines.inspection.artifact_descriptions import describe_artifact, describe_collection
from pipelines.inspection.artifact_parts import describe_part
from pipelines.inspection.checkpoint_descriptions import describe_checkpoint, describe_torch_file, describe_weights
from pipelines.inspection.description import Cell, Description, measure_file
from pipelines.inspection.document_descriptions import (
    describe_data_folder,
    describe_json,
    describe_pairs,
    describe_pickle,
    describe_toml,
    is_pairs,
)
from pipelines.inspection.folders import STATE_FILE, FolderKind, find_kind
from pipelines.inspection.prediction_descriptions import describe_chunk, describe_lines, describe_raw
from pipelines.inspection.shard_descriptions import describe_shard, describe_shards, describe_split
from pipelines.networks import SHIPPED
from pipelines.prediction.raw_store import INDEX as RAW_INDEX
from pipelines.stages.artifact import RECORD, UNFINISHED
from shards.errors import ArtifactError, DataError
from shards.file_kinds import describe_content
from shards.files import read_json
from shards.image_formats import ImageBombError, open_image

_LOOKED_FOR_IN_FOLDERS = (
    f"{RECORD}, shards, raw outputs, a checkpoint, a training state, annotations, images, folders of artifacts"
)
_LOOKED_FOR_IN_FILES = (
    "shards, indexes, predictions, pairs, raw outputs, weights, scores, COCO, labelme, annotations, settings"
)

# What descriptions of documents of strangers raise where these hold something else than they should.
_MALFORMED = (AttributeError, IndexError, KeyError, OverflowError, RecursionError, TypeError, ValueError)


def inspect_path(path: Path) -> Description:
    """What a file or folder holds; a shipped network is found by its name.

    Raises:
        ArtifactError: there is nothing, or nothing that igvg knows.
        CheckpointError, DataError, SettingsError: a file of a known kind is damaged.
    """
    if not path.exists() and str(path) in SHIPPED:
        path = SHIPPED[str(path)]
    if not path.exists() and (working := path.with_name(f".{path.name}.working")).is_dir():
        # Where igvg prepare works until its folder is complete.
        path = working
    if not path.exists():
        raise ArtifactError(f"{path}: no such file or folder; give what a command of igvg made, or takes")
    try:
        return _describe_folder(path) if path.is_dir() else _describe_file(path)
    except (ArtifactError, DataError):
        if (part := describe_part(path)) is None:
            raise
        return part
    except _MALFORMED as error:
        what = f"holds values that its kind of file cannot have ({type(error).__name__}: {error})"
        raise DataError(what, file=path, remedy="make it again, or copy it again") from error


def _describe_folder(folder: Path) -> Description:
    if is_artifact(folder):
        return describe_artifact(folder)
    if kind := find_kind(folder):
        return _FOLDERS[kind](folder)
    if collection := describe_collection(folder):
        return collection
    if data := describe_data_folder(folder):
        return data
    what = f"holds nothing that igvg knows, looked for {_LOOKED_FOR_IN_FOLDERS}"
    raise ArtifactError(f"{folder} {what}; give a folder of igvg, or one that it takes")


def _describe_file(file: Path) -> Description:
    if file.name in (RECORD, UNFINISHED):
        return describe_artifact(file.parent)
    if file.suffix.lower() == ".toml":
        return describe_toml(file)
    if is_pairs(file):
        return describe_pairs(file)
    content = describe_content(file)
    kind = content.kind if content else ""
    if kind == "JSON":
        return _describe_json(file)
    if kind in _FILES:
        return _FILES[kind](file)
    remedy = content.remedy if content and content.remedy else "give a file or folder of igvg"
    what = f"is {content.words}" if content else "holds bytes of no known kind"
    raise DataError(f"{what}; looked for {_LOOKED_FOR_IN_FILES}", file=file, remedy=remedy)


def _describe_json(file: Path) -> Description:
    if file.name == RAW_INDEX:
        kind = find_kind(file.parent)
        if kind in ("raw outputs", "split"):
            return _FOLDERS[kind](file.parent)
    if file.suffix.lower() == ".jsonl":
        return describe_lines(file)
    if file.name == "config.json" and isinstance(config := read_json(file), dict) and "model_type" in config:
        return describe_checkpoint(file.parent)
    try:
        return describe_json(file)
    except DataError as error:
        # One JSON object a line, under another name.
        try:
            return describe_lines(file)
        except DataError:
            raise error from None


def _describe_image(file: Path) -> Description:
    try:
        with warnings.catch_warnings(action="ignore"), open_image(file, as_stored=True) as image:
            facts: dict[str, Cell] = {
                "pixels": f"{image.width} × {image.height}",
                "mode": image.mode,
                "format": image.format,
            }
    except ImageBombError as error:
        raise DataError(error.what, file=file, remedy=error.remedy) from error
    except Exception as error:  # a parser may raise anything on a damaged file
        raise DataError(f"is a damaged image ({error})", file=file) from error
    return Description(path=str(file), kind="image", what="an image", **measure_file(file), facts=facts)


_FOLDERS: dict[FolderKind, Callable[[Path], Description]] = {
    "shards": describe_shards,
    "split": describe_split,
    "raw outputs": describe_raw,
    "checkpoint": describe_checkpoint,
    "training state": lambda folder: describe_torch_file(folder / STATE_FILE),
}
_FILES: dict[str, Callable[[Path], Description]] = {
    "tar": describe_shard,
    "safetensors": describe_weights,
    "NumPy archive": describe_chunk,
    "pickle": describe_pickle,
    **dict.fromkeys(("torch", "old torch"), describe_torch_file),
    **dict.fromkeys(("PNG", "JPEG", "GIF", "TIFF", "WebP"), _describe_image),
}
