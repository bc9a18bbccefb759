"""`igvg ablate`: every variant of a table, each with its own artifacts, never made twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.stages.artifact import read_artifact
from shards.index import INDEX
from tests.support.pipeline_runs import SMALL_NETWORK, igvg, only_error, snapshot


@pytest.fixture
def shards(pipeline: Path) -> Path:
    return pipeline / "shards"


def arguments(table: str, shards: Path, out: Path, *more: str) -> list[str]:
    sets = [word for setting in (*SMALL_NETWORK, "max_steps=1") for word in ("--set", setting)]
    return ["ablate", table, "--shards", str(shards), "--out", str(out), "--preset", "tiny", *sets, *more]


def test_every_variant_is_trained_with_its_value_and_scored(shards: Path, tmp_path: Path) -> None:
    words = arguments("table-9", Path(f"{shards}:2"), tmp_path / "out", "--format", "json")
    result = igvg(*words, "--held-out", str(shards))
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["setting"] == "matching.point_cost"
    assert [variant["value"] for variant in document["variants"]] == [1, 2, 5, 10]
    for variant in document["variants"]:
        record = read_artifact(Path(variant["checkpoint"]), "train")
        assert record.options["matching"]["point_cost"] == variant["value"]
        assert (record.options["ratios"], "held out 1" in record.inputs) == ([2.0], True)
        assert variant["score"]["expressions"] == json.loads((shards / "val" / INDEX).read_text())["expressions"]
        again = igvg("score", variant["predictions"], "--shards", shards, "--split", "val", "--format", "json")
        assert json.loads(again.stdout) == variant["score"]


def test_a_second_run_changes_nothing_and_prints_the_paper_s_columns(shards: Path, tmp_path: Path) -> None:
    words = arguments("table-9", shards, tmp_path / "out")
    assert igvg(*words).returncode == 0
    before = snapshot(tmp_path / "out")
    result = igvg(*words)
    assert result.returncode == 0, result.stderr
    assert snapshot(tmp_path / "out") == before
    heading = next(line for line in result.stdout.splitlines() if "λ_point" in line)
    assert [word for word in heading.replace("┃", " ").split() if word] == ["λ_point", "F1score", "gIoU", "cIoU"]


def test_a_variant_that_cannot_be_is_refused_before_anything_is_trained(shards: Path, tmp_path: Path) -> None:
    # The small network's grid has 16 cells, too few for the 20 points of table 10.
    assert "20 queries need as many patches" in only_error(igvg(*arguments("table-10", shards, tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_a_split_that_no_folder_holds_is_named(shards: Path, tmp_path: Path) -> None:
    error = only_error(igvg(*arguments("table-9", shards, tmp_path / "out", "--split", "testC")))
    assert "testC" in error
