"""A training in progress: the loop, one step of it, and the state that it continues from.

The position in the data is one number, the examples seen, so that a training goes on from any saved state on any number
of processes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator
from functools import partial

import torch

from pipelines.data.batch import Batch
from pipelines.data.image_transforms import normalize_images
from pipelines.data.loader import load_batches
from pipelines.pretrained import save_checkpoint
from pipelines.runtime.precision import autocast_context, log_compute_dtype
from pipelines.runtime.signals import GracefulStop, SharedStop, Stopped
from pipelines.training.divergence import DivergenceError, advise, is_sound, require_finite
from pipelines.training.losses import compute_losses, count_step
from pipelines.training.optimizer import lr_factor, set_learning_rates
from pipelines.training.setup import Training
from pipelines.training.state import STATE_FOLDER, save_state
from pipelines.training.validation import validate_held_out
from shards.errors import NonFiniteError, WorkerError
from shards.progress import report_progress
from shards.sampling import sample_batch


def open_batches(training: Training) -> Generator[Batch, None, None]:
    """This process's share of every batch from the present step to the last."""
    settings, accelerator = training.settings, training.accelerator
    share = partial(
        sample_batch,
        len(training.data),
        seed=settings.seed,
        batch_size=settings.batch_size,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    )
    shares = (share(start=step * settings.batch_size) for step in range(training.step, training.total_steps))
    return load_batches(training.data, shares, workers=settings.workers)


def train(training: Training) -> None:
    """Train to the last step.

    Raises:
        DataError: an example cannot be read.
        DivergenceError: the training diverged; says what to do.
        Stopped: a signal asked to; the last step is saved.
        WorkerError: a worker that reads died; the last step is saved.
    """
    try:
        run_steps(training)
    except DivergenceError as error:
        advice = advise(training)
        if error.met_by_all:
            # So that the first process is the one that prints.
            training.accelerator.wait_for_everyone()
        raise DivergenceError(f"{error} (after step {training.step}); {advice}") from error


def run_steps(training: Training) -> None:
    """The training loop: batch, forward, loss, backward, clip, step, log, save, score."""
    settings, first_step, started = training.settings, training.step, time.monotonic()
    saved, total = started, training.total_steps
    training.log.forget_after(first_step, scored=training.scored == first_step)
    report_progress(first_step, total)
    training.log.write_start(
        first_step, training.epoch, processes=training.accelerator.num_processes, precision=training.compute_dtype
    )
    log_compute_dtype("training", settings.precision, training.compute_dtypes, training.accelerator.device)
    shared_stop = SharedStop(training.accelerator)
    with (
        GracefulStop() as stop,
        contextlib.closing(open_batches(training)) as batches,
        _saved_without_workers(training),
    ):
        if first_step and training.should_validate and training.scored != first_step:
            validate(training, stop)
        for batch in batches:
            losses = train_step(training, batch)
            training.step += 1
            if training.step % settings.log_steps == 0 or training.step == total:
                rate = (training.step - first_step) * settings.batch_size / (time.monotonic() - started)
                training.log.write_losses(training.step, training.epoch, losses, rate)
                report_progress(training.step, total, f"loss {losses['total']:.3f}, {rate:.1f} expressions/s")
            if training.should_validate or training.step % settings.log_steps == 0:
                require_finite(training.model, losses["total"], training.accelerator)
            signum = shared_stop.reduce(stop.signum)
            if (
                signum is not None
                or training.should_validate
                or time.monotonic() - saved > 60 * settings.checkpoint_minutes
            ):
                save_progress(training)
                saved = time.monotonic()
            if signum is not None:
                # torchrun ends all processes with the first, which must not be before the state is written.
                training.accelerator.wait_for_everyone()
                raise Stopped(signum, _describe_saved(training))
            if training.should_validate:
                validate(training, stop)


def validate(training: Training, stop: GracefulStop) -> None:
    """Score the held-out splits after a step that is saved: if stopped here, the training continues with this again.

    Raises:
        Stopped: a signal asked to.
    """
    report_progress(training.step, training.total_steps, "validation")
    with stop.immediate(_describe_saved(training)):
        validate_and_save_best(training)
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


def train_step(training: Training, batch: Batch) -> dict[str, torch.Tensor]:
    """One optimiser step on this process's share of a batch; returns the detached loss terms of its last part."""
    settings, accelerator, network = training.settings, training.accelerator, training.network
    factor = lr_factor(settings.optimizer, training.step, training.steps_per_epoch, training.total_steps)
    set_learning_rates(training.optimizer, factor)
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
            with autocast_context(accelerator.device, training.compute_dtype):
                output = network(normalize_images(part.pixel_values), part.input_ids, part.attention_mask)
            assert part.targets is not None
            losses = compute_losses(output, part.targets, settings.matching, settings.loss, counts)
            (losses["total"] / len(parts)).backward()  # type: ignore[no-untyped-call]
    if settings.optimizer.clip_norm:
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.optimizer.clip_norm)
    training.optimizer.step()
    training.optimizer.zero_grad(set_to_none=True)
    return {name: value.detach() for name, value in losses.items()}


def validate_and_save_best(training: Training) -> None:
    """Score the held-out splits and write the checkpoint folder if they never were better, or if there are none.

    Raises:
        DataError: a held-out example cannot be read.
        DivergenceError: the network's outputs are not finite.
    """
    try:
        scores, value = validate_held_out(training)
    except NonFiniteError as error:
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
            "arithmetics": list(training.compute_dtypes),
            "model": training.model.state_dict(),
            "optimizer": training.optimizer.state_dict(),
        }
        save_state(training.out / STATE_FOLDER, state)
