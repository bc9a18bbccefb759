"""Work without a terminal says where it is; short work, --quiet and all processes but the first say nothing."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from igvg_cli.app import split_switches
from igvg_cli.progress import INTERVAL, Display, State, advance_state, describe_state, has_terminal, show_progress
from shards.progress import report_progress
from tests.support.pipeline_runs import draw_published, igvg, prepare, train_arguments

# A real command, whose lines come every twentieth of a second.
HASTY = "import igvg_cli.progress as p; p.INTERVAL = 0.005; from igvg_cli.app import main; main()"


def follow(reports: Iterable[tuple[float, int, int, str]], now: float, label: str = "training") -> str:
    """The line at a time after reports (time, done, total, remark)."""
    state = State()
    for moment, *report in reports:
        state = advance_state(state, *report, moment)
    return describe_state(label, state, now)


def run_hastily(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", HASTY, *map(str, words)], capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_published(tmp_path_factory.mktemp("published"))


def prepare_arguments(published: Path, out: Path) -> list[str]:
    return [
        "prepare", "grefcoco", "--annotations", str(published / "grefcoco"),
        "--images", str(published / "images" / "train2014"), "--out", str(out), "--workers", "0",
    ]  # fmt: skip


def test_lines_come_less_than_half_a_minute_apart() -> None:
    assert 20 <= INTERVAL < 30


def test_a_line_holds_stage_count_rate_time_left_and_remark() -> None:
    reports = [(0, 0, 0, "training"), (10, 0, 400, ""), (110, 100, 400, "loss 1.500")]
    # 100 in 100 s from the first count on, 300 to go.
    assert follow(reports, 110) == "training: 100 of 400 (25 %), 1.0 a second, 5 min 0 s left, loss 1.500"


def test_a_slow_rate_is_told_per_minute() -> None:
    line = follow([(0, 0, 20, ""), (120, 1, 20, "")], 120)
    assert line == "training: 1 of 20 (5 %), 0.5 a minute, 38 min 0 s left"


def test_the_rate_of_a_continued_training_counts_its_own_steps_alone() -> None:
    line = follow([(0, 0, 0, "training"), (5, 1000, 2000, ""), (15, 1100, 2000, "")], 15)
    assert "10.0 a second, 1 min 30 s left" in line


def test_the_rate_begins_again_with_every_stage() -> None:
    line = follow(
        [(0, 0, 10, ""), (1000, 10, 10, ""), (1000, 0, 0, "predicting"), (1000, 0, 9, ""), (1001, 3, 9, "")], 1001
    )
    assert line.endswith("3 of 9 (33 %), 3.0 a second, 2 s left")


def test_before_anything_is_counted_the_line_tells_how_long_it_has_been() -> None:
    assert follow([(0, 0, 0, "training")], 61) == "training: for 1 min 1 s, nothing to count yet"


def test_a_command_of_several_stages_names_the_present_one() -> None:
    line = follow([(0, 0, 0, "predicting val"), (0, 0, 8, ""), (4, 4, 8, "")], 4, label="demo")
    assert line.startswith("demo: predicting val: 4 of 8")


def test_a_line_comes_also_while_nothing_is_reported() -> None:
    lines: list[str] = []
    with show_progress("training", write=lines.append, interval=0.02):
        report_progress(1, 7, "loss 2.000")
        time.sleep(0.3)
    assert len(lines) >= 5
    assert all(line.startswith("training: 1 of 7") and line.endswith("loss 2.000") for line in lines)


def test_work_shorter_than_the_interval_prints_nothing() -> None:
    lines: list[str] = []
    with show_progress("training", write=lines.append, interval=60):
        report_progress(1, 7)
    assert not lines


@pytest.mark.parametrize(("rank", "speaks"), [("0", True), ("1", False)])
def test_of_several_processes_the_first_speaks(monkeypatch: pytest.MonkeyPatch, rank: str, speaks: bool) -> None:
    place = {"WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    assert list_lines() == speaks


def test_quiet_silences_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Display, "quiet", True)
    assert not list_lines()


def list_lines() -> bool:
    """Whether any line comes of some work."""
    lines: list[str] = []
    with show_progress("training", write=lines.append, interval=0.01):
        time.sleep(0.1)
    return bool(lines)


@pytest.mark.parametrize(
    ("environment", "moves"),
    [({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False), ({"TERM": "xterm", "CI": "true"}, False)],
)
def test_a_bar_needs_a_terminal_that_can_show_it(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], moves: bool
) -> None:
    monkeypatch.delenv("CI", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    primary, secondary = pty.openpty()
    with os.fdopen(secondary, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        assert has_terminal() is moves
    os.close(primary)


def test_switches_may_stand_anywhere_and_are_left_alone_after_two_dashes() -> None:
    words, switches = split_switches(["run", "--quiet", "a.toml", "--debug", "--", "--quiet"])
    assert (words, switches) == (["run", "a.toml", "--", "--quiet"], {"--quiet", "--debug"})


def test_a_preparation_tells_its_stage_on_standard_error_alone(published: Path, tmp_path: Path) -> None:
    result = run_hastily(*prepare_arguments(published, tmp_path / "shards"))
    assert result.returncode == 0, result.stderr
    assert re.search(r"^preparing grefcoco: ", result.stderr, re.MULTILINE)
    assert "preparing" not in result.stdout


def test_a_preparation_that_shall_be_quiet_is(published: Path, tmp_path: Path) -> None:
    result = run_hastily(*prepare_arguments(published, tmp_path / "shards"), "--quiet")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


def test_a_training_tells_steps_and_loss(published: Path, tmp_path: Path) -> None:
    shards = prepare(published, tmp_path / "shards")
    result = run_hastily(*train_arguments(shards, tmp_path / "run", "max_steps=12", "log_steps=1"))
    assert result.returncode == 0, result.stderr
    assert re.search(r"^training: for \d+ s, nothing to count yet$", result.stderr, re.MULTILINE)
    assert re.search(r"^training: \d+ of 12 .*left, loss \d+\.\d+", result.stderr, re.MULTILINE), result.stderr


@pytest.mark.parametrize("command", ["train", "convert"])
def test_every_command_tells_how_to_be_quiet(command: str) -> None:
    assert "--quiet" in igvg(command, "--help").stdout
