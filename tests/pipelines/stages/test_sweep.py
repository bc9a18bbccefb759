"""A sweep finds what predicting and scoring find, for every setting, and says what goes wrong."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.settings import PostprocessSettings, ScoreSettings
from pipelines.evaluation.sweep import evaluate_grid
from pipelines.evaluation.sweep_grid import AXES, Grid, product_grid
from pipelines.prediction.postprocess import postprocess
from pipelines.prediction.prediction import encode_result
from pipelines.prediction.prediction_file import write_predictions
from pipelines.prediction.raw_output import MASK_FLOOR
from pipelines.prediction.raw_store import RawReader, check_mask_floor
from pipelines.stages import score, sweep
from shards.errors import DataError, SettingsError
from shards.reader import ShardReader
from tests.support.drawn_outputs import draw_outputs, write_outputs
from tests.support.drawn_shards import HEIGHT, WIDTH, write_shards

EVERYTHING = {
    "score_threshold": [MASK_FLOOR, 0.3, 0.7],
    "mask_threshold": [0.0, 0.3, 0.5, 1.0],
    "mask_source": ["merge", "instance", "global"],
    "existence_weighting": [True, False],
    "nms": [False, True],
    "nms_iou": [0.2, 0.7],
}


def make_input(folder: Path, dataset: str, images: int = 3) -> tuple[Path, Path]:
    shards = write_shards(folder, dataset, images)
    with ShardReader(shards, "val") as reader:
        outputs = draw_outputs(list(reader.records()))
    return write_outputs(folder / "raw", outputs), shards


@pytest.mark.parametrize("dataset", ["grefcoco", "ref-zom", "rrefcoco", "refcoco"])
@pytest.mark.parametrize("resolution", [0, 5])
def test_every_setting_scores_what_predicting_and_scoring_with_it_gives(tmp_path, dataset, resolution):
    raw, shards = make_input(tmp_path, dataset)
    grid = product_grid(PostprocessSettings(), EVERYTHING | {"mask_threshold": [0.3, 0.5]})
    found = sweep.run(raw, shards, "val", grid, resolution=resolution).report.to_json()
    for settings, row in zip(grid.settings, found["settings"], strict=True):
        answers = (encode_result(postprocess(output, settings)) for output in RawReader(raw))
        write_predictions(tmp_path / "predictions.jsonl", answers)
        wanted = score.run(
            tmp_path / "predictions.jsonl", shards, ScoreSettings(split="val", resolution=resolution, bootstrap=0)
        )
        assert row["metrics"] == wanted.report.to_json()["metrics"], settings


def test_only_what_varies_is_listed_and_the_rest_is_told_once(tmp_path):
    raw, shards = make_input(tmp_path, "grefcoco")
    base = PostprocessSettings(mask_threshold=0.4)
    found = sweep.run(
        raw,
        shards,
        "val",
        product_grid(base, {"nms": [True, False], "score_threshold": [0.5]}),
    ).report.to_json()
    assert [row["settings"] for row in found["settings"]] == [
        {"nms": True, "score_threshold": 0.5}, {"nms": False, "score_threshold": 0.5},
    ]  # fmt: skip
    assert found["fixed"] == {
        "mask_threshold": 0.4,
        "mask_source": "merge",
        "existence_weighting": True,
        "nms_iou": 0.7,
    }
    assert (found["dataset"], found["split"], found["expressions"], found["resolution"]) == ("grefcoco", "val", 12, 0)


def change(outputs: list[Any], how: str) -> list[Any]:
    match how:
        case "one is missing":
            return outputs[:-1]
        case "two are exchanged":
            return [outputs[1], outputs[0], *outputs[2:]]
        case "one too many":
            return [*outputs, replace(outputs[0], id="grefcoco/9/9")]
        case _:
            return [replace(outputs[0], original_size=(HEIGHT + 1, WIDTH)), *outputs[1:]]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("one is missing", "no output for grefcoco/3/3 of split 'val', but no more"),
        ("two are exchanged", "no output for grefcoco/1/0 of split 'val', but grefcoco/1/1 instead"),
        ("one too many", "grefcoco/9/9 is not in split 'val'"),
        ("another size", r"grefcoco/1/0 has an image of \[9, 12\] instead of \[8, 12\]"),
    ],
)
def test_outputs_of_other_expressions_are_named(tmp_path, how, words):
    shards = write_shards(tmp_path)
    with ShardReader(shards, "val") as reader:
        outputs = draw_outputs(list(reader.records()))
    raw = write_outputs(tmp_path / "raw", change(outputs, how))
    grid = product_grid(PostprocessSettings(), {"nms": [True]})
    with pytest.raises(DataError, match=words):
        sweep.run(raw, shards, "val", grid)


def test_thresholds_below_which_no_masks_are_kept_are_refused_unless_no_masks_of_queries_are_asked_for():
    with pytest.raises(SettingsError, match=r"score_threshold 0\.01: the raw outputs keep .* above 0\.05"):
        check_mask_floor([PostprocessSettings(score_threshold=0.01), PostprocessSettings()], 0.05)
    check_mask_floor([PostprocessSettings(score_threshold=0.01, mask_source="global")], 0.05)
    check_mask_floor([PostprocessSettings(score_threshold=0.01)], 0.0)


def test_every_setting_of_post_processing_can_be_varied():
    assert set(EVERYTHING) == set(AXES)
    grid = product_grid(PostprocessSettings(), EVERYTHING)
    assert isinstance(grid, Grid)
    assert len(grid.settings) == len(list(itertools.product(*EVERYTHING.values())))


def test_workers_do_not_change_a_score(tmp_path: Path) -> None:
    raw, shards = make_input(tmp_path, "grefcoco", images=15)
    grid = product_grid(PostprocessSettings(), {"score_threshold": [0.2, 0.5, 0.8]})
    alone, shared = (evaluate_grid(raw, shards, "val", grid, workers=workers) for workers in (0, 2))
    assert alone == shared
