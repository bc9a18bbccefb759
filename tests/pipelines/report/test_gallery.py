"""The data files of a gallery: columns and details as the page's scripts read them, harmless whatever a text holds."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from pipelines.report.gallery import (
    LONGEST_TEXT,
    GalleryDetail,
    GalleryIndex,
    NetworkLayers,
    ResultLayers,
    ShownExpression,
    ShownImage,
    ShownResult,
    cut_text,
    dump_argument,
    format_script,
)
from shards.record import Rle

RLE: Rle = {"size": [2, 3], "counts": "6"}
HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!-- <script>",
    "<img src=x onerror=alert(1)>",
    "a\u2028b\u2029c",
    "\ud800 alone",
    "quotes \" ' ` ${x} \\</script>",
    "\x00\x1f\x7f",
    "\u202e backwards \u05d0",
)


def make_row(id_: str, num_targets: int, *results: ShownResult) -> ShownExpression:
    return ShownExpression(id=id_, text=f"text of {id_}", image=0, num_targets=num_targets, results=results)


def test_an_index_has_a_column_for_each_property_and_set() -> None:
    good = ShownResult(outcome="correct", iou=87.5, instances=1, existence=0.9)
    bad = ShownResult(outcome="false empty", iou=0.0, instances=None, existence=None)
    index = GalleryIndex(
        sets=("a", "b"),
        images=[ShownImage(file="00000.jpg", name="COCO_1.jpg", width=640, height=427)],
        expressions=[
            make_row("x/1/1", 0, good, bad),
            make_row("x/1/2", 1, bad, good),
            make_row("x/1/3", 3, good, good),
        ],
    )
    assert index.to_json() == {
        "sets": ["a", "b"],
        "details_size": 100,
        "images": {"file": ["00000.jpg"], "name": ["COCO_1.jpg"], "width": [640], "height": [427]},
        "id": ["x/1/1", "x/1/2", "x/1/3"],
        "text": ["text of x/1/1", "text of x/1/2", "text of x/1/3"],
        "image": [0, 0, 0],
        "kind": ["none", "one", "several"],
        "results": [
            {"outcome": ["correct", "false empty", "correct"], "iou": [87.5, 0.0, 87.5], "instances": [1, None, 1],
             "existence": [0.9, None, 0.9]},
            {"outcome": ["false empty", "correct", "correct"], "iou": [0.0, 87.5, 87.5], "instances": [None, 1, 1],
             "existence": [None, 0.9, 0.9]},
        ],
    }  # fmt: skip


def test_a_detail_has_the_layers_of_each_set_and_null_for_what_is_unknown() -> None:
    attention = np.array([[0, 255, 7], [1, 2, 3]], dtype=np.uint8)
    network = NetworkLayers(
        instance_masks=[RLE], global_mask=RLE, points=[[1.0, 2.0]], all_points=[[1.0, 2.0], [3.0, 4.0]],
        attention_map=attention, existence=0.123456,
    )  # fmt: skip
    box = [0.0, 0.0, 1.0, 1.0]
    detail = GalleryDetail(
        target_boxes=[box],
        target_masks=[RLE],
        results=(
            ResultLayers(boxes=[box], scores=[0.5], mask=RLE, network=network),
            ResultLayers(boxes=None, scores=None, mask=RLE, network=None),
        ),
    )
    assert detail.to_json() == {
        "truth": {"boxes": [box], "masks": [RLE]},
        "results": [
            {"boxes": [box], "scores": [0.5], "mask": RLE, "instance_masks": [RLE], "global_mask": RLE,
             "points": [[1.0, 2.0]], "all_points": [[1.0, 2.0], [3.0, 4.0]],
             "attention": {"size": [2, 3], "values": base64.b64encode(bytes([0, 255, 7, 1, 2, 3])).decode()},
             "existence": 0.1235},
            {"boxes": None, "scores": None, "mask": RLE, "instance_masks": None, "global_mask": None, "points": None,
             "all_points": None, "attention": None, "existence": None},
        ],
    }  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_a_script_holds_any_text_unchanged_and_ends_neither_a_line_nor_an_element(text: str) -> None:
    script = format_script("loadExpressions", dump_argument({"text": [text]})).decode("ascii")
    assert json.loads(script.removeprefix("igvg.loadExpressions(").removesuffix(");\n")) == {"text": [text]}
    assert "</" not in script
    assert "<!--" not in script
    assert script.count("\n") == 1


def test_numbers_that_javascript_does_not_know_are_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump_argument([float("nan")])


def test_a_text_of_a_million_characters_is_cut() -> None:
    assert cut_text("x" * LONGEST_TEXT) == "x" * LONGEST_TEXT
    assert cut_text("x" * 1_000_000) == "x" * LONGEST_TEXT + "…"
