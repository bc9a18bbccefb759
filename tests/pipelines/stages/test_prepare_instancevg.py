"""igvg prepare on InstanceVG's merged files: the same shards as from the files that those were made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shards.errors import DataError
from shards.reader import ShardReader
from tests.support.published_set import Published


def merge(published: Published) -> None:
    """Rewrite the annotations as one merged file, sizes and file names left out."""
    annotations = {entry["id"]: entry for entry in published.instances["annotations"]}
    sets: dict[str, list[Any]] = {}
    for ref in published.refs:
        chosen = [annotations[ann_id] for ann_id in ref["ann_id"] if ann_id > 0]
        targets = [{"bbox": entry["bbox"], "segmentation": entry["segmentation"]} for entry in chosen]
        texts = [sentence["raw"] for sentence in ref["sentences"]]
        sample = {
            "image_id": ref["image_id"],
            "expressions": {"raw": texts},
            "annotations": targets or [{"bbox": [0, 0, 0, 0], "segmentation": None}],
        }
        sets.setdefault(ref["split"], []).append(sample)
    for file in published.annotations.iterdir():
        file.unlink()
    (published.annotations / "instance.json").write_text(json.dumps(sets))


@pytest.fixture
def published(tmp_path: Path) -> Published:
    return Published(tmp_path)


def test_the_merged_file_gives_the_same_images_objects_and_targets(published: Published, tmp_path: Path) -> None:
    # Both squares of picture 7 have one outline; in files without numbers they are one object.
    published.instances["annotations"][1]["segmentation"] = [[12, 6, 22, 6, 22, 18, 12, 18]]
    published.save()
    first = published.prepare(tmp_path / "refs")
    merge(published)
    second = published.prepare(tmp_path / "merged")
    assert first.counts == second.counts
    with ShardReader(tmp_path / "refs", "train") as one, ShardReader(tmp_path / "merged", "train") as other:
        for number in range(2):
            mine, theirs = one.record(number), other.record(number)
            assert (mine.width, mine.height, mine.file_name) == (theirs.width, theirs.height, theirs.file_name)
            assert [(instance.box, instance.mask) for instance in mine.instances] == [
                (instance.box, instance.mask) for instance in theirs.instances
            ]
            assert [(expression.text, expression.instances) for expression in mine.expressions] == [
                (expression.text, expression.instances) for expression in theirs.expressions
            ]


def test_a_file_that_is_no_image_cannot_tell_its_size(published: Published, tmp_path: Path) -> None:
    merge(published)
    published.image(9).write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"COCO_train2014_000000000009\.jpg, image 9: is no image"):
        published.prepare(tmp_path / "shards")


def test_an_inspection_accepts_the_merged_file(published: Published) -> None:
    merge(published)
    inspection = published.inspect()
    assert (inspection.missing, inspection.images, inspection.expressions) == ((), 3, 8)
