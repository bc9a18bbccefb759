"""A training in progress: the loop, one step of it, and the state that it continues from.

The position in the data is one number, the examples seen, so that a training goes on from any saved state on any number
of processes.
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import set_seed

from pipelines.checkpoint import save_checkpoint, save_state
from pipelines.divergence import STATE_FOLDER, DivergenceError, advise, is_sound, require_finite
from pipelines.images import normalize_pictures
from pipelines.inference import open_autocast
from pipelines.initialization import build_model
from pipelines.interrupts import StopAgreement, Stopped, StopRequest
from pipelines.loader import Frame, GroundingData, load_batches
from pipelines.losses import compute_losses, count_step
from pipelines.memory import keep_freed_memory
from pipelines.optimization import build_optimizer, compute_rate_factor, set_rates
from pipelines.precision import log_arithmetic
from pipelines.processes import resolve_together, start_accelerator
from pipelines.settings import SettingsError
from pipelines.training_log import TrainingLog
from pipelines.validation import score_held_out
from shards.errors import DataError, WorkerError
from shards.index import list_splits
from shards.plan import plan_share

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from pathlib import Path

    from accelerate import Accelerator

    from pipelines.batch import Batch
    from pipelines.loader import Part
    from pipelines.model import IGVGModel
    from pipelines.precision import Arithmetic
    from pipelines.settings import TrainSettings

    Progress = Callable[[int, int, str], None]


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
    arithmetic: Arithmetic
    """What the network computes in."""
    arithmetics: tuple[Arithmetic, ...]
    """What it computed in so far, one entry for each change; another machine may have another."""
    data: GroundingData
    held_out: dict[Path, GroundingData]
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
    def due(self) -> bool:
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


def open_training(settings: TrainSettings, shards: Sequence[Path], out: Path, accelerator: Accelerator) -> Training:
    """Build or load everything a training consists of, at its beginning; nothing is written, no state is read.

    Raises:
        CheckpointError, DataError, SettingsError: a file to start from, a shard or a setting does not fit.
    """
    parts = list_parts(shards, settings.splits)
    model, tokenizer = build_model(settings, parts)
    frame = Frame(tokenizer=tokenizer, max_tokens=settings.text.max_tokens, image_size=model.config.image_size)
    mask_size = model.config.image_size if settings.mask_targets == "picture" else model.config.mask_size
    arithmetic = resolve_together(settings.precision, accelerator)
    return Training(
        settings=settings,
        out=out,
        accelerator=accelerator,
        model=model,
        network=accelerator.prepare_model(model),
        optimizer=build_optimizer(model, settings.optimizer),
        tokenizer=tokenizer,
        arithmetic=arithmetic,
        arithmetics=(arithmetic,),
        data=GroundingData(parts, frame, mask_size=mask_size),
        held_out=open_held_out(shards, settings.validation_split, frame),
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


def open_held_out(shards: Sequence[Path], split: str, frame: Frame) -> dict[Path, GroundingData]:
    """The split that is scored between epochs, of every shard folder that has it."""
    return {
        folder: GroundingData([(folder, split)], frame, mask_size=0)
        for folder in shards
        if split in list_splits(folder)
    }


def open_batches(training: Training) -> Generator[Batch, None, None]:
    """This process's share of every batch from the present step to the last."""
    settings, accelerator = training.settings, training.accelerator
    share = partial(
        plan_share,
        len(training.data),
        seed=settings.seed,
        batch_size=settings.batch_size,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
    )
    shares = (share(start=step * settings.batch_size) for step in range(training.step, training.total_steps))
    return load_batches(training.data, shares, workers=settings.workers)


def train(training: Training, progress: Progress) -> None:
    """Train to the last step.

    Raises:
        DataError: an example cannot be read.
        DivergenceError: the training diverged; says what to do.
        Stopped: a signal asked to; the last step is saved.
        WorkerError: a worker that reads died; the last step is saved.
    """
    try:
        run_steps(training, progress)
    except DivergenceError as error:
        advice = advise(training)
        if error.met_by_all:
            # So that the first process is the one that prints.
            training.accelerator.wait_for_everyone()
        raise DivergenceError(f"{error} (after step {training.step}); {advice}") from error


def run_steps(training: Training, progress: Progress) -> None:
    """The training loop: batch, forward, loss, backward, clip, step, log, save, score."""
    settings, first_step, started = training.settings, training.step, time.monotonic()
    saved, total = started, training.total_steps
    training.log.forget_after(first_step, scored=training.scored == first_step)
    progress(first_step, total, "")
    training.log.write_start(
        first_step, training.epoch, processes=training.accelerator.num_processes, precision=training.arithmetic
    )
    log_arithmetic("training", settings.precision, training.arithmetics, training.accelerator.device)
    agreement = StopAgreement(training.accelerator)
    with StopRequest() as stop, contextlib.closing(open_batches(training)) as batches, _saved_without_workers(training):
        if first_step and training.due and training.scored != first_step:
            validate(training, progress, stop)
        for batch in batches:
            losses = take_step(training, batch)
            training.step += 1
            if training.step % settings.log_steps == 0 or training.step == total:
                rate = (training.step - first_step) * settings.batch_size / (time.monotonic() - started)
                training.log.write_losses(training.step, training.epoch, losses, rate)
                progress(training.step, total, f"loss {losses['total']:.3f}, {rate:.1f} expressions/s")
            if training.due or training.step % settings.log_steps == 0:
                require_finite(training.model, losses["total"], training.accelerator)
            number = agreement.ask(stop.number)
            if number is not None or training.due or time.monotonic() - saved > 60 * settings.checkpoint_minutes:
                save_progress(training)
                saved = time.monotonic()
            if number is not None:
                # torchrun ends all processes with the first, which must not be before the state is written.
                training.accelerator.wait_for_everyone()
                raise Stopped(number, _describe_saved(training))
            if training.due:
                validate(training, progress, stop)


def validate(training: Training, progress: Progress, stop: StopRequest) -> None:
    """Score the held-out splits after a step that is saved: if stopped here, the training continues with this again.

    Raises:
        Stopped: a signal asked to.
    """
    progress(training.step, training.total_steps, "validation")
    with stop.at_once(_describe_saved(training)):
        keep_best(training)
    training.scored = training.step


def _describe_saved(training: Training) -> str:
    return f"step {training.step} of {training.total_steps} is saved"


@contextlib.contextmanager
def _saved_without_workers(training: Training) -> Iterator[None]:
    try:
        yield
    except WorkerError:
        save_progress(training)
        raise


def take_step(training: Training, batch: Batch) -> dict[str, torch.Tensor]:
    """One optimiser step on this process's share of a batch; returns the detached loss terms of its last part."""
    settings, accelerator, network = training.settings, training.accelerator, training.network
    factor = compute_rate_factor(settings.optimizer, training.step, training.steps_per_epoch, training.total_steps)
    set_rates(training.optimizer, factor)
    # Dropout depends on seed, step and process alone, so that a resumed training repeats an undisturbed one.
    torch.manual_seed((settings.seed * 1_000_003 + training.step) * 4099 + accelerator.process_index)
    network.train()
    moved = batch.to(accelerator.device)
    parts = moved.split(settings.micro_batches)
    assert moved.targets is not None
    counts = count_step(
        moved.targets, training.model.config.num_queries, total=accelerator.reduce,
        processes=accelerator.num_processes, micro_batches=settings.micro_batches,
    )  # fmt: skip
    for number, part in enumerate(parts, start=1):
        training.last_part = part
        with accelerator.no_sync(network) if number < len(parts) else contextlib.nullcontext():
            with open_autocast(accelerator.device, training.arithmetic):
                output = network(normalize_pictures(part.pixel_values), part.input_ids, part.attention_mask)
            assert part.targets is not None
            losses = compute_losses(
                output, part.targets, settings.matching, settings.loss,
                auxiliary_boxes=training.model.config.auxiliary_boxes, counts=counts,
            )  # fmt: skip
            (losses["total"] / len(parts)).backward()  # type: ignore[no-untyped-call]
    if settings.optimizer.clip_norm:
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.optimizer.clip_norm)
    training.optimizer.step()
    training.optimizer.zero_grad(set_to_none=True)
    return {name: value.detach() for name, value in losses.items()}


def keep_best(training: Training) -> None:
    """Score the held-out splits and write the checkpoint folder if they never were better, or if there are none.

    Raises:
        DataError: a held-out example cannot be read.
        DivergenceError: the network's outputs are not finite.
    """
    try:
        scores, value = score_held_out(training)
    except FloatingPointError as error:
        raise DivergenceError("outputs for the validation split are not finite: training has diverged") from error
    if not training.accelerator.is_main_process:
        return
    if scores:
        training.log.write_scores(training.step, training.epoch, scores)
    if not scores or value > training.best:
        training.best = value
        save_checkpoint(training.out, training.model, training.tokenizer, training.settings.text.max_tokens)


def save_progress(training: Training) -> None:
    """Save the state to continue from; the processes hold the same weights, so one of them writes.

    Raises:
        DivergenceError: weights or outputs are not finite; the state that was saved before stays.
    """
    if training.accelerator.is_main_process:
        if not is_sound(training):
            raise DivergenceError("weights or outputs are not finite: training has diverged")
        state = {
            "step": training.step,
            "scored": training.scored,
            "best": training.best,
            "arithmetics": list(training.arithmetics),
            "model": training.model.state_dict(),
            "optimizer": training.optimizer.state_dict(),
        }
        save_state(training.out / STATE_FOLDER, state)
