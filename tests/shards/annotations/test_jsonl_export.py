"""Shards as JSON lines, which give the same records when they are prepared again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.config.settings import JsonLinesSettings, PrepareSettings
from pipelines.stages import convert, prepare
from shards.annotations.jsonl_export import ANNOTATIONS
from shards.errors import DataError
from shards.index import list_splits
from shards.progress import set_sink
from shards.reader import ShardReader
from shards.record import Expression, ImageRecord
from shards.writer import write_split
from tests.support.paths import REAL
from tests.support.pipeline_runs import draw_published
from tests.support.tiny_shards import fill_masks, make_items, return_record, write_items

DATASETS = ["grefcoco", "ref-zom", "rrefcoco", "refcoco", "refcoco+", "refcocog"]
TARGETS = [
    {"box": [0.1, 0.7, 20.3, 15.9], "polygons": [[1, 1, 20, 1, 20, 15, 1, 15]]},
    {"rle": {"size": [30, 40], "counts": [300, 60, 840]}},
    {"bbox": [3, 4, 5, 6]},
]
LINES: list[dict[str, Any]] = [
    {"image": "a/1.png", "text": ["Both!", "„die zwei“ \u2028"], "targets": TARGETS, "split": "train"},
    {"image": "a/1.png", "text": "none", "targets": [], "split": "train"},
    {"image": "2.png", "text": "one", "targets": TARGETS[1:2], "split": "val"},
    {"image": "2.png", "text": "one again", "targets": TARGETS[1:2], "split": "val"},
]
BOXES: list[dict[str, Any]] = [
    {"image": "2.png", "text": "it", "targets": [{"box": [1, 2, 3, 4]}, {"box": [0.3, 0.7, 11.1, 12.7]}]},
    {"image": "2.png", "text": "none", "targets": []},
]


def list_records(shards: Path, split: str) -> list[ImageRecord]:
    with ShardReader(shards, split) as reader:
        return list(reader.records())


def without_ids(record: ImageRecord) -> tuple[Any, ...]:
    """All that JSON lines say of a record."""
    expressions = [(each.text, each.instances) for each in record.expressions]
    objects = [(each.box, each.mask) for each in record.instances]
    return record.file_name, record.width, record.height, objects, expressions


def prepare_own(home: Path, lines: Path, out: str) -> Path:
    settings = JsonLinesSettings(dataset="jsonl", name="mine")
    prepare.run(settings, lines, [home / "images"], home / out, workers=0)
    return home / out


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "images" / "a").mkdir(parents=True)
    for number, name in enumerate(("a/1.png", "2.png")):
        Image.new("RGB", (40, 30), (number, 0, 0)).save(tmp_path / "images" / name)
    return tmp_path


@pytest.mark.parametrize("lines", [LINES, BOXES], ids=["all kinds of targets", "boxes alone"])
def test_own_data_are_the_same_after_a_round_trip_to_the_bit(home: Path, lines: list[dict[str, Any]]) -> None:
    (home / "own.jsonl").write_text("\n".join(map(json.dumps, lines)))
    own = prepare_own(home, home / "own.jsonl", "own")
    convert.export_shards("jsonl", own, None, home / "written")
    again = prepare_own(home, home / "written" / ANNOTATIONS, "again")
    assert list_splits(again) == list_splits(own)
    for split in list_splits(own):
        assert list_records(again, split) == list_records(own, split)
    convert.export_shards("jsonl", again, None, home / "second")
    assert (home / "second" / ANNOTATIONS).read_bytes() == (home / "written" / ANNOTATIONS).read_bytes()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_published(tmp_path_factory.mktemp("published"), train_images=4)


@pytest.mark.parametrize(
    ("dataset", "source"),
    [(name, "drawn") for name in DATASETS[:3]] + [(name, "real") for name in (DATASETS[0], *DATASETS[3:])],
)
def test_published_data_keep_all_but_ids_and_categories(
    dataset: str, source: str, published: Path, tmp_path: Path
) -> None:
    home = published if source == "drawn" else REAL
    if not (home / dataset).is_dir():
        pytest.skip(f"{home / dataset} is not there")
    (tmp_path / "images").symlink_to(next(home.rglob("train2014")))
    prepare.run(PrepareSettings(dataset=dataset), home / dataset, [tmp_path / "images"], tmp_path / "one", workers=0)
    convert.export_shards("jsonl", tmp_path / "one", None, tmp_path / "written")
    again = prepare_own(tmp_path, tmp_path / "written" / ANNOTATIONS, "again")
    assert list_splits(again) == list_splits(tmp_path / "one")
    for split in list_splits(again):
        before, after = (list_records(folder, split) for folder in (tmp_path / "one", again))
        assert sorted(map(without_ids, after)) == sorted(map(without_ids, before))


def write_changed(tmp_path: Path, **changes: Any) -> Path:
    ((record, file),) = make_items(tmp_path / "images", [3])
    write_items(tmp_path / "shards", [(dataclasses.replace(fill_masks(record), **changes), file)])
    return tmp_path / "shards"


def test_what_json_lines_do_not_say_is_told(tmp_path: Path) -> None:
    ((record, _),) = make_items(tmp_path / "other", [3])
    (instance,) = fill_masks(record).instances
    crowd = dataclasses.replace(instance, ann_id=7, crowd=True)
    twice = Expression(id="grefcoco/1/9", text="twice", instances=(0, 0), ref_id=9)
    shards = write_changed(tmp_path, instances=(instance, crowd), expressions=(*record.expressions, twice))
    lines: list[str] = []
    with set_sink(log=lines.append):
        counts = convert.export_shards("jsonl", shards, "val", tmp_path / "written").counts
    assert counts == {"images": 1, "expressions": 4, "objects": 2, "unmasked": 0, "crowds": 1, "merged": 2}
    assert [line.split(" objects ")[0] for line in lines] == ["Warning: 1", "Warning: 2"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"file_name": "../a.jpg"}, "image is '../a.jpg'; write its path below"),
        ({"expressions": (Expression(id="a/1/0", text=" ", instances=(), ref_id=1),)}, "text is empty"),
    ],
)
def test_a_record_that_json_lines_cannot_say_is_refused_by_name(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said) as error:
        convert.export_shards("jsonl", write_changed(tmp_path, **changes), None, tmp_path / "written")
    assert error.value.record is not None
    assert error.value.record.startswith("image 100, ")
    assert not (tmp_path / "written").exists()


def test_a_box_that_would_be_refused_or_changed_is_named(tmp_path: Path) -> None:
    ((record, _),) = make_items(tmp_path / "other", [3])
    (instance,) = fill_masks(record).instances
    point = dataclasses.replace(instance, box=(2.0, 2.0, 2.0, 2.0))
    shards = write_changed(tmp_path, instances=(point,))
    with pytest.raises(DataError, match=r"box \[2.0, 2.0, 2.0, 2.0\], which covers nothing"):
        convert.export_shards("jsonl", shards, None, tmp_path / "written")


def test_a_box_around_the_first_pixel_is_that_of_its_mask(home: Path) -> None:
    line = {"image": "2.png", "text": "dot", "targets": [{"rle": {"size": [30, 40], "counts": [0, 1, 1199]}}]}
    (home / "own.jsonl").write_text(json.dumps(line))
    own = prepare_own(home, home / "own.jsonl", "own")
    convert.export_shards("jsonl", own, None, home / "written")
    assert json.loads((home / "written" / ANNOTATIONS).read_bytes())["expressions"][0]["targets"] == [
        {"rle": {"counts": "01_U1", "size": [30, 40]}}
    ]
    assert list_records(prepare_own(home, home / "written" / ANNOTATIONS, "again"), "train") == list_records(
        own, "train"
    )


def test_images_of_two_splits_with_one_name_and_other_bytes_are_written_one_split_at_a_time(tmp_path: Path) -> None:
    for split, color in (("train", "red"), ("val", "blue")):
        ((record, file),) = make_items(tmp_path / split, [2])
        Image.new("RGB", (16, 12), color).save(file)
        write_split(tmp_path / "shards", split, [(fill_masks(record), file)], return_record)
    with pytest.raises(DataError, match="other bytes; write one split at a time: --split"):
        convert.export_shards("jsonl", tmp_path / "shards", None, tmp_path / "written")
    assert convert.export_shards("jsonl", tmp_path / "shards", "val", tmp_path / "written").counts["images"] == 1
