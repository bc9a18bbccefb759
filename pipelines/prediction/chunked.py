"""Prediction in chunks of fixed bounds, whatever the number of processes.

Each process takes its turn at the chunks that are not finished, so interrupted work continues, and every expression is
predicted once. A chunk's raw outputs are renamed into place last: where they are, its predictions are too.
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
from pipelines.data.datasets import ExampleDataset, GroundingDataset, ImageFolderDataset
from pipelines.data.loader import load_batches
from pipelines.data.processor import Processor
from pipelines.data.truncation import describe_findings, find_lossy_expressions
from pipelines.model import IGVGModel
from pipelines.model.cpu import optimize_for_cpu
from pipelines.prediction.postprocess import GroundingResult, postprocess
from pipelines.prediction.prediction_file import PREDICTIONS, encode_result, merge_parts, write_predictions
from pipelines.prediction.predictor import predict_batches
from pipelines.prediction.raw_output import RawOutput, effective_mask_floor
from pipelines.prediction.raw_store import RAW_FOLDER, RawWriter
from pipelines.pretrained import open_checkpoint
from pipelines.runtime.distributed import agree, resolve_precision_together
from pipelines.runtime.precision import ComputeDtype, log_compute_dtype
from shards.files import replace_file
from shards.progress import report_progress

DrawOverlay = Callable[[ImageFolderDataset, int, RawOutput, GroundingResult], tuple[str, Image.Image]]

PARTS_FOLDER = "parts"
OVERLAYS_FOLDER = "overlays"
CHUNK = 128


@dataclass(frozen=True, kw_only=True)
class PredictionJob:
    """What a prediction consists of."""

    settings: PredictSettings
    accelerator: Accelerator
    model: IGVGModel
    compute_dtype: ComputeDtype
    """What the network computes in."""
    data: ExampleDataset
    out: Path
    draw: DrawOverlay | None = None
    """Makes the name and the overlay of an answer about an example of the user's own images; None draws nothing."""

    @property
    def chunks(self) -> list[range]:
        """The example numbers of each chunk."""
        return [range(first, min(first + CHUNK, len(self.data))) for first in range(0, len(self.data), CHUNK)]


def setup_prediction(
    settings: PredictSettings,
    checkpoint: Path,
    open_data: Callable[[Processor], ExampleDataset],
    out: Path,
    accelerator: Accelerator,
    draw: DrawOverlay | None = None,
) -> PredictionJob:
    """Load the checkpoint on this process's device, and the data as its network sees it.

    Raises:
        CheckpointError, DataError, SettingsError: either cannot be used.
    """
    model, tokenizer, max_tokens = open_checkpoint(checkpoint)
    processor = Processor(tokenizer=tokenizer, max_tokens=max_tokens, image_size=model.config.image_size)
    compute_dtype = resolve_precision_together(settings.precision, accelerator)
    on_cpu = accelerator.device.type == "cpu" and compute_dtype == "fp32"
    model = optimize_for_cpu(model) if on_cpu else model.to(accelerator.device)
    log_compute_dtype("predicting", settings.precision, [compute_dtype], accelerator.device)
    return PredictionJob(
        settings=settings,
        accelerator=accelerator,
        model=model,
        compute_dtype=compute_dtype,
        data=open_data(processor),
        out=out,
        draw=draw,
    )


def open_writer(work: PredictionJob) -> RawWriter:
    """The writer of the prediction's raw outputs."""
    return RawWriter(work.out / RAW_FOLDER, effective_mask_floor(work.settings.postprocess.score_threshold))


def predict_chunks(work: PredictionJob) -> None:
    """Predict this process's turn of the unfinished chunks; progress is that of all processes together."""
    writer = open_writer(work)
    (work.out / PARTS_FOLDER).mkdir(exist_ok=True)
    finished = writer.find_finished()
    # Nobody writes before all have looked.
    agree(len(finished), "finished chunks")
    missing = [number for number in range(len(work.chunks)) if number not in finished]
    turns = missing[work.accelerator.process_index :: work.accelerator.num_processes]
    report_progress(count_finished(work, finished), len(work.data))
    # Closed at once when interrupted, and not when the traceback is forgotten.
    with contextlib.closing(_predict_in_order(work, turns)) as outputs:
        for number in turns:
            raw = [next(outputs) for _ in work.chunks[number]]
            answers = [postprocess(output, work.settings.postprocess) for output in raw]
            write_predictions(_locate_part(work.out, number), map(encode_result, answers))
            if work.draw:
                _draw_chunk(work, work.chunks[number], raw, answers)
            writer.write_chunk(number, raw)
            # With what the other processes have written by now.
            report_progress(count_finished(work, writer.find_finished()), len(work.data))


def count_finished(work: PredictionJob, finished: Iterable[int]) -> int:
    """How many expressions some chunks hold."""
    return sum(len(work.chunks[number]) for number in finished)


def merge_chunks(work: PredictionJob) -> dict[str, Any]:
    """Join all chunks into predictions.jsonl, index the raw outputs, and count; for one process, at the end.

    Raises:
        DataError: an expression was predicted twice or not at all.
    """
    parts = [_locate_part(work.out, number) for number in range(len(work.chunks))]
    open_writer(work).finish()
    no_target = merge_parts(parts, work.out / PREDICTIONS)
    counts = {"expressions": len(work.data), "no_target": no_target}
    return counts | (
        work.data.describe() if isinstance(work.data, ImageFolderDataset) else describe_truncation(work.data)
    )


def describe_truncation(data: ExampleDataset) -> dict[str, Any]:
    """What the artifact says of expressions that the network did not get whole: how many were cut, and notes."""
    if not isinstance(data, GroundingDataset):
        return {}
    max_tokens = data.processor.max_tokens
    phrases = (
        (expression.id, expression.text)
        for reader in data.readers
        for record in reader.records()
        for expression in record.expressions
    )
    findings = list(find_lossy_expressions(data.processor.tokenizer, phrases, max_tokens))
    cut = sum(found.kind == "cut" for found in findings)
    return {"cut": cut, "notes": describe_findings(findings, max_tokens, each=False)}


def _predict_in_order(work: PredictionJob, turns: list[int]) -> Generator[RawOutput, None, None]:
    settings, size = work.settings, work.settings.batch_size
    shares = (
        work.chunks[number][first : first + size]
        for number in turns
        for first in range(0, len(work.chunks[number]), size)
    )
    threshold = settings.postprocess.score_threshold
    with contextlib.closing(load_batches(work.data, shares, workers=settings.workers)) as batches:
        for outputs in predict_batches(work.model, batches, work.compute_dtype, threshold):
            yield from outputs


def _draw_chunk(work: PredictionJob, numbers: range, raw: list[RawOutput], answers: list[GroundingResult]) -> None:
    assert work.draw
    assert isinstance(work.data, ImageFolderDataset)
    folder = work.out / OVERLAYS_FOLDER
    folder.mkdir(exist_ok=True)
    for number, output, answer in zip(numbers, raw, answers, strict=True):
        name, overlay = work.draw(work.data, number, output, answer)
        with replace_file(folder / name) as temporary:
            overlay.save(temporary, format="png")


def _locate_part(out: Path, number: int) -> Path:
    return out / PARTS_FOLDER / f"predictions.part-{number:05d}.jsonl"
