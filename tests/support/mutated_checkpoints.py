"""Changed files of a checkpoint folder but its weights: configuration, preprocessing and tokenizer."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from pipelines.data.preprocessor_config import PREPROCESSOR_FILE
from pipelines.data.tokenizer import TOKENIZER_CONFIG, TOKENIZER_FILE
from pipelines.model.serialization import CONFIG_FILE
from pipelines.pretrained import open_for_prediction
from tests.support.mutations import change_bytes, change_value, encode_json

FILES = (CONFIG_FILE, PREPROCESSOR_FILE, TOKENIZER_FILE, TOKENIZER_CONFIG)


def change_file(name: str) -> Callable[[Path, Path, random.Random], None]:
    """What writes a checkpoint folder of which the file `name` is changed."""

    def write(whole: Path, folder: Path, source: random.Random) -> None:
        shutil.copytree(whole / "checkpoint", folder / "checkpoint")
        file = folder / "checkpoint" / name
        data = file.read_bytes()
        changed = encode_json(change_value(json.loads(data), source), source) if source.randrange(3) else None
        file.write_bytes(change_bytes(data, source) if changed is None else changed)

    return write


def read_checkpoint_folder(_: Path, folder: Path) -> None:
    """Open a checkpoint folder as `igvg predict` does, and prepare an expression."""
    model, processor = open_for_prediction(folder / "checkpoint")
    for ids in processor.tokenize(["red star", "", "x" * 300]):
        assert len(ids) <= processor.max_tokens
        assert all(0 <= index < model.config.vocab_size for index in ids)
