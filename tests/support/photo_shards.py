"""Shards of the size of published ones: noisy JPEG files of 480 × 640 pixels, 14 expressions about each image."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shards.masks import encode_segmentation, rle_to_box
from shards.record import Expression, ImageRecord, Instance
from shards.writer import write_split

HEIGHT, WIDTH = 480, 640
EXPRESSIONS = 14
"""Expressions of an image, as in gRefCOCO: 279,916 about 19,994 images."""
_INSTANCES = 8
_QUALITY = 87
_WORDS = (
    "man",
    "woman",
    "two",
    "red",
    "left",
    "right",
    "the",
    "in",
    "front",
    "of",
    "bus",
    "dog",
    "with",
    "hat",
    "table",
)
_TARGETS = ((0,), (1,), (2,), (3,), (4,), (5,), (0, 1), (2, 3), (4, 5, 6), (0, 7), (1, 2), (), (), ())


def write_photos(folder: Path, images: int, split: str = "train") -> Path:
    """Shards of one split in FOLDER/shards; a JPEG file has about 190 kB."""
    (folder / "images").mkdir(parents=True)
    items = []
    for image_id in range(images):
        generator = np.random.default_rng(image_id)
        file = folder / "images" / f"{image_id}.jpg"
        Image.fromarray(draw_photo(generator)).save(file, quality=_QUALITY)
        items.append((_draw_record(generator, image_id, file.name), file))
    write_split(folder / "shards", split, items, _keep)
    return folder / "shards"


def draw_photo(generator: np.random.Generator) -> NDArray[np.uint8]:
    """Smooth areas with grain, (HEIGHT, WIDTH, 3)."""
    coarse = generator.normal(128, 60, (HEIGHT // 8, WIDTH // 8, 3)).clip(0, 255).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(np.float32)
    grain = generator.normal(0, 28, (HEIGHT, WIDTH, 1))
    return (smooth + grain).clip(0, 255).astype(np.uint8)


def _draw_record(generator: np.random.Generator, image_id: int, file_name: str) -> ImageRecord:
    instances = []
    for position in range(_INSTANCES):
        center = generator.uniform((0.2 * WIDTH, 0.2 * HEIGHT), (0.8 * WIDTH, 0.8 * HEIGHT))
        angles = np.linspace(0, 2 * np.pi, 50, endpoint=False)
        radii = generator.uniform(30, 190) * generator.uniform(0.7, 1.0, 50)
        points = center + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        points = points.clip(0, (WIDTH, HEIGHT)).round(2)
        mask = encode_segmentation([points.flatten().tolist()], HEIGHT, WIDTH)
        instances.append(Instance(ann_id=100 * image_id + position, category_id=1, box=rle_to_box(mask), mask=mask))
    targets = itertools.islice(itertools.cycle(_TARGETS), EXPRESSIONS)
    expressions = [
        Expression(
            id=f"grefcoco/{EXPRESSIONS * image_id + row}/{row}",
            text=" ".join(generator.choice(_WORDS, size=generator.integers(2, 9))),
            instances=chosen,
            ref_id=EXPRESSIONS * image_id + row,
        )
        for row, chosen in enumerate(targets)
    ]
    return ImageRecord(
        image_id=image_id, file_name=file_name, width=WIDTH, height=HEIGHT,
        instances=tuple(instances), expressions=tuple(expressions),
    )  # fmt: skip


def _keep(record: ImageRecord) -> ImageRecord:
    return record
