"""`igvg ablate`: every variant of a table, each with its own artifacts, never made twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.presets import train_preset
from pipelines.experiments.components import list_components
from pipelines.stages.artifact import read_artifact
from shards.index import INDEX
from tests.support.pipeline_runs import SMALL_NETWORK, igvg, igvg_here, only_error, snapshot

COMPONENTS_OF_TINY = list_components(train_preset("tiny"))


@pytest.fixture
def shards(pipeline: Path) -> Path:
    return pipeline / "shards"


def arguments(table: str, shards: Path, out: Path, *more: str) -> list[str]:
    sets = [word for setting in (*SMALL_NETWORK, "max_steps=1") for word in ("--set", setting)]
    return ["ablate", table, "--shards", str(shards), "--out", str(out), "--preset", "tiny", *sets, *more]


def test_every_variant_is_trained_with_its_value_and_scored(shards: Path, tmp_path: Path) -> None:
    words = arguments("table-9", Path(f"{shards}:2"), tmp_path / "out", "--format", "json")
    result = igvg_here(*words, "--held-out", str(shards))
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["setting"] == "matching.point_cost"
    assert [variant["value"] for variant in document["variants"]] == [1, 2, 5, 10]
    for variant in document["variants"]:
        record = read_artifact(Path(variant["checkpoint"]), "train")
        assert record.options["matching"]["point_cost"] == variant["value"]
        assert (record.options["ratios"], "held out 1" in record.inputs) == ([2.0], True)
        assert variant["score"]["expressions"] == json.loads((shards / "val" / INDEX).read_text())["expressions"]
        again = igvg_here("score", variant["predictions"], "--shards", shards, "--split", "val", "--format", "json")
        assert json.loads(again.stdout) == variant["score"]


def test_a_second_run_changes_nothing_and_prints_the_paper_s_columns(shards: Path, tmp_path: Path) -> None:
    words = arguments("table-9", shards, tmp_path / "out")
    assert igvg_here(*words).returncode == 0
    before = snapshot(tmp_path / "out")
    result = igvg_here(*words)
    assert result.returncode == 0, result.stderr
    assert snapshot(tmp_path / "out") == before
    heading = next(line for line in result.stdout.splitlines() if "λ_point" in line)
    assert [word for word in heading.replace("┃", " ").split() if word] == ["λ_point", "F1score", "gIoU", "cIoU"]


def test_a_variant_that_cannot_be_is_refused_before_anything_is_trained(shards: Path, tmp_path: Path) -> None:
    # The small network's grid has 16 cells, too few for the 20 points of table 10.
    assert "20 queries need as many patches" in only_error(igvg_here(*arguments("table-10", shards, tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_a_split_that_no_folder_holds_is_named(shards: Path, tmp_path: Path) -> None:
    error = only_error(igvg_here(*arguments("table-9", shards, tmp_path / "out", "--split", "testC")))
    assert "testC" in error


@pytest.fixture(scope="module")
def study(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], dict[str, Any]]:
    """Folder, command line and report of a study with two seeds."""
    out = tmp_path_factory.mktemp("study") / "out"
    words = arguments("components", pipeline / "shards", out, "--seeds", "2", "--format", "json")
    result = igvg_here(*words)
    assert result.returncode == 0, result.stderr
    return out, words, json.loads(result.stdout)


def test_components_are_trained_with_every_seed_and_scored_as_igvg_score_does(
    study: tuple[Path, list[str], dict[str, Any]], shards: Path
) -> None:
    out, _, document = study
    (scores,) = document["datasets"]
    assert document["seeds"] == [6666, 6667]
    assert [variant["key"] for variant in scores["variants"]] == [component.key for component in COMPONENTS_OF_TINY]
    full = scores["variants"][0]
    for variant, component in zip(scores["variants"], COMPONENTS_OF_TINY, strict=True):
        for one, reference in zip(variant["seeds"], full["seeds"], strict=True):
            record = read_artifact(Path(one["checkpoint"]), "train")
            assert record.options["seed"] == one["seed"]
            assert all(values.items() <= record.options[group].items() for group, values in component.changes.items())
            assert bool(one["curve"]) == component.trained
            assert (one["checkpoint"] == reference["checkpoint"]) == (not component.trained or component.key == "full")
        assert (variant["differences"] is None) == (component.key == "full")
    # One training for each of seven variants and two seeds.
    assert len(list(out.glob("train-*"))) == 14
    for chart in ("curves", "differences"):
        assert (out / f"{scores['dataset']}-val-{chart}.svg").read_text().startswith("<svg")
    checked = next(variant for variant in scores["variants"] if variant["key"] == "global-only")["seeds"][1]
    assert read_artifact(Path(checked["predictions"]), "predict").options["postprocess"]["mask_source"] == "global"
    again = igvg_here("score", checked["predictions"], "--shards", shards, "--split", "val", "--format", "json")
    assert json.loads(again.stdout)["metrics"] == checked["metrics"]


def test_an_interrupted_study_makes_what_is_missing_again_and_ends_with_the_same_report(
    study: tuple[Path, list[str], dict[str, Any]],
) -> None:
    out, words, document = study
    before = snapshot(out)
    lost = document["datasets"][0]["variants"][3]["seeds"][1]
    for key in ("checkpoint", "predictions"):
        shutil.rmtree(lost[key])
    result = igvg_here(*words)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == document
    after = snapshot(out)
    lost_folders = {Path(lost[key]).name for key in ("checkpoint", "predictions")}
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert {Path(name).parts[0] for name in changed} <= lost_folders, "the charts are the same, too"
    result = igvg_here(*words[:-2])
    assert result.returncode == 0, result.stderr
    assert "without point cost: matched by class and box alone" in result.stdout


def test_tables_of_the_paper_need_shards(tmp_path: Path) -> None:
    result = igvg("ablate", "table-9", "--out", tmp_path / "out")
    assert result.returncode == 2
    assert "--shards" in result.stderr
