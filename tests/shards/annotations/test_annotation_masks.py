"""From drafts to records: the masks and boxes of annotations."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards import masks
from shards.annotations.drafts import build_record, drop_unusable_annotations
from shards.errors import DataError
from tests.support.published_files import Record, change_annotation, make_ref, read


def test_a_record_holds_the_union_of_the_polygons_and_the_published_box(tmp_path: Path) -> None:
    polygons = [[0, 0, 4, 0, 4, 4, 0, 4], [2, 2, 8, 2, 8, 8, 2, 8]]
    drafts, _ = read(tmp_path, [make_ref()], instances=change_annotation(segmentation=polygons))
    (instance,) = build_record(drafts[0]).instances
    assert instance.box == (10, 5, 20, 15)
    assert masks.rle_area(instance.mask) == 4 * 4 + 6 * 6 - 2 * 2


@pytest.mark.parametrize(("bbox", "box"), [([-3, -2, 10, 10], (0, 0, 7, 8)), ([35, 25, 10.5, 10], (35, 25, 40, 30))])
def test_boxes_are_clipped_to_the_image(tmp_path: Path, bbox: list[float], box: tuple[float, ...]) -> None:
    drafts, _ = read(tmp_path, [make_ref()], instances=change_annotation(bbox=bbox))
    assert build_record(drafts[0]).instances[0].box == box


@pytest.mark.parametrize("bbox", [None, [10, 5, 0, 10], [100, 5, 3, 3], [1, 2, 3]])
def test_an_annotation_without_a_usable_box_gets_its_masks(tmp_path: Path, bbox: object) -> None:
    drafts, _ = read(tmp_path, [make_ref()], instances=change_annotation(bbox=bbox))
    assert build_record(drafts[0]).instances[0].box == (10, 5, 20, 15)


def test_a_crowd_is_an_instance_like_any_other(tmp_path: Path) -> None:
    runs = {"size": [30, 40], "counts": [300, 60, 840]}
    drafts, _ = read(tmp_path, [make_ref()], instances=change_annotation(segmentation=runs, iscrowd=1))
    assert masks.rle_area(build_record(drafts[0]).instances[0].mask) == 60


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"segmentation": None}, "image 7: annotation 70: segmentation is null: the object has no outline"),
        ({"segmentation": [["a", "b"]]}, "image 7: annotation 70: a polygon that is not a flat list"),
        (
            {"segmentation": {"size": [30, 40], "counts": ["a"]}},
            "image 7: annotation 70: run lengths that do not add up",
        ),
        ({"segmentation": [], "bbox": None}, "image 7: annotation 70: its list of polygons is empty"),
    ],
)
def test_an_annotation_without_a_usable_mask_is_named(tmp_path: Path, changes: Record, words: str) -> None:
    drafts, _ = read(tmp_path, [make_ref()], instances=change_annotation(**changes))
    with pytest.raises(DataError, match=words):
        build_record(drafts[0])


WITHOUT_AREA = {
    "a line": ([[9.5, 20.25, 15.5, 20.25, 15.5, 20.25, 11.0, 20.25]], "no area: all points lie on one line"),
    "two points": ([[10.2, 12.4, 10.9, 15.1]], r"fewer than three points \(2\)"),
    "one point": ([[10.2, 12.4]], r"fewer than three points \(1\)"),
    "an odd number": ([[8, 8, 30, 8, 30, 30, 8]], "an odd number of coordinates"),
    "an empty list": ([], "its list of polygons is empty"),
    "a list of an empty list": ([[]], "its polygons are empty lists"),
    "null": (None, "segmentation is null"),
    "outside": ([[200, 200, 260, 200, 260, 260, 200, 260]], r"lies outside the image of 40 × 30 pixels"),
    "run lengths": ({"size": [30, 40], "counts": [30 * 40]}, "its run lengths hold no pixel"),
    "compressed run lengths": ({"size": [30, 40], "counts": "`U1"}, "its run lengths hold no pixel"),
    "flat": ([8, 8, 30, 8, 30, 30, 8, 30], "one flat list of numbers"),
    "tiny": ([[10.1, 10.1, 10.3, 10.1, 10.3, 10.3, 10.1, 10.3]], "too small to cover a pixel"),
}


@pytest.mark.parametrize("bbox", [[8, 8, 20, 20], [9.5, 20.25, 6, 0], None])
@pytest.mark.parametrize("kind", WITHOUT_AREA)
def test_an_outline_without_a_pixel_is_unusable_whatever_the_box_says(
    tmp_path: Path, kind: str, bbox: list[float] | None
) -> None:
    segmentation, words = WITHOUT_AREA[kind]
    drafts, _ = read(tmp_path, [make_ref()], instances=change_annotation(segmentation=segmentation, bbox=bbox))
    with pytest.raises(DataError, match=f"image 7: annotation 70: .*{words}"):
        build_record(drafts[0])


def test_of_several_polygons_those_without_points_are_passed_over(tmp_path: Path) -> None:
    polygons = [[0, 0, 4, 0, 4, 4, 0, 4], [7, 7, 8, 8], [1, 2, 3], []]
    drafts, _ = read(tmp_path, [make_ref()], instances=change_annotation(segmentation=polygons))
    assert masks.rle_area(build_record(drafts[0]).instances[0].mask) == 16


def test_an_unusable_annotation_takes_only_the_expressions_along_that_need_it(tmp_path: Path) -> None:
    refs = [
        make_ref([70, 71], ref_id=1), make_ref([72], ref_id=2), make_ref([71, 72], ref_id=3), make_ref([-1], ref_id=4),
    ]  # fmt: skip
    drafts, collector = read(tmp_path, refs, "grefcoco", instances=change_annotation(segmentation=[[1, 2]]))
    (draft,) = drop_unusable_annotations(drafts, tmp_path / "instances.json", collector)
    record = build_record(draft)
    assert [instance.ann_id for instance in record.instances] == [71, 72]
    assert [(expression.ref_id, expression.instances) for expression in record.expressions] == [
        (2, (1,)), (3, (0, 1)), (4, ()),
    ]  # fmt: skip
    assert collector.count_kinds() == {"unusable annotation": 1}
    with pytest.raises(DataError, match=r"expressions that need it: 1, the first grefcoco/1/11"):
        collector.raise_if_any()


def test_an_unusable_annotation_that_two_splits_use_is_counted_once_and_two_are_two(tmp_path: Path) -> None:
    refs = [make_ref(70, ref_id=1, split="train"), make_ref(70, ref_id=2), make_ref(80, ref_id=3, image_id=8)]
    instances = change_annotation(segmentation=[])
    instances = {
        **instances,
        "annotations": [*instances["annotations"][:3], {**instances["annotations"][3], "segmentation": []}],
    }
    drafts, collector = read(tmp_path, refs, instances=instances)
    assert drop_unusable_annotations(drafts, tmp_path / "instances.json", collector) == []
    assert collector.count_kinds() == {"unusable annotation": 2}
