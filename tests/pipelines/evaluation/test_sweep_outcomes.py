"""The outcome of an expression under many settings equals that of post-processing under each; ties share the best."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config.settings import PostprocessSettings
from pipelines.evaluation.evaluator import evaluate_prediction
from pipelines.evaluation.sweep import evaluate_settings, find_best
from pipelines.evaluation.sweep_grid import product_grid
from pipelines.prediction.postprocess import postprocess
from pipelines.prediction.prediction import encode_result
from pipelines.prediction.raw_output import MASK_FLOOR
from shards.masks import encode_mask
from shards.record import Expression, ImageRecord, Instance
from tests.support.drawn_outputs import draw_output

EVERYTHING = {
    "score_threshold": [MASK_FLOOR, 0.3, 0.7],
    "mask_threshold": [0.0, 0.3, 0.5, 1.0],
    "mask_source": ["merge", "instance", "global"],
    "existence_weighting": [True, False],
    "nms": [False, True],
    "nms_iou": [0.2, 0.7],
}


@given(
    height=st.integers(1, 90), width=st.integers(1, 90), resolution=st.sampled_from([0, 1, 7, 64]),
    seed=st.integers(0, 10_000), targets=st.integers(0, 2),
)  # fmt: skip
def test_counts_of_pixels_are_those_of_the_stretched_mask(height, width, resolution, seed, targets):
    random = np.random.default_rng(seed)
    masks = [encode_mask(random.random((height, width)) < 0.4) for _ in range(targets)]
    instances = tuple(
        Instance(ann_id=n, category_id=1, box=(0, 0, 1, 1), mask=mask, crowd=bool(seed >> n & 1))
        for n, mask in enumerate(masks)
    )
    expression = Expression(id="grefcoco/1/1", text="x", instances=tuple(range(targets)), ref_id=1)
    record = ImageRecord(
        image_id=1, file_name="x.jpg", width=width, height=height, instances=instances, expressions=(expression,)
    )
    raw = draw_output(expression.id, (height, width), seed)
    settings = product_grid(PostprocessSettings(), EVERYTHING).settings
    for setting, found in zip(settings, evaluate_settings(record, expression, raw, settings, resolution), strict=True):
        prediction = encode_result(postprocess(raw, setting))
        assert found == evaluate_prediction(record, expression, prediction, resolution)


@pytest.mark.parametrize(
    ("values", "best"),
    [([1.0, 3.0, 2.0], [1]), ([3.0, 1.0, 3.0], [0, 2]), ([None, 1.0], [1]), ([None, None], []), ([0.0, 0.0], [0, 1])],
)
def test_the_best_is_the_highest_and_ties_share_it(values: list[float | None], best: list[int]):
    assert find_best(values) == best
