"""instances.json: what is read and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shards.annotations.coco import CocoImage, CocoInstances, read_instances
from shards.annotations.error_collector import ErrorCollector
from shards.errors import DataError

IMAGE = {"id": 7, "file_name": "COCO_train2014_000000000007.jpg", "width": 40, "height": 30, "license": 3}
ANNOTATION = {
    "id": 70, "image_id": 7, "category_id": 1, "bbox": [1, 2, 3.5, 4], "segmentation": [[1, 2, 4, 2, 4, 6]], "area": 6
}  # fmt: skip


def _write(folder: Path, document: object) -> Path:
    file = folder / "instances.json"
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    return file


def _read(folder: Path, image: dict[str, Any], annotation: dict[str, Any]) -> tuple[CocoInstances, ErrorCollector]:
    collector = ErrorCollector()
    return read_instances(_write(folder, {"images": [image], "annotations": [annotation]}), collector), collector


def _image() -> CocoImage:
    return CocoImage(image_id=7, file_name="COCO_train2014_000000000007.jpg", width=40, height=30)


def test_images_and_annotations_are_found_by_their_ids(tmp_path: Path) -> None:
    instances, collector = _read(tmp_path, IMAGE, ANNOTATION)
    assert instances.images == {7: _image()}
    assert instances.annotations[70].bbox == (1.0, 2.0, 3.5, 4.0)
    assert not instances.annotations[70].iscrowd
    assert len(collector) == 0


def test_a_crowd_is_kept(tmp_path: Path) -> None:
    instances, _ = _read(tmp_path, IMAGE, {**ANNOTATION, "iscrowd": 1})
    assert instances.annotations[70].iscrowd


@pytest.mark.parametrize(
    "bbox", [None, [], [1, 2, 3], [1, 2, 0, 4], [1, 2, 3, -4], ["a", 1, 1, 1], [1, 2, 10**400, 4], [1, 2, [3], 4]]
)
def test_a_box_that_is_none_is_left_to_the_mask(tmp_path: Path, bbox: object) -> None:
    instances, collector = _read(tmp_path, IMAGE, {**ANNOTATION, "bbox": bbox})
    assert instances.annotations[70].bbox is None
    assert len(collector) == 0


@pytest.mark.parametrize("number", ["NaN", "Infinity"])
def test_a_box_without_finite_numbers_is_left_to_the_mask(tmp_path: Path, number: str) -> None:
    text = json.dumps({"images": [IMAGE], "annotations": [ANNOTATION]}).replace("3.5", number)
    assert read_instances(_write(tmp_path, text), ErrorCollector()).annotations[70].bbox is None


@pytest.mark.parametrize("key", ["id", "image_id", "category_id", "segmentation"])
def test_an_annotation_that_lacks_a_key_is_reported(tmp_path: Path, key: str) -> None:
    instances, collector = _read(tmp_path, IMAGE, {k: v for k, v in ANNOTATION.items() if k != key})
    assert not instances.annotations
    name = "annotation number 1" if key == "id" else "annotation 70"
    with pytest.raises(DataError, match=f"{name}: has no {key}"):
        collector.raise_if_any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 0}, "image 7: an image of 0 × 30 pixels"),
        ({"width": 60_000_000}, "image 7: an image of 60000000 × 30 pixels; at most 178,956,970 are read"),
        ({"height": "tall"}, "image 7: height is 'tall', not a whole number"),
        ({"file_name": 7}, "image 7: file_name is 7, not a text"),
        ({"file_name": "\ud800"}, "not valid Unicode"),
        ({"id": -7}, "an image with the number -7"),
        ({"id": 10**20}, "id is 1000.* not a whole number"),
        ({"id": True}, "id is True, not a whole number"),
    ],
)
def test_a_malformed_image_is_reported(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    instances, collector = _read(tmp_path, {**IMAGE, **change}, ANNOTATION)
    assert not instances.images
    with pytest.raises(DataError, match=words):
        collector.raise_if_any()


def test_an_entry_that_is_no_dictionary_is_reported(tmp_path: Path) -> None:
    _, collector = _read(tmp_path, IMAGE, [1, 2])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="annotation number 1: a list where a record should be"):
        collector.raise_if_any()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ('{"images": [{"id": 1', r"is damaged or cut short \(.*line 1 column"),
        ("", "is an empty file, not JSON; download"),
        ("[" * 100_000, "is damaged or cut short \\(maximum recursion depth"),
        ([], "holds a list, not a dictionary with images and annotations"),
        ({"images": []}, "has no list 'annotations'"),
        ({"annotations": [], "images": {}}, "has no list 'images'"),
    ],
)
def test_a_file_that_is_none_of_cocos_is_refused(tmp_path: Path, document: object, words: str) -> None:
    with pytest.raises(DataError, match=rf"instances\.json: {words}"):
        read_instances(_write(tmp_path, document), ErrorCollector())


def test_a_file_of_other_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "instances.json").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(DataError, match="is a JPEG image, not JSON; download it again"):
        read_instances(tmp_path / "instances.json", ErrorCollector())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"instances\.json: no such file"):
        read_instances(tmp_path / "instances.json", ErrorCollector())


def _read_lists(folder: Path, images: list[Any], annotations: list[Any]) -> tuple[CocoInstances, list[str], list[str]]:
    collector = ErrorCollector()
    instances = read_instances(_write(folder, {"images": images, "annotations": annotations}), collector)
    return instances, [kind for kind, _ in collector], [str(error) for _, error in collector]


def test_identical_repetitions_are_harmless(tmp_path: Path) -> None:
    instances, kinds, _ = _read_lists(tmp_path, [IMAGE, {**IMAGE, "license": 4}], [ANNOTATION, dict(ANNOTATION)])
    assert (list(instances.images), list(instances.annotations), kinds) == ([7], [70], [])


def test_annotations_of_one_id_that_differ_are_all_refused_by_their_id(tmp_path: Path) -> None:
    other = {**ANNOTATION, "bbox": [1, 2, 4, 4]}
    instances, kinds, errors = _read_lists(tmp_path, [IMAGE], [ANNOTATION, other, ANNOTATION, {**ANNOTATION, "id": 71}])
    assert (list(instances.annotations), instances.refused_annotations) == ([71], {70})
    assert kinds == ["repeated id"] * 3
    assert errors[0] == (
        f"{tmp_path}/instances.json, annotation 70 (entry 1 of annotations): has the same id as "
        "entry 2 of annotations, entry 3 of annotations, and they differ; give every annotation an id of its own"
    )


def test_images_of_one_id_that_differ_are_all_refused(tmp_path: Path) -> None:
    instances, kinds, errors = _read_lists(tmp_path, [IMAGE, {**IMAGE, "file_name": "b.png"}], [ANNOTATION])
    assert (instances.images, instances.refused_images, kinds) == ({}, {7}, ["repeated id"] * 2)
    assert "image 7 (entry 2 of images): has the same id as entry 1 of images" in errors[1]


def test_a_malformed_annotation_is_known_as_refused(tmp_path: Path) -> None:
    instances, _, _ = _read_lists(tmp_path, [IMAGE], [{**ANNOTATION, "image_id": "x"}])
    assert instances.refused_annotations == {70}


@pytest.mark.parametrize("mark", ["yes", 2, [1]])
def test_a_crowd_mark_that_is_no_flag_is_reported(tmp_path: Path, mark: object) -> None:
    _, _, errors = _read_lists(tmp_path, [IMAGE], [{**ANNOTATION, "iscrowd": mark}])
    assert "iscrowd is" in errors[0]


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    text = json.dumps({"images": [IMAGE], "annotations": [ANNOTATION]})
    (tmp_path / "instances.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_instances(tmp_path / "instances.json", ErrorCollector()).annotations
