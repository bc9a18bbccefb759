"""Own data from JSON lines to scores: boxes alone are enough, and what decides the shards is in their fingerprint."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.config.settings import CocoSettings, JsonLinesSettings, ScoreSettings
from pipelines.data.datasets import GroundingDataset
from pipelines.data.processor import Processor
from pipelines.data.tokenizer import train_tokenizer
from pipelines.evaluation.outcome_kinds import OutcomeKind, classify_prediction
from pipelines.inspection.examples import write_examples
from pipelines.inspection.verification import verify
from pipelines.prediction.prediction import Prediction
from pipelines.stages import convert, prepare, score
from shards.errors import ArtifactError, DataError, SettingsError
from shards.masks import encode_mask
from shards.reader import ShardReader

SETTINGS = JsonLinesSettings(dataset="jsonl", name="mine")
BOX = [4, 6, 20, 16]
MASK = np.zeros((30, 40), dtype=np.uint8)
MASK[6:16, 4:20] = 1
LINES: list[dict[str, Any]] = [
    {"image": "1.png", "text": "the box", "targets": [{"box": BOX}], "split": "val"},
    {"image": "1.png", "text": "nothing", "targets": [], "split": "val"},
]
MASKED = {"image": "1.png", "text": "the mask", "targets": [{"mask": "mask.png"}], "split": "val"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (40, 30), "red").save(tmp_path / "images" / "1.png")
    Image.fromarray(MASK).save(tmp_path / "mask.png")
    return tmp_path


def write_lines(home: Path, *lines: dict[str, Any]) -> Path:
    (home / "own.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return home / "own.jsonl"


def prepare_lines(home: Path, *lines: dict[str, Any], out: str = "shards") -> Path:
    prepare.run(SETTINGS, write_lines(home, *lines), [home / "images"], home / out, workers=0)
    return home / out


def write_predictions(home: Path, shards: Path) -> Path:
    """A file that finds every box and mask."""
    lines = []
    with ShardReader(shards, "val") as reader:
        for record in reader.records():
            for expression in record.expressions:
                found = bool(expression.instances)
                mask = encode_mask(MASK.astype(bool) & found)
                lines.append({"id": expression.id, "boxes": [BOX] * found, "scores": [1.0] * found, "mask": mask})
    (home / "predictions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return home / "predictions.jsonl"


@pytest.mark.parametrize("resolution", [0, 16])
def test_of_boxes_alone_boxes_are_scored_and_metrics_of_masks_are_null(home: Path, resolution: int) -> None:
    shards = prepare_lines(home, *LINES, MASKED)
    settings = ScoreSettings(split="val", bootstrap=5, resolution=resolution)
    report = score.run(write_predictions(home, shards), shards, settings, out=home / "score").report.to_json()
    assert (report["dataset"], report["unmasked"]) == ("mine", 1)
    assert {name for name, value in report["metrics"].items() if value is not None} == {
        "N-acc", "T-acc", "F1score", "F1score-gIoU",
    }  # fmt: skip
    assert report["metrics"]["F1score"] == 100
    assert report["breakdown"]["kind"]["empty"]["metrics"]["gIoU"] == 100
    assert report["breakdown"]["kind"]["single"]["metrics"]["gIoU"] is None
    assert sum(group["expressions"] for group in report["breakdown"]["size"].values()) == 1
    assert ",-1" not in (home / "score" / "expressions.csv").read_text()


def test_where_all_targets_have_masks_they_are_scored(home: Path) -> None:
    shards = prepare_lines(home, MASKED, LINES[1])
    report = score.run(write_predictions(home, shards), shards, ScoreSettings(split="val", bootstrap=0)).report
    assert set(report.metrics.values()) == {100}
    assert report.unmasked is None


def test_the_outcome_of_a_target_with_a_box_alone_is_that_of_its_box(home: Path) -> None:
    with ShardReader(prepare_lines(home, *LINES), "val") as reader:
        record = reader.record(0)
    right = {"boxes": [[float(value) for value in BOX]], "scores": [1.0], "no_target": False}
    for mask in (None, encode_mask(MASK.astype(bool)), encode_mask(np.zeros((30, 40), dtype=bool))):
        result = classify_prediction(record, record.expressions[0], Prediction(id="", mask=mask, **right))
        assert (result.kind, result.iou) == (OutcomeKind.CORRECT, 1)
    alone = Prediction(id="", boxes=None, scores=None, mask=encode_mask(MASK.astype(bool)), no_target=False)
    assert classify_prediction(record, record.expressions[0], alone).kind == OutcomeKind.CORRECT
    elsewhere = Prediction(id="", boxes=[[25.0, 20.0, 38.0, 29.0]], scores=[1.0], mask=None, no_target=False)
    assert classify_prediction(record, record.expressions[0], elsewhere).kind == OutcomeKind.WRONG_OBJECT


def test_examples_say_which_targets_have_no_mask(home: Path) -> None:
    shards = prepare_lines(home, *LINES, MASKED)
    texts = ["the box", "nothing", "the mask"]
    processor = Processor(tokenizer=train_tokenizer(texts, 60), image_size=32, max_tokens=10)
    data = GroundingDataset([(shards, "val")], processor, mask_size=8)
    examples = [data[index] for index in range(len(data))]
    assert [(len(each.boxes), each.unmasked, bool(each.masks.any())) for each in examples] == [
        (1, (0,), False),
        (0, (), False),
        (1, (), True),
    ]


def test_shards_of_boxes_are_sound_and_are_drawn_and_written_as_coco(home: Path) -> None:
    shards = prepare_lines(home, *LINES)
    assert not verify(shards, full=True).findings
    assert write_examples(shards, 2, home / "sheet.png") == 2
    convert.export_predictions(None, shards, "val", home / "coco")
    (entry,) = json.loads((home / "coco" / "annotations.json").read_bytes())["annotations"]
    assert (entry["bbox"], entry["area"], entry["segmentation"]) == ([4, 6, 16, 10], 160, [])


def test_shards_do_not_depend_on_where_the_file_lies_but_on_the_masks_that_it_names(home: Path) -> None:
    shards = prepare_lines(home, MASKED)
    before = {file.name: file.read_bytes() for file in shards.rglob("*") if file.is_file()}
    elsewhere = Path(home.rename(home.with_name("moved")))
    assert prepare.run(SETTINGS, elsewhere / "own.jsonl", [elsewhere / "images"], elsewhere / "shards").cached
    again = prepare_lines(elsewhere, MASKED, out="again")
    assert {file.name: file.read_bytes() for file in again.rglob("*") if file.is_file()} == before
    Image.fromarray(MASK[::-1].copy()).save(elsewhere / "mask.png")
    with pytest.raises(ArtifactError, match="input masks differs"):
        prepare_lines(elsewhere, MASKED)


@pytest.mark.parametrize(
    "changes", [{"name": "other"}, {"phrases": ("any {category}",)}, {"empty": 2}, {"seed": 1}], ids=str
)
def test_every_setting_of_own_data_is_part_of_the_fingerprint(home: Path, changes: dict[str, Any]) -> None:
    settings = CocoSettings(dataset="coco")
    file = home / "instances.json"
    file.write_text("{}")
    before, after = (
        prepare.describe(one, file, [home / "images"], home / "out").fingerprint
        for one in (settings, dataclasses.replace(settings, **changes))
    )
    assert before != after


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (JsonLinesSettings(dataset="jsonl", name="grefcoco"), "name 'grefcoco' is a published data set"),
        (JsonLinesSettings(dataset="jsonl", name="a/b"), "name 'a/b' is not made of letters"),
        (CocoSettings(dataset="coco", phrases=("dogs",)), "'dogs' names no category; write {category}"),
        (CocoSettings(dataset="coco", phrases=()), "there are none; write {category}"),
    ],
)
def test_settings_that_cannot_be_are_refused(home: Path, settings: JsonLinesSettings, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        prepare.run(settings, write_lines(home, *LINES), [home / "images"], home / "out")
    assert words in str(caught.value)
    assert not (home / "out").exists()


def test_an_image_that_is_missing_or_none_is_named_by_file_and_line(home: Path) -> None:
    (home / "images" / "2.png").write_text("no image")
    lines = [*LINES, *({"image": name, "text": "x", "targets": []} for name in ("2.png", "b/3.png", "b/3.png"))]
    with pytest.raises(DataError) as error:
        prepare_lines(home, *lines)
    text = str(error.value)
    assert f"{home / 'own.jsonl'}, line 4: no image b/3.png in {home / 'images'}" in text
    assert f"{home / 'images' / '2.png'}, line 3: is no image" in text
    assert text.startswith("2 records cannot be used")


def test_errors_of_a_folder_of_detection_files_name_the_file_and_the_annotation(home: Path) -> None:
    (home / "coco").mkdir()
    image = {"id": 1, "file_name": "1.png", "width": 40, "height": 30}
    for split, boxes in (("train", [[50, 2, 3, 4], [1, 2, 3, 4]]), ("val", [[1, 2, 3, 4], [60, 2, 3, 4]])):
        annotations = [{"id": n, "image_id": 1, "category_id": 1, "bbox": box} for n, box in enumerate(boxes, 1)]
        document = {"images": [image], "annotations": annotations, "categories": [{"id": 1, "name": "dog"}]}
        (home / "coco" / f"instances_{split}.json").write_text(json.dumps(document))
    settings = CocoSettings(dataset="coco")
    with pytest.raises(DataError) as error:
        prepare.run(settings, home / "coco", [home / "images"], home / "shards", workers=0)
    for name in ("instances_train.json, annotation 1: ", "instances_val.json, annotation 2: "):
        assert f"{home / 'coco'}/{name}" in str(error.value)
