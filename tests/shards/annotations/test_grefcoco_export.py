"""Shards in gRefCOCO's published layout, which gives the same records when it is prepared again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pycocotools.coco import COCO

from pipelines.config.settings import JsonLinesSettings, PrepareSettings
from pipelines.stages import convert, prepare
from shards.annotations.grefcoco_export import _Document
from shards.errors import DataError
from shards.reader import ShardReader
from tests.support.tiny_shards import make_items, write_items

TARGETS = [
    {"box": [0.1, 0.7, 20.3, 15.9], "polygons": [[1, 1, 20, 1, 20, 15, 1, 15]]},
    {"rle": {"size": [30, 40], "counts": [300, 60, 840]}},
]
LINES: list[dict[str, Any]] = [
    {"image": "a/1.png", "text": ["Both!", "the two"], "targets": TARGETS, "split": "val"},
    {"image": "a/1.png", "text": "none", "targets": [], "split": "val"},
    {"image": "2.png", "text": "one", "targets": TARGETS[1:], "split": "train"},
]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "images" / "a").mkdir(parents=True)
    for name in ("a/1.png", "2.png"):
        Image.new("RGB", (40, 30)).save(tmp_path / "images" / name)
    return tmp_path


def prepare_own(home: Path, lines: list[dict[str, Any]]) -> Path:
    (home / "own.jsonl").write_text("\n".join(map(json.dumps, lines)))
    settings = JsonLinesSettings(dataset="jsonl", name="mine")
    prepare.run(settings, home / "own.jsonl", [home / "images"], home / "own", workers=0)
    return home / "own"


def list_records(shards: Path, split: str) -> list[dict[str, Any]]:
    with ShardReader(shards, split) as reader:
        documents = json.dumps([record.to_json() for record in reader.records()])
    found: list[dict[str, Any]] = json.loads(documents.replace('"mine/', '"grefcoco/'))
    return found


def test_records_are_the_same_after_a_round_trip(home: Path) -> None:
    own = prepare_own(home, LINES)
    convert.export_shards("grefcoco", own, None, home / "published")
    settings = PrepareSettings(dataset="grefcoco")
    prepare.run(settings, home / "published", [home / "images"], home / "again", workers=0)
    for split in ("train", "val"):
        assert list_records(home / "again", split) == list_records(own, split)
    convert.export_shards("grefcoco", home / "again", None, home / "second")
    for name in ("grefs(unc).json", "instances.json"):
        assert (home / "second" / name).read_bytes() == (home / "published" / name).read_bytes()


def test_one_split_is_written_alone_and_finished_work_is_found(home: Path) -> None:
    own = prepare_own(home, LINES)
    counts = convert.export_shards("grefcoco", own, "val", home / "published").counts
    assert counts == {"images": 1, "annotations": 2, "refs": 2, "expressions": 3, "unmasked": 0}
    assert convert.export_shards("grefcoco", own, "val", home / "published").cached


def test_objects_without_a_mask_have_no_segmentation_and_come_back_with_their_boxes(home: Path) -> None:
    targets = [{"box": [1, 2, 3, 4]}, {"box": [0.1, 0.7, 20.3, 15.9]}, TARGETS[1]]
    own = prepare_own(home, [{"image": "2.png", "text": "it", "targets": targets}])
    assert convert.export_shards("grefcoco", own, None, home / "published").counts["unmasked"] == 2
    entries = json.loads((home / "published" / "instances.json").read_bytes())["annotations"]
    assert [(entry["bbox"], "segmentation" in entry) for entry in entries[::2]] == [
        ([1, 2, 2, 2], False), ([10, 0, 2, 30], True),
    ]  # fmt: skip
    assert len(COCO(home / "published" / "instances.json").anns) == 3
    settings = PrepareSettings(dataset="grefcoco")
    counts = prepare.run(settings, home / "published", [home / "images"], home / "again", workers=0).counts
    assert counts["notes"] == {"object without a segmentation": 2}
    assert list_records(home / "again", "train") == list_records(own, "train")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"segmentation": []}, "annotation 1: its list of polygons is empty"),
        ({"segmentation": None}, "annotation 1: segmentation is null"),
        ({"bbox": None}, "annotation 1: has neither a segmentation nor a bbox with an area"),
        ({"bbox": [50, 2, 3, 4]}, "annotation 1: has no segmentation, and its box lies outside the image"),
    ],
)
def test_a_broken_outline_is_no_box_alone(home: Path, change: dict[str, Any], said: str) -> None:
    own = prepare_own(home, [{"image": "2.png", "text": "it", "targets": [{"box": [1, 2, 3, 4]}]}])
    convert.export_shards("grefcoco", own, None, home / "published")
    file = home / "published" / "instances.json"
    document = json.loads(file.read_bytes())
    document["annotations"][0] |= change
    file.write_text(json.dumps(document))
    with pytest.raises(DataError, match=said):
        prepare.run(PrepareSettings(dataset="grefcoco"), home / "published", [home / "images"], home / "out", workers=0)


def test_refs_with_sentences_about_different_targets_are_refused(tmp_path: Path) -> None:
    ((record, file),) = make_items(tmp_path / "images", [2])
    same = tuple(dataclasses.replace(expression, ref_id=5) for expression in record.expressions)
    write_items(tmp_path / "shards", [(dataclasses.replace(record, expressions=same), file)])
    words = "grefcoco/100/1: its ann_id is not that of the others of ref 5, which gRefCOCO cannot say"
    with pytest.raises(DataError, match=words):
        convert.export_shards("grefcoco", tmp_path / "shards", None, tmp_path / "published")
    assert not (tmp_path / "published").exists()


def test_splits_whose_images_share_ids_are_written_one_at_a_time() -> None:
    document = _Document()
    document.add("image", 1, {"id": 1, "file_name": "a.jpg"})
    document.add("image", 1, {"id": 1, "file_name": "a.jpg"})
    with pytest.raises(DataError, match="image 1: two images that differ have this id; write one split at a time"):
        document.add("image", 1, {"id": 1, "file_name": "b.jpg"})
