"""Crowd regions: in gRefCOCO no part of the ground-truth mask but of the boxes, elsewhere instances like any other.

Three refs of one image of 64 × 48: an object and a crowd region, the crowd region alone, the object alone.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.config.settings import PrepareSettings, ScoreSettings
from pipelines.data.batch import collate
from pipelines.data.datasets import GroundingDataset, read_texts
from pipelines.data.processor import Processor
from pipelines.data.tokenizer import PAD_ID, train_tokenizer
from pipelines.evaluation.evaluator import evaluate_prediction
from pipelines.prediction.prediction import Prediction
from pipelines.stages import convert, prepare, score
from shards.masks import encode_mask, rle_area
from shards.reader import ShardReader
from shards.record import ImageRecord, Rle

WIDTH, HEIGHT = 64, 48
OBJECT, CROWD = (8, 8, 30, 30), (31, 2, 63, 46)
OBJECT_PX, CROWD_PX = 22 * 22, 32 * 44
TOGETHER, CROWD_ALONE, OBJECT_ALONE = 0, 1, 2


def draw(*boxes: tuple[int, int, int, int]) -> Rle:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return encode_mask(mask)


def _annotate(ann_id: int, box: tuple[int, int, int, int], **changes: Any) -> dict[str, Any]:
    x0, y0, x1, y1 = box
    polygon = [x0, y0, x1, y0, x1, y1, x0, y1]
    return {"id": ann_id, "image_id": 1, "category_id": 3, "bbox": [x0, y0, x1 - x0, y1 - y0],
            "segmentation": [polygon], "iscrowd": 0, **changes}  # fmt: skip


def _prepare(folder: Path, dataset: str) -> Path:
    (folder / "images").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "images" / "000000000001.jpg")
    runs = [(CROWD[0] * HEIGHT) + CROWD[1]]
    for _ in range(CROWD[2] - CROWD[0]):
        runs += [CROWD[3] - CROWD[1], HEIGHT - CROWD[3] + CROWD[1]]
    runs[-1] += WIDTH * HEIGHT - sum(runs)
    crowd = _annotate(900, CROWD, iscrowd=1, segmentation={"size": [HEIGHT, WIDTH], "counts": runs})
    instances = {
        "images": [{"id": 1, "file_name": "000000000001.jpg", "width": WIDTH, "height": HEIGHT}],
        "annotations": [_annotate(7, OBJECT), crowd],
    }
    refs = [
        {"ref_id": ref, "image_id": 1, "ann_id": ann_ids, "split": "val", "source": "many",
         "sentences": [{"sent_id": ref, "raw": "blocks"}]}
        for ref, ann_ids in enumerate(([7, 900], [900], [7]), start=1)
    ]  # fmt: skip
    (folder / "instances.json").write_text(json.dumps(instances))
    name = {"grefcoco": "grefs(unc).json", "ref-zom": "refs(final).p"}[dataset]
    (folder / name).write_bytes(json.dumps(refs).encode() if name.endswith("json") else pickle.dumps(refs))
    prepare.run(
        PrepareSettings(dataset=dataset), folder, [folder / "images"], folder / "shards", workers=1,
    )  # fmt: skip
    return folder / "shards"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _prepare(tmp_path_factory.mktemp("grefcoco"), "grefcoco")


@pytest.fixture(scope="module")
def record(shards: Path) -> ImageRecord:
    with ShardReader(shards, "val") as reader:
        return reader.record(0)


def evaluate(record: ImageRecord, index: int, mask: Rle, *boxes: tuple[int, ...], no_target: bool = False) -> Any:
    expression = record.expressions[index]
    prediction = Prediction(
        id=expression.id, boxes=[list(map(float, box)) for box in boxes], scores=None, mask=mask, no_target=no_target
    )
    return evaluate_prediction(record, expression, prediction)


def test_an_instance_says_whether_it_is_a_crowd_region_and_plain_ones_say_nothing(record: ImageRecord) -> None:
    written = record.to_json()["instances"]
    assert [instance.get("crowd") for instance in written] == [None, True]
    assert ImageRecord.from_json(record.to_json()) == record


def test_in_grefcoco_a_crowds_pixels_are_no_part_of_the_ground_truth_mask(record: ImageRecord) -> None:
    assert evaluate(record, TOGETHER, draw(OBJECT)).target_px == OBJECT_PX
    assert evaluate(record, TOGETHER, draw(OBJECT)).intersection_px == OBJECT_PX


def test_in_grefcoco_a_crowds_box_is_one_of_the_ground_truth_boxes(record: ImageRecord) -> None:
    assert evaluate(record, TOGETHER, draw(), OBJECT, CROWD).boxes_match
    assert not evaluate(record, TOGETHER, draw(), OBJECT).boxes_match
    assert evaluate(record, CROWD_ALONE, draw(), CROWD).boxes_match_giou


def test_a_crowd_alone_has_an_empty_ground_truth_mask_and_is_no_empty_target(record: ImageRecord) -> None:
    outcome = evaluate(record, CROWD_ALONE, draw(CROWD), CROWD)
    assert (outcome.targets, outcome.crowds, outcome.target_px, outcome.predicted_px) == (1, 1, 0, CROWD_PX)


def test_in_ref_zom_a_crowd_is_an_instance_like_any_other(tmp_path: Path) -> None:
    with ShardReader(_prepare(tmp_path, "ref-zom"), "val") as reader:
        record = reader.record(0)
    outcome = evaluate(record, TOGETHER, draw(OBJECT))
    assert (outcome.target_px, outcome.crowds) == (OBJECT_PX + CROWD_PX, 0)
    assert record.instances[1].crowd


def _write_predictions(file: Path, record: ImageRecord, crowd_alone: Prediction) -> Path:
    masks = [draw(OBJECT), crowd_alone.mask, draw(OBJECT)]
    lines = [
        {"id": expression.id, "boxes": [], "scores": [], "mask": mask, "no_target": False}
        for expression, mask in zip(record.expressions, masks, strict=True)
    ]
    lines[CROWD_ALONE]["no_target"] = crowd_alone.no_target
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.mark.parametrize("predicted_empty", [False, True])
def test_a_crowd_alone_stays_in_all_averages_with_iou_0_and_is_counted(
    shards: Path, record: ImageRecord, tmp_path: Path, predicted_empty: bool
) -> None:
    prediction = Prediction(id="", boxes=[], scores=[], mask=draw(CROWD), no_target=predicted_empty)
    file = _write_predictions(tmp_path / "p.jsonl", record, prediction)
    document = score.run(file, shards, ScoreSettings(split="val", bootstrap=0)).report.to_json()
    metrics = document["metrics"]
    assert metrics["gIoU"] == pytest.approx(200 / 3)
    assert metrics["cIoU"] == pytest.approx(100 * 2 * OBJECT_PX / (2 * OBJECT_PX + CROWD_PX))
    assert metrics["Pr@0.9"] == pytest.approx(200 / 3)
    assert metrics["T-acc"] == pytest.approx(200 / 3 if predicted_empty else 100)
    assert metrics["N-acc"] is None
    assert document["crowd_only"] == 1
    assert sum(part["expressions"] for part in document["breakdown"]["size"].values()) == 2


def test_in_training_crowds_are_no_targets_but_what_refers_to_them_exists(shards: Path) -> None:
    processor = Processor(tokenizer=train_tokenizer(read_texts([(shards, "val")]), 64), max_tokens=8, image_size=16)
    data = GroundingDataset([(shards, "val")], processor, mask_size=16)
    batch = collate([data[index] for index in range(3)], PAD_ID)
    assert batch.targets is not None
    assert [len(boxes) for boxes in batch.targets.boxes] == [1, 0, 1]
    assert [len(masks) for masks in batch.targets.instance_masks] == [1, 0, 1]
    assert batch.targets.exists.tolist() == [True, True, True]
    assert batch.targets.global_masks[TOGETHER].equal(batch.targets.global_masks[OBJECT_ALONE])
    assert not batch.targets.global_masks[CROWD_ALONE].any()


def test_a_converted_data_set_marks_the_crowds_that_are_no_part_of_the_mask(shards: Path, tmp_path: Path) -> None:
    convert.export_predictions(None, shards, "val", tmp_path / "coco")
    annotations = json.loads((tmp_path / "coco" / "annotations.json").read_text())["annotations"]
    assert [(entry["image_id"], entry["iscrowd"]) for entry in annotations] == [(1, 0), (1, 1), (2, 1), (3, 0)]
    assert [entry["area"] for entry in annotations] == [OBJECT_PX, CROWD_PX, CROWD_PX, OBJECT_PX]


def test_a_record_without_the_mark_is_read_as_without_crowds(record: ImageRecord) -> None:
    document = record.to_json()
    for instance in document["instances"]:
        instance.pop("crowd", None)
    old = ImageRecord.from_json(document)
    assert [instance.crowd for instance in old.instances] == [False, False]
    assert rle_area(old.mask_targets(old.expressions[CROWD_ALONE])[0].mask) == CROWD_PX
