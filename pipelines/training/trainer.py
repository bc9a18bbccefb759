"""The training loop.

The position in the data is the number of examples seen so far, so that a training can be resumed with any world size.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace

import torch
from accelerate import Accelerator

from pipelines.data.batch import Batch
from pipelines.data.image_transforms import normalize_images
from pipelines.data.loader import load_batches
from pipelines.pretrained import save_checkpoint
from pipelines.runtime.precision import autocast_context, log_compute_dtype, products_context
from pipelines.runtime.signals import GracefulStop, SharedRequests, Stopped
from pipelines.training.compilation import explain_failed_compilation
from pipelines.training.divergence import DivergenceError, require_finite
from pipelines.training.folders import STATE_FOLDER
from pipelines.training.log import StepResult
from pipelines.training.losses import compute_losses, count_step
from pipelines.training.optimizer import learning_rates, lr_factor, set_learning_rates
from pipelines.training.profiling import StepProfiler
from pipelines.training.recovery import advise_after_divergence
from pipelines.training.setup import Training
from pipelines.training.shard_blocks import hold_blocks
from pipelines.training.sharding import gather_model, is_sharded
from pipelines.training.skipped import BatchNormStatistics, SkippedSteps, find_skipped
from pipelines.training.split_tensors import full_tensor
from pipelines.training.state import save_state
from pipelines.training.step_timer import StepSpeed, StepTimer
from pipelines.training.trackers import open_trackers
from pipelines.training.validation import describe_choice, validate
from shards.errors import DataError, NonFiniteError, WorkerError
from shards.progress import log, report_progress


def train(training: Training) -> None:
    """Train to the last step.

    Raises:
        DataError: an example cannot be read.
        DivergenceError: the training diverged; says what to do.
        SettingsError: the network cannot be compiled, or a tracker cannot be started.
        Stopped: a signal was received; the last step is saved.
        WorkerError: a worker process died; the last step is saved.
    """
    settings, state_folder = training.settings, training.out / STATE_FOLDER
    try:
        with open_trackers(settings, training.out, state_folder, training.step, training.accelerator) as trackers:
            training.log.trackers = trackers
            run_steps(training)
    except DivergenceError as error:
        advice = advise_after_divergence(training)
        if error.on_all_ranks:
            # The first rank to end ends the others: rank 0, which prints, must not be among these.
            training.accelerator.wait_for_everyone()
        raise DivergenceError(f"{error} (after step {training.step}); {advice}") from error


def run_steps(training: Training) -> None:
    """The training loop: batch, forward, loss, backward, clip, step (in `train_step`), log, save, validate."""
    settings, accelerator = training.settings, training.accelerator
    first_step, total = training.step, training.total_steps
    saved = time.monotonic()
    training.log.forget_after(first_step, scored=training.validated_step == first_step)
    report_progress(first_step, total)
    facts = {"changes": list(training.changes)} if training.changes else {}
    training.log.write_start(first_step, training.epoch, processes=accelerator.num_processes,
                    precision=training.compute_dtype, **facts)  # fmt: skip
    log_compute_dtype("training", settings.precision, training.compute_dtypes, accelerator.device)
    requests, skipped = SharedRequests(accelerator), SkippedSteps(training)
    timer = StepTimer(accelerator.device)
    profiled_steps = settings.profile_steps if accelerator.is_main_process else 0
    with (
        GracefulStop() as stop,
        contextlib.closing(open_batches(training)) as batches,
        _save_if_reading_fails(training),
        explain_failed_compilation(),
        StepProfiler(profiled_steps, training.out, accelerator.device) as profiler,
    ):
        unscored = first_step and training.validated_step != first_step
        if unscored and (training.should_validate or training.validation_is_due):
            run_validation(training, stop)
        for batch in timer.time_batches(batches, settings.batch_size):
            with profiler.step():
                result = train_step(training, batch)
            training.step += 1
            skipped.add(batch, result)
            if training.step % settings.log_steps == 0 or training.step == total:
                log_step(training, result, timer.lap())
                if training.cut:
                    training.cut.log_when_counted()
            if training.should_validate or training.step % settings.log_steps == 0:
                skipped.settle()
                require_finite(training.model, accelerator)
            state_is_old = time.monotonic() - saved > 60 * settings.checkpoint_minutes
            signum, save_now = requests.reduce(stop.signum, save=state_is_old)
            if signum is not None or training.should_validate or save_now:
                skipped.settle()
                save_state(training)
                saved = time.monotonic()
            if signum is not None:
                # torchrun ends all processes when the first one ends: wait until the state is written.
                accelerator.wait_for_everyone()
                raise Stopped(signum, _describe_saved(training))
            if training.should_validate:
                run_validation(training, stop)


def log_step(training: Training, result: StepResult, speed: StepSpeed) -> None:
    """Log a step, and show its total loss and the speed beside the progress; every rank has to call it."""
    result = replace(result, losses=average_losses(result.losses, training.accelerator))
    if training.scaler.is_enabled():
        # The loss of another rank may be what is not finite.
        overflowed = result.overflowed * result.losses["total"].isfinite()
        result = replace(result, overflowed=overflowed, loss_scale=training.scaler.get_scale())
    rates = learning_rates(training.optimizer)
    line = training.log.write_step(training.step, training.epoch, result, speed, rates)
    total = line["losses"]["total"]
    loss = "not finite" if total is None else f"{total:.3f}"
    remark = f"loss {loss}, {speed.expressions_per_second:.1f} expressions/s"
    report_progress(training.step, training.total_steps, remark)


def average_losses(losses: Mapping[str, torch.Tensor], accelerator: Accelerator) -> dict[str, torch.Tensor]:
    """The losses of a batch, from those of each rank's part; every rank has to call it."""
    if accelerator.num_processes == 1:
        return dict(losses)
    values = accelerator.reduce(torch.stack(list(losses.values())), reduction="mean")
    return dict(zip(losses, values.unbind(), strict=True))


def open_batches(training: Training) -> Generator[Batch, None, None]:
    """This rank's part of every batch from the present step to the last."""
    batch_indices = (training.sample_step(step) for step in range(training.step, training.total_steps))
    if training.blocks:
        for reader in training.data.readers:
            # Of what was read before nothing is needed, and the shards that follow are none of the next block.
            reader.close()
            reader.fetches_ahead = False
    batches = load_batches(training.data, batch_indices, workers=training.settings.workers)
    return hold_blocks(batches, training.step, training.list_shards_ahead) if training.blocks else batches


def train_step(training: Training, batch: Batch) -> StepResult:
    """One optimizer step on this rank's part of a batch; it is skipped if it is not finite: nothing changes."""
    settings, accelerator, model = training.settings, training.accelerator, training.parallel_model
    factor = lr_factor(settings.optimizer, training.step, training.steps_per_epoch, training.total_steps)
    set_learning_rates(training.optimizer, factor)
    # Dropout depends only on seed, step and rank, so that a resumed training equals an uninterrupted one.
    torch.manual_seed((settings.seed * 1_000_003 + training.step) * 4099 + accelerator.process_index)
    model.train()
    statistics = BatchNormStatistics(training.model)
    losses = compute_gradients(training, batch.to(accelerator.device))
    training.scaler.unscale_(training.optimizer)
    # Clipping to an infinite norm measures it and changes no gradient.
    norm = full_tensor(torch.nn.utils.clip_grad_norm_(model.parameters(), settings.optimizer.clip_norm or math.inf))
    skipped = find_skipped(losses["total"], norm, accelerator)
    statistics.restore(skipped)
    # As torch's GradScaler does: Adam reads it on the device, and then changes nothing.
    training.optimizer.found_inf = skipped  # type: ignore[attr-defined]
    training.optimizer.step()
    training.scaler.update()
    if training.ema:
        training.ema.update(training.model, training.step, skipped)
    training.optimizer.zero_grad(set_to_none=True)
    overflowed = skipped * losses["total"].isfinite() if training.scaler.is_enabled() else torch.zeros_like(skipped)
    return StepResult(losses=losses, gradient_norm=norm.detach(), skipped=skipped, overflowed=overflowed)


def compute_gradients(training: Training, batch: Batch) -> dict[str, torch.Tensor]:
    """Add the gradients of a step, in micro-batches; returns the losses of this rank's part, without a graph."""
    settings, accelerator, model = training.settings, training.accelerator, training.parallel_model
    assert batch.targets is not None
    counts = count_step(
        batch.targets, training.model.config.num_queries, all_reduce=accelerator.reduce,
        world_size=accelerator.num_processes, micro_batches=settings.micro_batches,
    )  # fmt: skip
    if settings.compile:
        # Inputs of one shape are compiled once; inductor fails in the backward pass of texts of several lengths.
        processor = training.data.processor
        length = min(processor.max_tokens, training.model.encoder.max_text_tokens)
        batch = batch.pad_texts(length, processor.tokenizer.pad_token_id)
    micro_batches = batch.split(settings.micro_batches)
    step_losses: dict[str, torch.Tensor] = {}
    for index, micro_batch in enumerate(micro_batches, start=1):
        syncing = accelerator.no_sync(model) if index < len(micro_batches) else contextlib.nullcontext()
        with syncing, products_context(accelerator.device, training.compute_dtype):
            with autocast_context(accelerator.device, training.compute_dtype):
                pixel_values = normalize_images(micro_batch.pixel_values)
                output = model(pixel_values, micro_batch.input_ids, micro_batch.attention_mask)
            assert micro_batch.targets is not None
            losses = compute_losses(output, micro_batch.targets, settings.matching, settings.loss, counts)
            training.scaler.scale(losses["total"] / len(micro_batches)).backward()  # type: ignore[no-untyped-call]
        for name, value in losses.items():
            part = value.detach() / len(micro_batches)
            step_losses[name] = step_losses[name] + part if name in step_losses else part
    return step_losses


def run_validation(training: Training, stop: GracefulStop) -> None:
    """Validate after a step whose state is saved: a training that is stopped here resumes with this validation.

    Raises:
        Stopped: a signal was received.
    """
    report_progress(training.step, training.total_steps, "validation")
    with stop.immediate(_describe_saved(training)):
        validate_and_save_best(training)
    training.validated_step = training.step


def validate_and_save_best(training: Training) -> None:
    """Score the validation splits; write the checkpoint folder if the scores are the best so far, or there are none.

    Raises:
        DataError: an example cannot be read.
        DivergenceError: the network's outputs are not finite.
    """
    try:
        scores, value = validate(training)
    except NonFiniteError as error:
        raise DivergenceError("outputs for the validation split are not finite: training has diverged") from error
    if training.accelerator.is_main_process:
        if scores:
            training.log.write_scores(training.step, training.epoch, scores)
        log(describe_choice(training, scores, value))
    if scores and value <= training.best:
        return
    training.best, training.best_step = value, training.step
    model = gather_model(training.scored_model, training.accelerator)
    if model and training.accelerator.is_main_process:
        processor = training.data.processor
        save_checkpoint(training.out, model, processor.tokenizer, processor.max_tokens)


def _describe_saved(training: Training) -> str:
    return f"step {training.step} of {training.total_steps} is saved"


@contextlib.contextmanager
def _save_if_reading_fails(training: Training) -> Iterator[None]:
    try:
        yield
    except (DataError, WorkerError):
        # All ranks save a split network together, and the others do not know of the error.
        if not is_sharded(training.model):
            save_state(training)
        raise
