"""The initial model of a training, and its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.config.overrides import describe_differences
from pipelines.config.presets import find_preset
from pipelines.config.settings import TrainSettings
from pipelines.data.datasets import Part, read_texts
from pipelines.data.tokenizer import SENTENCEPIECE_NAME, find_highest_id, load_tokenizer, train_tokenizer
from pipelines.model import IGVGConfig, IGVGModel
from pipelines.model.convert.beit3 import load_beit3_encoder
from pipelines.model.encoder import MultiwayEncoder
from pipelines.model.serialization import check_state_dict
from pipelines.networks import resolve_checkpoint
from pipelines.pretrained import load_checkpoint
from shards.errors import SettingsError


def build_model(
    settings: TrainSettings, parts: Sequence[Part], left_out: Sequence[NDArray[np.bool_]] = ()
) -> tuple[IGVGModel, Any]:
    """The initial model and its tokenizer: of a checkpoint, or new, with a published encoder or without.

    A new tokenizer is trained on the expressions of `parts` but those of records that are left out.

    Raises:
        CheckpointError: `init` is no checkpoint, or does not fit the model.
        SettingsError: the tokenizer is missing, or has more ids than the model.
    """
    init = resolve_checkpoint(settings.init) if settings.init else None
    if init and init.is_dir():
        model, tokenizer, _ = load_checkpoint(init)
        if settings.init_part == "encoder":
            return build_on_encoder(settings, model.encoder), tokenizer
        if model.config != settings.model:
            raise SettingsError(_explain_mismatch(settings, model.config))
        return model, tokenizer
    tokenizer = choose_tokenizer(settings, init, parts, left_out)
    highest = find_highest_id(tokenizer)
    if highest >= settings.model.vocab_size:
        raise SettingsError(f"the tokenizer has ids up to {highest}; set model.vocab_size to at least {highest + 1}")
    model = IGVGModel(settings.model)
    if init:
        load_beit3_encoder(model, init)
    return model, tokenizer


def build_on_encoder(settings: TrainSettings, encoder: MultiwayEncoder) -> IGVGModel:
    """A new network of the settings with a trained encoder.

    Raises:
        CheckpointError: the settings ask for another encoder; lists the first tensors that do not fit.
    """
    model = IGVGModel(settings.model)
    origin = f"the encoder of {settings.init} in the network that the settings ask for"
    check_state_dict(encoder.state_dict(), model.encoder.state_dict(), origin)
    model.encoder.load_state_dict(encoder.state_dict())
    return model


def choose_tokenizer(
    settings: TrainSettings, init: Path | None, parts: Sequence[Part], left_out: Sequence[NDArray[np.bool_]] = ()
) -> Any:
    """The tokenizer of the settings, or the one beside a published encoder, or one trained on the expressions.

    Raises:
        SettingsError: there is no tokenizer beside the published encoder.
    """
    if settings.text.tokenizer:
        return load_tokenizer(Path(settings.text.tokenizer))
    if init:
        file = init.parent / SENTENCEPIECE_NAME
        if not file.is_file():
            raise SettingsError(f"{init} needs its tokenizer; put {SENTENCEPIECE_NAME} beside it or set text.tokenizer")
        return load_tokenizer(file)
    return train_tokenizer(read_texts(parts, left_out), settings.model.vocab_size)


def _explain_mismatch(settings: TrainSettings, found: IGVGConfig) -> str:
    """How the model of `init` differs from the settings, and what makes them equal."""
    preset = find_preset(found)
    if preset not in (None, settings.preset):
        return f"{settings.init} is a network of the preset {preset}; add --preset {preset}"
    changes = describe_differences(asdict(settings.model), asdict(found), "model.")
    return f"{settings.init} is another network than the settings ask for: {', '.join(changes)}"
