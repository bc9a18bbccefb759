"""A training of a very small network on drawn shards, in this process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from pipelines.config.presets import train_preset
from pipelines.config.settings import TrainSettings
from pipelines.training.setup import Training, setup_training
from pipelines.training.state import restore_state
from tests.support.drawn_shards import write_noise
from tests.support.small_network import CONFIG

# Everything that chance decides is at work: two layers of the encoder, of which stochastic depth drops some, dropout.
MODEL = replace(CONFIG, encoder_layers=2, drop_path=0.3, dropout=0.1)


def write_set(folder: Path) -> Path:
    """Twelve expressions about three images, all in split "val"."""
    return write_noise(folder / "noise", 3)


def small_settings(**changes: object) -> TrainSettings:
    """Settings of a training of four expressions a step, without reading workers."""
    values: dict[str, object] = {
        "model": MODEL, "splits": ("val",), "batch_size": 4, "precision": "fp32", "workers": 0, "log_steps": 1,
    }  # fmt: skip
    return replace(train_preset("tiny"), **(values | changes))


def open_small(shards: Path, out: Path, **changes: object) -> Training:
    """A training in the folder `out`, at the step where it was left."""
    settings = small_settings(**changes)
    torch.manual_seed(settings.seed)
    out.mkdir(parents=True, exist_ok=True)
    training = setup_training(settings, [shards], out, Accelerator(cpu=True))
    restore_state(training)
    return training
