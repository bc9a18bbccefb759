"""Post-processing: the published results, and each rule on its own."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipelines.config.settings import PostprocessSettings
from pipelines.prediction.postprocess import (
    logits_to_mask,
    non_max_suppression,
    postprocess,
    postprocess_instance_masks,
    resize_bilinear,
    score_queries,
)
from pipelines.prediction.raw_output import RawOutput
from shards.errors import SettingsError
from shards.masks import decode_mask
from tests.support.paths import GOLDENS

needs_goldens = pytest.mark.skipif(not GOLDENS.is_dir(), reason="the reference numbers are not beside the repository")
SETTINGS = PostprocessSettings(existence_weighting=False)
# Quadrants of the image, as cx, cy, w, h.
QUADRANTS = [(0.25, 0.25, 0.5, 0.5), (0.75, 0.25, 0.5, 0.5), (0.25, 0.75, 0.5, 0.5), (0.75, 0.75, 0.5, 0.5)]


def make_raw(scores: list[float], boxes: list[tuple[float, ...]], /, **changes: Any) -> RawOutput:
    """Queries with given object probabilities, whose masks fill their boxes; the global mask is the last row."""
    logits = np.log(np.array(scores) / (1 - np.array(scores)))
    masks = np.full((len(scores), 8, 8), -9, dtype=np.float16)
    for mask, (x, y, w, h) in zip(masks, boxes, strict=True):
        left, right, top, bottom = (round(8 * edge) for edge in (x - w / 2, x + w / 2, y - h / 2, y + h / 2))
        mask[top:bottom, left:right] = 9
    global_mask = np.full((8, 8), -9, dtype=np.float16)
    global_mask[-1] = 9
    raw = RawOutput(
        id="shapes/1/1",
        original_size=(30, 40),
        image_size=8,
        class_logits=np.stack([logits, np.zeros_like(logits)], axis=1).astype(np.float32),
        boxes=np.array(boxes, dtype=np.float32),
        points=np.array(boxes, dtype=np.float32)[:, :2],
        existence_logits=np.zeros(2, dtype=np.float32),
        global_mask_logits=global_mask,
        instance_mask_logits=masks,
        mask_queries=np.arange(len(scores)),
    )
    return dataclasses.replace(raw, **changes)


def read_golden_setting(key: str) -> tuple[PostprocessSettings, bool]:
    values = dict(part.split("=") for part in key.split(","))
    settings = PostprocessSettings(
        mask_source=values["outmask"],  # type: ignore[arg-type]
        existence_weighting=values["score_weighted"] == "1",
        nms=values["nms"] == "1",
    )
    return settings, values["rescale"] == "1"


def read_golden_raw(inputs: Any, index: int, *, rescale: bool, kind: type = np.float32) -> RawOutput:
    height, width = inputs["ori_sizes"][index] if rescale else inputs["input_size"]
    return RawOutput(
        id=str(index),
        original_size=(int(height), int(width)),
        image_size=320,
        class_logits=inputs["class_logits"][index],
        boxes=inputs["boxes_cxcywh"][index],
        points=inputs["boxes_cxcywh"][index][:, :2],
        existence_logits=inputs["nt_logits"][index],
        global_mask_logits=inputs["global_mask_logits_low"][index, 0].astype(kind),
        instance_mask_logits=inputs["inst_mask_logits_low"][index].astype(kind),
        mask_queries=np.arange(10),
    )


@needs_goldens
@pytest.mark.parametrize(("kind", "pixels"), [(np.float32, 0), (np.float16, 4)])
def test_the_published_results_are_reproduced_in_every_setting(kind: type, pixels: int) -> None:
    inputs = dict(np.load(GOLDENS / "postprocess_inputs.npz"))
    goldens = json.loads((GOLDENS / "postprocess.json").read_text())
    assert len(goldens) == 12
    for key, images in goldens.items():
        settings, rescale = read_golden_setting(key)
        for index, golden in enumerate(images):
            raw = read_golden_raw(inputs, index, rescale=rescale, kind=kind)
            result = postprocess(raw, settings)
            scores = np.array(golden["scores"])
            selected = scores > 0.7
            assert score_queries(raw, existence_weighting=settings.existence_weighting) == pytest.approx(
                scores, abs=1e-6
            )
            assert result.queries.tolist() == np.flatnonzero(selected).tolist()
            assert result.no_target == (not selected.any())
            assert np.abs(result.boxes - np.array(golden["boxes"]).reshape(-1, 4)[selected]).max(initial=0) < 1e-3
            assert np.count_nonzero(result.mask != decode_mask(golden["rle"])) <= pixels
            areas = postprocess_instance_masks(raw, result.queries, settings).sum(axis=(1, 2))
            assert np.abs(areas - np.array(golden["part_areas"])[selected]).max(initial=0) <= pixels


def test_selected_boxes_and_points_are_in_pixels_of_the_original_image() -> None:
    result = postprocess(make_raw([0.9, 0.2, 0.8, 0.71], QUADRANTS), SETTINGS)
    assert result.id == "shapes/1/1"
    assert result.queries.tolist() == [0, 2, 3]
    assert result.boxes.tolist() == [[0, 0, 20, 15], [0, 15, 20, 30], [20, 15, 40, 30]]
    assert result.points.tolist() == [[10, 7.5], [10, 22.5], [30, 22.5]]
    assert result.scores == pytest.approx([0.9, 0.8, 0.71])


def test_a_score_must_be_above_the_threshold_not_at_it() -> None:
    raw = make_raw([0.5, 0.5001], QUADRANTS[:2])
    assert postprocess(raw, dataclasses.replace(SETTINGS, score_threshold=0.5)).queries.tolist() == [1]


def test_a_pixel_at_the_mask_threshold_belongs_to_the_mask() -> None:
    assert logits_to_mask(np.zeros((4, 4), dtype=np.float16), 8, 0.5).all()
    assert not logits_to_mask(np.full((4, 4), -0.01, dtype=np.float16), 8, 0.5).any()


def test_mask_thresholds_zero_and_one_take_everything_and_nothing() -> None:
    logits = np.zeros((4, 4), dtype=np.float16)
    assert logits_to_mask(logits, 8, 0.0).all()
    assert not logits_to_mask(logits, 8, 1.0).any()


def test_scores_are_weighted_with_the_sigmoid_of_the_first_existence_logit() -> None:
    raw = make_raw([0.9, 0.8], QUADRANTS[:2], existence_logits=np.array([1.0, 5.0], dtype=np.float32))
    weight = 1 / (1 + np.exp(-1.0))
    assert score_queries(raw, existence_weighting=True) == pytest.approx([0.9 * weight, 0.8 * weight])
    assert postprocess(raw, PostprocessSettings()).no_target
    assert not postprocess(raw, SETTINGS).no_target


def test_the_mask_comes_from_the_instances_the_whole_or_both() -> None:
    raw = make_raw([0.9, 0.1, 0.1, 0.1], QUADRANTS)
    masks = {
        source: postprocess(raw, dataclasses.replace(SETTINGS, mask_source=source)).mask
        for source in ("instance", "global", "merge")
    }
    first_quadrant, last_row = np.zeros((30, 40), dtype=bool), np.zeros((30, 40), dtype=bool)
    first_quadrant[:15, :20] = True
    # The last of 8 rows begins at 30 × 7 / 8 = 26.25.
    last_row[27:] = True
    assert np.array_equal(masks["instance"], first_quadrant)
    assert np.array_equal(masks["global"], last_row)
    assert np.array_equal(masks["merge"], first_quadrant | last_row)


def test_without_a_selected_query_the_global_mask_stays_and_there_is_no_target() -> None:
    result = postprocess(make_raw([0.1, 0.2], QUADRANTS[:2]), SETTINGS)
    assert result.no_target
    assert result.boxes.shape == (0, 4)
    assert result.scores.shape == (0,)
    assert result.points.shape == (0, 2)
    assert result.mask[27:].all()
    raw = make_raw([0.1, 0.2], QUADRANTS[:2])
    assert not postprocess(raw, dataclasses.replace(SETTINGS, mask_source="instance")).mask.any()
    assert postprocess_instance_masks(raw, result.queries, SETTINGS).shape == (0, 30, 40)


def test_boxes_are_clipped_and_one_without_area_goes_with_its_mask_and_no_other() -> None:
    boxes = [QUADRANTS[0], (1.2, 0.5, 0.2, 0.2), (0.0, 0.75, 0.5, 0.5)]
    raw = make_raw(
        [0.9, 0.95, 0.8], [QUADRANTS[0], QUADRANTS[1], QUADRANTS[2]], boxes=np.array(boxes, dtype=np.float32)
    )
    result = postprocess(raw, dataclasses.replace(SETTINGS, mask_source="instance"))
    assert result.queries.tolist() == [0, 2]
    assert result.boxes.tolist() == [[0, 0, 20, 15], [0, 15, 10, 30]]
    assert result.mask[:, :20].all()
    assert not result.mask[:, 20:].any()


def test_nms_keeps_the_better_of_two_like_boxes_in_original_pixels() -> None:
    shifted = (0.26, 0.25, 0.5, 0.5)
    raw = make_raw([0.8, 0.9, 0.95], [QUADRANTS[0], shifted, QUADRANTS[3]])
    result = postprocess(raw, dataclasses.replace(SETTINGS, nms=True))
    assert result.queries.tolist() == [2, 1]
    assert result.scores == pytest.approx([0.95, 0.9])
    assert result.boxes[1] == pytest.approx([0.4, 0, 20.4, 15], abs=1e-5)
    assert postprocess(raw, SETTINGS).queries.tolist() == [0, 1, 2]


@given(st.integers(0, 12), st.integers(0, 1000), st.sampled_from([0.3, 0.5, 0.7]))
def test_nms_keeps_a_box_exactly_if_no_better_survivor_covers_it(count: int, seed: int, iou: float) -> None:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 5, (count, 2))
    boxes, scores = np.concatenate([low, low + rng.uniform(1, 5, (count, 2))], axis=1), rng.random(count)

    def covers(one: Any, other: Any) -> bool:
        sides = [max(0.0, min(one[a + 2], other[a + 2]) - max(one[a], other[a])) for a in (0, 1)]
        areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
        return bool(sides[0] * sides[1] / (sum(areas) - sides[0] * sides[1]) > iou)

    survivors = non_max_suppression(boxes, scores, iou).tolist()
    assert survivors == sorted(survivors, key=lambda box: -scores[box])
    for box in range(count):
        better = [other for other in survivors if scores[other] > scores[box]]
        assert (box in survivors) == (not any(covers(boxes[other], boxes[box]) for other in better))


def test_of_equal_scores_the_first_box_survives() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 9, 10], [20, 0, 30, 10], [20, 0, 30, 9]], dtype=np.float64)
    assert non_max_suppression(boxes, np.array([0.8, 0.8, 0.8, 0.9, 0.9]), 0.5).tolist() == [3, 0]
    assert non_max_suppression(boxes[::-1], np.array([0.9, 0.9, 0.8, 0.8, 0.8]), 0.5).tolist() == [0, 2]


def test_boxes_are_suppressed_from_the_overlap_that_is_set() -> None:
    # Three quarters of each box are the other's: an IoU of 0.6.
    raw = make_raw([0.9, 0.8], [(0.25, 0.25, 0.5, 0.5), (0.375, 0.25, 0.5, 0.5)])
    for iou, queries in ((0.59, [0]), (0.61, [0, 1])):
        settings = dataclasses.replace(SETTINGS, nms=True, nms_iou=iou)
        assert postprocess(raw, settings).queries.tolist() == queries


def test_suppressing_before_the_threshold_gives_the_same_as_after_it() -> None:
    rng = np.random.default_rng(3)
    boxes, scores = np.concatenate([low := rng.uniform(0, 2, (30, 2)), low + 3], axis=1), rng.random(30)
    before = [box for box in non_max_suppression(boxes, scores, 0.5) if scores[box] > 0.4]
    selected = np.flatnonzero(scores > 0.4)
    assert selected[non_max_suppression(boxes[selected], scores[selected], 0.5)].tolist() == before


@given(hnp.arrays(np.float32, (5, 7), elements=st.floats(-50, 50, width=32)), st.integers(1, 40))
def test_resizing_agrees_with_torch_with_aligned_corners(values: Any, size: int) -> None:
    tensor = torch.from_numpy(values)[None, None]
    expected = F.interpolate(tensor, size=(size, size), mode="bilinear", align_corners=True)[0, 0]
    assert np.allclose(resize_bilinear(values, size), expected.numpy(), atol=1e-4)


def test_a_threshold_below_what_was_kept_is_an_error_that_says_what_would_do() -> None:
    raw = make_raw([0.04, 0.9], QUADRANTS[:2])
    raw = dataclasses.replace(raw, mask_queries=np.array([1]), instance_mask_logits=raw.instance_mask_logits[1:])
    assert postprocess(raw, SETTINGS).queries.tolist() == [1]
    with pytest.raises(SettingsError, match=r"query that scores 0\.040 was not kept.*raise score_threshold"):
        postprocess(raw, dataclasses.replace(SETTINGS, score_threshold=0.01))
    only_whole = dataclasses.replace(SETTINGS, score_threshold=0.01, mask_source="global")
    assert postprocess(raw, only_whole).queries.tolist() == [0, 1]
