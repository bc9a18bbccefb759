"""A gallery on disk: every expression once, in the order of the shards, whatever the number of workers."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.config.settings import PostprocessSettings
from pipelines.prediction.prediction_file import read_predictions
from pipelines.report.gallery import DETAILS_SIZE
from pipelines.report.gallery_writer import GalleryCounts, PredictionSource, list_tasks, write_gallery
from shards.errors import DataError
from shards.index import write_index
from shards.indexing import index_split
from shards.masks import decode_mask, encode_mask, resize_nearest
from shards.reader import ShardReader
from shards.record import Instance
from shards.writer import write_split
from tests.support.drawn_shards import (
    BOXES,
    REFERENCES,
    References,
    fill,
    make_record,
    predict_truth,
    return_record,
    write_lines,
    write_shards,
)
from tests.support.pipeline_runs import snapshot
from tests.support.predicted_folders import SETTINGS, write_predicted
from tests.support.report_data import read_details, read_index


def write(folder: Path, shards: Path, *files: Path, limit: int = 0, workers: int = 0) -> GalleryCounts:
    """A gallery of predictions; a folder's raw outputs are shown, too."""
    folder.mkdir()
    sources = [
        PredictionSource(name=file.name, file=file / "predictions.jsonl", raw=file / "raw", settings=SETTINGS)
        if file.is_dir()
        else PredictionSource(name=file.name, file=file, raw=None, settings=PostprocessSettings())
        for file in files
    ]
    with ShardReader(shards, "val") as reader:
        return write_gallery(folder, sources, reader, limit=limit, workers=workers)


def test_faultless_predictions_are_shown_as_correct_and_as_they_are(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "set")
    counts = write(tmp_path / "report", shards, write_lines(tmp_path / "right.jsonl", predict_truth()))
    assert counts == GalleryCounts(expressions=12, images=3, foreign=0)
    index, details = read_index(tmp_path / "report"), read_details(tmp_path / "report")
    assert index["sets"] == ["right.jsonl"]
    assert index["id"] == [f"grefcoco/{image}/{n}" for image in (1, 2, 3) for n in range(4)]
    assert index["text"] == [f"phrase {n}" for _ in range(3) for n in range(4)]
    assert index["image"] == [0] * 4 + [1] * 4 + [2] * 4
    assert index["kind"] == ["none", "one", "one", "several"] * 3
    assert index["images"] == {
        "file": ["00000.jpg", "00001.jpg", "00002.jpg"], "name": ["1.png", "2.png", "3.png"],
        "width": [12] * 3, "height": [8] * 3,
    }  # fmt: skip
    assert index["results"] == [
        {"outcome": ["correct"] * 12, "iou": [100] * 12, "instances": [0, 1, 1, 2] * 3, "existence": [None] * 12}
    ]
    for line, detail in zip(predict_truth(), details, strict=True):
        targets = [list(box) for box in line["boxes"]]
        assert detail["truth"] == {"boxes": targets, "masks": [fill(BOXES[BOXES.index(tuple(b))]) for b in targets]}
        (result,) = detail["results"]
        assert (result["boxes"], result["mask"]) == (line["boxes"], line["mask"])
        assert {result[name] for name in ("instance_masks", "global_mask", "points", "attention")} == {None}


def test_raw_outputs_add_their_layers(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "set")
    predicted = write_predicted(tmp_path / "found", shards)
    assert write(tmp_path / "report", shards, predicted).foreign == 0
    predictions = list(read_predictions(predicted / "predictions.jsonl"))
    results = [detail["results"][0] for detail in read_details(tmp_path / "report")]
    for prediction, result in zip(predictions, results, strict=True):
        assert prediction.boxes is not None
        assert len(result["boxes"]) == len(result["instance_masks"]) == len(result["points"]) == len(prediction.boxes)
        assert len(result["all_points"]) == 4
        merged = decode_mask(result["global_mask"])
        for mask in result["instance_masks"]:
            merged |= decode_mask(mask)
        assert (merged == decode_mask(result["mask"])).all()
        assert result["attention"]["size"] == [2, 2]
    existence = read_index(tmp_path / "report")["results"][0]["existence"]
    assert existence == [result["existence"] for result in results]


def test_two_sets_stand_side_by_side_and_need_not_hold_the_same(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "set")
    boxes = [{key: line[key] for key in ("id", "boxes")} for line in reversed(predict_truth())]
    masks = [{key: line[key] for key in ("id", "mask")} for line in predict_truth()]
    files = [write_lines(tmp_path / f"{name}.jsonl", lines) for name, lines in (("b", boxes), ("m", masks))]
    write(tmp_path / "report", shards, *files)
    first, second = read_index(tmp_path / "report")["results"]
    assert first["outcome"] == second["outcome"] == ["correct"] * 12
    assert (first["instances"], second["instances"]) == ([0, 1, 1, 2] * 3, [None] * 12)
    for detail in read_details(tmp_path / "report"):
        with_boxes, with_mask = detail["results"]
        assert with_boxes["mask"] is None
        assert (with_mask["boxes"], with_mask["scores"]) == (None, None)


def test_predictions_of_other_raw_outputs_are_counted_and_shown_without_their_layers(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "set")
    predicted = write_predicted(tmp_path / "found", shards)
    lines = [json.loads(line) for line in (predicted / "predictions.jsonl").read_text().splitlines()]
    changed = [line for line in lines if line["boxes"]][:2]
    for line in changed:
        line["boxes"][0][0] = 0.0
    write_lines(predicted / "predictions.jsonl", lines)
    assert write(tmp_path / "report", shards, predicted).foreign == 2
    unknown = [detail["results"][0]["all_points"] is None for detail in read_details(tmp_path / "report")]
    assert unknown == [line in changed for line in lines]


def test_a_limit_shows_the_first_expressions_and_their_images(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "set")
    predicted = write_predicted(tmp_path / "found", shards)
    assert write(tmp_path / "report", shards, predicted, limit=5) == GalleryCounts(expressions=5, images=2, foreign=0)
    assert len(read_index(tmp_path / "report")["id"]) == len(read_details(tmp_path / "report")) == 5
    assert len(list((tmp_path / "report" / "images").iterdir())) == 2


def test_workers_do_not_change_a_byte(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "set", images=45)
    predicted = write_predicted(tmp_path / "found", shards)
    for workers in (0, 2):
        write(tmp_path / f"report-{workers}", shards, predicted, workers=workers)
    one, other = (snapshot(tmp_path / f"report-{workers}") for workers in (0, 2))
    assert {name: digest for name, (digest, _) in one.items()} == {name: digest for name, (digest, _) in other.items()}
    assert len(read_index(tmp_path / "report-2")["id"]) == 180
    assert [file.name for file in sorted((tmp_path / "report-2" / "data").iterdir())] == [
        "details-0000.js", "details-0001.js", "expressions.js",
    ]  # fmt: skip
    assert DETAILS_SIZE == 100


def test_an_image_with_many_expressions_is_drawn_once_in_several_tasks(tmp_path: Path) -> None:
    references: References = ((0,),) * 70
    shards = write_shards(tmp_path / "set", images=2, references=references)
    file = write_lines(tmp_path / "p.jsonl", predict_truth(images=2, references=references))
    source = PredictionSource(name="p", file=file, raw=None, settings=PostprocessSettings())
    with ShardReader(shards, "val") as reader:
        tasks = list(list_tasks([source], reader, 140))
    assert [len(task.expressions) for task in tasks] == [32, 32, 6] * 2
    assert [[task.first for task in same] for _, same in groupby(tasks, key=lambda task: task.image)] == [
        [True, False, False], [True, False, False],
    ]  # fmt: skip
    assert write(tmp_path / "report", shards, file) == GalleryCounts(expressions=140, images=2, foreign=0)


def test_records_without_expressions_are_passed_over(tmp_path: Path) -> None:
    items = []
    for image_id, references in ((1, ()), (2, REFERENCES), (3, ())):
        Image.new("RGB", (12, 8), (0, 0, image_id)).save(tmp_path / f"{image_id}.png")
        items.append((make_record("grefcoco", image_id, f"{image_id}.png", references), tmp_path / f"{image_id}.png"))
    write_split(tmp_path / "shards", "val", items, return_record)
    lines = [line for line in predict_truth() if line["id"].startswith("grefcoco/2/")]
    write(tmp_path / "report", tmp_path / "shards", write_lines(tmp_path / "p.jsonl", lines))
    index = read_index(tmp_path / "report")
    assert (index["images"]["name"], index["image"]) == (["2.png"], [0] * 4)
    with Image.open(tmp_path / "report" / "images" / "00000.jpg") as image:
        assert image.convert("RGB").getpixel((0, 0)) == pytest.approx((0, 0, 2), abs=3)


def test_large_images_are_scaled_with_their_boxes_and_masks(tmp_path: Path) -> None:
    target = np.zeros((20, 1280), dtype=bool)
    target[4:12, 100:301] = True
    instance = Instance(ann_id=1, category_id=1, box=(100, 4, 301, 12), mask=encode_mask(target))
    record = dataclasses.replace(
        make_record("grefcoco", 1, "1.png", ((0,),)), width=1280, height=20, instances=(instance,)
    )
    Image.new("RGB", (1280, 20)).save(tmp_path / "1.png")
    write_split(tmp_path / "shards", "val", [(record, tmp_path / "1.png")], return_record)
    line = {"id": "grefcoco/1/0", "boxes": [[99, 3, 300, 13]], "scores": [0.123456], "mask": encode_mask(target)}
    write(tmp_path / "report", tmp_path / "shards", write_lines(tmp_path / "p.jsonl", [line]))
    (detail,) = read_details(tmp_path / "report")
    # At half the size.
    assert detail["truth"]["boxes"] == [[50, 2, 150.5, 6]]
    assert detail["results"][0]["boxes"] == [[49.5, 1.5, 150, 6.5]]
    assert detail["results"][0]["scores"] == [0.1235]
    for mask in (detail["truth"]["masks"][0], detail["results"][0]["mask"]):
        assert (decode_mask(mask) == resize_nearest(target, 10, 640)).all()
    assert read_index(tmp_path / "report")["images"]["width"] == [640]


@pytest.mark.parametrize("images", [1, 40])
def test_an_image_that_cannot_be_shown_is_named_with_its_shard(tmp_path: Path, images: int) -> None:
    """With 40 images, workers find it."""
    records = [make_record("grefcoco", image_id, "1.png", REFERENCES) for image_id in range(1, images + 1)]
    (tmp_path / "shards" / "val").mkdir(parents=True)
    with tarfile.open(tmp_path / "shards" / "val" / "val-000000.tar", "w") as archive:
        for record in records:
            document = json.dumps(record.to_json()).encode()
            for name, content in (("json", document), ("png", b"not an image at all")):
                member = tarfile.TarInfo(f"{record.image_id}.{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    write_index(tmp_path / "shards", index_split(tmp_path / "shards", "val"))
    file = write_lines(tmp_path / "p.jsonl", predict_truth(images=images))
    with pytest.raises(DataError, match=r"val-000000\.tar, key 1: is text that begins .* not an image"):
        write(tmp_path / "report", tmp_path / "shards", file, workers=2)
