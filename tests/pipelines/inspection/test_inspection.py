"""Every kind of file and folder is told as what it is."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.inspection.description import Description
from pipelines.inspection.inspection import inspect_path
from pipelines.stages.artifact import Stage
from shards.errors import ArtifactError, DataError, IGVGError
from tests.support.drawn_shards import predict_truth, write_lines, write_shards
from tests.support.pipeline_runs import run_here


@pytest.fixture(scope="module")
def home(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of the pipeline, and what commands make of them."""
    home = tmp_path_factory.mktemp("home")
    for name in ("published", "shards", "run", "found", "scores"):
        (home / name).symlink_to(pipeline / name)
    split = ("--shards", pipeline / "shards", "--split", "val")
    run_here("convert", pipeline / "found", *split, "--out", home / "coco")
    run_here("convert", pipeline / "found", *split, "--to", "labelme", "--out", home / "labels")
    run_here("convert", pipeline / "found", *split, "--to", "png", "--out", home / "png")
    run_here("predict", "--from", pipeline / "found", "--set", "postprocess.nms=true", "--out", home / "again")
    return home


def changed(description: Description) -> dict[str, Any]:
    return {setting.key: setting.value for setting in description.settings if setting.changed}


KINDS = {
    "shards": "prepare",
    "shards/artifact.json": "prepare",
    "shards/val": "split",
    "shards/val/index.json": "split",
    "shards/val/val-000000.tar": "shard",
    "run": "train",
    "run/model.safetensors": "weights",
    "run/config.json": "checkpoint",
    "run/log.jsonl": "training log",
    "found": "predict",
    "found/predictions.jsonl": "predictions",
    "found/raw": "raw outputs",
    "found/raw/index.json": "raw outputs",
    "found/raw/chunk-000000.npz": "raw chunk",
    "again": "predict",
    "scores": "score",
    "scores/scores.json": "scores",
    "coco": "convert",
    "coco/annotations.json": "COCO",
    "labels/COCO_train2014_000000000009.json": "labelme",
    "png": "convert",
    "png/index.json": "index of PNG masks",
    "png/grefcoco-72-72.png": "image",
    "published/grefcoco": "annotations",
    "published/grefcoco/grefs(unc).json": "annotations",
    "published/ref-zom/refs(final).p": "annotations",
    "published/grefcoco/instances.json": "COCO",
    "published/images/train2014": "images",
    ".": "artifacts",
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_known_and_is_plain_json(home: Path, name: str) -> None:
    description = inspect_path(home / name)
    assert description.kind == KINDS[name]
    assert description.what
    document = json.loads(json.dumps(description.to_json(), allow_nan=False))
    assert document["kind"] == KINDS[name]
    assert document["changed"].endswith("+00:00")


def test_what_an_artifact_was_made_from_is_what_made_it(home: Path) -> None:
    found, shards, scores = (inspect_path(home / name) for name in ("found", "shards", "scores"))
    assert found.inputs["shards"] == scores.inputs["shards"] == shards.facts["fingerprint"]
    assert found.counts["expressions"] == 16
    assert shards.versions["igvg"]
    assert scores.tables[0].rows[0][:2] == (
        "gIoU",
        json.loads((home / "scores" / "scores.json").read_text())["metrics"]["gIoU"],
    )


def test_settings_that_differ_from_the_defaults_come_first(home: Path) -> None:
    run = inspect_path(home / "run")
    assert changed(run)["model.image_size"] == 32
    assert changed(run)["max_steps"] == 6
    flags = [setting.changed for setting in run.settings]
    assert flags == sorted(flags, reverse=True)
    defaults = {setting.key: setting.default for setting in run.settings}
    # Those of the preset that it was trained with.
    assert (defaults["model.image_size"], defaults["loss.global_mask"]) == (96, 1.0)
    assert changed(inspect_path(home / "again")) == {"postprocess.nms": True}
    assert changed(inspect_path(home / "found")) == {"split": "val"}
    assert changed(inspect_path(home / "shards")) == {"dataset": "grefcoco"}


def test_splits_are_counted_as_prepared(home: Path) -> None:
    record = json.loads((home / "shards" / "artifact.json").read_text())
    table = inspect_path(home / "shards").tables[0]
    for row in table.rows:
        values = dict(zip(table.columns, row, strict=True))
        counts = record["counts"]["splits"][values["split"]]
        assert values["images"] == counts["pictures"]
        assert [values[name] for name in ("expressions", "none", "one", "several", "instances")] == [
            counts[name] for name in ("expressions", "empty", "single", "multiple", "instances")
        ]
        assert values["bytes"] == sum(file.stat().st_size for file in (home / "shards" / str(row[0])).glob("*.tar"))
    facts = inspect_path(home / "shards" / "val" / "val-000000.tar").facts
    assert (facts["none"], facts["one"], facts["several"]) == (5, 6, 5)
    assert facts["in the index beside it"] == "yes"


def test_shards_without_a_record_are_described_by_their_index(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, images=3)
    description = inspect_path(folder)
    assert description.kind == "shards"
    assert description.tables[0].rows[0][:3] == ("val", 3, 12)


def test_unfinished_work_is_told(tmp_path: Path) -> None:
    Stage(name="train", out=tmp_path / "run", inputs={"shards 1": "abc"}, options={"preset": "tiny"}).start()
    (tmp_path / "run" / "log.jsonl").write_text('{"step": 7, "epoch": 0.5, "losses": {"total": 1.25}}\n{"st')
    description = inspect_path(tmp_path / "run")
    assert description.what.startswith("unfinished work: a trained network")
    assert (description.facts["finished"], description.facts["last step"], description.facts["last loss"]) == (
        False,
        7,
        1.25,
    )
    assert inspect_path(tmp_path).tables[0].rows[0][:3] == ("run", "train", "unfinished")


def test_unfinished_preparation_is_found_under_the_name_of_its_result(tmp_path: Path) -> None:
    Stage(name="prepare", out=tmp_path / ".shards.working", inputs={}, options={"dataset": "grefcoco"}).start()
    description = inspect_path(tmp_path / "shards")
    assert description.what.startswith("unfinished work: prepared shards")


def test_a_split_whose_tars_are_missing_is_described_by_its_index(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, images=3)
    (folder / "val" / "val-000000.tar").unlink()
    assert inspect_path(folder / "val").facts["expressions"] == 12


def test_predictions_of_another_model_are_counted(tmp_path: Path) -> None:
    lines = [{"id": line["id"], "boxes": line["boxes"]} for line in predict_truth()]
    facts = inspect_path(write_lines(tmp_path / "theirs.json", lines)).facts
    assert facts["lines"] == 12
    assert (facts["no target"], facts["one box"], facts["several boxes"], facts["boxes"]) == (3, 6, 3, 12)
    assert (facts["masks that are not empty"], facts["data set"], facts["scores"]) == (
        "not predicted",
        "grefcoco",
        "none",
    )


def test_a_damaged_line_of_predictions_is_noted(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "predictions.jsonl", predict_truth())
    file.write_text(file.read_text() + '{"id": 3}\n')
    assert inspect_path(file).notes[0].startswith("line 13 is no prediction: ")


def test_published_checkpoints_and_states_are_read_as_data(tmp_path: Path) -> None:
    import torch

    from tests.support.published_network import make_published

    torch.save({"state_dict": make_published(), "meta": {"epoch": 9}}, tmp_path / "published.pth")
    description = inspect_path(tmp_path / "published.pth")
    assert description.what == "a published checkpoint of InstanceVG, which igvg import takes"
    assert description.facts["meta.epoch"] == 9
    assert description.facts["tensors"] == len(make_published())
    state = {"step": 12, "best": 0.5, "model": {"weight": torch.zeros(2, 3)}, "optimizer": {"state": {}}}
    (tmp_path / "state").mkdir()
    torch.save(state, tmp_path / "state" / "state.pt")
    assert inspect_path(tmp_path / "state").kind == "training state"
    assert inspect_path(tmp_path / "state" / "state.pt").facts["step"] == 12


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("it ran",))


def test_code_in_files_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    torch.save({"state_dict": Hostile()}, tmp_path / "hostile.pth")
    (tmp_path / "hostile.p").write_bytes(pickle.dumps(Hostile()))
    for name in ("hostile.pth", "hostile.p"):
        with pytest.raises(IGVGError, match=name):
            inspect_path(tmp_path / name)
    assert "it ran" not in capsys.readouterr().out


def test_zero_shot_checkpoints_are_named(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    (tmp_path / "config.json").write_text(json.dumps({"model_type": "grounding-dino"}))
    save_file({"weight": np.zeros((2, 3), dtype=np.float32)}, tmp_path / "model.safetensors")
    description = inspect_path(tmp_path)
    assert description.what == "a checkpoint of Grounding DINO, which igvg predict takes without training"
    assert (description.facts["tensors"], description.facts["values"]) == (1, 6)


def test_the_shipped_network_has_a_name() -> None:
    description = inspect_path(Path("shapes"))
    assert (description.kind, description.facts["network"]) == ("checkpoint", "tiny")
    assert changed(description) == {}


def test_settings_and_experiments_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('preset = "tiny"\nbatch_size = 8\n[optimizer]\nhead_lr = 1e-4\n')
    description = inspect_path(tmp_path / "settings.toml")
    assert description.what == "settings of igvg train"
    assert changed(description) == {"batch_size": 8, "optimizer.head_lr": 1e-4}
    (tmp_path / "experiment.toml").write_text('out = "runs"\n[train]\npreset = "tiny"\n[score]\n')
    description = inspect_path(tmp_path / "experiment.toml")
    assert (description.kind, description.facts) == ("experiment", {"stages": "train → score", "out": "runs"})


def test_coco_results_and_comparisons_are_known(tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text(json.dumps([{"image_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}] * 2))
    assert inspect_path(tmp_path / "boxes.json").facts["entries"] == 2
    (tmp_path / "empty.json").write_text("[]")
    assert "empty list" in inspect_path(tmp_path / "empty.json").what
    sides = {"predictions": "x", "metrics": {"gIoU": 10.0}}
    document = {"a": sides, "b": sides, "differences": {"gIoU": 0.0}, "dataset": "grefcoco", "split": "val"}
    (tmp_path / "compared.json").write_text(json.dumps(document))
    assert inspect_path(tmp_path / "compared.json").tables[0].rows == (("gIoU", 10.0, 10.0, 0.0),)


MALFORMED = {
    "coco.json": '{"images": [1], "annotations": [2]}',
    "scores.json": '{"metrics": 3, "dataset": "a", "split": "b"}',
    "labelme.json": '{"shapes": [7], "imagePath": null}',
    "compared.json": '{"a": 1, "b": 2, "differences": 3}',
    "demo.json": '{"a": {"start": 1}, "b": {"start": []}}',
    "refs.json": '[{"sentences": 4, "split": {}}]',
    "unknown.json": '{"hello": "world"}',
    "text.md": "# hello",
    "bytes.bin": "\x01\x02\x00",
    "artifact.json": '{"stage": 3}',
    "broken.toml": "a = [",
    "other.toml": '[tool]\nname = "x"\n',
    "predictions.jsonl": "nonsense\n",
    "config.json": '{"model_type": ["igvg"]}',
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_of_no_known_kind_or_malformed_is_one_line_or_described(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(MALFORMED[name])
    said = []
    try:
        said.append(json.dumps(inspect_path(tmp_path / name).to_json()))
    except IGVGError as error:
        said.append(str(error))
    assert "\n" not in said[0]
    assert str(tmp_path) in said[0]


def test_unknown_things_say_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file or folder"):
        inspect_path(tmp_path / "none")
    with pytest.raises(ArtifactError, match=r"looked for artifact\.json, shards, raw outputs"):
        inspect_path(tmp_path)
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(DataError, match="looked for shards, indexes, predictions"):
        inspect_path(tmp_path / "a.txt")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(DataError, match="not raw outputs"):
        inspect_path(tmp_path / "other.npz")


def test_a_damaged_artifact_is_described_with_a_note(home: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(home / "shards", tmp_path / "shards"))
    (folder / "val" / "index.json").write_text("{")
    description = inspect_path(folder)
    assert description.kind == "prepare"
    assert description.notes[0].startswith("damaged: ")


def test_images_are_measured_without_decoding_them(tmp_path: Path) -> None:
    Image.new("L", (31, 17)).save(tmp_path / "gray.png")
    facts = inspect_path(tmp_path / "gray.png").facts
    assert facts == {"pixels": "31 × 17", "mode": "L", "format": "PNG"}
