"""`igvg train`: shards in, a checkpoint folder out, made once and continued where it was stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config.overrides import fingerprinted_settings
from pipelines.config.ratios import check_distinct, check_ratios
from pipelines.config.settings import TrainSettings
from pipelines.hub.names import find_commit
from pipelines.networks import resolve_checkpoint
from pipelines.runtime.distributed import explain_lost_process, require_equal
from pipelines.runtime.signals import GracefulStop
from pipelines.stages.artifact import KeyedFolder, Stage, StageResult
from pipelines.stages.continuation import ContinuedStage, identify_training, read_changes
from pipelines.stages.inputs import digest_training_inputs
from pipelines.training.folders import LAST_GOOD_FOLDER, STATE_FOLDER
from shards.progress import begin_stage, log
from shards.remote_folders import locate_shards

if TYPE_CHECKING:
    from pipelines.training.setup import Training, TrainingCommand


def run(
    settings: TrainSettings,
    shards: Sequence[Path],
    out: Path | KeyedFolder,
    *,
    force: bool = False,
    continue_with: bool = False,
    command: TrainingCommand = "train",
) -> StageResult[None]:
    """Train and leave a checkpoint folder in `out`.

    Args:
        settings: resolved settings; they go into the artifact.
        shards: folders that `igvg prepare` made; their training splits are trained on together.
        out: the checkpoint folder; holds `log.jsonl` and, until the training has finished, its state.
        force: replace what igvg left in `out`.
        continue_with: continue the training in `out` with other settings, where these only matter from now on.
        command: for the advice after a divergence.

    Raises:
        ArtifactError: `out` holds something else, or no training that can be continued with these settings.
        DataError: shards are damaged or hold no training split; what was trained so far is saved.
        DivergenceError: the training diverged; says what to do.
        LaunchError: the processes that were started cannot work together, or another one of them ended.
        CheckpointError, SettingsError: a file to start from, or a setting, does not fit.
        Stopped: a signal asked to; the state is saved.
        WorkerError: a worker that reads died; the state is saved.
    """
    begin_stage("training")
    check_ratios(settings.ratios, shards)
    check_distinct(shards, settings.ratios)
    commit = find_commit(start) if settings.init and (start := resolve_checkpoint(settings.init)) else None
    if commit:
        # A name of the hub may mean another commit a moment later.
        settings = replace(settings, init=str(start))
    stage = describe(settings, shards, out)
    if continue_with:
        stage = ContinuedStage(
            name=stage.name, out=stage.out, inputs=stage.inputs, options=stage.options, state_folder=STATE_FOLDER
        )
    if cached := stage.find(force=force):
        return cached
    # Torch takes seconds to load: only when there is work to do.
    from pipelines.data.cut_expressions import CutExpressions
    from pipelines.training.setup import setup_training, start_processes
    from pipelines.training.state import restore_state
    from pipelines.training.trackers import require_trackers
    from pipelines.training.trainer import train
    from pipelines.training.validation import check_best_metric

    require_trackers(settings.log_with)
    accelerator = start_processes(settings)
    with explain_lost_process(accelerator), stage.claim(force=force, accelerator=accelerator) as cached:
        require_equal(stage.fingerprint[:12], "the fingerprint of inputs and settings")
        if cached:
            return cached
        training = setup_training(settings, shards, stage.folder, accelerator)
        training.identity = identify_training(stage)
        training.command = command
        check_best_metric(training)
        if accelerator.is_main_process:
            stage.start(force=force)
            if training.leaks.images or settings.held_out:
                log(training.leaks.describe(excluded=settings.exclude_held_out))
            training.cut = CutExpressions(training.data)
        accelerator.wait_for_everyone()
        # The state of another training was refused, or has been removed.
        restore_state(training)
        if accelerator.is_main_process and isinstance(stage, ContinuedStage):
            training.changes = stage.record_changes(training.step)
        train(training)
        finish(stage, training, commit)
        accelerator.wait_for_everyone()
    return stage.read()


def finish(stage: Stage, training: Training, commit: str | None) -> None:
    """Write the record of a training that has reached its last step; call it on all ranks."""
    from pipelines.training.state import save_state

    keep = training.settings.keep_last_state
    if keep:
        # With the scores of the last validation.
        save_state(training)
    if training.accelerator.is_main_process:
        counts = count_training(training, commit)
        if changes := read_changes(stage.folder):
            counts["changes"] = changes
        # A signal no longer interrupts: there is nothing left to save.
        with GracefulStop():
            stage.finish(counts, scratch=(LAST_GOOD_FOLDER,) if keep else (STATE_FOLDER, LAST_GOOD_FOLDER))


def count_training(training: Training, commit: str | None) -> dict[str, Any]:
    """What `artifact.json` says about a finished training; `commit` is that of a checkpoint on the hub."""
    return {
        "steps": training.step,
        "expressions": len(training.data),
        "best": training.best,
        "best_step": training.best_step,
        "processes": training.accelerator.num_processes,
        "precision": " then ".join(training.compute_dtypes),
        "cut": training.cut.count if training.cut else 0,
        "datasets": name_datasets(training),
        **({"skipped_steps": training.skipped_steps} if training.skipped_steps else {}),
        **({"overflowed_steps": training.overflowed_steps} if training.overflowed_steps else {}),
        **describe_leaks(training),
        **({"mixture": training.examples_by_set} if training.mixture else {}),
        **({"hub": commit} if commit else {}),
    }


def name_datasets(training: Training) -> list[str]:
    """The data sets of the training expressions: what their ids begin with."""
    firsts = (
        next((e.id for record in reader.records() for e in record.expressions), "") for reader in training.data.readers
    )
    return sorted({first.split("/")[0] for first in firsts if "/" in first})


def describe_leaks(training: Training) -> dict[str, Any]:
    """The counts of training images in held-out splits, where there are any or it is set what to do with them."""
    excluded = training.settings.exclude_held_out
    told = training.leaks.images or excluded or training.settings.held_out
    return {"held_out": training.leaks.to_json(excluded=excluded)} if told else {}


def describe(settings: TrainSettings, shards: Sequence[Path], out: Path | KeyedFolder) -> Stage:
    """The stage of a training; its files count by their content, not their paths."""
    without_paths = replace(settings, init="", held_out=(), text=replace(settings.text, tokenizer=""))
    held_out = [locate_shards(text) for text in settings.held_out]
    inputs = digest_training_inputs(shards, settings.init, settings.text.tokenizer, held_out)
    return Stage(name="train", out=out, inputs=inputs, options=fingerprinted_settings(without_paths))
