"""The result of one expression: attributes, a mapping as transformers' models return it, and what notebooks show."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.config.settings import PostprocessSettings
from pipelines.grounding import Grounding, build_grounding
from pipelines.prediction.postprocess import postprocess, postprocess_instance_masks
from tests.support.drawn_outputs import draw_output

SETTINGS = PostprocessSettings(score_threshold=0.3)


@pytest.fixture
def grounding() -> Grounding:
    """A result with instances."""
    return build_grounding(draw_output("a", (20, 30), 0), SETTINGS, "the red star")


def test_it_holds_what_post_processing_found(grounding: Grounding) -> None:
    raw = draw_output("a", (20, 30), 0)
    result = postprocess(raw, SETTINGS)
    assert len(result.boxes)
    assert grounding.boxes.tolist() == result.boxes.tolist()
    assert grounding.scores.tolist() == result.scores.tolist()
    assert grounding.points.tolist() == result.points.tolist()
    assert np.array_equal(grounding.mask.numpy(), result.mask)
    assert np.array_equal(grounding.masks.numpy(), postprocess_instance_masks(raw, result.queries, SETTINGS))
    assert grounding.existence == pytest.approx(1 / (1 + np.exp(-raw.existence_logits[0])))
    assert not grounding.no_target


def test_as_a_mapping_it_has_the_keys_of_transformers(grounding: Grounding) -> None:
    count = len(grounding.boxes)
    assert dict(grounding).keys() == {"scores", "labels", "boxes", "masks", "text_labels"}
    assert grounding["boxes"] is grounding.boxes
    assert grounding["labels"].tolist() == [0] * count
    assert grounding["text_labels"] == ["the red star"] * count
    assert grounding["masks"].shape == (count, 1, 20, 30)
    assert grounding.masks.shape == (count, 20, 30)
    assert "mask" not in grounding
    with pytest.raises(KeyError):
        grounding["mask"]


def test_without_a_target_all_parts_are_empty() -> None:
    empty = build_grounding(draw_output("a", (20, 30), 0), PostprocessSettings(score_threshold=1), None)
    assert empty.no_target
    assert [len(empty[key]) for key in ("scores", "labels", "boxes", "masks")] == [0] * 4
    assert empty.masks.shape == (0, 20, 30)
    assert empty.text_labels is None


def test_a_notebook_shows_the_result_on_its_image_and_escapes_the_text() -> None:
    image = np.full((20, 30, 3), 200, dtype=np.uint8)
    grounding = build_grounding(draw_output("a", (20, 30), 0), SETTINGS, "<b>star</b>", image)
    drawn = Image.open(io.BytesIO(grounding._repr_png_()))
    assert drawn.width == 640
    assert drawn.height > 20
    assert "<b>" not in grounding._repr_html_()
    assert "data:image/png;base64," in grounding._repr_html_()
    assert repr(grounding).startswith("Grounding('<b>star</b>', ")


def test_results_are_compared_by_identity_so_lists_and_sets_hold_them(grounding: Grounding) -> None:
    other = replace(grounding)
    assert grounding != other
    assert [other, grounding].index(grounding) == 1
    assert len({grounding, other}) == 2


def test_supervision_reads_it(grounding: Grounding) -> None:
    supervision = pytest.importorskip("supervision", reason="supervision is not installed")
    empty = build_grounding(draw_output("a", (20, 30), 0), PostprocessSettings(score_threshold=1), "star")
    for result in (grounding, empty):
        detections = supervision.Detections.from_transformers(result, id2label={0: "the red star"})
        assert np.array_equal(detections.xyxy, result.boxes.numpy())
        assert np.array_equal(detections.mask, result.masks.numpy())
        assert np.array_equal(detections.confidence, result.scores.numpy())
        assert detections["class_name"].tolist() == ["the red star"] * len(result.boxes)


def test_tensors_are_on_the_cpu(grounding: Grounding) -> None:
    assert {part.device for part in (grounding.boxes, grounding.masks, grounding.mask)} == {torch.device("cpu")}
