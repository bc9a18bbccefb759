"""Drawing, preparing and reading the embedded data set; reading of shards of a published size."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from pipelines.config.settings import PrepareSettings
from pipelines.data.datasets import GroundingDataset, read_texts
from pipelines.data.processor import Processor
from pipelines.data.tokenizer import train_tokenizer
from pipelines.stages import prepare
from shards.synthetic.writer import write_published
from tests.benchmarks import reading
from tests.benchmarks.figures import Figure, time_best

IMAGES = 600


def measure() -> list[Figure]:
    """Images and examples per second of one process, and what `reading` measures."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        drawing = time_best(
            lambda: write_published(home, seed=1, train_images=IMAGES, held_out_images=1), repeats=1, warm_up=0
        )
        shards = home / "shards"
        preparing = time_best(lambda: _prepare(home, shards), repeats=1, warm_up=0)
        parts = [(shards, "train")]
        processor = Processor(tokenizer=train_tokenizer(read_texts(parts), 1000), max_tokens=50, image_size=96)
        data = GroundingDataset(parts, processor, mask_size=32)
        numbers = range(0, len(data), max(1, len(data) // 500))
        reading_seconds = time_best(lambda: [data[number] for number in numbers], repeats=3)
        photos = reading.measure(home / "photos")
    return [
        Figure("draw shapes", IMAGES / drawing, "images/s"),
        Figure("prepare", IMAGES / 2 / preparing, "images/s"),
        Figure("read examples at 96 px, out of order", len(numbers) / reading_seconds, "examples/s"),
        *photos,
    ]


def _prepare(home: Path, shards: Path) -> Any:
    settings = PrepareSettings(dataset="grefcoco")
    pictures = [home / "images" / "train2014"]
    return prepare.run(settings, home / "grefcoco", pictures, shards, workers=1)
