"""docs/own-data.md: its blocks run in their order and do what the page says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.page_blocks import read_blocks, read_commands
from tests.support.paths import ROOT
from tests.support.pipeline_runs import run_here

PAGE = ROOT / "docs" / "own-data.md"


def run_blocks() -> list[str]:
    """Run every block of the page in the current folder; returns the names of the commands that ran."""
    commands: list[str] = []
    for language, block in read_blocks(PAGE):
        if language == "python":
            exec(compile(block, PAGE.name, "exec"), {})
        # Blocks of other languages are examples about files that are not here.
        for words in read_commands(block) if not language else ():
            run_here(*words)
            commands.append(words[0])
    return commands


def test_the_page_on_own_data_runs_and_training_improves_the_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = run_blocks()
    assert set(commands) == {"prepare", "predict", "score", "train", "compare", "report"}
    scores = {}
    for name in ("before", "after"):
        capsys.readouterr()
        arguments = ["score", f"runs/{name}", "--shards", "shards/own", "--split", "val", "--format", "json"]
        run_here(*arguments)
        scores[name] = json.loads(capsys.readouterr().out)["metrics"]
    assert scores["before"]["N-acc"] == 0
    assert scores["after"]["N-acc"] > 50
    assert scores["after"]["gIoU"] > scores["before"]["gIoU"] + 20
    assert (tmp_path / "report" / "index.html").stat().st_size > 10_000
    assert list((tmp_path / "found" / "overlays").iterdir())
