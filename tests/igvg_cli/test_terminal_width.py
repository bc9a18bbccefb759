"""Every command at 60 and at 160 columns, on a terminal and redirected, with and without color."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from igvg_cli.app import COMMANDS
from igvg_cli.tables import print_table, share_width, split_columns
from tests.support.pipeline_runs import command, igvg, list_stages, run_here
from tests.support.terminals import run_in_terminal, strip_escapes

NARROW, WIDE = 60, 160
BOX = re.compile(r"[│┃╭╮╰╯─━┏┓┗┛┡┩╇┳┴└┘┼├┤╿]")
COLORED = re.compile(r"\x1b\[(?:\d+;)*(?:3|4|9|10)\d(?:;\d+)*m")


def list_split(home: Path) -> list[str]:
    return [str(home / "found"), "--shards", str(home / "shards"), "--split", "val"]


def write_experiment(home: Path, folder: Path) -> str:
    file = folder / "experiment.toml"
    file.write_text(f'out = "out"\n[score]\npredictions = ["{home / "found"}"]\nsplits = ["{home / "shards"}/val"]\n')
    return str(file)


def write_foreign_experiment(folder: Path) -> Path:
    (folder / "experiment.toml").write_text("# Somebody's own.\n")
    return folder


# The words of each command, from the folder of a finished pipeline and a folder to write into; what fails ends in
# one line.
LINES: dict[str, Callable[[Path, Path], list[str]]] = {
    "prepare": lambda home, _: list_stages(home)[0],
    "train": lambda home, _: list_stages(home)[1],
    "predict": lambda home, _: list_stages(home)[2],
    "score": lambda home, _: ["score", *list_split(home)],
    "compare": lambda home, _: ["compare", str(home / "found"), *list_split(home)],
    "convert": lambda home, out: ["convert", *list_split(home), "--out", str(out / "coco")],
    "sweep": lambda home, _: ["sweep", *list_split(home), "--vary", "score_threshold=0.3,0.5", "--vary", "nms=true"],
    "report": lambda home, out: ["report", str(home / "run"), "--out", str(out / "report")],
    "serve": lambda home, _: ["serve", "--checkpoint", str(home / "none")],
    "ablate": lambda home, out: ["ablate", "table-10", "--shards", str(home / "none"), "--out", str(out / "x")],
    "run": lambda home, out: ["run", write_experiment(home, out)],
    "demo": lambda _, out: ["demo", "--out", str(write_foreign_experiment(out))],
    "import": lambda home, out: ["import", str(home / "none.pth"), "--out", str(out / "x")],
    "push": lambda home, _: ["push", str(home / "run"), "me/first", "--dry-run"],
    "inspect": lambda home, _: ["inspect", str(home / "shards")],
    "verify": lambda home, _: ["verify", str(home / "shards")],
    "audit": lambda home, _: ["audit", "--shards", str(home / "shards")],
}  # fmt: skip
# What these write is found finished the second time.
WRITERS = ("convert", "run", "report")


def list_words(text: str) -> set[str]:
    """The words of an output without the lines of tables, and without the colons of lists."""
    return {word.rstrip(":") for word in BOX.sub(" ", text).split()}


def list_long_lines(text: str, width: int) -> list[str]:
    """Lines that are longer than the width, but for those of a word that leaves no room for another."""
    return [
        line for line in text.splitlines()
        if len(line) > width and max(map(len, BOX.sub(" ", line).split())) < width - 12
    ]  # fmt: skip


def test_every_command_is_looked_at() -> None:
    assert list(LINES) == list(COMMANDS)


@pytest.mark.parametrize("name", LINES)
def test_on_a_narrow_terminal_lines_fit_and_words_stay_whole(name: str, pipeline: Path, tmp_path: Path) -> None:
    words = command(*LINES[name](pipeline, tmp_path), "--quiet")
    if name in WRITERS:
        igvg(*words[3:])
    wide, narrow = (strip_escapes(run_in_terminal(words, width, TMPDIR="/tmp")[1]) for width in (WIDE, NARROW))
    assert wide.strip()
    assert list_long_lines(narrow, NARROW) == list_long_lines(wide, WIDE) == []
    # The dry run of a push names a fresh folder every time.
    if name != "push":
        assert list_words(narrow) <= list_words(wide)


@pytest.mark.parametrize("name", ["score", "compare", "sweep", "prepare"])
def test_redirected_tables_fit_and_have_no_escapes(name: str, pipeline: Path, tmp_path: Path) -> None:
    texts = []
    for width in (WIDE, NARROW):
        result = igvg(*LINES[name](pipeline, tmp_path), COLUMNS=str(width), FORCE_COLOR="", NO_COLOR="")
        assert result.returncode == 0, result.stderr
        assert "\x1b" not in result.stdout + result.stderr
        assert list_long_lines(result.stdout, width) == []
        texts.append(result.stdout)
    assert list_words(texts[1]) <= list_words(texts[0])


def test_redirected_output_of_no_given_width_is_of_160_columns(pipeline: Path) -> None:
    result = igvg("score", *list_split(pipeline), COLUMNS="")
    assert 100 < max(map(len, result.stdout.splitlines())) <= 160


def test_no_color_is_obeyed_on_a_terminal(pipeline: Path) -> None:
    for words in (["train", "--help"], ["score", *list_split(pipeline)], ["score", "/none", *list_split(pipeline)[1:]]):
        assert not COLORED.search(run_in_terminal(command(*words), NARROW, NO_COLOR="1")[1])
    assert COLORED.search(run_in_terminal(command("train", "--help"), NARROW)[1])


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_and_its_words_stay_whole(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = []
    for width in (WIDE, NARROW):
        monkeypatch.setenv("COLUMNS", str(width))
        run_here(*([name] if name else []), "--help")
        text = capsys.readouterr().out
        assert "\x1b" not in text
        assert list_long_lines(text, width) == []
        texts.append(text)
    assert list_words(texts[0]) == list_words(texts[1])


def test_wrong_usage_fits(pipeline: Path) -> None:
    status, text = run_in_terminal(command("score", "--resolution", "many"), NARROW)
    assert status == 2
    assert list_long_lines(strip_escapes(text), NARROW) == []


def test_an_error_stays_one_line_where_it_is_redirected(pipeline: Path) -> None:
    result = igvg("score", pipeline / "none.jsonl", "--shards", pipeline / "shards", "--split", "val", COLUMNS="60")
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("Error: ")


def test_cells_break_between_words_alone(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    cells = ["gIoU", "an extraordinarily incomprehensible definition of one metric", "a/path/without/any/space"]
    monkeypatch.setenv("COLUMNS", "50")
    print_table("title", ["metric", "what it measures", "where"], [cells], ["a note of words"], left=(0, 1, 2))
    text = capsys.readouterr().out
    assert list_words(text) == set(" ".join(["title metric what it measures where a note of words", *cells]).split())
    assert max(map(len, text.splitlines())) <= 50


def test_a_table_that_is_too_wide_is_continued_with_its_labels() -> None:
    # 3 more for each column, and 1 for the table.
    assert split_columns([10, 5, 5, 5], 1 + 13 + 8 + 8 + 8, labels=1) == [[0, 1, 2, 3]]
    assert split_columns([10, 5, 5, 5], 1 + 13 + 8 + 8, labels=1) == [[0, 1, 2], [0, 3]]
    assert split_columns([10, 50], 20, labels=1) == [[0, 1]]


def test_columns_that_can_break_share_what_is_left() -> None:
    assert share_width([10, 5], [10, 5], 100) == [10, 5]
    assert share_width([10, 40, 60], [10, 5, 5], 1 + 13 + 23 + 33) == [10, 25, 25]
    assert share_width([10, 8, 60], [10, 5, 5], 1 + 13 + 11 + 53) == [10, 8, 50]


def test_a_bar_is_left_out_where_there_is_no_room_for_it(pipeline: Path) -> None:
    words = command("score", *list_split(pipeline), "--bootstrap", "10")
    _, text = run_in_terminal(words, NARROW)
    assert "0/?" in text
    assert "━━━ 0/?" not in strip_escapes(text)
