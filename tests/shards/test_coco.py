"""instances.json: what is read, what is refused, and where image files are found."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.audit import Audit
from shards.errors import DataError
from shards.published.coco import (
    CocoInstances,
    Picture,
    candidate_names,
    index_folders,
    locate_picture,
    read_instances,
)

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = {"id": 7, "file_name": "COCO_train2014_000000000007.jpg", "width": 40, "height": 30, "license": 3}
ANNOTATION = {
    "id": 70, "image_id": 7, "category_id": 1, "bbox": [1, 2, 3.5, 4], "segmentation": [[1, 2, 4, 2, 4, 6]], "area": 6
}  # fmt: skip


def _write(folder: Path, document: object) -> Path:
    file = folder / "instances.json"
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    return file


def _read(folder: Path, image: dict[str, Any], annotation: dict[str, Any]) -> tuple[CocoInstances, Audit]:
    audit = Audit()
    return read_instances(_write(folder, {"images": [image], "annotations": [annotation]}), audit), audit


def _picture(file_name: str = "COCO_train2014_000000000007.jpg") -> Picture:
    return Picture(image_id=7, file_name=file_name, width=40, height=30)


def test_pictures_and_annotations_are_found_by_their_ids(tmp_path: Path) -> None:
    instances, audit = _read(tmp_path, IMAGE, ANNOTATION)
    assert instances.pictures == {7: _picture()}
    assert instances.annotations[70].bbox == (1.0, 2.0, 3.5, 4.0)
    assert not instances.annotations[70].iscrowd
    assert len(audit) == 0


def test_a_crowd_is_kept(tmp_path: Path) -> None:
    instances, _ = _read(tmp_path, IMAGE, {**ANNOTATION, "iscrowd": 1})
    assert instances.annotations[70].iscrowd


@pytest.mark.parametrize(
    "bbox", [None, [], [1, 2, 3], [1, 2, 0, 4], [1, 2, 3, -4], ["a", 1, 1, 1], [1, 2, 10**400, 4], [1, 2, [3], 4]]
)
def test_a_box_that_is_none_is_left_to_the_mask(tmp_path: Path, bbox: object) -> None:
    instances, audit = _read(tmp_path, IMAGE, {**ANNOTATION, "bbox": bbox})
    assert instances.annotations[70].bbox is None
    assert len(audit) == 0


@pytest.mark.parametrize("number", ["NaN", "Infinity"])
def test_a_box_without_finite_numbers_is_left_to_the_mask(tmp_path: Path, number: str) -> None:
    text = json.dumps({"images": [IMAGE], "annotations": [ANNOTATION]}).replace("3.5", number)
    assert read_instances(_write(tmp_path, text), Audit()).annotations[70].bbox is None


@pytest.mark.parametrize("key", ["id", "image_id", "category_id", "segmentation"])
def test_an_annotation_that_lacks_a_key_is_reported(tmp_path: Path, key: str) -> None:
    instances, audit = _read(tmp_path, IMAGE, {k: v for k, v in ANNOTATION.items() if k != key})
    assert not instances.annotations
    name = "annotation number 1" if key == "id" else "annotation 70"
    with pytest.raises(DataError, match=f"{name}: has no {key}"):
        audit.raise_if_any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 0}, "image 7: a picture of 0 × 30 pixels"),
        ({"height": "tall"}, "image 7: height is 'tall', not a whole number"),
        ({"file_name": 7}, "image 7: file_name is 7, not a text"),
        ({"file_name": "\ud800"}, "not valid Unicode"),
        ({"id": -7}, "a picture with the number -7"),
        ({"id": 10**20}, "id is 1000.* not a whole number"),
        ({"id": True}, "id is True, not a whole number"),
    ],
)
def test_a_malformed_picture_is_reported(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    instances, audit = _read(tmp_path, {**IMAGE, **change}, ANNOTATION)
    assert not instances.pictures
    with pytest.raises(DataError, match=words):
        audit.raise_if_any()


def test_an_entry_that_is_no_dictionary_is_reported(tmp_path: Path) -> None:
    _, audit = _read(tmp_path, IMAGE, [1, 2])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="annotation number 1: a list where a record should be"):
        audit.raise_if_any()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ('{"images": [{"id": 1', r"damaged, cut short or no JSON \(.*line 1 column"),
        ("", "damaged, cut short or no JSON"),
        ("[" * 100_000, "this JSON is nested too deep"),
        ([], "holds a list, not a dictionary with images and annotations"),
        ({"images": []}, "has no list 'annotations'"),
        ({"annotations": [], "images": {}}, "has no list 'images'"),
    ],
)
def test_a_file_that_is_none_of_cocos_is_refused(tmp_path: Path, document: object, words: str) -> None:
    with pytest.raises(DataError, match=rf"instances\.json: {words}"):
        read_instances(_write(tmp_path, document), Audit())


def test_a_file_of_other_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "instances.json").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(DataError, match="damaged, cut short or no JSON"):
        read_instances(tmp_path / "instances.json", Audit())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"instances\.json: cannot be read \(No such file"):
        read_instances(tmp_path / "instances.json", Audit())


@pytest.mark.parametrize(
    "name", ["elsewhere.jpg", "COCO_train2014_000000000007.jpg", "COCO_val2014_000000000007.jpg", "000000000007.jpg"]
)
def test_a_picture_is_found_under_each_of_its_names(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert locate_picture(_picture("elsewhere.jpg"), index_folders([tmp_path])) == tmp_path / name


def test_a_picture_that_is_nowhere_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "000000000008.jpg").touch()
    assert locate_picture(_picture(), index_folders([tmp_path])) is None


def test_the_first_folder_wins(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "000000000007.jpg").touch()
    files = index_folders([tmp_path / "b", tmp_path / "a"])
    assert locate_picture(_picture(), files) == tmp_path / "b" / "000000000007.jpg"


def test_only_pictures_count(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    for name in ("notes.txt", ".hidden.jpg", "jpg", "seen.JPG"):
        (tmp_path / name).touch()
    assert list(index_folders([tmp_path])) == ["seen.JPG"]


def test_a_missing_folder_of_pictures_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent: is no folder of pictures \(No such file"):
        index_folders([tmp_path / "absent"])


@given(file_name=st.text(alphabet=st.sampled_from("./\\ab"), max_size=12))
def test_no_file_name_leads_to_another_folder(file_name: str) -> None:
    assert not any("/" in name or "\\" in name for name in candidate_names(_picture(file_name)))
