"""The baselines that need no training, and their scores, computed by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.config.settings import ScoreSettings
from pipelines.experiments.demo import BASELINES, write_baseline
from pipelines.stages import score
from tests.support.drawn_shards import BOXES, fill, make_record, write_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of every image four expressions: about nothing, about 16 pixels, about 24, and about both."""
    return write_shards(tmp_path_factory.mktemp("baselines"), references=((), (0,), (1,), (0, 1)))


def answer(shards: Path, folder: Path, title: str) -> Path:
    return write_baseline(folder, "drawn", shards, "val", title)


# Everything covers 40 pixels, of which 16, 24 and 40 are targets.
@pytest.mark.parametrize(
    ("title", "metrics"),
    [
        ("always empty", {"gIoU": 25, "cIoU": 0, "N-acc": 100, "T-acc": 0, "F1score": 25}),
        ("everything", {"gIoU": 50, "cIoU": 100 * 80 / 160, "N-acc": 0, "T-acc": 100, "F1score": 25}),
    ],
)
def test_baselines_score_what_counting_pixels_gives(
    shards: Path, tmp_path: Path, title: str, metrics: dict[str, float]
) -> None:
    settings = ScoreSettings(split="val", bootstrap=0)
    found = score.run(answer(shards, tmp_path, title), shards, settings).report.to_json()["metrics"]
    assert {name: found[name] for name in metrics} == pytest.approx(metrics)


def test_every_expression_gets_the_prediction_under_its_own_id(shards: Path, tmp_path: Path) -> None:
    for title, boxes, flag in (("always empty", (), True), ("everything", BOXES, False)):
        file = answer(shards, tmp_path, title) / "predictions.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        assert [line["id"] for line in lines] == [f"grefcoco/{image}/{n}" for image in (1, 2, 3) for n in range(4)]
        assert {line["no_target"] for line in lines} == {flag}
        assert all(line["boxes"] == [list(box) for box in boxes] for line in lines)
        assert all(line["mask"] == fill(*boxes) for line in lines)


def test_of_a_image_without_any_object_everything_is_nothing() -> None:
    record = make_record("grefcoco", 1, "1.png", ((),))
    assert BASELINES["everything"](replace(record, instances=())).no_target
    assert not BASELINES["everything"](record).no_target


@pytest.mark.parametrize(("dataset", "drawn"), [("grefcoco", BOXES[:1]), ("ref-zom", BOXES)])
def test_everything_draws_crowd_regions_only_where_they_are_part_of_the_mask_truth(
    dataset: str, drawn: tuple[tuple[int, int, int, int], ...]
) -> None:
    record = make_record(dataset, 1, "1.png", ((0, 1),))
    single, region = record.instances
    answer = BASELINES["everything"](replace(record, instances=(single, replace(region, crowd=True))))
    assert answer.mask == fill(*drawn)
    assert answer.boxes == [list(box) for box in BOXES]
