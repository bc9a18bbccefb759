"""The inputs of stages: where they are, and the digests of their content that go into fingerprints."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.config.overrides import overlay_settings
from pipelines.config.settings import PostprocessSettings
from pipelines.data.tokenizer import SENTENCEPIECE_NAME
from pipelines.networks import SHIPPED, resolve_checkpoint
from pipelines.prediction.alignment import locate_predictions
from pipelines.prediction.families import model_folder
from pipelines.prediction.prediction_file import PREDICTIONS
from pipelines.prediction.raw_store import INDEX, RAW_FOLDER
from pipelines.stages.artifact import RECORD, UNFINISHED, read_artifact, read_record
from shards.errors import ArtifactError, DataError
from shards.files import digest_file
from shards.remote_folders import RemoteFolder, find_remote

# The files of the tokenizer and of preprocessing decide the network's inputs.
_READ_WITH_WEIGHTS = ("preprocessor_config.json", "special_tokens_map.json", "tokenizer*", "*.model", "*.spm")
_READ_BY_TRANSFORMERS = ("*.json", "*.txt", "*.model", "*.safetensors")
# Longer than a tick of any file system's clock.
_SETTLED_SECONDS = 2


def digest_input(file: Path) -> str:
    """SHA-256 of a file's bytes, computed once in a process for all stages that read the unchanged file.

    A change shows in inode, size or times, except within one tick of the file system's clock: a file that has just
    been written is read again.
    """
    status = file.stat()
    if time.time() - status.st_ctime < _SETTLED_SECONDS:
        return digest_file(file)
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return _digest_version(file, (status.st_dev, status.st_ino, status.st_size, *times))


@functools.cache
def _digest_version(file: Path, version: tuple[int, ...]) -> str:  # noqa: ARG001, part of the key
    return digest_file(file)


def find_predictions(path: Path) -> Path:
    """The prediction file: the path itself, or the file of a folder that `igvg predict` made.

    Raises:
        DataError: there is none.
    """
    file = locate_predictions(path)
    if not file.is_file():
        raise DataError("no such file", file=file, remedy=f"give a {PREDICTIONS}, or the folder that igvg predict made")
    return file


def locate_raw(path: Path) -> Path:
    """The folder of raw outputs: the path itself, or `raw` in a folder that `igvg predict` made.

    Raises:
        ArtifactError: a file of the prediction is missing or has another size than it was finished with.
        DataError: there are no raw outputs, the prediction is unfinished, or a zero-shot model's.
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
    if (path / RECORD).is_file() and "threshold" in read_artifact(path, "predict").options:
        remedy = "predict again with other settings, e.g. --set threshold=0.4"
        raise DataError("was predicted by a zero-shot model, which leaves no raw outputs", file=path, remedy=remedy)
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
    return "+".join(digest_input(file) for file in [raw / INDEX, *sorted(raw.glob("chunk-*.npz"))])


def digest_shards(folder: Path) -> str:
    """The content of a prepared folder: its artifact's fingerprint, or its indexes where another program made it.

    Raises:
        ArtifactError: it is not a prepared folder, or it is damaged.
    """
    if remote := find_remote(folder):
        return _digest_remote_shards(remote)
    if (folder / RECORD).is_file():
        return read_artifact(folder, "prepare").fingerprint
    indexes = sorted(folder.glob("*/index.json"))
    if not indexes:
        raise ArtifactError(f"{folder} holds no shards; give a folder that igvg prepare made")
    return "+".join(digest_input(file) for file in indexes)


def _digest_remote_shards(remote: RemoteFolder) -> str:
    """The same as of a copy of the folder on this machine.

    Raises:
        ArtifactError: it is not a prepared folder, or its record is damaged.
        DataError: its record cannot be fetched.
    """
    file = remote.fetch_artifact()
    try:
        record = read_record(file)
    except ArtifactError as error:
        raise ArtifactError(str(error).replace(str(file), remote.show(RECORD))) from error
    if record.stage != "prepare":
        raise ArtifactError(f"{remote.shown} was made by igvg {record.stage}, not by igvg prepare; give another folder")
    return record.fingerprint


def digest_checkpoint(path: Path) -> str:
    """The content of a checkpoint: all that prediction reads, its weights, configuration, tokenizer and preprocessing.

    Raises:
        ArtifactError: there is no such file or folder.
    """
    path = resolve_checkpoint(path)
    if path.is_file() and path.suffix != ".safetensors":
        beside = path.with_name(SENTENCEPIECE_NAME)
        return "+".join(digest_input(file) for file in (path, beside) if file.is_file())
    folder = path.parent if path.is_file() else path
    parts = [file for name in ("config.json", "model.safetensors") if (file := folder / name).is_file()]
    if not parts:
        known = f"a file, the name {' or '.join(SHIPPED)}, or USER/REPO on the hub"
        raise ArtifactError(f"{path} is no checkpoint; give a folder with config.json and model.safetensors, {known}")
    parts += [file for name in _READ_WITH_WEIGHTS for file in sorted(folder.glob(name))]
    return "+".join(digest_input(file) for file in parts)


def digest_transformers_model(path: Path) -> str:
    """The content of a folder that transformers reads: weights, configuration, tokenizer and preprocessing.

    Raises:
        ArtifactError: it holds no weights in safetensors.
    """
    folder = model_folder(path)
    if not any(folder.glob("*.safetensors")):
        found = "only weights in a pickle, which may run code when it is read" if any(folder.glob("*.bin")) else "none"
        raise ArtifactError(f"{folder}: expected weights in *.safetensors, found {found}; give a copy that holds them")
    return "+".join(digest_input(file) for name in _READ_BY_TRANSFORMERS for file in sorted(folder.glob(name)))


def digest_training_inputs(
    shards: Sequence[Path], init: str, tokenizer: str, held_out: Sequence[Path] = ()
) -> dict[str, Any]:
    """The digests of everything that a training starts from.

    Raises:
        ArtifactError: something is missing or damaged.
    """
    inputs: dict[str, Any] = {}
    for name, folders in (("shards", shards), ("held out", held_out)):
        inputs |= {f"{name} {position}": digest_shards(folder) for position, folder in enumerate(folders, 1)}
    if init:
        alone = tokenizer and Path(init).is_file()
        inputs["init"] = digest_input(Path(init)) if alone else digest_checkpoint(Path(init))
    if tokenizer:
        inputs["tokenizer"] = digest_tokenizer(Path(tokenizer))
    return inputs


def digest_tokenizer(path: Path) -> str:
    """The content of a SentencePiece file or of a folder's tokenizer files.

    Raises:
        ArtifactError: there is no such file or folder.
    """
    files = [path] if path.is_file() else sorted([*path.glob("tokenizer*"), *path.glob("*.model")])
    if not files:
        raise ArtifactError(f"{path} holds no tokenizer; give beit3.spm or a folder with tokenizer_config.json")
    return "+".join(digest_input(file) for file in files)
