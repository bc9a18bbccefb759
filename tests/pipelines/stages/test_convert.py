"""The stage of igvg convert: what it writes where, and what it leaves alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.settings import ScoreSettings
from pipelines.prediction.coco_import import CocoResults
from pipelines.stages import convert, score
from shards.errors import ArtifactError, DataError
from tests.support.drawn_shards import predict_truth, write_lines, write_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"))


def export(folder: Path, shards: Path, lines: list[dict[str, Any]], *, force: bool = False) -> Path:
    """COCO's files of some predictions."""
    convert.export_predictions(write_lines(folder / "p.jsonl", lines), shards, "val", folder / "coco", force=force)
    return folder / "coco"


def restore(coco: Path, shards: Path, out: Path, *, force: bool = False) -> bool:
    """Write COCO's boxes as predictions; whether they were there."""
    results = [coco / "boxes.json"]
    return convert.import_results(
        CocoResults(files=results, annotations=coco / "annotations.json"), shards, "val", out, force=force
    ).cached


def test_only_what_this_command_made_is_replaced(tmp_path: Path, shards: Path) -> None:
    folder = export(tmp_path, shards, predict_truth())
    before = (folder / "boxes.json").read_bytes()
    lines = predict_truth()
    lines[1] |= {"boxes": []}
    with pytest.raises(ArtifactError, match="finished convert of other inputs"):
        export(tmp_path, shards, lines)
    (folder / "notes.txt").write_text("x")
    with pytest.raises(ArtifactError, match=r"holds notes\.txt, which igvg convert did not make"):
        export(tmp_path, shards, lines, force=True)
    assert (folder / "boxes.json").read_bytes() == before
    (folder / "notes.txt").unlink()
    export(tmp_path, shards, lines, force=True)
    assert (folder / "boxes.json").read_bytes() != before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["coco", "p.jsonl"]


def test_the_folder_of_another_command_is_not_replaced(tmp_path: Path, shards: Path) -> None:
    file = write_lines(tmp_path / "p.jsonl", predict_truth())
    score.run(file, shards, ScoreSettings(split="val"), out=tmp_path / "coco")
    with pytest.raises(ArtifactError, match="was not made by igvg convert"):
        export(tmp_path, shards, predict_truth(), force=True)
    assert (tmp_path / "coco" / "scores.json").is_file()


def test_the_same_results_over_the_same_predictions_leave_them(tmp_path: Path, shards: Path) -> None:
    coco, out = export(tmp_path, shards, predict_truth()), tmp_path / "deep" / "back.jsonl"
    assert not restore(coco, shards, out)
    before = out.stat().st_mtime_ns
    assert restore(coco, shards, out)
    assert out.stat().st_mtime_ns == before
    assert list(out.parent.iterdir()) == [out]


def test_other_predictions_are_replaced_only_by_force(tmp_path: Path, shards: Path) -> None:
    coco = export(tmp_path, shards, predict_truth())
    before = (tmp_path / "p.jsonl").read_bytes()
    with pytest.raises(ArtifactError, match=r"p\.jsonl holds something else; .* --force"):
        restore(coco, shards, tmp_path / "p.jsonl")
    assert (tmp_path / "p.jsonl").read_bytes() == before
    assert not restore(coco, shards, tmp_path / "p.jsonl", force=True)
    assert (tmp_path / "p.jsonl").read_bytes() != before


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("coco", "is a folder; --out must be a file"),
        ("coco/boxes.json", "was made by igvg convert"),
        ("coco/artifact.json", "was made by igvg convert"),
        ("thesis.tex", "holds no predictions"),
    ],
)
def test_what_is_no_prediction_file_of_its_own_is_never_replaced(
    tmp_path: Path, shards: Path, name: str, words: str
) -> None:
    coco = export(tmp_path, shards, predict_truth())
    (tmp_path / "thesis.tex").write_text("x")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(ArtifactError, match=words):
        restore(coco, shards, tmp_path / name, force=True)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_a_file_given_twice_is_refused(tmp_path: Path, shards: Path) -> None:
    coco = export(tmp_path, shards, predict_truth())
    results = [coco / "boxes.json", coco / ".." / "coco" / "boxes.json"]
    with pytest.raises(DataError, match="a file is given twice; give every file once"):
        convert.import_results(
            CocoResults(files=results, annotations=coco / "annotations.json"), shards, "val", tmp_path / "back.jsonl"
        )


def test_bad_results_leave_the_predictions_that_are_there(tmp_path: Path, shards: Path) -> None:
    coco = export(tmp_path, shards, predict_truth())
    before = (tmp_path / "p.jsonl").read_bytes()
    (coco / "boxes.json").write_text("[{}]")
    with pytest.raises(DataError, match=r"boxes\.json, entry 1"):
        restore(coco, shards, tmp_path / "p.jsonl", force=True)
    assert (tmp_path / "p.jsonl").read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["coco", "p.jsonl"]


def test_a_device_or_a_pipe_is_never_replaced(tmp_path: Path, shards: Path) -> None:
    coco = export(tmp_path, shards, predict_truth())
    os.mkfifo(tmp_path / "pipe")
    for force in (False, True):
        with pytest.raises(ArtifactError, match="is a device or a pipe; --out must be a file"):
            restore(coco, shards, tmp_path / "pipe", force=force)
    assert (tmp_path / "pipe").is_fifo()
