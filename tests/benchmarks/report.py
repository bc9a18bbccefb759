"""Writing a report about 5,000 expressions and 1,400 images of 480 × 640, as a whole process."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.config.settings import PostprocessSettings
from pipelines.prediction.postprocess import postprocess
from pipelines.prediction.prediction import Prediction, encode_result
from pipelines.prediction.prediction_file import write_predictions
from pipelines.prediction.raw_output import RawOutput
from pipelines.prediction.raw_store import RawWriter
from pipelines.stages.artifact import Stage
from shards.masks import rle_to_box
from shards.record import Expression, ImageRecord, Instance
from shards.writer import write_split
from tests.benchmarks.figures import Figure
from tests.benchmarks.scoring import HEIGHT, OUTLINES, WIDTH, draw_mask, list_expressions, return_record
from tests.support.drawn_outputs import draw_output

IMAGES, EXPRESSIONS = 1_400, 5_000
# Drawing noise for each of 1,400 images would take longer than the report.
PHOTOGRAPHS = 20
CHUNK = 128
# Keeps the masks of about four of ten queries, as the demo's trained network does of its held-out gRefCOCO images.
DOUBT = 2.8


def measure() -> list[Figure]:
    """Time of a whole `igvg report` of one set of predictions, its size, and the memory of the largest process."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write_inputs(home)
        words = [sys.executable, "-m", "igvg_cli", "report", str(home / "found"), "--shards", str(home / "shards"),
                 "--split", "val", "--out", str(home / "report")]  # fmt: skip
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(words, check=True, capture_output=True)
        seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        size = sum(file.stat().st_size for file in (home / "report").rglob("*") if file.is_file())
        index = (home / "report" / "data" / "expressions.js").stat().st_size
    worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    name = f"report of {EXPRESSIONS:,} expressions"
    return [
        Figure(name, seconds, "s", "≤ 180"),
        Figure(f"{name}, processor time", worked, "s"),
        Figure(f"{name}, size", size / 1e6, "MB", "≤ 300"),
        Figure(f"{name}, loaded with the page", index / 1e6, "MB"),
        Figure(f"{name}, largest process", after.ru_maxrss / 1024, "MiB"),
    ]


def write_inputs(home: Path) -> None:
    """Shards, and a finished folder as `igvg predict` leaves it."""
    photographs = [draw_photograph(home / f"{number}.jpg", number) for number in range(PHOTOGRAPHS)]
    records = [draw_record(number) for number in range(IMAGES)]
    write_split(
        home / "shards", "val", [(record, photographs[record.image_id % PHOTOGRAPHS]) for record in records],
        return_record, workers=2,
    )  # fmt: skip
    stage = Stage(name="predict", out=home / "found", inputs={}, options={})
    stage.start()
    write_predictions(home / "found" / "predictions.jsonl", predict(home / "found" / "raw", records))
    stage.finish({})


def predict(raw: Path, records: list[ImageRecord]) -> Iterator[Prediction]:
    """The predictions of drawn outputs, which are stored in `raw`."""
    writer, waiting, settings = RawWriter(raw), list[RawOutput](), PostprocessSettings()
    for seed, (_, expression) in enumerate(list_expressions(records)):
        waiting.append(
            draw_output(expression.id, (HEIGHT, WIDTH), seed, queries=10, side=80, image_size=320, no_object_bias=DOUBT)
        )
        yield encode_result(postprocess(waiting[-1], settings))
        if len(waiting) == CHUNK:
            writer.write_chunk(seed // CHUNK, waiting)
            waiting.clear()
    if waiting:
        writer.write_chunk(seed // CHUNK, waiting)
    writer.finish()


def draw_photograph(file: Path, seed: int) -> Path:
    """A JPEG of about 100 kB, as photographs of this size have: noise of three sizes."""
    random = np.random.default_rng(seed)
    pixels = np.zeros((HEIGHT, WIDTH, 3))
    for cells, strength in ((8, 60), (80, 40), (480, 18)):
        noise = random.integers(0, 256, (cells, cells * 4 // 3, 3), dtype=np.uint8)
        pixels += strength / 128 * (np.asarray(Image.fromarray(noise).resize((WIDTH, HEIGHT))) - 128.0)
    Image.fromarray((128 + pixels).clip(0, 255).astype(np.uint8)).save(file, quality=90)
    return file


def draw_record(number: int) -> ImageRecord:
    """An image with four instances and three or four expressions about none to three of them."""
    random = np.random.default_rng(number)
    instances = []
    for position in range(4):
        mask = draw_mask(int(random.integers(OUTLINES)))
        instances.append(Instance(ann_id=4 * number + position, category_id=1, box=rle_to_box(mask), mask=mask))
    first, end = (EXPRESSIONS * index // IMAGES for index in (number, number + 1))
    expressions = [
        Expression(
            id=f"grefcoco/{index}/0",
            text=f"the {index}. thing to the left of another one",
            instances=tuple(random.permutation(4)[: index % 4].tolist()),
            ref_id=index,
        )
        for index in range(first, end)
    ]
    return ImageRecord(
        image_id=number, file_name=f"{number}.jpg", width=WIDTH, height=HEIGHT,
        instances=tuple(instances), expressions=tuple(expressions),
    )  # fmt: skip
