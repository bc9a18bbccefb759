"""The network that the package ships: found by its name, small, and knowing single targets only."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from safetensors import safe_open

from pipelines.config.model import ADDED_KEYS
from pipelines.config.presets import train_preset
from pipelines.networks import SHIPPED, resolve_checkpoint
from pipelines.stages.inputs import digest_checkpoint
from shards.synthetic.writer import write_published, write_refcoco
from tests.support.paths import ROOT
from tests.support.pipeline_runs import igvg, prepare


def test_the_name_is_the_folder_inside_the_package() -> None:
    assert resolve_checkpoint("shapes") == resolve_checkpoint(Path("shapes")) == SHIPPED["shapes"]
    assert digest_checkpoint(Path("shapes")) == digest_checkpoint(SHIPPED["shapes"])


def test_other_names_are_paths() -> None:
    assert resolve_checkpoint("runs/first/shapes") == Path("runs/first/shapes")


def test_a_checkpoint_in_the_current_folder_wins_over_the_name_and_other_folders_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shapes").mkdir()
    assert resolve_checkpoint("shapes") == SHIPPED["shapes"]
    (tmp_path / "shapes" / "config.json").touch()
    assert resolve_checkpoint("shapes") == Path("shapes")


def test_it_is_a_tiny_network_in_float16_of_at_most_five_megabytes() -> None:
    folder = SHIPPED["shapes"]
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 5e6
    config = json.loads((folder / "config.json").read_text())
    expected = train_preset("tiny").model
    assert {name: (ADDED_KEYS | config)[name] for name in vars(expected)} == vars(expected)
    with safe_open(folder / "model.safetensors", framework="pt") as tensors:
        types = {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118, it is no mapping
    assert types <= {"F16", "I64"}


def test_every_file_of_it_is_part_of_the_package() -> None:
    package = SHIPPED["shapes"].parents[1]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"][package.name]
    packaged = {file for pattern in patterns for file in package.glob(pattern)}
    assert set(SHIPPED["shapes"].iterdir()) <= packaged


def test_it_says_what_made_it() -> None:
    origin = json.loads((SHIPPED["shapes"] / "origin.json").read_text())
    assert origin["command"].startswith("python -m pipelines.experiments.pretraining")


def test_it_finds_single_targets_and_knows_nothing_of_empty_ones(tmp_path: Path) -> None:
    write_refcoco(tmp_path / "single", seed=21, train_images=1, held_out_images=12)
    write_published(tmp_path / "generalized", seed=22, train_images=8, held_out_images=8)
    scores = {}
    for source, dataset in (("single", "refcoco"), ("generalized", "grefcoco")):
        shards = prepare(tmp_path / source, tmp_path / dataset, dataset)
        split = ("--shards", shards, "--split", "val")
        out = tmp_path / f"{dataset}-found"
        found = igvg("predict", "--checkpoint", "shapes", *split, "--out", out, "--set", "workers=0",
                     "--set", "postprocess.score_threshold=0.45")  # fmt: skip
        assert found.returncode == 0, found.stderr
        scores[dataset] = json.loads(igvg("score", out, *split, "--format", "json").stdout)["metrics"]
    assert scores["refcoco"]["mIoU"] > 60
    assert scores["grefcoco"]["N-acc"] < 20
    assert scores["grefcoco"]["T-acc"] > 90
