"""Two processes do together what one does alone, and a killed training goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
import torch
from pipeline_runs import command, draw_published, igvg, prepare, train_arguments
from safetensors.torch import load_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("distributed")
    return prepare(draw_published(home / "published", held_out_pictures=3), home / "shards")


@pytest.fixture(scope="module")
def checkpoint(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process trains."""
    out = tmp_path_factory.mktemp("single") / "run"
    result = igvg(*train_arguments(shards, out, "max_steps=6"))
    assert result.returncode == 0, result.stderr
    return out


def launch(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    words = [*launcher, "--main_process_port", "0", "-m", "igvg_cli", *arguments]
    return subprocess.run(words, capture_output=True, text=True, timeout=240, env=os.environ | {"OMP_NUM_THREADS": "1"})


def test_two_processes_train_what_one_does(shards: Path, checkpoint: Path, tmp_path: Path) -> None:
    result = launch(train_arguments(shards, tmp_path / "run", "max_steps=6"))
    assert result.returncode == 0, result.stderr
    one, two = (load_file(folder / "model.safetensors") for folder in (checkpoint, tmp_path / "run"))
    assert one.keys() == two.keys()
    for name in one:
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(one[name], two[name], atol=0.02, rtol=0.05, msg=name)
    assert json.loads((tmp_path / "run" / "artifact.json").read_text())["counts"]["steps"] == 6


def test_two_processes_predict_every_expression_of_an_odd_number_once(
    shards: Path, checkpoint: Path, tmp_path: Path
) -> None:
    arguments = ["predict", "--checkpoint", str(checkpoint), "--shards", str(shards), "--set", "workers=0"]
    arguments += ["--set", "batch_size=3"]
    split = choose_odd_split(shards)
    result = launch([*arguments, "--split", split, "--out", str(tmp_path / "two")])
    assert result.returncode == 0, result.stderr
    assert igvg(*arguments, "--split", split, "--out", tmp_path / "one").returncode == 0
    one, two = (
        [json.loads(line) for line in (tmp_path / name / "predictions.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    assert [prediction["id"] for prediction in one] == [prediction["id"] for prediction in two]
    assert [prediction["mask"] for prediction in one] == [prediction["mask"] for prediction in two]
    scored = igvg("score", tmp_path / "two", "--shards", shards, "--split", split, "--format", "json")
    assert json.loads(scored.stdout)["expressions"] == len(one)


def choose_odd_split(shards: Path) -> str:
    for split in ("val", "train"):
        if json.loads((shards / split / "index.json").read_text())["expressions"] % 2:
            return split
    pytest.fail("the embedded data set has no split of an odd number of expressions")


def test_a_killed_training_continues_and_ends_as_if_it_had_not_been(
    shards: Path, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = train_arguments(shards, out, "max_steps=6", "checkpoint_minutes=0")
    process = subprocess.Popen(command(*words), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (out / "state").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (out / "artifact.json").exists()
    result = igvg(*words)
    assert result.returncode == 0, result.stderr
    one, two = (load_file(folder / "model.safetensors") for folder in (checkpoint, out))
    assert all(torch.equal(one[name], two[name]) for name in one)
