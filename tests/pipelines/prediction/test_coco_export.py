"""Predictions as COCO's files, and back again; pycocotools is the reference for what COCO's files are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipelines.config.settings import ScoreSettings
from pipelines.prediction.coco_export import box_xyxy_to_xywh
from pipelines.prediction.coco_import import CocoResults, parse_box
from pipelines.prediction.prediction import Prediction
from pipelines.prediction.prediction_file import read_predictions
from pipelines.stages import convert, score
from shards.errors import DataError
from shards.masks import decode_mask, encode_segmentation, rle_area
from shards.progress import set_sink
from tests.support.drawn_shards import BOXES, HEIGHT, WIDTH, fill, predict_truth, write_lines, write_shards

Line = dict[str, Any]
SCORED = {"scores": [0.25, 0.75]}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """The ground ground_truth as a COCO data set."""
    return export(tmp_path_factory.mktemp("coco"), shards, predict_truth()) / "annotations.json"


def export(folder: Path, shards: Path, lines: list[Line]) -> Path:
    """COCO's files of some predictions."""
    convert.export_predictions(write_lines(folder / "p.jsonl", lines), shards, "val", folder / "coco")
    return folder / "coco"


def load(file: Path) -> Any:
    return json.loads(file.read_text())


def evaluate(folder: Path, name: str, kind: str) -> float:
    """COCO's average precision of a result file, whatever the categories."""
    ground_truth = COCO(str(folder / "annotations.json"))
    evaluation = COCOeval(ground_truth, ground_truth.loadRes(str(folder / name)), kind)
    evaluation.params.useCats = 0
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0])


def test_every_expression_is_an_image_in_the_order_of_the_shards(annotations: Path) -> None:
    coco = COCO(str(annotations))
    assert list(coco.imgs) == list(range(1, 13))
    assert [image["expression_id"] for image in coco.loadImgs(coco.getImgIds())] == [
        line["id"] for line in predict_truth()
    ]
    assert coco.imgs[7] == {
        "id": 7, "file_name": "2.png", "width": WIDTH, "height": HEIGHT, "caption": "phrase 2",
        "expression_id": "grefcoco/2/2", "original_id": 2,
    }  # fmt: skip


def test_the_targets_are_the_annotations(annotations: Path) -> None:
    coco = COCO(str(annotations))
    assert [len(coco.getAnnIds(imgIds=[image])) for image in range(1, 5)] == [0, 1, 1, 2]
    (annotation,) = coco.loadAnns(coco.getAnnIds(imgIds=[3]))
    assert annotation | {"segmentation": None} == {
        "id": 2, "image_id": 3, "category_id": 1, "bbox": [6, 2, 4, 6], "area": 24, "iscrowd": 0, "segmentation": None,
    }  # fmt: skip
    assert (coco.annToMask(annotation) == decode_mask(fill(BOXES[1]))).all()
    assert coco.loadCats(coco.getCatIds()) == [{"id": 1, "name": "category 1"}]


def test_the_ground_truth_as_boxes_has_an_average_precision_of_one(annotations: Path) -> None:
    assert evaluate(annotations.parent, "boxes.json", "bbox") == pytest.approx(1)


def test_the_ground_truth_about_single_targets_as_masks_has_an_average_precision_of_one(tmp_path: Path) -> None:
    references = ((), (0,), (1,))
    shards = write_shards(tmp_path, references=references)
    folder = export(tmp_path, shards, predict_truth(references=references))
    assert evaluate(folder, "segmentations.json", "segm") == pytest.approx(1)


def test_boxes_are_x_y_width_height_with_their_scores_or_one(tmp_path: Path, shards: Path) -> None:
    lines = predict_truth()
    lines[3] |= SCORED
    entries = load(export(tmp_path, shards, lines) / "boxes.json")
    assert entries[:4] == [
        {"image_id": 2, "category_id": 1, "bbox": [0, 0, 4, 4], "score": 1},
        {"image_id": 3, "category_id": 1, "bbox": [6, 2, 4, 6], "score": 1},
        {"image_id": 4, "category_id": 1, "bbox": [0, 0, 4, 4], "score": 0.25},
        {"image_id": 4, "category_id": 1, "bbox": [6, 2, 4, 6], "score": 0.75},
    ]


def test_masks_with_pixels_are_segmentations_with_the_best_score(tmp_path: Path, shards: Path) -> None:
    lines = predict_truth()
    lines[3] |= SCORED
    entries = load(export(tmp_path, shards, lines) / "segmentations.json")
    assert [entry["image_id"] for entry in entries] == [2, 3, 4, 6, 7, 8, 10, 11, 12]
    assert entries[2] == {"image_id": 4, "category_id": 1, "segmentation": fill(*BOXES), "score": 0.75}


def test_where_nothing_is_predicted_the_results_are_empty_lists(tmp_path: Path, shards: Path) -> None:
    lines = [line | {"boxes": [], "mask": fill()} for line in predict_truth()]
    folder = export(tmp_path, shards, lines)
    assert [load(folder / name) for name in ("boxes.json", "segmentations.json")] == [[], []]
    assert all(prediction.no_target for prediction in restore(folder, shards))


def restore(folder: Path, shards: Path) -> list[Prediction]:
    """The predictions that COCO's files make."""
    results = [folder / "boxes.json", folder / "segmentations.json"]
    convert.import_results(
        CocoResults(files=results, annotations=folder / "annotations.json"), shards, "val", folder.parent / "back.jsonl"
    )
    return list(read_predictions(folder.parent / "back.jsonl"))


@pytest.mark.parametrize("dataset", ["grefcoco", "ref-zom", "rrefcoco", "refcoco"])
def test_there_and_back_all_metrics_are_the_same(tmp_path: Path, dataset: str) -> None:
    references = ((0,), (1,)) if dataset == "refcoco" else ((), (0,), (1,), (0, 1))
    shards = write_shards(tmp_path, dataset, images=5, references=references)
    source = np.random.default_rng(5)
    lines = predict_truth(dataset, 5, references)
    for line in lines:
        corners = np.sort(source.uniform(0, 8, (2, 2, 2)), axis=1).reshape(2, 4)
        kept = [box for box in [*line["boxes"], *corners.tolist()] if source.random() < 0.7]
        mask = source.random((HEIGHT, WIDTH)) < source.choice([0, 0.3])
        line["boxes"] = kept
        line["scores"] = source.normal(size=len(kept)).tolist() if source.random() < 0.8 else None
        line["mask"] = encode_segmentation(runs(mask | decode_mask(line["mask"])), HEIGHT, WIDTH)
        line["no_target"] = bool(source.random() < 0.5)
    folder = export(tmp_path, shards, lines)
    restore(folder, shards)
    settings = ScoreSettings(split="val")
    before, after = (
        score.run(tmp_path / name, shards, settings).report.to_json() for name in ("p.jsonl", "back.jsonl")
    )
    assert after == before


def runs(mask: np.ndarray) -> dict[str, Any]:
    """A mask as run lengths that are not compressed."""
    changes = np.flatnonzero(np.diff(mask.T.ravel(), prepend=False, append=not mask[-1, -1]))
    return {"size": list(mask.shape), "counts": np.diff(changes, prepend=0).tolist()}


@pytest.mark.parametrize("no_target", [True, False])
@pytest.mark.parametrize("line", [0, 3])
def test_a_no_target_that_boxes_and_mask_contradict_comes_back(
    tmp_path: Path, shards: Path, line: int, no_target: bool
) -> None:
    lines = predict_truth()
    lines[line] |= {"no_target": no_target}
    folder = export(tmp_path, shards, lines)
    assert restore(folder, shards)[line].no_target is no_target
    ground_truth = COCO(str(folder / "annotations.json"))
    assert len(ground_truth.loadRes(str(folder / "segmentations.json")).anns) == 9 + (line == 0 and not no_target)


@pytest.mark.parametrize(("no_targets", "lost"), [((False, False, True), 2), ((True, True, True), 0)])
def test_a_no_target_that_coco_results_cannot_store_is_counted_in_a_warning(
    tmp_path: Path, shards: Path, no_targets: tuple[bool, ...], lost: int
) -> None:
    lines = [{key: line[key] for key in ("id", "boxes")} for line in predict_truth()]
    for index, no_target in enumerate(no_targets):
        lines[4 * index] |= {"no_target": no_target}
    file, warnings = write_lines(tmp_path / "p.jsonl", lines), list[str]()
    with set_sink(log=warnings.append):
        convert.export_predictions(file, shards, "val", tmp_path / "coco")
    assert [warning.startswith(f"Warning: {file}: {lost} predictions without a box say") for warning in warnings] == (
        [True] if lost else []
    )


def test_boxes_without_a_mask_come_back_without_one(tmp_path: Path, shards: Path) -> None:
    lines = predict_truth()
    lines[3] |= {"mask": fill(), "no_target": True, "scores": [-2.5, -7]}
    prediction = restore(export(tmp_path, shards, lines), shards)[3]
    assert (prediction.boxes, prediction.scores) == ([list(box) for box in BOXES], [-2.5, -7])
    assert (rle_area(prediction.mask), prediction.no_target) == (0, True)


@given(st.tuples(*[st.floats(-2000, 2000)] * 4))
def test_a_box_comes_back_to_a_billionth_of_a_pixel(values: tuple[float, ...]) -> None:
    x0, x1, y0, y1 = *sorted(values[:2]), *sorted(values[2:])
    assert np.abs(np.subtract(parse_box(box_xyxy_to_xywh([x0, y0, x1, y1])), [x0, y0, x1, y1])).max() <= 1e-9


def test_a_box_beyond_any_image_is_refused(tmp_path: Path, shards: Path) -> None:
    lines = predict_truth()
    lines[1] |= {"boxes": [[-1.5e308, 0, 1.5e308, 1]]}
    with pytest.raises(DataError, match=r"p\.jsonl, line 2: box .* lies beyond any image"):
        export(tmp_path, shards, lines)
    assert [file.name for file in tmp_path.iterdir()] == ["p.jsonl"]


def test_a_mask_of_another_size_is_refused_and_nothing_is_left(tmp_path: Path, shards: Path) -> None:
    lines = predict_truth()
    lines[11] |= {"mask": {"size": [1, 1], "counts": [1]}}
    with pytest.raises(DataError, match=r"p\.jsonl: the mask of grefcoco/3/3 has size \[1, 1\]"):
        export(tmp_path, shards, lines)
    assert [file.name for file in tmp_path.iterdir()] == ["p.jsonl"]


def test_predictions_that_are_missing_are_named_and_nothing_is_left(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(DataError, match="no prediction for grefcoco/3/3"):
        export(tmp_path, shards, predict_truth()[:-1])
    assert [file.name for file in tmp_path.iterdir()] == ["p.jsonl"]
