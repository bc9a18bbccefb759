"""Checkpoint folders in Hugging Face's layout: config.json, model.safetensors, tokenizer, preprocessor_config.json.

Published files and the names of shipped networks are read, too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.data.light_tokenizer import load_light_tokenizer
from pipelines.data.preprocessor_config import (
    PREPROCESSOR_FILE,
    check_preprocessing,
    describe_preprocessing,
    read_image_side,
)
from pipelines.data.processor import Processor
from pipelines.data.tokenizer import SENTENCEPIECE_NAME, find_highest_id, load_tokenizer, save_tokenizer
from pipelines.model import IGVGConfig, IGVGModel
from pipelines.model.convert.instancevg import infer_max_tokens, load_instancevg_checkpoint
from pipelines.networks import SHIPPED, resolve_checkpoint
from shards.errors import CheckpointError, DataError, to_line
from shards.files import read_json, write_json

PROCESSOR_FILE = "processor_config.json"
MAX_TOKENS = 50
"""The paper's limit (section C), including <s> and </s>."""


def save_checkpoint(folder: Path, model: IGVGModel, tokenizer: Any | None, max_tokens: int) -> None:
    """Write a checkpoint folder; without a tokenizer its files can be added later."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    if tokenizer is not None:
        save_tokenizer(tokenizer, folder, max_tokens)
    preprocessing = describe_preprocessing(model.config.image_size, max_tokens)
    write_json(folder / PREPROCESSOR_FILE, {"image_processor_type": "IGVGImageProcessor"} | preprocessing)
    write_json(folder / PROCESSOR_FILE, {"processor_class": "IGVGProcessor"})


def open_for_prediction(checkpoint: str | os.PathLike[str]) -> tuple[IGVGModel, Processor]:
    """Model and preprocessing of a checkpoint, loaded as fast as can be: for prediction alone.

    Raises:
        CheckpointError, SettingsError: as `open_checkpoint`.
    """
    model, tokenizer, max_tokens = open_checkpoint(checkpoint, read_tokenizer=load_light_tokenizer)
    return model, Processor(tokenizer=tokenizer, max_tokens=max_tokens, image_size=model.config.image_size)


def open_checkpoint(
    checkpoint: str | os.PathLike[str],
    *,
    revision: str | None = None,
    read_tokenizer: Callable[[Path], Any] = load_tokenizer,
) -> tuple[IGVGModel, Any, int]:
    """Model, tokenizer and token limit of a checkpoint folder, a published file or a shipped network.

    Args:
        checkpoint: a path or a name.
        revision: a branch, tag or commit of a hub name.
        read_tokenizer: reads the tokenizer of a checkpoint folder.

    Raises:
        CheckpointError: it is no checkpoint, or a file of it is missing or damaged.
        SettingsError: beit3.spm, the tokenizer of a published file, is not beside it.
    """
    path = resolve_checkpoint(Path(checkpoint), revision=revision)
    if not path.is_file():
        return load_checkpoint(path, read_tokenizer)
    if path.suffix == ".safetensors":
        return load_checkpoint(path.parent, read_tokenizer)
    model = load_instancevg_checkpoint(path)
    return model, load_tokenizer(path.parent / SENTENCEPIECE_NAME), infer_max_tokens(model.config)


def load_checkpoint(folder: Path, read_tokenizer: Callable[[Path], Any] = load_tokenizer) -> tuple[IGVGModel, Any, int]:
    """Model, tokenizer and token limit of a checkpoint folder.

    Raises:
        CheckpointError: the folder is no checkpoint, or a file of it is missing or damaged.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder} is no checkpoint; give a folder with config.json and model.safetensors, a published file, "
            f"the name {' or '.join(SHIPPED)}, or USER/REPO on the hub"
        )
    model = IGVGModel.from_pretrained(folder)
    tokenizer = read_tokenizer(folder)
    highest = find_highest_id(tokenizer)
    if highest >= model.config.vocab_size:
        raise CheckpointError(
            f"{folder}: its tokenizer has ids up to {highest} and its network room for {model.config.vocab_size}; "
            "copy both from the same checkpoint"
        )
    return model, tokenizer, _read_max_tokens(folder / PREPROCESSOR_FILE, model.config)


def default_max_tokens(config: IGVGConfig) -> int:
    """The paper's token limit, or the number of text positions if that is less; the first two are unused."""
    return min(MAX_TOKENS, config.text_positions - 2)


def _read_max_tokens(file: Path, config: IGVGConfig) -> int:
    """The token limit of a preprocessor_config.json, or the default.

    Raises:
        CheckpointError: the file is damaged, or describes other preprocessing than that of the network.
    """
    if not file.exists():
        return default_max_tokens(config)
    remedy = "copy it again, or make the checkpoint again"
    try:
        values = read_json(file, "a processor's settings in JSON", remedy)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{file} holds no settings of a processor; {remedy}")
    check_preprocessing(values, str(file))
    side = read_image_side(values.get("size", config.image_size), str(file))
    if side != config.image_size:
        raise CheckpointError(
            f"{file}: size is {side} × {side}, and image_size of config.json is {config.image_size}; {remedy}"
        )
    found = values.get("max_tokens", MAX_TOKENS)
    if type(found) is not int or not 2 < found <= config.text_positions - 2:
        most = config.text_positions - 2
        raise CheckpointError(
            f"{file}: max_tokens is {to_line(repr(found))}, not a whole number from 3 to {most}; {remedy}"
        )
    return found
