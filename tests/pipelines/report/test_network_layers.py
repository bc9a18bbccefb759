"""Layers of raw outputs: the masks of post-processing, at the size of the image that is shown."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pipelines.config.settings import PostprocessSettings
from pipelines.prediction.postprocess import existence_probability, postprocess, postprocess_instance_masks
from pipelines.prediction.raw_output import RawOutput
from pipelines.report.network_layers import derive_layers
from pipelines.report.shown_frame import ShownFrame
from shards.masks import decode_mask, resize_nearest
from tests.support.drawn_outputs import draw_output

SETTINGS = PostprocessSettings(score_threshold=0.2)
SAME = ShownFrame(height=40, width=60, shown_height=40, shown_width=60)
# Half the height and a quarter of the width, so that one is not taken for the other.
SMALLER = ShownFrame(height=40, width=60, shown_height=20, shown_width=15)


@pytest.fixture
def raw() -> RawOutput:
    return draw_output("drawn/1/0", (40, 60), 5, queries=8)


@pytest.mark.parametrize("frame", [SAME, SMALLER])
def test_masks_are_those_of_post_processing(raw: RawOutput, frame: ShownFrame) -> None:
    result = postprocess(raw, SETTINGS)
    layers = derive_layers(raw, result.boxes.tolist(), SETTINGS, frame)
    assert layers is not None
    assert layers.instance_masks is not None
    assert len(layers.instance_masks) == len(result.boxes) > 1
    merged = decode_mask(layers.global_mask)
    for mask, whole in zip(
        layers.instance_masks, postprocess_instance_masks(raw, result.queries, SETTINGS), strict=True
    ):
        expected = resize_nearest(whole, frame.shown_height, frame.shown_width)
        assert np.array_equal(decode_mask(mask), expected)
        merged |= decode_mask(mask)
    assert np.array_equal(merged, resize_nearest(result.mask, frame.shown_height, frame.shown_width))


def test_points_are_scaled_to_the_shown_image(raw: RawOutput) -> None:
    result = postprocess(raw, SETTINGS)
    layers = derive_layers(raw, result.boxes.tolist(), SETTINGS, SMALLER)
    assert layers is not None
    assert np.allclose(layers.all_points, raw.points * (15, 20), atol=0.006)
    assert np.allclose(layers.points, result.points / (4, 2), atol=0.006)
    assert layers.attention_map is raw.attention_map
    assert layers.existence == existence_probability(raw)


def test_raw_outputs_that_give_other_boxes_do_not_belong_to_a_prediction(raw: RawOutput) -> None:
    boxes = postprocess(raw, SETTINGS).boxes.tolist()
    assert derive_layers(raw, boxes[1:], SETTINGS, SAME) is None
    assert derive_layers(raw, [[x + 1 for x in box] for box in boxes], SETTINGS, SAME) is None
    assert derive_layers(raw, [[x + 1e-6 for x in box] for box in boxes], SETTINGS, SAME) is not None
    assert derive_layers(raw, None, SETTINGS, SAME) is None


def test_an_empty_prediction_has_the_layers_that_do_not_depend_on_boxes(raw: RawOutput) -> None:
    none = PostprocessSettings(score_threshold=1.0)
    layers = derive_layers(raw, [], none, SAME)
    assert layers is not None
    assert (layers.instance_masks, layers.points) == ([], [])
    assert len(layers.all_points) == 8


def test_masks_that_were_not_kept_are_unknown(raw: RawOutput) -> None:
    bare = dataclasses.replace(
        raw, instance_mask_logits=raw.instance_mask_logits[:0], mask_queries=raw.mask_queries[:0]
    )
    layers = derive_layers(bare, postprocess(raw, SETTINGS).boxes.tolist(), SETTINGS, SAME)
    assert layers is not None
    assert layers.instance_masks is None
