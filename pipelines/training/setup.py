"""Everything that a training consists of: the accelerator, the model, the optimizer, the data and the progress."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from numpy.typing import NDArray

from pipelines.config.settings import TrainSettings
from pipelines.data.batch import Batch
from pipelines.data.cut_expressions import CutExpressions
from pipelines.data.datasets import GroundingDataset, Part
from pipelines.data.image_cache_building import build_caches
from pipelines.data.loader import count_cpus
from pipelines.data.processor import Processor
from pipelines.model import IGVGModel
from pipelines.runtime.distributed import resolve_shared_precision, start_accelerator
from pipelines.runtime.memory import keep_freed_memory
from pipelines.runtime.precision import ComputeDtype
from pipelines.training.adaptation import adapt_model
from pipelines.training.ema import ExponentialMovingAverage
from pipelines.training.initialization import build_model
from pipelines.training.leaks import Leaks, find_leaks
from pipelines.training.log import TrainingLog
from pipelines.training.optimizer import build_optimizer, build_scaler
from pipelines.training.shard_blocks import BlockStreams, compare_with_cache, split_into_blocks
from pipelines.training.sharding import parallelize, splits_network
from shards.errors import DataError, SettingsError
from shards.image_identity import held_out_splits
from shards.index import list_splits
from shards.mixing import Mixture, reduce_ratios
from shards.remote_folders import locate_shards
from shards.remote_shards import RemoteShard
from shards.sampling import sample_batch, split_by_rank

TrainingCommand = Literal["train", "run", "demo", "ablate"]


@dataclass(kw_only=True)
class Training:
    """A training in progress."""

    settings: TrainSettings
    out: Path
    accelerator: Accelerator
    model: IGVGModel
    parallel_model: torch.nn.Module
    """`model`, compiled if that is set, in DistributedDataParallel if several ranks hold it; `model` if it is split."""
    optimizer: torch.optim.Adam
    scaler: torch.amp.GradScaler
    """Scales the losses of a training in float16; does nothing in other precisions."""
    ema: ExponentialMovingAverage | None
    """The moving average of the weights, if there is one."""
    compute_dtype: ComputeDtype
    compute_dtypes: tuple[ComputeDtype, ...]
    """The compute dtypes so far, one entry for each change: a training may be resumed on another device."""
    data: GroundingDataset
    leaks: Leaks
    """The training images that are also in held-out splits; `data` holds none of them if `exclude_held_out` is set."""
    validation_data: dict[Path, GroundingDataset]
    """The validation splits by shard folder; empty if the shards hold none."""
    log: TrainingLog
    cut: CutExpressions | None = None
    """The training expressions that are cut at the token limit, counted by the first rank of `igvg train`."""
    mixture: Mixture | None = None
    """The ratios of the shard folders; None: each expression comes once an epoch."""
    blocks: BlockStreams | None = None
    """The blocks of shards in which expressions are shuffled; None: all are shuffled together."""
    step: int = 0
    """Optimizer steps so far."""
    last_micro_batch: Batch | None = None
    """The last input of a step that was not skipped; weights are tried on it before they are saved.

    The first one of all if every step was skipped.
    """
    skipped_steps: int = 0
    """Steps so far that were skipped because a loss or the gradient was not finite."""
    overflowed_steps: int = 0
    """Steps so far that were skipped because a gradient of float16 overflowed, which lowers the scale."""
    skipped_in_a_row: int = 0
    """How many of them were the last steps."""
    changes: Sequence[str] = ()
    """The settings with other values from the present step on, as the log says."""
    identity: str = ""
    """A digest of the inputs and settings that a training keeps from its beginning; empty: states are not compared."""
    command: TrainingCommand = "train"
    """The command that trains: it decides where settings are changed after a divergence."""
    validated_step: int = 0
    """The last step after which the validation splits were scored."""
    validation_is_due: bool = False
    """Whether the training was stopped between the last step and its validation."""
    best: float = -1.0
    """The best validation value so far; its weights are in the checkpoint folder."""
    best_step: int = 0
    """Its step."""

    @property
    def scored_model(self) -> IGVGModel:
        """The network that is validated and kept: the moving average of the weights if there is one."""
        return self.ema.model if self.ema else self.model

    @property
    def steps_per_epoch(self) -> float:
        """Optimizer steps in one pass over all expressions; batches may span the end of an epoch."""
        return len(self.data) / self.settings.batch_size

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        steps = max(1, round(self.settings.epochs * self.steps_per_epoch))
        return min(steps, self.settings.max_steps) if self.settings.max_steps else steps

    @property
    def epoch(self) -> float:
        """Passes over all expressions so far."""
        return self.step / self.steps_per_epoch

    def sample_step(self, step: int) -> NDArray[np.int64]:
        """The indices of this rank's part of the batch of a step, counted from 0."""
        seed, batch_size = self.settings.seed, self.settings.batch_size
        rank, world_size = self.accelerator.process_index, self.accelerator.num_processes
        start = step * batch_size
        if self.mixture:
            indices = self.mixture.sample(seed=seed, start=start, count=batch_size)
            return split_by_rank(indices, rank, world_size)
        if self.blocks:
            indices = self.blocks.streams[0].sample(seed=seed, start=start, count=batch_size)
            return split_by_rank(indices, rank, world_size)
        return sample_batch(
            len(self.data), seed=seed, start=start, batch_size=batch_size, rank=rank, world_size=world_size
        )

    def list_shards_ahead(self, step: int) -> list[RemoteShard]:
        """The remote shards of the blocks that are read at a step and next, up to the last step."""
        if not self.blocks:
            return []
        seed, batch_size = self.settings.seed, self.settings.batch_size
        positions, ends = (
            self.mixture.count_examples(at * batch_size, seed=seed) if self.mixture else [at * batch_size]
            for at in (step, self.total_steps)
        )
        return self.blocks.list_ahead(positions, ends, seed=seed)

    @property
    def examples_by_set(self) -> list[dict[str, float]]:
        """For each set of the mixture its expressions, the examples of it so far, and the passes over it."""
        if not self.mixture:
            return []
        sizes, seed = self.mixture.sizes, self.settings.seed
        seen = self.mixture.count_examples(self.step * self.settings.batch_size, seed=seed)
        return [
            {"ratio": ratio, "expressions": size, "examples": examples, "passes": round(examples / size, 4)}
            for ratio, size, examples in zip(self.settings.ratios, sizes, seen, strict=True)
        ]

    @property
    def should_validate(self) -> bool:
        """Whether the training is validated after this step: the last, or the first after `validation_epochs`."""
        period = self.steps_per_epoch * self.settings.validation_epochs
        return self.step == self.total_steps or math.floor(self.step / period) > math.floor((self.step - 1) / period)


def start_processes(settings: TrainSettings) -> Accelerator:
    """The accelerator of a training, with the seed set.

    Raises:
        LaunchError: the processes that were started cannot work together.
        SettingsError: the batch cannot be shared evenly.
    """
    accelerator = start_accelerator(may_split=True)
    world_size = accelerator.num_processes
    if settings.batch_size % (world_size * settings.micro_batches):
        raise SettingsError(
            f"batch_size {settings.batch_size} cannot be shared by {world_size} processes × "
            f"{settings.micro_batches} micro_batches; choose a multiple"
        )
    set_seed(settings.seed)
    # Slices of gradients that stay lie between the gathered weights of layers: little of what is freed is used again.
    if accelerator.device.type == "cpu" and not splits_network(accelerator):
        keep_freed_memory()
    return accelerator


def setup_training(settings: TrainSettings, shards: Sequence[Path], out: Path, accelerator: Accelerator) -> Training:
    """A training at step 0; nothing is written but image caches, and no saved state is read.

    Raises:
        CheckpointError, DataError, SettingsError: a file to start from, a shard or a setting does not fit.
    """
    parts = list_parts(shards, settings.splits)
    leaks = find_leaks([*shards, *locate_held_out(settings)], parts, settings.splits)
    left_out = leaks.records if settings.exclude_held_out and leaks.images else ()
    model, tokenizer = build_model(settings, parts, left_out)
    processor = Processor(tokenizer=tokenizer, max_tokens=settings.text.max_tokens, image_size=model.config.image_size)
    mask_size = model.config.image_size if settings.mask_targets == "image" else model.config.mask_size
    data = GroundingDataset(parts, processor, mask_size=mask_size, left_out=left_out)
    if left_out and not len(data):
        what = "all training images are also in held-out splits"
        raise DataError(what, file=parts[0][0], remedy="leave exclude_held_out off, or train on other sets")
    validation_data = open_validation(shards, settings.validation_split, processor)
    if settings.cache:
        cache_images([data, *validation_data.values()], processor.image_size, settings.cache_limit)
    compute_dtype = resolve_shared_precision(settings.precision, accelerator)
    adapt_model(model, settings, accelerator.num_processes)
    parallel_model, ema = parallelize(model, settings, accelerator, compute_dtype)
    blocks = None
    if settings.shuffle_block_shards:
        counts = [len(list_parts([folder], settings.splits)) for folder in shards] if settings.ratios else [len(parts)]
        blocks = split_into_blocks(settings.shuffle_block_shards, data, counts)
    else:
        compare_with_cache(data.readers)
    return Training(
        settings=settings,
        out=out,
        accelerator=accelerator,
        model=model,
        parallel_model=parallel_model,
        optimizer=build_optimizer(model, settings.optimizer),
        scaler=build_scaler(accelerator.device, compute_dtype),
        ema=ema,
        compute_dtype=compute_dtype,
        compute_dtypes=(compute_dtype,),
        data=data,
        leaks=leaks,
        validation_data=validation_data,
        log=TrainingLog(out / "log.jsonl", writes=accelerator.is_main_process),
        mixture=mix_shards(settings, shards, data, blocks) if settings.ratios else None,
        blocks=blocks,
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
            remedy = f"set splits to some of {', '.join(found) or 'what it has'}"
            if held_out_splits(found, splits):
                remedy += ", or give it as --held-out if its images must not be trained on"
            raise DataError(what, file=folder, remedy=remedy)
        parts += chosen
    return parts


def locate_held_out(settings: TrainSettings) -> list[Path]:
    """The folders that are compared with the training splits and not trained on.

    Raises:
        DataError: a folder has no held-out split.
    """
    folders = [locate_shards(text) for text in settings.held_out]
    for folder in folders:
        found = list_splits(folder)
        if not held_out_splits(found, settings.splits):
            what = f"holds no held-out split ({', '.join(found) or 'no split at all'})"
            raise DataError(what, file=folder, remedy="leave it out of held_out, or give it as --shards")
    return folders


def mix_shards(
    settings: TrainSettings, shards: Sequence[Path], data: GroundingDataset, blocks: BlockStreams | None = None
) -> Mixture:
    """The ratios of the shard folders; the splits of a folder are one set.

    Raises:
        DataError: a folder holds no expressions.
        SettingsError: the ratios cannot be mixed.
    """
    part_sizes = iter(data.part_sizes)
    sizes = [sum(next(part_sizes) for _ in list_parts([folder], settings.splits)) for folder in shards]
    for folder, size in zip(shards, sizes, strict=True):
        if not size:
            remedy = "leave it out"
            if settings.exclude_held_out:
                remedy += ", or set exclude_held_out=false if its images are those of a held-out split"
            raise DataError("holds no expressions to train on", file=folder, remedy=remedy)
    streams = blocks.streams if blocks else ()
    return Mixture(sizes=tuple(sizes), weights=reduce_ratios(settings.ratios), blocks=streams)


def open_validation(shards: Sequence[Path], split: str, processor: Processor) -> dict[Path, GroundingDataset]:
    """The validation split of every shard folder that has it."""
    return {
        folder: GroundingDataset([(folder, split)], processor, mask_size=0)
        for folder in shards
        if split in list_splits(folder)
    }


def cache_images(datasets: Sequence[GroundingDataset], size: int, limit: float) -> None:
    """Have data sets read images from caches of at most `limit` gigabytes together; the first ones come first.

    Raises:
        DataError: an image is damaged, or the disk has too little space.
        OSError: a file cannot be written.
        WorkerError: a worker died.
    """
    readers = [reader for data in datasets for reader in data.readers]
    caches = iter(build_caches(readers, size, limit=limit, workers=count_cpus()))
    for data in datasets:
        data.caches = [next(caches) for _ in data.readers]
