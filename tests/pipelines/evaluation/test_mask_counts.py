"""Counted pixels are those of masks that were resized to the original image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipelines.config.settings import PostprocessSettings
from pipelines.evaluation.mask_counts import MaskCounter
from pipelines.prediction.postprocess import postprocess
from shards.masks import decode_mask, encode_mask
from shards.record import Expression, ImageRecord, Instance
from tests.support.drawn_outputs import draw_output

HEIGHT, WIDTH = 37, 23


def make_record() -> ImageRecord:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[5:30, 3:15] = True
    instance = Instance(ann_id=1, category_id=1, box=(3, 5, 15, 30), mask=encode_mask(mask))
    expression = Expression(id="drawn/0/0", text="it", instances=(0,), ref_id=0)
    return ImageRecord(
        image_id=1, file_name="1.jpg", width=WIDTH, height=HEIGHT, instances=(instance,), expressions=(expression,)
    )


@pytest.mark.parametrize("source", ["merge", "instance", "global"])
@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_the_resized_mask(source: str, seed: int) -> None:
    record = make_record()
    raw = draw_output("drawn/0/0", (HEIGHT, WIDTH), seed)
    settings = replace(PostprocessSettings(), score_threshold=0.1, existence_weighting=False, mask_source=source)
    result = postprocess(raw, settings)
    predicted, target = result.mask, decode_mask(record.instances[0].mask)
    counter = MaskCounter(record, record.expressions[0], raw)
    assert counter.count(result.queries, settings) == (predicted.sum(), (predicted & target).sum())
    assert (counter.image_px, counter.target_px) == (HEIGHT * WIDTH, target.sum())
