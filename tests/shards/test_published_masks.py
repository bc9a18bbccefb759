"""From drafts to records: the masks and boxes of annotations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from published_files import Record, change_annotation, make_ref, read

from shards import masks
from shards.errors import DataError
from shards.published import build_record

if TYPE_CHECKING:
    from pathlib import Path


def test_a_record_holds_the_union_of_the_polygons_and_the_published_box(tmp_path: Path) -> None:
    polygons = [[0, 0, 4, 0, 4, 4, 0, 4], [2, 2, 8, 2, 8, 8, 2, 8]]
    drafts, _ = read(tmp_path, [make_ref()], instances=change_annotation(segmentation=polygons))
    (instance,) = build_record(drafts[0]).instances
    assert instance.box == (10, 5, 20, 15)
    assert masks.measure_area(instance.mask) == 4 * 4 + 6 * 6 - 2 * 2


@pytest.mark.parametrize(("bbox", "box"), [([-3, -2, 10, 10], (0, 0, 7, 8)), ([35, 25, 10.5, 10], (35, 25, 40, 30))])
def test_boxes_are_clipped_to_the_picture(tmp_path: Path, bbox: list[float], box: tuple[float, ...]) -> None:
    drafts, _ = read(tmp_path, [make_ref()], instances=change_annotation(bbox=bbox))
    assert build_record(drafts[0]).instances[0].box == box


@pytest.mark.parametrize("bbox", [None, [10, 5, 0, 10], [100, 5, 3, 3], [1, 2, 3]])
def test_an_annotation_without_a_usable_box_gets_its_masks(tmp_path: Path, bbox: object) -> None:
    drafts, _ = read(tmp_path, [make_ref()], instances=change_annotation(bbox=bbox))
    assert build_record(drafts[0]).instances[0].box == (10, 5, 20, 15)


def test_a_crowd_is_an_instance_like_any_other(tmp_path: Path) -> None:
    runs = {"size": [30, 40], "counts": [300, 60, 840]}
    drafts, _ = read(tmp_path, [make_ref()], instances=change_annotation(segmentation=runs, iscrowd=1))
    assert masks.measure_area(build_record(drafts[0]).instances[0].mask) == 60


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"segmentation": None}, "image 7: annotation 70: segmentation is a NoneType"),
        ({"segmentation": [["a", "b"]]}, "image 7: annotation 70: a polygon that is not a flat list"),
        (
            {"segmentation": {"size": [30, 40], "counts": ["a"]}},
            "image 7: annotation 70: run lengths that do not add up",
        ),
        ({"segmentation": [], "bbox": None}, "image 7: annotation 70 has neither a box nor a mask inside the picture"),
    ],
)
def test_an_annotation_without_a_usable_mask_is_named(tmp_path: Path, changes: Record, words: str) -> None:
    drafts, _ = read(tmp_path, [make_ref()], instances=change_annotation(**changes))
    with pytest.raises(DataError, match=words):
        build_record(drafts[0])
