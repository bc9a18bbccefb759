"""The learning curves of a training, as its log tells them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.report.learning_section import (
    MAX_POINTS,
    Curve,
    average_neighbors,
    describe_training,
    read_training_log,
)
from shards.errors import DataError

LINES: list[dict[str, Any]] = [
    {"step": 0, "epoch": 0.0, "start": {"processes": 1}},
    {"step": 10, "learning_rates": {"encoder": 5e-5, "head": 5e-4}, "losses": {"total": 3.5, "giou": 1.0, "new": 2.0}},
    {"step": 20, "learning_rates": {"encoder": 5e-6, "head": 5e-5}, "losses": {"total": 2.5, "giou": None, "new": 1.0}},
    {"step": 20, "scores": {"grefcoco": {"gIoU": 51.234, "N-acc": None}}},
]

HUGE = f'{{"step": 1, "losses": {{"total": 1{"0" * 400}}}}}'


def write_log(file: Path, lines: list[dict[str, Any]] = LINES) -> Path:
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return file


def test_losses_rates_and_validation_scores_are_curves(tmp_path: Path) -> None:
    curves = read_training_log(write_log(tmp_path / "log.jsonl"))
    assert curves.losses["total"] == Curve(name="total", steps=(10, 20), values=(3.5, 2.5))
    assert curves.losses["giou"] == Curve(name="giou", steps=(10,), values=(1.0,))
    assert curves.learning_rates["encoder"].values == (5e-5, 5e-6)
    assert curves.scores == {"grefcoco": {"gIoU": Curve(name="gIoU", steps=(20,), values=(51.234,))}}


def test_every_loss_has_a_chart_and_its_values_beside_it(tmp_path: Path) -> None:
    figures = {
        figure.title: figure for figure in describe_training(read_training_log(write_log(tmp_path / "l"))).figures
    }
    assert list(figures) == [
        "Total loss", "Losses of boxes", "Other losses", "Learning rates", "Validation scores, grefcoco",
    ]  # fmt: skip
    rows = figures["Total loss"].values.rows
    assert [(row.label, row.cells) for row in rows] == [("10", ("3.5",)), ("20", ("2.5",))]
    assert figures["Learning rates"].values.rows[0].cells == ("5e-05", "0.0005")
    assert figures["Validation scores, grefcoco"].values.rows[0].cells == ("51.23",)


def test_a_line_cut_short_by_a_kill_is_passed_over(tmp_path: Path) -> None:
    file = write_log(tmp_path / "log.jsonl")
    with file.open("a") as stream:
        stream.write('{"step": 3')
    assert read_training_log(file) == read_training_log(write_log(tmp_path / "whole.jsonl"))


@pytest.mark.parametrize(
    "line",
    [
        '{"step": "a"}',
        "[]",
        "1",
        "{}",
        '{"step": 1, "losses": [1]}',
        '{"step": 1, "losses": {"total": "x"}}',
        "[",
        HUGE,
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str) -> None:
    file = write_log(tmp_path / "log.jsonl")
    file.write_text(f"{line}\n{file.read_text()}")
    with pytest.raises(DataError, match=r"line 1.*no record of a training"):
        read_training_log(file)


def test_a_missing_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_training_log(tmp_path / "log.jsonl")


def test_a_long_curve_is_drawn_as_means_of_neighbors() -> None:
    curve = Curve(name="total", steps=tuple(range(1000)), values=tuple(2.0 * step for step in range(1000)))
    shorter = average_neighbors(curve)
    assert len(shorter.steps) == MAX_POINTS
    assert (shorter.steps[0], shorter.values[0]) == (4.5, 9.0)
    assert average_neighbors(shorter) == shorter


def test_a_log_without_rates_and_scores_says_so(tmp_path: Path) -> None:
    section = describe_training(read_training_log(write_log(tmp_path / "l", [{"step": 1, "losses": {"total": 1.0}}])))
    assert any("no learning rates" in note for note in section.notes)
    assert any("no validation scores" in note for note in section.notes)
