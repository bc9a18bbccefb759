"""Scoring predictions on pictures of 480 × 640, as a whole process, on one core, from 3,000 expressions to 300,000."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.prediction.prediction import Prediction
from pipelines.prediction.prediction_file import write_predictions
from shards.masks import encode_segmentation, rle_to_box
from shards.record import Expression, ImageRecord, Instance, Rle
from shards.writer import write_split
from tests.benchmarks.figures import Figure

SPLITS = (3_000, 30_000, 300_000)
PER_PICTURE = 20
# Drawing a new outline for each of 300,000 predictions would take longer than all the rest.
OUTLINES = 1000
HEIGHT, WIDTH = 480, 640

_MEASURE = """
import json, resource, sys, time
started = time.perf_counter()
from pathlib import Path
from pipelines import score
from pipelines.config.settings import ScoreSettings
score.run(Path(sys.argv[1]), Path(sys.argv[2]), ScoreSettings(split="val"))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([time.perf_counter() - started, peak / 1024]))
"""


def measure() -> list[Figure]:
    """Time, memory and time per expression for each size of split; bounds are those of 30,000 expressions."""
    figures = []
    for expressions in SPLITS:
        seconds, peak = time_scoring(expressions)
        name, bounded = f"score {expressions:,} expressions", expressions == 30_000
        figures += [
            Figure(name, seconds, "s", "≤ 6" if bounded else ""),
            Figure(f"{name}, peak memory", peak, "MiB", "≤ 500" if bounded else ""),
            Figure(f"{name}, each", 1e6 * seconds / expressions, "µs"),
        ]
    return figures


def time_scoring(expressions: int) -> tuple[float, float]:
    """Seconds of a whole process that scores so many expressions, and its peak memory in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        picture = home / "picture.jpg"
        Image.new("L", (WIDTH, HEIGHT)).save(picture)
        records = [make_record(number) for number in range(expressions // PER_PICTURE)]
        write_split(home / "shards", "val", [(record, picture) for record in records], return_record, workers=2)
        write_predictions(home / "predictions.jsonl", (make_prediction(*pair) for pair in list_expressions(records)))
        words = [sys.executable, "-c", _MEASURE, str(home / "predictions.jsonl"), str(home / "shards")]
        started = time.perf_counter()
        result = subprocess.run(words, check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - started
    return seconds, json.loads(result.stdout)[1]


def list_expressions(records: list[ImageRecord]) -> list[tuple[ImageRecord, Expression]]:
    """All pairs of record and expression, in order."""
    return [(record, expression) for record in records for expression in record.expressions]


def return_record(record: ImageRecord) -> ImageRecord:
    """Drafts here are records already."""
    return record


@functools.cache
def draw_mask(number: int) -> Rle:
    """A bumpy polygon of forty corners somewhere in the picture; one of `OUTLINES`."""
    random = np.random.default_rng(number)
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radii = random.uniform(40, 150) * random.uniform(0.7, 1.0, size=40)
    centre = random.uniform((160, 120), (480, 360))
    corners = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return encode_segmentation([corners.flatten().tolist()], HEIGHT, WIDTH)


def make_record(number: int) -> ImageRecord:
    """A picture with four instances and twenty expressions about none to three of them."""
    random = np.random.default_rng(number)
    instances = []
    for place in range(4):
        mask = draw_mask(int(random.integers(OUTLINES)))
        instances.append(Instance(ann_id=4 * number + place, category_id=1, box=rle_to_box(mask), mask=mask))
    expressions = [
        Expression(
            id=f"grefcoco/{number}/{place}",
            text="something",
            instances=tuple(random.permutation(4)[: place % 4].tolist()),
            ref_id=number,
        )
        for place in range(PER_PICTURE)
    ]
    return ImageRecord(
        image_id=number, file_name=f"{number}.jpg", width=WIDTH, height=HEIGHT,
        instances=tuple(instances), expressions=tuple(expressions),
    )  # fmt: skip


def make_prediction(record: ImageRecord, expression: Expression) -> Prediction:
    """A random shape."""
    number = zlib.crc32(expression.id.encode())
    mask = draw_mask(number % OUTLINES)
    box = list(rle_to_box(mask))
    empty = not number % 4
    return Prediction(id=expression.id, boxes=[] if empty else [box], scores=[] if empty else [0.9], mask=mask,
                      no_target=empty)  # fmt: skip
