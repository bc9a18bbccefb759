"""Prediction with an igvg network, chunk by chunk.

A chunk's raw outputs are renamed into place last: where they exist, its predictions exist too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from PIL import Image

from pipelines.config.settings import PredictSettings
from pipelines.data.datasets import ExampleDataset
from pipelines.data.loader import load_batches
from pipelines.data.processor import Processor
from pipelines.model import IGVGModel
from pipelines.model.cpu import optimize_for_cpu
from pipelines.prediction.chunks import (
    CHUNK_SIZE,
    PARTS_FOLDER,
    part_file,
    run_chunks,
    save_overlay,
    split_batches,
    split_chunks,
)
from pipelines.prediction.postprocess import GroundingResult, postprocess
from pipelines.prediction.prediction import Prediction, encode_result
from pipelines.prediction.prediction_file import PREDICTIONS, merge_parts, write_predictions
from pipelines.prediction.predictor import predict_batches
from pipelines.prediction.raw_output import RawOutput, effective_mask_floor
from pipelines.prediction.raw_store import RAW_FOLDER, RawWriter
from pipelines.pretrained import open_for_prediction
from pipelines.runtime.distributed import resolve_shared_precision
from pipelines.runtime.precision import ComputeDtype, log_compute_dtype

DrawOverlay = Callable[[int, RawOutput, GroundingResult], tuple[str, Image.Image]]


@dataclass(frozen=True, kw_only=True)
class PredictionJob:
    """A checkpoint on its device, the data to predict, and where results go."""

    settings: PredictSettings
    accelerator: Accelerator
    model: IGVGModel
    compute_dtype: ComputeDtype
    dataset: ExampleDataset
    out: Path
    draw: DrawOverlay | None = None
    """Returns the file name and the overlay of one example of the user's own images; None draws nothing."""

    @property
    def chunks(self) -> list[range]:
        """The example indices of each chunk."""
        return split_chunks(len(self.dataset), CHUNK_SIZE)


def setup_prediction(
    settings: PredictSettings,
    checkpoint: Path,
    open_dataset: Callable[[Processor], ExampleDataset],
    out: Path,
    accelerator: Accelerator,
    draw: DrawOverlay | None = None,
) -> PredictionJob:
    """Load the checkpoint on this process's device, and open the data with the checkpoint's processor.

    Raises:
        CheckpointError, DataError, SettingsError: either cannot be used.
    """
    model, processor = open_for_prediction(checkpoint)
    compute_dtype = resolve_shared_precision(settings.precision, accelerator)
    on_cpu = accelerator.device.type == "cpu" and compute_dtype == "fp32"
    model = optimize_for_cpu(model, copy=False) if on_cpu else model.to(accelerator.device)
    log_compute_dtype("predicting", settings.precision, [compute_dtype], accelerator.device)
    return PredictionJob(
        settings=settings,
        accelerator=accelerator,
        model=model,
        compute_dtype=compute_dtype,
        dataset=open_dataset(processor),
        out=out,
        draw=draw,
    )


def open_writer(job: PredictionJob) -> RawWriter:
    """The writer of the job's raw outputs."""
    return RawWriter(job.out / RAW_FOLDER, effective_mask_floor(job.settings.postprocess.score_threshold))


def predict_chunks(job: PredictionJob) -> None:
    """Predict this rank's share of the unfinished chunks; progress counts the chunks of all processes."""
    writer = open_writer(job)
    (job.out / PARTS_FOLDER).mkdir(exist_ok=True)

    def save(index: int, raw: list[RawOutput]) -> None:
        write_predictions(part_file(job.out, index), _finish_examples(job, job.chunks[index], raw))
        writer.write_chunk(index, raw)

    run_chunks(job.accelerator, job.chunks, writer.finished_chunks, partial(_predict_in_order, job), save)


def merge_chunks(job: PredictionJob) -> dict[str, Any]:
    """Join all chunks into predictions.jsonl and index the raw outputs; one process does so at the end.

    Returns:
        The counts of the artifact.

    Raises:
        DataError: an expression was predicted twice or not at all.
    """
    parts = [part_file(job.out, index) for index in range(len(job.chunks))]
    open_writer(job).finish()
    no_target = merge_parts(parts, job.out / PREDICTIONS)
    return {"expressions": len(job.dataset), "no_target": no_target} | job.dataset.describe()


def _predict_in_order(job: PredictionJob, chunk_indices: list[int]) -> Generator[RawOutput, None, None]:
    settings = job.settings
    batch_indices = split_batches([job.chunks[index] for index in chunk_indices], settings.batch_size)
    threshold = settings.postprocess.score_threshold
    with contextlib.closing(load_batches(job.dataset, batch_indices, workers=settings.workers)) as batches:
        for outputs in predict_batches(job.model, batches, job.compute_dtype, threshold):
            yield from outputs


def _finish_examples(job: PredictionJob, indices: range, outputs: list[RawOutput]) -> Iterator[Prediction]:
    """Post-process and draw one example after the other: the masks of large images fill the memory."""
    for index, output in zip(indices, outputs, strict=True):
        result = postprocess(output, job.settings.postprocess)
        if job.draw:
            save_overlay(job.out, *job.draw(index, output, result))
        yield encode_result(result)
