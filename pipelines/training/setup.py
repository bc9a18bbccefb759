"""A training before its first step: the settings, the data, the network and the optimizer that it consists of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from pipelines.config.settings import TrainSettings
from pipelines.data.batch import Batch
from pipelines.data.datasets import GroundingDataset, Part
from pipelines.data.processor import Processor
from pipelines.model import IGVGModel
from pipelines.runtime.distributed import resolve_shared_precision, start_accelerator
from pipelines.runtime.memory import keep_freed_memory
from pipelines.runtime.precision import ComputeDtype
from pipelines.training.initialization import build_model
from pipelines.training.log import TrainingLog
from pipelines.training.optimizer import build_optimizer
from shards.errors import DataError, SettingsError
from shards.index import list_splits


@dataclass(kw_only=True)
class Training:
    """A training in progress: what it changes, what it reads, and how far it is."""

    settings: TrainSettings
    out: Path
    accelerator: Accelerator
    model: IGVGModel
    network: torch.nn.Module
    """`model` as the processes run it: itself, or wrapped to average gradients."""
    optimizer: torch.optim.Adam
    tokenizer: Any
    compute_dtype: ComputeDtype
    """What the network computes in."""
    compute_dtypes: tuple[ComputeDtype, ...]
    """What it computed in so far, one entry for each change; another machine may have another."""
    data: GroundingDataset
    validation_data: dict[Path, GroundingDataset]
    """The validation splits by shard folder; empty where the shards hold none."""
    log: TrainingLog
    step: int = 0
    last_part: Batch | None = None
    """What the network saw last, on its device; saved weights were tried on it."""
    scored: int = 0
    """The last step after which the validation splits were scored."""
    best: float = -1.0
    """The best validation value so far; its weights are in the checkpoint folder."""

    @property
    def steps_per_epoch(self) -> float:
        """Optimiser steps in one pass over all expressions; batches run on across the ends of epochs."""
        return len(self.data) / self.settings.batch_size

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole training."""
        steps = max(1, round(self.settings.epochs * self.steps_per_epoch))
        return min(steps, self.settings.max_steps) if self.settings.max_steps else steps

    @property
    def epoch(self) -> float:
        """Passes over all expressions so far."""
        return self.step / self.steps_per_epoch

    @property
    def should_validate(self) -> bool:
        """Whether this step ends the training, or a stretch of epochs after which it is scored."""
        stretch = self.steps_per_epoch * self.settings.validation_epochs
        return self.step == self.total_steps or math.floor(self.step / stretch) > math.floor((self.step - 1) / stretch)


def start_processes(settings: TrainSettings) -> Accelerator:
    """Accelerate's view of this process, its device and the others, ready to train.

    Raises:
        LaunchError: the processes that were started cannot work together.
        SettingsError: the batch cannot be shared evenly.
    """
    accelerator = start_accelerator()
    processes = accelerator.num_processes
    if settings.batch_size % (processes * settings.micro_batches):
        raise SettingsError(
            f"batch_size {settings.batch_size} cannot be shared by {processes} processes × "
            f"{settings.micro_batches} micro_batches; choose a multiple"
        )
    set_seed(settings.seed)
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    return accelerator


def setup_training(settings: TrainSettings, shards: Sequence[Path], out: Path, accelerator: Accelerator) -> Training:
    """Build or load everything a training consists of, at its beginning; nothing is written, no state is read.

    Raises:
        CheckpointError, DataError, SettingsError: a file to start from, a shard or a setting does not fit.
    """
    parts = list_parts(shards, settings.splits)
    model, tokenizer = build_model(settings, parts)
    processor = Processor(tokenizer=tokenizer, max_tokens=settings.text.max_tokens, image_size=model.config.image_size)
    mask_size = model.config.image_size if settings.mask_targets == "image" else model.config.mask_size
    compute_dtype = resolve_shared_precision(settings.precision, accelerator)
    return Training(
        settings=settings,
        out=out,
        accelerator=accelerator,
        model=model,
        network=accelerator.prepare_model(model),
        optimizer=build_optimizer(model, settings.optimizer),
        tokenizer=tokenizer,
        compute_dtype=compute_dtype,
        compute_dtypes=(compute_dtype,),
        data=GroundingDataset(parts, processor, mask_size=mask_size),
        validation_data=open_validation(shards, settings.validation_split, processor),
        log=TrainingLog(out / "log.jsonl", writes=accelerator.is_main_process),
    )


def list_parts(shards: Sequence[Path], splits: Sequence[str]) -> list[Part]:
    """The (folder, split) pairs to train on.

    Raises:
        DataError: a folder has none of the splits.
    """
    parts: list[Part] = []
    for folder in shards:
        found = list_splits(folder)
        chosen = [(folder, split) for split in splits if split in found]
        if not chosen:
            what = f"holds none of the splits to train on ({', '.join(splits)})"
            raise DataError(what, file=folder, remedy=f"set splits to some of {', '.join(found) or 'what it has'}")
        parts += chosen
    return parts


def open_validation(shards: Sequence[Path], split: str, processor: Processor) -> dict[Path, GroundingDataset]:
    """The split that is scored between epochs, of every shard folder that has it."""
    return {
        folder: GroundingDataset([(folder, split)], processor, mask_size=0)
        for folder in shards
        if split in list_splits(folder)
    }
