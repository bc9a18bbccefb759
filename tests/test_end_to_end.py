"""The whole way from published files to scores, twice: done once, found finished the second time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shards.reader import ShardReader
from tests.support.pipeline_runs import igvg, list_stages, only_error, snapshot

GREFCOCO_KEYS = ["gIoU", "cIoU", "Pr@0.7", "Pr@0.8", "Pr@0.9", "N-acc", "T-acc", "F1score", "F1score-gIoU"]


def test_predictions_are_one_line_per_expression_in_the_order_of_the_shards(pipeline: Path) -> None:
    lines = (pipeline / "found" / "predictions.jsonl").read_text().splitlines()
    predictions = [json.loads(line) for line in lines]
    with ShardReader(pipeline / "shards", "val") as reader:
        expected = [
            (expression.id, [record.height, record.width])
            for record in reader.records()
            for expression in record.expressions
        ]
    assert [(prediction["id"], prediction["mask"]["size"]) for prediction in predictions] == expected
    assert all(set(prediction) == {"id", "boxes", "scores", "mask", "no_target"} for prediction in predictions)
    assert any((pipeline / "found" / "raw").iterdir())


def test_scores_are_one_json_document_with_the_keys_of_the_benchmark(pipeline: Path) -> None:
    result = igvg("score", pipeline / "found", "--shards", pipeline / "shards", "--split", "val", "--format", "json")
    document = json.loads(result.stdout)
    assert document["dataset"] == "grefcoco"
    assert document["split"] == "val"
    assert document["expressions"] == len((pipeline / "found" / "predictions.jsonl").read_text().splitlines())
    assert list(document["metrics"]) == GREFCOCO_KEYS


def test_a_table_of_scores_names_every_metric(pipeline: Path) -> None:
    result = igvg("score", pipeline / "found", "--shards", pipeline / "shards", "--split", "val")
    assert all(key in result.stdout for key in GREFCOCO_KEYS)


@pytest.mark.parametrize("stage", range(4), ids=["prepare", "train", "predict", "score"])
def test_a_finished_stage_says_so_and_changes_nothing(pipeline: Path, stage: int) -> None:
    before = snapshot(pipeline)
    result = igvg(*list_stages(pipeline)[stage])
    assert result.returncode == 0, result.stderr
    assert "is up to date" in result.stderr
    assert snapshot(pipeline) == before


@pytest.mark.parametrize(
    ("stage", "change", "named"),
    [
        (0, ["--limit", "1"], "limit 0 → 1"),
        (1, ["--set", "optimizer.head_lr=0.5"], "optimizer.head_lr 0.0007 → 0.5"),
        (2, ["--set", "postprocess.score_threshold=0.2"], "postprocess.score_threshold 0.7 → 0.2"),
        (3, ["--resolution", "32"], "resolution 0 → 32"),
    ],
    ids=["prepare", "train", "predict", "score"],
)
def test_a_folder_of_other_settings_is_left_alone(pipeline: Path, stage: int, change: list[str], named: str) -> None:
    before = snapshot(pipeline)
    error = only_error(igvg(*list_stages(pipeline)[stage], *change))
    assert named in error
    assert "--force" in error
    assert snapshot(pipeline) == before


def test_an_image_and_two_texts_give_two_predictions_and_overlays(pipeline: Path, tmp_path: Path) -> None:
    image = next((pipeline / "published" / "images" / "train2014").glob("*.jpg"))
    out = tmp_path / "found"
    result = igvg(
        "predict", "--checkpoint", pipeline / "run", "--image", image, "--text", "every star", "--text", "a cat",
        "--out", out, "--set", "workers=0",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert len((out / "predictions.jsonl").read_text().splitlines()) == 2
    overlays = sorted((out / "overlays").iterdir())
    assert len(overlays) == 2
    assert all(overlay.read_bytes().startswith(b"\x89PNG") for overlay in overlays)


def test_a_prediction_from_raw_outputs_has_the_same_bytes_without_the_network(pipeline: Path, tmp_path: Path) -> None:
    assert igvg("predict", "--from", pipeline / "found", "--out", tmp_path / "again").returncode == 0
    again, first = (folder / "predictions.jsonl" for folder in (tmp_path / "again", pipeline / "found"))
    assert again.read_bytes() == first.read_bytes()


def test_a_prediction_without_any_threshold_keeps_every_mask_for_sweeps(pipeline: Path, tmp_path: Path) -> None:
    out, split = tmp_path / "all", ("--shards", pipeline / "shards", "--split", "val")
    result = igvg(
        "predict", "--checkpoint", pipeline / "run", *split, "--out", out, "--set", "workers=0",
        "--set", "postprocess.score_threshold=0",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    swept = igvg("sweep", out, *split, "--vary", "score_threshold=0,0.5", "--format", "json")
    scored = igvg("score", out, *split, "--format", "json")
    assert json.loads(swept.stdout)["settings"][0]["metrics"] == json.loads(scored.stdout)["metrics"]


def test_an_experiment_repeats_only_what_a_changed_setting_touches(pipeline: Path, tmp_path: Path) -> None:
    published = pipeline / "published"
    experiment = tmp_path / "experiment.toml"
    text = f"""
out = "runs"
[prepare.grefcoco]
annotations = "{published / "grefcoco"}"
images = ["{published / "images" / "train2014"}"]
[train]
init = "{pipeline / "run"}"
preset = "tiny"
max_steps = 1
batch_size = 4
workers = 0
[train.model]
image_size = 32
patch_size = 8
encoder_dim = 16
encoder_layers = 1
encoder_heads = 2
encoder_ffn = 32
hidden_dim = 16
decoder_layers = 2
decoder_heads = 2
decoder_ffn = 16
generation_ffn = 16
num_queries = 4
[score]
bootstrap = 10
[predict]
splits = ["grefcoco/val"]
workers = 0
"""
    experiment.write_text(text)
    first = igvg("run", experiment)
    assert first.returncode == 0, first.stderr
    assert [line.split(":")[0] for line in first.stderr.splitlines() if "is finished" in line] == [
        "prepare", "train", "predict", "score",
    ]  # fmt: skip
    experiment.write_text(text + "postprocess = { score_threshold = 0.5 }\n")
    second = igvg("run", experiment, "--format", "json")
    done = {line.split(":")[0]: "up to date" in line for line in second.stderr.splitlines() if ": " in line}
    assert done == {"prepare": True, "train": True, "predict": False, "score": False}
    assert json.loads(second.stdout)[0]["dataset"] == "grefcoco"
    assert len(list((tmp_path / "runs").glob("predict-*"))) == 2
