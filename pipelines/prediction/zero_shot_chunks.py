"""Zero-shot prediction chunk by chunk; a chunk is finished where its predictions are."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from PIL import Image

from pipelines.config.settings import ZeroShotSettings
from pipelines.data.image_text import FolderImageTexts, ImageTextDataset
from pipelines.data.truncation import describe_findings
from pipelines.prediction.chunks import (
    CHUNK_SIZE,
    PARTS_FOLDER,
    part_file,
    run_chunks,
    save_overlay,
    split_batches,
    split_chunks,
)
from pipelines.prediction.detections import Detections, encode_detections
from pipelines.prediction.prediction import Prediction
from pipelines.prediction.prediction_file import PREDICTIONS, merge_parts, write_predictions
from pipelines.prediction.zero_shot import ZeroShotDetector, detect_in_order, find_cut_texts, open_detector
from pipelines.runtime.distributed import resolve_shared_precision
from pipelines.runtime.precision import log_compute_dtype

DrawDetections = Callable[[int, Detections], tuple[str, Image.Image]]


@dataclass(frozen=True, kw_only=True)
class ZeroShotJob:
    """A model on its device, the data to predict, and where results go."""

    accelerator: Accelerator
    detector: ZeroShotDetector
    dataset: ImageTextDataset
    out: Path
    draw: DrawDetections | None = None
    """Returns the file name and the overlay of one example of the user's own images; None draws nothing."""

    @property
    def chunks(self) -> list[range]:
        """The example indices of each chunk."""
        return split_chunks(len(self.dataset), CHUNK_SIZE)


def load_detector(
    settings: ZeroShotSettings, checkpoint: Path, masks: Path | None, accelerator: Accelerator
) -> ZeroShotDetector:
    """The model of a checkpoint on this process's device, and that of `masks` if it is given.

    Raises:
        CheckpointError: one of them cannot be used.
    """
    compute_dtype = resolve_shared_precision(settings.precision, accelerator)
    log_compute_dtype("predicting", settings.precision, [compute_dtype], accelerator.device)
    return open_detector(checkpoint, masks, settings, accelerator.device, compute_dtype)


def predict_chunks(job: ZeroShotJob) -> None:
    """Predict this rank's share of the unfinished chunks; progress counts the chunks of all processes."""
    (job.out / PARTS_FOLDER).mkdir(exist_ok=True)
    chunks = job.chunks

    def finished_chunks() -> list[int]:
        return [index for index in range(len(chunks)) if part_file(job.out, index).exists()]

    def save(index: int, predictions: list[Prediction]) -> None:
        write_predictions(part_file(job.out, index), predictions)

    run_chunks(job.accelerator, chunks, finished_chunks, partial(_predict_in_order, job), save)


def merge_chunks(job: ZeroShotJob) -> dict[str, Any]:
    """Join all chunks into predictions.jsonl; one process does so at the end.

    Returns:
        The counts of the artifact.

    Raises:
        DataError: an expression was predicted twice or not at all.
    """
    parts = [part_file(job.out, index) for index in range(len(job.chunks))]
    no_target = merge_parts(parts, job.out / PREDICTIONS)
    dataset, detector = job.dataset, job.detector
    own_images = isinstance(dataset, FolderImageTexts)
    findings = list(find_cut_texts(detector.processor.tokenizer, dataset.texts(), detector.max_tokens))
    notes = describe_findings(findings, detector.max_tokens, each=own_images)
    counts = {"expressions": len(dataset), "no_target": no_target, "cut": len(findings), "notes": notes}
    if isinstance(dataset, FolderImageTexts):
        counts |= {"images": len(dataset.images.files), "unreadable": dataset.images.unreadable}
        counts |= {"notes": [*dataset.images.remarks, *notes]}
    return counts


def _predict_in_order(job: ZeroShotJob, chunk_indices: list[int]) -> Generator[Prediction, None, None]:
    """Encode and draw one example after the other: the masks of a chunk of large images fill the memory."""
    chunks = [job.chunks[index] for index in chunk_indices]
    batch_indices = split_batches(chunks, job.detector.settings.batch_size)
    with contextlib.closing(detect_in_order(job.detector, job.dataset, batch_indices)) as detections:
        for index, found in zip(itertools.chain(*chunks), detections, strict=True):
            if job.draw:
                save_overlay(job.out, *job.draw(index, found))
            yield encode_detections(found)
