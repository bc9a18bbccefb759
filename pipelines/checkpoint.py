"""The state of a running training, to continue from, and the checkpoint folder that it leaves.

A checkpoint folder is in the Hugging Face layout: config.json, model.safetensors, the tokenizer's files and
preprocessor_config.json.
"""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

import torch

from pipelines.images import PIXEL_MEAN, PIXEL_STD
from pipelines.model import CheckpointError, IGVGModel, load_published
from pipelines.text import SENTENCEPIECE_NAME, load_tokenizer, save_tokenizer
from shards.files import replace_file, write_json

if TYPE_CHECKING:
    from pathlib import Path

STATE_FILE = "state.pt"
PROCESSOR_FILE = "preprocessor_config.json"
# Of the paper (section C), both ends included.
MAX_TOKENS = 50


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write the training state all at once; an older one is replaced only by a whole new one."""
    folder.mkdir(parents=True, exist_ok=True)
    with replace_file(folder / STATE_FILE) as temporary:
        torch.save(state, temporary)


def load_state(folder: Path) -> dict[str, Any] | None:
    """The last saved training state on the CPU, or None if there is none.

    Raises:
        CheckpointError: the file is damaged.
    """
    file = folder / STATE_FILE
    if not file.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{file} is damaged ({error}); delete it, or start again with --force") from error
    return state


def save_checkpoint(folder: Path, model: IGVGModel, tokenizer: Any | None, max_tokens: int) -> None:
    """Write everything that prediction needs into a folder; a tokenizer that is not at hand may be added later."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    if tokenizer is not None:
        save_tokenizer(tokenizer, folder)
    side = model.config.image_size
    write_json(
        folder / PROCESSOR_FILE,
        {
            "do_resize": True,
            "size": {"height": side, "width": side},
            "resample": 2,
            "do_normalize": True,
            "image_mean": [round(value / 255, 6) for value in PIXEL_MEAN],
            "image_std": [round(value / 255, 6) for value in PIXEL_STD],
            "max_tokens": max_tokens,
        },
    )


def open_checkpoint(path: Path) -> tuple[IGVGModel, Any, int]:
    """Model, tokenizer and the largest number of tokens of a checkpoint folder, or of a published InstanceVG file.

    Raises:
        CheckpointError: it is no checkpoint, or a part of it is missing or damaged.
        SettingsError: the file's tokenizer, beit3.spm, is not beside it.
    """
    if not path.is_file():
        return load_checkpoint(path)
    if path.suffix == ".safetensors":
        return load_checkpoint(path.parent)
    model = load_published(path)
    return model, load_tokenizer(path.parent / SENTENCEPIECE_NAME), MAX_TOKENS


def load_checkpoint(folder: Path) -> tuple[IGVGModel, Any, int]:
    """Model, tokenizer and the largest number of tokens of a checkpoint folder.

    Raises:
        CheckpointError: the folder is no checkpoint, or a part of it is missing or damaged.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no checkpoint folder; give one that igvg train or igvg import made")
    model = IGVGModel.from_pretrained(folder)
    tokenizer = load_tokenizer(folder)
    return model, tokenizer, _read_max_tokens(folder / PROCESSOR_FILE)


def _read_max_tokens(file: Path) -> int:
    try:
        return int(json.loads(file.read_text(encoding="utf-8"))["max_tokens"])
    except FileNotFoundError:
        return MAX_TOKENS
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
