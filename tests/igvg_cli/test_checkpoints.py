"""Checkpoints that commands name by their names on the hub; the hub is a server on the loopback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.networks import SHIPPED
from tests.support.hub_server import Hub, serve_hub
from tests.support.launched_processes import torchrun
from tests.support.pipeline_runs import end, igvg, only_error, start, wait_until
from tests.support.published_network import make_published


@pytest.fixture
def hub(pipeline: Path) -> Iterator[Hub]:
    """A hub with the small network as `me/small`."""
    with serve_hub() as running:
        running.add_folder("me/small", pipeline / "run")
        yield running


def read_record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "artifact.json").read_text(encoding="utf-8"))


def predict_words(pipeline: Path, checkpoint: str | Path, out: Path) -> list[str | Path]:
    split = ["--shards", pipeline / "shards", "--split", "val", "--set", "workers=0"]
    return ["predict", "--checkpoint", checkpoint, *split, "--out", out]


def test_predictions_of_a_model_on_the_hub_are_those_of_its_folder(hub: Hub, pipeline: Path, tmp_path: Path) -> None:
    home, out = hub.environment(tmp_path / "home"), tmp_path / "found"
    commit = hub.repos["me/small"].revisions["main"]
    result = igvg(*predict_words(pipeline, "me/small", out), **home)
    assert result.returncode == 0, result.stderr
    assert (out / "predictions.jsonl").read_bytes() == (pipeline / "found" / "predictions.jsonl").read_bytes()
    here, there = read_record(pipeline / "found"), read_record(out)
    assert (there["fingerprint"], there["inputs"]) == (here["fingerprint"], here["inputs"])
    assert there["counts"]["hub"] == f"me/small@{commit}"
    assert "hub" not in here["counts"]
    # Finished work is found without a network, and under the network's other name.
    hub.requests.clear()
    again = igvg(*predict_words(pipeline, "me/small", out), HF_HUB_OFFLINE="1", **home)
    assert "is up to date: same input, same settings" in again.stderr
    assert not hub.requests
    assert "is up to date" in igvg(*predict_words(pipeline, pipeline / "run", out)).stderr
    # The default branch moves on: other content, other work.
    other = {**hub.repos["me/small"].files, "preprocessor_config.json": b'{"max_tokens": 40}'}
    hub.repos["me/small"].add(other)
    assert "input checkpoint differs" in only_error(igvg(*predict_words(pipeline, "me/small", out), **home))
    assert "is up to date" in igvg(*predict_words(pipeline, f"me/small@{commit}", out), **home).stderr


def test_a_training_starts_from_a_model_on_the_hub(hub: Hub, pipeline: Path, tmp_path: Path) -> None:
    commit = hub.add_folder("me/shapes", SHIPPED["shapes"])
    (tmp_path / "settings.toml").write_text('init = "me/shapes"\n')
    words = ["train", "--shards", pipeline / "shards", "--preset", "tiny", "--set", "max_steps=1", "--set", "workers=0"]
    home = hub.environment(tmp_path / "home")
    for name, folder in (("me/shapes", "there"), ("shapes", "here")):
        result = igvg(*words, "--init", name, "--out", tmp_path / folder, **home)
        assert result.returncode == 0, result.stderr
    there, here = read_record(tmp_path / "there"), read_record(tmp_path / "here")
    assert there["fingerprint"] == here["fingerprint"]
    weights = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in ("there", "here")]
    assert weights[0] == weights[1]
    assert (there["counts"]["hub"], "hub" in here["counts"]) == (f"me/shapes@{commit}", False)
    assert there["counts"]["datasets"] == ["grefcoco"]
    again = igvg(*words, "--config", tmp_path / "settings.toml", "--out", tmp_path / "there", **home)
    assert "is up to date: same shards, same settings" in again.stderr


def test_an_experiment_names_a_model_on_the_hub(hub: Hub, pipeline: Path, tmp_path: Path) -> None:
    shutil.copytree(pipeline / "shards", tmp_path / "shards")
    text = 'out = "out"\n[predict]\ncheckpoint = "me/small"\nsplits = ["shards/val"]\nworkers = 0\n'
    (tmp_path / "experiment.toml").write_text(text)
    result = igvg("run", tmp_path / "experiment.toml", **hub.environment(tmp_path / "home"))
    assert result.returncode == 0, result.stderr
    (folder,) = (tmp_path / "out").glob("predict-*")
    assert (folder / "predictions.jsonl").read_bytes() == (pipeline / "found" / "predictions.jsonl").read_bytes()
    assert read_record(folder)["counts"]["hub"].startswith("me/small@")


def test_a_published_file_on_the_hub_is_imported(hub: Hub, tmp_path: Path) -> None:
    torch.save({"state_dict": make_published()}, tmp_path / "net.pth")
    first = hub.repos["me/small"].add({"published/net.pth": (tmp_path / "net.pth").read_bytes()})
    hub.repos["me/small"].add({"published/net.pth": b"something else"})
    home = hub.environment(tmp_path / "home")
    assert igvg("import", tmp_path / "net.pth", "--out", tmp_path / "here").returncode == 0
    words = ["import", "hf://me/small/published/net.pth", "--out", tmp_path / "there"]
    result = igvg(*words, "--revision", first, **home)
    assert result.returncode == 0, result.stderr
    here, there = tmp_path / "here", tmp_path / "there"
    assert (there / "model.safetensors").read_bytes() == (here / "model.safetensors").read_bytes()
    assert read_record(there)["fingerprint"] == read_record(here)["fingerprint"]
    assert read_record(there)["counts"]["hub"] == f"me/small@{first}"
    error = only_error(igvg("import", tmp_path / "net.pth", "--revision", "v1", "--out", tmp_path / "x"))
    assert "has no revision v1: only hub names have revisions" in error


@pytest.mark.parametrize("name", ["me/shapes", "hf://me/shapes", "me/shapes@main"])
def test_import_refuses_a_whole_repository_before_it_is_downloaded(hub: Hub, tmp_path: Path, name: str) -> None:
    result = igvg("import", name, "--out", tmp_path / "out", **hub.environment(tmp_path))
    assert "names no file; give the .pth that was published, as hf://me/shapes/FILE.pth" in only_error(result)
    assert not hub.requests


def test_python_and_transformers_load_models_by_name(hub: Hub, tmp_path: Path) -> None:
    hub.add_folder("me/first", SHIPPED["shapes"])
    code = """
import numpy, torch
from pipelines import load_pretrained
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor
inputs = {"images": numpy.zeros((9, 9, 3), "u1"), "text": "the red star", "return_tensors": "pt"}
model, processor = load_pretrained("me/first", revision="main")
auto = AutoModelForZeroShotObjectDetection.from_pretrained("me/first")
auto_processor = AutoProcessor.from_pretrained("me/first")
with torch.inference_mode():
    ours, theirs = model(**processor(**inputs)), auto(**auto_processor(**inputs))
print(torch.allclose(ours.boxes, theirs.boxes, atol=1e-4))"""
    environment = os.environ | hub.environment(tmp_path)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert run.stdout.strip() == "True", run.stderr


def test_two_processes_predict_with_one_download(hub: Hub, pipeline: Path, tmp_path: Path) -> None:
    hub.delay = 1.0
    words = predict_words(pipeline, "me/small", tmp_path / "found")
    result = torchrun("-m", "igvg_cli", *words, **hub.environment(tmp_path / "home"))
    assert result.returncode == 0, result.stderr
    assert len(hub.downloads()) == 1
    counts = read_record(tmp_path / "found")["counts"]
    assert (counts["processes"], counts["hub"].split("@")[0]) == (2, "me/small")


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_download_at_once(
    hub: Hub, pipeline: Path, tmp_path: Path, signum: signal.Signals, status: int
) -> None:
    hub.delay = 60
    words = predict_words(pipeline, "me/small", tmp_path / "found")
    process = start(*words, **hub.environment(tmp_path / "home"))
    wait_until(lambda: bool(hub.downloads()), process)
    os.killpg(process.pid, signum)
    (line,) = end(process, 20).splitlines()
    assert process.returncode == status
    assert "nothing is half-written; the same command goes on" in line


def test_a_mistyped_path_is_one_line_and_leaves_nothing(hub: Hub, pipeline: Path, tmp_path: Path) -> None:
    words = predict_words(pipeline, "runs/nowhere", tmp_path / "found")
    error = only_error(igvg(*words, **hub.environment(tmp_path / "home")))
    assert "runs/nowhere is neither a path here nor a model on" in error
    assert not (tmp_path / "found").exists()
