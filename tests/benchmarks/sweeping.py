"""Sweeping post-processing over raw outputs of the base network's size, and what these outputs take on disk."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from shards.writer import write_split
from tests.benchmarks.figures import Figure
from tests.benchmarks.scoring import HEIGHT, WIDTH, list_expressions, make_record, return_record
from tests.support.drawn_outputs import draw_output, write_outputs

PICTURES = 100
CHUNK = 128
# Keeps the masks of about four of ten queries, as the demo's trained network does of its held-out gRefCOCO pictures.
DOUBT = 2.8
AXES = (
    "score_threshold=0.1,0.3,0.5,0.7,0.9",
    "mask_threshold=0.3,0.4,0.5,0.6,0.7",
    "mask_source=merge,instance",
    "existence_weighting=true,false",
)


def measure() -> list[Figure]:
    """Time of a whole `igvg sweep` of 100 settings over 2,000 expressions, and bytes of one expression's outputs."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        picture = home / "picture.jpg"
        Image.new("L", (WIDTH, HEIGHT)).save(picture)
        records = [make_record(number) for number in range(PICTURES)]
        write_split(home / "shards", "val", [(record, picture) for record in records], return_record, workers=2)
        outputs = [
            draw_output(expression.id, (HEIGHT, WIDTH), seed, queries=10, side=80, image_size=320, no_object_bias=DOUBT)
            for seed, (_, expression) in enumerate(list_expressions(records))
        ]
        raw = write_outputs(home / "raw", outputs, chunk=CHUNK)
        stored = sum(file.stat().st_size for file in raw.iterdir())
        masks = sum(len(output.mask_queries) for output in outputs)
        words = [sys.executable, "-m", "igvg_cli", "sweep", str(raw), "--shards", str(home / "shards"),
                 "--split", "val", "--format", "json"]  # fmt: skip
        started = time.perf_counter()
        subprocess.run([*words, *(word for axis in AXES for word in ("--vary", axis))], check=True, capture_output=True)
        seconds = time.perf_counter() - started
    return [
        Figure("sweep, 100 settings over 2,000 expressions", seconds, "s", "≤ 300"),
        Figure("raw outputs, base network's size, one expression", stored / len(outputs) / 1000, "kB", "≤ 60"),
        Figure("raw outputs, query masks kept of 10", masks / len(outputs), "masks"),
    ]
