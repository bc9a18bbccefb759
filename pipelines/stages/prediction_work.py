"""What predictions on shards and on the user's own images share: digests of the models, chunks, and the artifact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config.settings import PredictSettings, ZeroShotSettings
from pipelines.data.image_text import ImageTextDataset
from pipelines.hub.names import find_commit
from pipelines.prediction.chunks import PARTS_FOLDER
from pipelines.prediction.families import check_masks, check_thresholds, find_family
from pipelines.runtime.distributed import explain_lost_process, require_equal, start_accelerator
from pipelines.runtime.signals import GracefulStop
from pipelines.stages.artifact import Stage, StageResult
from pipelines.stages.inputs import digest_checkpoint, digest_transformers_model
from shards.errors import SettingsError
from shards.progress import begin_stage

if TYPE_CHECKING:
    from accelerate import Accelerator

    from pipelines.data.datasets import ExampleDataset
    from pipelines.data.processor import Processor
    from pipelines.prediction.chunked import DrawOverlay
    from pipelines.prediction.zero_shot_chunks import DrawDetections

AnySettings = PredictSettings | ZeroShotSettings
"""Settings for igvg's own network, or for a zero-shot model: `default_settings` of the checkpoint."""


@dataclass(frozen=True, kw_only=True)
class PredictionWork:
    """What every process does, and what one of them does at the end."""

    predict: Callable[[], None]
    merge: Callable[[], dict[str, Any]]
    compute_dtype: str


def digest_models(settings: AnySettings, checkpoint: Path, masks: Path | None) -> dict[str, Any]:
    """Digests of the checkpoint and of the one for masks.

    Raises:
        ArtifactError: one is missing.
        CheckpointError, SettingsError: the settings, or the one for masks, do not fit the checkpoint.
    """
    family = find_family(checkpoint)
    if family is not None and isinstance(settings, PredictSettings):
        raise SettingsError(
            f"{checkpoint} is a model of {family.name}, not igvg's own network; use igvg predict with it"
        )
    check_masks(family, masks)
    if family is None or isinstance(settings, PredictSettings):
        return {"checkpoint": digest_checkpoint(checkpoint)}
    check_thresholds(settings, family)
    digests = {"checkpoint": digest_transformers_model(checkpoint)}
    if masks is None:
        return digests
    return digests | {"masks": digest_transformers_model(masks)}


def open_igvg(
    settings: PredictSettings,
    checkpoint: Path,
    open_data: Callable[[Processor], ExampleDataset],
    out: Path,
    accelerator: Accelerator,
    draw: DrawOverlay | None = None,
) -> PredictionWork:
    """The work of igvg's own network."""
    from pipelines.prediction.chunked import merge_chunks, predict_chunks, setup_prediction

    job = setup_prediction(settings, checkpoint, open_data, out, accelerator, draw)
    return PredictionWork(
        predict=partial(predict_chunks, job), merge=partial(merge_chunks, job), compute_dtype=job.compute_dtype
    )


def open_zero_shot(
    settings: ZeroShotSettings,
    checkpoint: Path,
    masks: Path | None,
    open_texts: Callable[[], ImageTextDataset],
    out: Path,
    accelerator: Accelerator,
    draw: DrawDetections | None = None,
) -> PredictionWork:
    """The work of a zero-shot model."""
    from pipelines.prediction.zero_shot_chunks import ZeroShotJob, load_detector, merge_chunks, predict_chunks

    detector = load_detector(settings, checkpoint, masks, accelerator)
    job = ZeroShotJob(accelerator=accelerator, detector=detector, dataset=open_texts(), out=out, draw=draw)
    return PredictionWork(
        predict=partial(predict_chunks, job), merge=partial(merge_chunks, job), compute_dtype=detector.compute_dtype
    )


def run_prediction(
    stage: Stage, split: str, checkpoint: Path, open_work: Callable[[Path, Accelerator], PredictionWork], *, force: bool
) -> StageResult[None]:
    """Predict chunk by chunk on all processes, unless it is done already, and finish the artifact."""
    begin_stage(f"predicting {split}".rstrip())
    if cached := stage.find(force=force):
        return cached
    # Torch takes seconds to load: only when there is work to do.
    accelerator = start_accelerator()
    with explain_lost_process(accelerator), stage.claim(force=force, accelerator=accelerator) as cached:
        require_equal(stage.fingerprint[:12], "the fingerprint of inputs and settings")
        if cached:
            return cached
        work = open_work(stage.folder, accelerator)
        # Every process can work before the first one writes.
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            stage.start(force=force)
        accelerator.wait_for_everyone()
        work.predict()
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            counts: dict[str, Any] = dict(work.merge())
            counts |= {"processes": accelerator.num_processes, "precision": work.compute_dtype}
            if commit := find_commit(checkpoint):
                counts["hub"] = commit
            # A signal no longer interrupts: there is nothing left to save.
            with GracefulStop():
                stage.finish(counts, scratch=(PARTS_FOLDER,))
        accelerator.wait_for_everyone()
    return stage.read()
