"""Prediction in chunks of a fixed size, independent of the number of processes.

The processes share the unfinished chunks, so that interrupted work continues and every expression is predicted once. A
chunk's raw outputs are renamed into place last: where they exist, its predictions exist too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from PIL import Image

from pipelines.config.settings import PredictSettings
from pipelines.data.datasets import ExampleDataset, ImageFolderDataset
from pipelines.data.loader import load_batches
from pipelines.data.processor import Processor
from pipelines.model import IGVGModel
from pipelines.model.cpu import optimize_for_cpu
from pipelines.prediction.postprocess import GroundingResult, postprocess
from pipelines.prediction.prediction import encode_result
from pipelines.prediction.prediction_file import PREDICTIONS, merge_parts, write_predictions
from pipelines.prediction.predictor import predict_batches
from pipelines.prediction.raw_output import RawOutput, effective_mask_floor
from pipelines.prediction.raw_store import RAW_FOLDER, RawWriter
from pipelines.pretrained import open_checkpoint
from pipelines.runtime.distributed import require_equal, resolve_shared_precision
from pipelines.runtime.precision import ComputeDtype, log_compute_dtype
from shards.files import replace_file
from shards.progress import report_progress

DrawOverlay = Callable[[ImageFolderDataset, int, RawOutput, GroundingResult], tuple[str, Image.Image]]

PARTS_FOLDER = "parts"
OVERLAYS_FOLDER = "overlays"
CHUNK_SIZE = 128


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
        size = len(self.dataset)
        return [range(start, min(start + CHUNK_SIZE, size)) for start in range(0, size, CHUNK_SIZE)]


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
    model, tokenizer, max_tokens = open_checkpoint(checkpoint)
    processor = Processor(tokenizer=tokenizer, max_tokens=max_tokens, image_size=model.config.image_size)
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
    finished = writer.finished_chunks()
    # No process writes a chunk before all have listed the finished ones.
    require_equal(len(finished), "finished chunks")
    unfinished = [index for index in range(len(job.chunks)) if index not in finished]
    rank, world_size = job.accelerator.process_index, job.accelerator.num_processes
    share = unfinished[rank::world_size]
    report_progress(_count_expressions(job, finished), len(job.dataset))
    # An interrupt closes the generator at once, not when the traceback is freed.
    with contextlib.closing(_predict_in_order(job, share)) as outputs:
        for index in share:
            raw = [next(outputs) for _ in job.chunks[index]]
            results = [postprocess(output, job.settings.postprocess) for output in raw]
            write_predictions(_part_file(job.out, index), map(encode_result, results))
            if job.draw:
                _draw_chunk(job, job.chunks[index], raw, results)
            writer.write_chunk(index, raw)
            report_progress(_count_expressions(job, writer.finished_chunks()), len(job.dataset))


def merge_chunks(job: PredictionJob) -> dict[str, Any]:
    """Join all chunks into predictions.jsonl and index the raw outputs; one process does so at the end.

    Returns:
        The counts of the artifact.

    Raises:
        DataError: an expression was predicted twice or not at all.
    """
    parts = [_part_file(job.out, index) for index in range(len(job.chunks))]
    open_writer(job).finish()
    no_target = merge_parts(parts, job.out / PREDICTIONS)
    return {"expressions": len(job.dataset), "no_target": no_target} | job.dataset.describe()


def _count_expressions(job: PredictionJob, chunk_indices: Iterable[int]) -> int:
    return sum(len(job.chunks[index]) for index in chunk_indices)


def _predict_in_order(job: PredictionJob, chunk_indices: list[int]) -> Generator[RawOutput, None, None]:
    settings, size = job.settings, job.settings.batch_size
    batch_indices = (
        job.chunks[index][start : start + size]
        for index in chunk_indices
        for start in range(0, len(job.chunks[index]), size)
    )
    threshold = settings.postprocess.score_threshold
    with contextlib.closing(load_batches(job.dataset, batch_indices, workers=settings.workers)) as batches:
        for outputs in predict_batches(job.model, batches, job.compute_dtype, threshold):
            yield from outputs


def _draw_chunk(job: PredictionJob, indices: range, raw: list[RawOutput], results: list[GroundingResult]) -> None:
    assert job.draw
    assert isinstance(job.dataset, ImageFolderDataset)
    folder = job.out / OVERLAYS_FOLDER
    folder.mkdir(exist_ok=True)
    for index, output, result in zip(indices, raw, results, strict=True):
        name, overlay = job.draw(job.dataset, index, output, result)
        with replace_file(folder / name) as temporary:
            overlay.save(temporary, format="png")


def _part_file(out: Path, chunk_index: int) -> Path:
    return out / PARTS_FOLDER / f"predictions.part-{chunk_index:05d}.jsonl"
