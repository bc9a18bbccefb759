"""Every command on input that it cannot use: one line of error, status 1, and nothing written or lost."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from tests.support.pipeline_runs import igvg, only_error, snapshot, train_arguments


@pytest.fixture
def annotations(pipeline: Path, tmp_path: Path) -> Path:
    """A copy of gRefCOCO's published files, to be damaged."""
    return Path(shutil.copytree(pipeline / "published" / "grefcoco", tmp_path / "annotations"))


class CodeRunner:
    """Pickles into a call that leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.trace,)


def fail_to_prepare(pipeline: Path, annotations: Path, out: Path, dataset: str = "grefcoco") -> str:
    """The error of a preparation that must not leave anything."""
    result = igvg(
        "prepare", dataset, "--annotations", annotations, "--images", pipeline / "published" / "images" / "train2014",
        "--out", out, "--workers", "1",
    )  # fmt: skip
    assert not out.exists()
    return only_error(result)


def fail_to_predict(pipeline: Path, out: Path, *, checkpoint: Path | None = None, image: Path | None = None) -> str:
    """The error of a prediction that must not leave anything."""
    what = ["--shards", pipeline / "shards", "--split", "val"]
    if image:
        what = ["--image", image, "--text", "the red star"]
    result = igvg("predict", "--checkpoint", checkpoint or pipeline / "run", *what, "--out", out)
    assert not (out / "predictions.jsonl").exists()
    return only_error(result)


def test_truncated_json_is_named(pipeline: Path, annotations: Path, tmp_path: Path) -> None:
    file = annotations / "grefs(unc).json"
    file.write_bytes(file.read_bytes()[:-40])
    assert "grefs(unc).json" in fail_to_prepare(pipeline, annotations, tmp_path / "out")


def test_a_pickle_that_would_run_code_is_refused_and_not_run(pipeline: Path, tmp_path: Path) -> None:
    annotations = Path(shutil.copytree(pipeline / "published" / "rrefcoco", tmp_path / "annotations"))
    (annotations / "refs(unc).p").write_bytes(pickle.dumps([CodeRunner(tmp_path / "trace")]))
    error = fail_to_prepare(pipeline, annotations, tmp_path / "out", "rrefcoco")
    assert "refs(unc).p" in error
    assert not (tmp_path / "trace").exists()


def test_an_annotation_id_that_does_not_exist_is_named_with_its_record(
    pipeline: Path, annotations: Path, tmp_path: Path
) -> None:
    file = annotations / "grefs(unc).json"
    references = json.loads(file.read_text())
    references[0]["ann_id"], references[0]["no_target"] = [987654], False
    file.write_text(json.dumps(references))
    error = fail_to_prepare(pipeline, annotations, tmp_path / "out")
    assert "987654" in error
    assert str(references[0]["ref_id"]) in error


def test_a_image_that_is_none_is_named(pipeline: Path, tmp_path: Path) -> None:
    images = Path(shutil.copytree(pipeline / "published" / "images" / "train2014", tmp_path / "images"))
    for file in images.iterdir():
        file.write_bytes(b"no picture")
    result = igvg(
        "prepare", "grefcoco", "--annotations", pipeline / "published" / "grefcoco", "--images", images,
        "--out", tmp_path / "out", "--workers", "1",
    )  # fmt: skip
    assert "COCO_train2014_" in only_error(result)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "optimizer.head_lrr=1"], "head_lr"),
        (["--set", "epoch=1"], "epochs"),
        (["--set", "batch_size=many"], "batch_size"),
        (["--set", "batch_size"], "batch_size"),
    ],
)
def test_a_setting_that_does_not_exist_or_fit_is_named_with_the_nearest(
    pipeline: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    result = igvg("train", "--shards", pipeline / "shards", "--out", tmp_path / "out", *arguments)
    assert words in only_error(result)
    assert not (tmp_path / "out").exists()


def test_a_setting_in_a_file_is_named_with_the_file(pipeline: Path, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[optimizer]\nhed_lr = 1e-3\n")
    result = igvg("train", "--shards", pipeline / "shards", "--out", tmp_path / "out", "--config", file)
    error = only_error(result)
    assert "head_lr" in error
    assert "settings.toml" in error


def test_shards_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty" in only_error(igvg(*train_arguments(tmp_path / "empty", tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_a_damaged_index_of_shards_is_named(pipeline: Path, tmp_path: Path) -> None:
    shards = Path(shutil.copytree(pipeline / "shards", tmp_path / "shards"))
    (shards / "val" / "index.json").write_text('{"shards": [')
    result = igvg(
        "predict", "--checkpoint", pipeline / "run", "--shards", shards, "--split", "val", "--out", tmp_path / "o"
    )
    assert "index.json" in only_error(result)


def test_a_folder_that_is_no_checkpoint_is_named(pipeline: Path, tmp_path: Path) -> None:
    error = fail_to_predict(pipeline, tmp_path / "out", checkpoint=pipeline / "shards")
    assert "shards" in error
    assert "checkpoint" in error


def test_damaged_weights_are_named(pipeline: Path, tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(pipeline / "run", tmp_path / "checkpoint"))
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "model.safetensors" in fail_to_predict(pipeline, tmp_path / "out", checkpoint=checkpoint)


def test_a_configuration_with_an_unknown_key_is_named_with_the_nearest(pipeline: Path, tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(pipeline / "run", tmp_path / "checkpoint"))
    values = json.loads((checkpoint / "config.json").read_text())
    values["encoder_layer"] = values.pop("encoder_layers")
    (checkpoint / "config.json").write_text(json.dumps(values))
    assert "encoder_layers" in fail_to_predict(pipeline, tmp_path / "out", checkpoint=checkpoint)


def test_a_published_file_that_would_run_code_is_refused_and_not_run(pipeline: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    torch.save({"state_dict": {}, "meta": CodeRunner(tmp_path / "trace")}, file)
    assert "model.pth" in fail_to_predict(pipeline, tmp_path / "out", checkpoint=file)
    assert not (tmp_path / "trace").exists()


def test_a_image_that_is_missing_is_named(pipeline: Path, tmp_path: Path) -> None:
    assert "street.jpg" in fail_to_predict(pipeline, tmp_path / "out", image=tmp_path / "street.jpg")


def test_a_file_that_is_no_image_is_named(pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "street.jpg").write_text("no picture")
    assert "street.jpg" in fail_to_predict(pipeline, tmp_path / "out", image=tmp_path / "street.jpg")


def test_a_folder_of_somebody_else_is_left_alone(pipeline: Path, tmp_path: Path) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter.tex").write_text("x")
    before = snapshot(out)
    what = ["--checkpoint", pipeline / "run", "--shards", pipeline / "shards", "--split", "val", "--out", out]
    for extra in ([], ["--force"]):
        assert "thesis" in only_error(igvg("predict", *what, *extra))
        assert snapshot(out) == before


def test_an_experiment_with_an_unknown_stage_is_named(tmp_path: Path) -> None:
    file = tmp_path / "experiment.toml"
    file.write_text('out = "runs"\n[trian]\npreset = "tiny"\n')
    error = only_error(igvg("run", file))
    assert "trian" in error
    assert "train" in error


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = igvg("run", tmp_path / "nowhere.toml", "--debug")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
