"""Prediction in chunks of fixed bounds, whatever the number of processes.

Each process takes its turn at the chunks that are not finished, so interrupted work continues, and every expression is
predicted once. A chunk's raw outputs are renamed into place last: where they are, its predictions are too.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.checkpoint import open_checkpoint
from pipelines.inference import predict_batches
from pipelines.loader import Frame, GroundingData, load_batches
from pipelines.phrases import describe_findings, find_lossy
from pipelines.pictures import PictureData
from pipelines.postprocess import postprocess
from pipelines.precision import log_arithmetic
from pipelines.predictions import PREDICTIONS, encode_answer, merge_parts, write_predictions
from pipelines.processes import agree, resolve_together
from pipelines.raw import RawWriter, lower_floor
from pipelines.stored import RAW_FOLDER
from shards.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from pathlib import Path

    from accelerate import Accelerator

    from pipelines.loader import ExampleData
    from pipelines.model import IGVGModel
    from pipelines.postprocess import Answer
    from pipelines.precision import Arithmetic
    from pipelines.raw import RawOutput
    from pipelines.settings import PredictSettings

    Progress = Callable[[int, int, str], None]

PARTS_FOLDER = "parts"
OVERLAYS_FOLDER = "overlays"
CHUNK = 128


@dataclass(frozen=True, kw_only=True)
class PredictionWork:
    """What a prediction consists of."""

    settings: PredictSettings
    accelerator: Accelerator
    model: IGVGModel
    arithmetic: Arithmetic
    """What the network computes in."""
    data: ExampleData
    out: Path

    @property
    def chunks(self) -> list[range]:
        """The example numbers of each chunk."""
        return [range(first, min(first + CHUNK, len(self.data))) for first in range(0, len(self.data), CHUNK)]


def open_prediction(
    settings: PredictSettings,
    checkpoint: Path,
    open_data: Callable[[Frame], ExampleData],
    out: Path,
    accelerator: Accelerator,
) -> PredictionWork:
    """Load the checkpoint on this process's device, and the data as its network sees it.

    Raises:
        CheckpointError, DataError, SettingsError: either cannot be used.
    """
    model, tokenizer, max_tokens = open_checkpoint(checkpoint)
    frame = Frame(tokenizer=tokenizer, max_tokens=max_tokens, image_size=model.config.image_size)
    model = model.to(accelerator.device)
    arithmetic = resolve_together(settings.precision, accelerator)
    log_arithmetic("predicting", settings.precision, [arithmetic], accelerator.device)
    return PredictionWork(
        settings=settings, accelerator=accelerator, model=model, arithmetic=arithmetic, data=open_data(frame), out=out
    )


def open_writer(work: PredictionWork) -> RawWriter:
    """The writer of the prediction's raw outputs."""
    return RawWriter(work.out / RAW_FOLDER, lower_floor(work.settings.postprocess.score_threshold))


def predict_chunks(work: PredictionWork, progress: Progress) -> None:
    """Predict this process's turn of the unfinished chunks; progress is that of all processes together."""
    writer = open_writer(work)
    (work.out / PARTS_FOLDER).mkdir(exist_ok=True)
    finished = writer.find_finished()
    # Nobody writes before all have looked.
    agree(len(finished), "finished chunks")
    missing = [number for number in range(len(work.chunks)) if number not in finished]
    turns = missing[work.accelerator.process_index :: work.accelerator.num_processes]
    progress(count_finished(work, finished), len(work.data), "")
    # Closed at once when interrupted, and not when the traceback is forgotten.
    with contextlib.closing(_predict_in_order(work, turns)) as outputs:
        for number in turns:
            raw = [next(outputs) for _ in work.chunks[number]]
            answers = [postprocess(output, work.settings.postprocess) for output in raw]
            write_predictions(_locate_part(work.out, number), map(encode_answer, answers))
            if isinstance(work.data, PictureData):
                _draw_chunk(work, work.chunks[number], raw, answers)
            writer.write_chunk(number, raw)
            # With what the other processes have written by now.
            progress(count_finished(work, writer.find_finished()), len(work.data), "")


def count_finished(work: PredictionWork, finished: Iterable[int]) -> int:
    """How many expressions some chunks hold."""
    return sum(len(work.chunks[number]) for number in finished)


def merge_chunks(work: PredictionWork) -> dict[str, Any]:
    """Join all chunks into predictions.jsonl, index the raw outputs, and count; for one process, at the end.

    Raises:
        DataError: an expression was predicted twice or not at all.
    """
    parts = [_locate_part(work.out, number) for number in range(len(work.chunks))]
    open_writer(work).finish()
    no_target = merge_parts(parts, work.out / PREDICTIONS)
    counts = {"expressions": len(work.data), "no_target": no_target}
    return counts | (work.data.describe() if isinstance(work.data, PictureData) else describe_phrases(work.data))


def describe_phrases(data: ExampleData) -> dict[str, Any]:
    """What the artifact says of expressions that the network did not get whole: how many were cut, and notes."""
    if not isinstance(data, GroundingData):
        return {}
    max_tokens = data.frame.max_tokens
    phrases = (
        (expression.id, expression.text)
        for reader in data.readers
        for record in reader.records()
        for expression in record.expressions
    )
    findings = list(find_lossy(data.frame.tokenizer, phrases, max_tokens))
    cut = sum(found.kind == "cut" for found in findings)
    return {"cut": cut, "notes": describe_findings(findings, max_tokens, each=False)}


def _predict_in_order(work: PredictionWork, turns: list[int]) -> Generator[RawOutput, None, None]:
    settings, size = work.settings, work.settings.batch_size
    shares = (
        work.chunks[number][first : first + size]
        for number in turns
        for first in range(0, len(work.chunks[number]), size)
    )
    threshold = settings.postprocess.score_threshold
    with contextlib.closing(load_batches(work.data, shares, workers=settings.workers)) as batches:
        for outputs in predict_batches(work.model, batches, work.arithmetic, threshold):
            yield from outputs


def _draw_chunk(work: PredictionWork, numbers: range, raw: list[RawOutput], answers: list[Answer]) -> None:
    assert isinstance(work.data, PictureData)
    folder = work.out / OVERLAYS_FOLDER
    folder.mkdir(exist_ok=True)
    for number, output, answer in zip(numbers, raw, answers, strict=True):
        name, overlay = work.data.draw(number, output, answer, work.settings.postprocess)
        with replace_file(folder / name) as temporary:
            overlay.save(temporary, format="png")


def _locate_part(out: Path, number: int) -> Path:
    return out / PARTS_FOLDER / f"predictions.part-{number:05d}.jsonl"
