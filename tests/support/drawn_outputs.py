"""Raw outputs as a network might return them: blobs as masks, boxes around them, high and low scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.prediction.raw_output import MASK_FLOOR, RawOutput, object_probabilities
from pipelines.prediction.raw_store import RawWriter
from shards.record import ImageRecord


def draw_output(
    id_: str,
    original_size: tuple[int, int],
    seed: int,
    *,
    queries: int = 4,
    side: int = 8,
    image_size: int = 32,
    no_object_bias: float = 0.0,
) -> RawOutput:
    """One expression's output; `no_object_bias` is added to the logits of "no object"."""
    random = np.random.default_rng(seed)
    class_logits = (random.normal(size=(queries, 2)) * 2 + (0, no_object_bias)).astype(np.float32)
    kept = np.flatnonzero(object_probabilities(class_logits) > MASK_FLOOR)
    centers = random.uniform(0.2, 0.8, size=(queries, 2))
    sizes = random.uniform(0.1, 0.5, size=(queries, 2))
    masks = np.stack([
        draw_blob(center, size, side, random) for center, size in zip(centers, sizes, strict=True)
    ])  # fmt: skip
    return RawOutput(
        id=id_,
        original_size=original_size,
        image_size=image_size,
        class_logits=class_logits,
        boxes=np.concatenate((centers, sizes), axis=1).astype(np.float32),
        points=centers.astype(np.float32),
        existence_logits=random.normal(size=2).astype(np.float32) * 2,
        global_mask_logits=masks[:2].max(axis=0),
        instance_mask_logits=masks[kept],
        mask_queries=kept,
        # Noise, which no compression makes smaller: the largest that a map can become on disk.
        attention_map=random.integers(0, 256, size=(side // 4, side // 4), dtype=np.uint8),
    )


def draw_blob(
    center: NDArray[np.float64], size: NDArray[np.float64], side: int, random: np.random.Generator
) -> NDArray[np.float16]:
    """Logits (side, side): high inside an ellipse, low outside, uneven everywhere."""
    positions = (np.arange(side) + 0.5) / side
    distance = ((positions - center[0]) / size[0]) ** 2 + ((positions[:, None] - center[1]) / size[1]) ** 2
    return (8 * (0.25 - distance).clip(-1, 1) * 4 + random.normal(size=(side, side))).astype(np.float16)


def write_outputs(folder: Path, outputs: Sequence[RawOutput], chunk: int = 5) -> Path:
    """A finished folder of raw outputs."""
    writer = RawWriter(folder)
    for index, first in enumerate(range(0, len(outputs), chunk)):
        writer.write_chunk(index, outputs[first : first + chunk])
    writer.finish()
    return folder


def draw_outputs(records: Sequence[ImageRecord], **sizes: int) -> list[RawOutput]:
    """An output for every expression, in order."""
    pairs = [(record, expression) for record in records for expression in record.expressions]
    return [
        draw_output(expression.id, (record.height, record.width), seed, **sizes)
        for seed, (record, expression) in enumerate(pairs)
    ]
