"""Scores of random predictions, as by the published evaluators."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipelines.config.settings import PrepareSettings, ScoreSettings
from pipelines.stages import prepare, score
from tests.support.paths import GOLDENS

GOLDEN_METRICS = GOLDENS / "metrics"
OFFICIAL = GOLDEN_METRICS / "predictions" / "official.json"
needs_goldens = pytest.mark.skipif(
    not OFFICIAL.is_file(), reason="the published evaluators' numbers (shared/goldens/metrics) are not here"
)


@pytest.fixture(scope="module")
def golden_scores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Scores of the random predictions, by data set and split."""
    folder = tmp_path_factory.mktemp("goldens")
    documents = {}
    for name in json.loads(OFFICIAL.read_text()):
        dataset, split = name.split("/")
        if not (folder / dataset).exists():
            annotations = GOLDEN_METRICS / "annotations"
            images = [annotations / "train2014"]
            prepare.run(PrepareSettings(dataset=dataset), annotations / dataset, images, folder / dataset, workers=1)
        file = GOLDEN_METRICS / "predictions" / f"{dataset}-{split}.jsonl"
        documents[name] = score.run(file, folder / dataset, ScoreSettings(split=split)).report.to_json()
    return documents


def read_official(name: str) -> dict[str, Any]:
    numbers: dict[str, Any] = json.loads(OFFICIAL.read_text())[name]
    return numbers


@needs_goldens
@pytest.mark.parametrize("split", ["val", "testA", "testB"])
def test_grefcoco_masks_score_as_by_the_published_evaluators(
    golden_scores: dict[str, dict[str, Any]], split: str
) -> None:
    official, document = read_official(f"grefcoco/{split}"), golden_scores[f"grefcoco/{split}"]
    metrics, rela, instancevg = document["metrics"], official["rela"], official["instancevg_gres"]
    assert document["expressions"] == official["n"]
    for name in ("gIoU", "cIoU", "Pr@0.7", "Pr@0.8", "Pr@0.9"):
        assert metrics[name] == pytest.approx(rela[name], abs=1e-6)
    assert metrics["gIoU"] == pytest.approx(instancevg["gIoU"], abs=1e-6)
    assert metrics["cIoU"] == pytest.approx(instancevg["cIoU"], abs=1e-6)
    assert [metrics[name] for name in ("Pr@0.7", "Pr@0.8", "Pr@0.9")] == pytest.approx(instancevg["Pr"], abs=1e-6)
    for ours, theirs in (("N-acc", "N_acc"), ("T-acc", "T_acc")):
        assert metrics[ours] == pytest.approx(100 * rela[theirs], abs=1e-6)
        assert metrics[ours] == pytest.approx(instancevg[theirs], abs=1e-6)


@needs_goldens
@pytest.mark.parametrize("split", ["val", "testA", "testB"])
def test_grefcoco_boxes_score_as_by_the_published_evaluators(
    golden_scores: dict[str, dict[str, Any]], split: str
) -> None:
    official, metrics = read_official(f"grefcoco/{split}"), golden_scores[f"grefcoco/{split}"]["metrics"]
    assert metrics["F1score-gIoU"] == pytest.approx(100 * official["mdetr_grec"]["F1_score"], abs=1e-6)
    assert metrics["F1score-gIoU"] == pytest.approx(official["instancevg_grec"]["F1"], abs=1e-6)
    assert metrics["F1score"] >= metrics["F1score-gIoU"]


@needs_goldens
def test_ref_zom_scores_as_by_the_published_evaluator(golden_scores: dict[str, dict[str, Any]]) -> None:
    official, document = read_official("ref-zom/test"), golden_scores["ref-zom/test"]
    numbers, metrics = official["instancevg"], document["metrics"]
    assert document["expressions"] == official["n"]
    for name in ("mIoU", "oIoU", "Acc"):
        assert metrics[name] == pytest.approx(numbers[name], abs=1e-6)
    assert [metrics[f"Pr@0.{n}"] for n in (5, 6, 7, 8, 9)] == pytest.approx(numbers["Pr"], abs=1e-6)


@needs_goldens
def test_rrefcoco_scores_as_by_the_published_evaluator(golden_scores: dict[str, dict[str, Any]]) -> None:
    official, document = read_official("rrefcoco/val"), golden_scores["rrefcoco/val"]
    assert document["expressions"] == official["n"]
    assert document["metrics"] == pytest.approx(official["instancevg"], abs=1e-6)
