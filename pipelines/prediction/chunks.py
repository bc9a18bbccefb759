"""Chunks of a fixed size, whatever the number of processes.

The processes share the unfinished chunks, so that interrupted work continues and every expression is predicted once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from PIL import Image

from shards.files import replace_file
from shards.progress import report_progress

if TYPE_CHECKING:
    from accelerate import Accelerator

PARTS_FOLDER = "parts"
OVERLAYS_FOLDER = "overlays"
CHUNK_SIZE = 128

ResultT = TypeVar("ResultT")


def split_chunks(num_examples: int, chunk_size: int) -> list[range]:
    """The example indices of each chunk."""
    return [range(start, min(start + chunk_size, num_examples)) for start in range(0, num_examples, chunk_size)]


def split_batches(chunks: Iterable[range], batch_size: int) -> Iterator[range]:
    """The example indices of each batch; a batch lies within one chunk."""
    for chunk in chunks:
        for start in range(0, len(chunk), batch_size):
            yield chunk[start : start + batch_size]


def run_chunks(
    accelerator: Accelerator,
    chunks: Sequence[range],
    finished_chunks: Callable[[], Collection[int]],
    predict: Callable[[list[int]], Generator[ResultT, None, None]],
    save: Callable[[int, list[ResultT]], None],
) -> None:
    """Predict this rank's share of the unfinished chunks; progress counts the chunks of all processes.

    Args:
        accelerator: of this process.
        chunks: the example indices of each chunk.
        finished_chunks: lists the indices of the chunks that are finished, of all processes.
        predict: gives the results of all examples of some chunks, in order.
        save: writes the results of a chunk.
    """
    from pipelines.runtime.distributed import require_equal

    num_examples = sum(map(len, chunks))
    finished = finished_chunks()
    # No process writes a chunk before all have listed the finished ones.
    require_equal(len(finished), "finished chunks")
    unfinished = [index for index in range(len(chunks)) if index not in finished]
    share = unfinished[accelerator.process_index :: accelerator.num_processes]
    report_progress(sum(len(chunks[index]) for index in finished), num_examples)
    # An interrupt closes the generator at once, not when the traceback is freed.
    with contextlib.closing(predict(share)) as results:
        for index in share:
            save(index, [next(results) for _ in chunks[index]])
            report_progress(sum(len(chunks[index]) for index in finished_chunks()), num_examples)


def part_file(out: Path, chunk_index: int) -> Path:
    """The predictions of a chunk."""
    return out / PARTS_FOLDER / f"predictions.part-{chunk_index:05d}.jsonl"


def save_overlay(out: Path, name: str, overlay: Image.Image) -> None:
    """Write an overlay under its file name."""
    folder = out / OVERLAYS_FOLDER
    folder.mkdir(exist_ok=True)
    with replace_file(folder / name) as temporary:
        overlay.save(temporary, format="png", compress_level=3)
