"""The checkpoint that a training keeps is the one that scored best, by the metric that is set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipelines.config.settings import PostprocessSettings, ScoreSettings
from pipelines.stages import score
from pipelines.training.setup import Training, open_validation
from pipelines.training.state import save_state
from pipelines.training.trainer import validate_and_save_best
from pipelines.training.validation import check_best_metric, describe_choice, validate
from shards.errors import DataError, SettingsError
from shards.progress import set_sink
from tests.support.drawn_shards import write_shards
from tests.support.small_training import open_small, write_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("training"))


# A quarter of the expressions has no target, and an empty answer to it is right; a mask of the whole image covers
# 16, 24 and 40 of 96 pixels of the others; a mask of nothing covers none.
ANSWERS = {"nothing there": (-50.0, 0.0, 25.0), "everything": (50.0, 50.0, 20.83), "empty masks": (50.0, -50.0, 0.0)}


SCORED = PostprocessSettings(mask_source="global", existence_weighting=False)


def answer_always(training: Training, answer: str) -> dict[str, torch.Tensor]:
    """Change the network to one that always gives this answer; returns its weights."""
    class_bias, mask_bias, _ = ANSWERS[answer]
    with torch.no_grad():
        training.model.class_head.weight.zero_()
        training.model.class_head.bias.copy_(torch.tensor([class_bias, -class_bias]))
        training.model.global_mask_head.weight.zero_()
        torch.nn.init.constant_(training.model.global_mask_head.bias, mask_bias)
    return {name: tensor.clone() for name, tensor in training.model.state_dict().items()}


def open_scored(shards: Path, out: Path) -> Training:
    return open_small(shards, out, postprocess=SCORED)


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_network_scores_what_its_answers_are_worth(shards: Path, tmp_path: Path, answer: str) -> None:
    training = open_scored(shards, tmp_path)
    answer_always(training, answer)
    scores, value = validate(training)
    assert value == pytest.approx(ANSWERS[answer][2], abs=0.01)
    assert scores["shards"]["gIoU"] == value


def test_the_line_about_the_checkpoint_names_the_metric_that_was_compared(shards: Path, tmp_path: Path) -> None:
    training = open_small(shards, tmp_path)
    for metrics, words in (
        ({"gIoU": 50.0, "F1score": 40.0}, "gIoU 50.0"),
        ({"gIoU": None, "F1score": 40.0}, "F1score 40.0"),
    ):
        line = describe_choice(training, {"shards": metrics}, float(words.split()[1]))
        assert line == f"step 0: {words}: kept as the checkpoint, the first one"


def test_the_checkpoint_holds_the_best_scored_weights_also_after_a_stop(shards: Path, tmp_path: Path) -> None:
    training = open_scored(shards, tmp_path)
    answer_always(training, "empty masks")
    validate_and_save_best(training)
    best = answer_always(training, "nothing there")
    training.step = 2
    validate_and_save_best(training)
    save_state(training)
    continued = open_scored(shards, tmp_path)
    assert (continued.step, continued.best) == (2, pytest.approx(25.0))
    for going in (training, continued):
        answer_always(going, "everything")
        validate_and_save_best(going)
        assert going.best == pytest.approx(25.0)
        kept = load_file(tmp_path / "model.safetensors")
        assert [name for name in best if not torch.equal(kept[name], best[name])] == []


def test_each_validation_says_in_a_line_which_checkpoint_is_kept_and_why(shards: Path, tmp_path: Path) -> None:
    training, lines = open_scored(shards, tmp_path), []
    for training.step, answer in ((1, "everything"), (2, "nothing there"), (3, "empty masks")):
        answer_always(training, answer)
        with set_sink(log=lines.append):
            validate_and_save_best(training)
    assert lines == [
        "step 1: gIoU 20.8: kept as the checkpoint, the first one",
        "step 2: gIoU 25.0 > 20.8: kept as the checkpoint",
        "step 3: gIoU 0.0 ≤ 25.0: the checkpoint of step 2 stays",
    ]


def test_the_best_checkpoint_is_chosen_by_the_metric_that_is_set(shards: Path, tmp_path: Path) -> None:
    training = open_small(shards, tmp_path, best_metric="T-acc", postprocess=SCORED)
    check_best_metric(training)
    answer_always(training, "nothing there")
    assert validate(training)[1] == 0
    answer_always(training, "everything")
    assert validate(training)[1] == 100
    unknown = open_small(shards, tmp_path, best_metric="mIoU")
    with pytest.raises(SettingsError, match="mIoU is no metric of all validation sets; there are gIoU, cIoU, "):
        check_best_metric(unknown)


def test_a_best_metric_with_nothing_to_measure_is_refused_before_the_training_or_the_set_is_left_out(
    shards: Path, tmp_path: Path
) -> None:
    some = write_shards(tmp_path / "some", references=((0,), (0,)))
    training = open_small(some, tmp_path / "run", best_metric="N-acc")
    with pytest.raises(
        SettingsError, match=r"best_metric N-acc has nothing to measure in the val split of .*some/shards; "
    ):
        check_best_metric(training)
    training.validation_data = open_validation([shards, some], "val", training.data.processor)
    lines: list[str] = []
    with set_sink(log=lines.append):
        check_best_metric(training)
    assert lines == [f"best_metric N-acc has nothing to measure in {some}, which does not count in it"]
    answer_always(training, "nothing there")
    assert validate(training)[1] == 100


@pytest.mark.parametrize("limit", [0, 4], ids=["of all", "of some"])
def test_predictions_of_a_validation_that_are_kept_score_what_was_logged(
    shards: Path, tmp_path: Path, limit: int
) -> None:
    words: dict[str, Any] = {"keep_validation_predictions": True, "validation_limit": limit, "postprocess": SCORED}
    training = open_small(shards, tmp_path, **words)
    answer_always(training, "everything")
    training.step = 1200
    scores, _ = validate(training)
    file, lines = tmp_path / "validation" / "step-00001200" / "shards.jsonl", list[str]()
    if limit:
        with pytest.raises(DataError, match=r"no prediction for .*; predict every .*\(igvg score --partial\)"):
            score.run(file, shards, ScoreSettings(split="val", bootstrap=0))
    with set_sink(log=lines.append):
        found = score.run(file, shards, ScoreSettings(split="val", bootstrap=0, partial=bool(limit))).report
    assert scores["shards"] == found.metrics
    assert found.metrics["gIoU"] == pytest.approx(20.83, abs=0.01)
    assert found.expressions == (limit or 12)
    assert lines == [f"{file}: 4 of 12 expressions have predictions: only these are scored"] * bool(limit)


def test_without_a_validation_split_the_checkpoint_holds_the_last_weights(shards: Path, tmp_path: Path) -> None:
    training = open_small(shards, tmp_path, validation_split="none")
    for answer in ("nothing there", "empty masks"):
        weights = answer_always(training, answer)
        validate_and_save_best(training)
        kept = load_file(tmp_path / "model.safetensors")
        assert all(torch.equal(kept[name], weights[name]) for name in weights)


def test_the_value_of_several_sets_is_the_mean_of_their_headlines(shards: Path, tmp_path: Path) -> None:
    other = write_shards(tmp_path / "other", references=((0,), (0,)))
    training = open_scored(shards, tmp_path / "run")
    training.validation_data = open_validation([shards, other], "val", training.data.processor)
    answer_always(training, "everything")
    scores, value = validate(training)
    headlines = [metrics["gIoU"] for metrics in scores.values()]
    assert len(headlines) == 2
    assert headlines[1] == pytest.approx(100 * 16 / 96)
    assert value == pytest.approx(np.mean(headlines))


def test_a_set_in_a_folder_without_the_split_is_not_scored(shards: Path, tmp_path: Path) -> None:
    training = open_small(shards, tmp_path, validation_split="test")
    assert training.validation_data == {}
    assert validate(training) == ({}, 0.0)
