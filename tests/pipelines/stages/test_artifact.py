"""Artifacts: found again, never overwritten unasked, never used when damaged."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.stages.artifact import KeyedFolder, Stage, read_artifact
from shards.errors import ArtifactError, DataError
from tests.support.foreign_contents import POINTER

INPUTS, OPTIONS = {"annotations": "abc"}, {"limit": 0, "nested": {"lr": 1e-4}}


def make_stage(folder: Path, name: str, inputs: dict[str, Any], options: dict[str, Any]) -> Stage:
    return Stage(name=name, out=folder, inputs=inputs, options=options)


def make(folder: Path) -> None:
    make_stage(folder, "prepare", INPUTS, OPTIONS).start()
    (folder / "val").mkdir()
    (folder / "val" / "a.tar").write_bytes(b"12345")
    make_stage(folder, "prepare", INPUTS, OPTIONS).finish({"val": 3})


def test_the_same_inputs_and_options_are_found_again(tmp_path: Path) -> None:
    make(tmp_path / "out")
    found = make_stage(tmp_path / "out", "prepare", INPUTS, OPTIONS).find()
    assert found is not None
    assert found.cached
    found = found.artifact
    assert (found.counts, found.files) == ({"val": 3}, {"val/a.tar": 5})
    assert found.versions["igvg"]


def test_a_process_that_is_killed_while_it_begins_leaves_a_folder_for_the_next_one(tmp_path: Path) -> None:
    (tmp_path / ".unfinished.json.99.tmp").write_text("{")
    stage = make_stage(tmp_path, "predict", INPUTS, OPTIONS)
    assert stage.find() is None
    assert not stage.start()
    stage.finish({})
    assert [file.name for file in tmp_path.iterdir()] == ["artifact.json"]


def test_what_unfinished_work_goes_on_from_stays_until_the_work_is_recorded(tmp_path: Path) -> None:
    make_stage(tmp_path, "train", INPUTS, OPTIONS).start()
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.pt").write_bytes(b"123")
    # The record cannot take its place.
    (tmp_path / "artifact.json").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        make_stage(tmp_path, "train", INPUTS, OPTIONS).finish({}, scratch=("state",))
    assert (tmp_path / "state" / "state.pt").read_bytes() == b"123"
    (tmp_path / "artifact.json").rmdir()
    assert make_stage(tmp_path, "train", INPUTS, OPTIONS).finish({}, scratch=("state",)).artifact.files == {}
    assert [file.name for file in tmp_path.iterdir()] == ["artifact.json"]


def test_an_empty_or_missing_folder_may_be_built_in(tmp_path: Path) -> None:
    assert make_stage(tmp_path, "prepare", INPUTS, OPTIONS).find() is None
    assert make_stage(tmp_path / "new", "prepare", INPUTS, OPTIONS).find() is None


def test_the_fingerprint_is_of_content_and_not_of_key_order() -> None:
    one = make_stage(Path(), "prepare", {"a": 1, "b": 2}, {}).fingerprint
    assert one == make_stage(Path(), "prepare", {"b": 2, "a": 1}, {}).fingerprint
    assert one != make_stage(Path(), "train", {"a": 1, "b": 2}, {}).fingerprint
    assert one != make_stage(Path(), "prepare", {"a": 1, "b": 3}, {}).fingerprint


def test_a_keyed_folder_is_named_by_stage_name_and_fingerprint(tmp_path: Path) -> None:
    stage = Stage(name="train", out=KeyedFolder(tmp_path, "grefcoco/tiny"), inputs=INPUTS, options=OPTIONS)
    assert stage.folder == tmp_path / f"train-grefcoco-tiny-{stage.fingerprint[:8]}"
    assert stage.start() is False
    stage.finish({})
    other = replace(stage, options={"limit": 1})
    assert other.folder != stage.folder
    assert other.find() is None
    result = stage.find()
    assert result is not None
    assert result.folder == stage.folder


def test_other_settings_are_told_by_name_and_leave_the_artifact_alone(tmp_path: Path) -> None:
    make(tmp_path / "out")
    before = (tmp_path / "out" / "artifact.json").read_bytes()
    with pytest.raises(ArtifactError, match=r"nested\.lr 0\.0001 → 0\.001; choose another --out, or .* --force"):
        make_stage(tmp_path / "out", "prepare", INPUTS, {"limit": 0, "nested": {"lr": 1e-3}}).find()
    with pytest.raises(ArtifactError, match="input annotations differs"):
        make_stage(tmp_path / "out", "prepare", {"annotations": "xyz"}, OPTIONS).find()
    assert (tmp_path / "out" / "artifact.json").read_bytes() == before


def test_an_input_whose_name_holds_spaces_is_told_whole(tmp_path: Path) -> None:
    make_stage(tmp_path, "prepare", {"images": {"my photo.png": "abc"}}, {}).finish({})
    with pytest.raises(ArtifactError, match=r"input images\.my photo\.png differs, input images\.a b differs"):
        make_stage(tmp_path, "prepare", {"images": {"my photo.png": "xyz", "a b": "c"}}, {}).find()


def test_force_allows_to_replace_and_clears_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out)
    assert make_stage(out, "prepare", {"annotations": "xyz"}, OPTIONS).find(force=True) is None
    assert make_stage(out, "prepare", {"annotations": "xyz"}, OPTIONS).start(force=True) is False
    assert not (out / "val").exists()


def test_a_folder_of_somebody_elses_files_is_never_touched_even_by_force(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for force in (False, True):
        with pytest.raises(ArtifactError, match="holds files that igvg did not make"):
            make_stage(tmp_path, "train", INPUTS, OPTIONS).find(force=force)


def test_a_file_given_as_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="is a file; --out must be a folder"):
        make_stage(tmp_path / "file", "train", INPUTS, OPTIONS).find()


def test_interrupted_work_of_the_same_settings_continues(tmp_path: Path) -> None:
    assert make_stage(tmp_path, "train", INPUTS, OPTIONS).start() is False
    (tmp_path / "log.jsonl").touch()
    assert make_stage(tmp_path, "train", INPUTS, OPTIONS).find() is None
    assert make_stage(tmp_path, "train", INPUTS, OPTIONS).start() is True
    assert (tmp_path / "log.jsonl").exists()


def test_interrupted_work_of_other_settings_is_left_alone(tmp_path: Path) -> None:
    make_stage(tmp_path, "train", INPUTS, OPTIONS).start()
    with pytest.raises(ArtifactError, match="unfinished work of other inputs or settings: limit 0 → 5"):
        make_stage(tmp_path, "train", INPUTS, {**OPTIONS, "limit": 5}).start()
    with pytest.raises(ArtifactError, match="unfinished work of igvg train"):
        make_stage(tmp_path, "predict", INPUTS, OPTIONS).find()


def test_an_artifact_of_another_stage_is_told(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(ArtifactError, match="made by igvg prepare, not by igvg train"):
        read_artifact(tmp_path, "train")


def test_a_missing_or_cut_file_makes_the_artifact_damaged(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "val" / "a.tar").write_bytes(b"123")
    with pytest.raises(ArtifactError, match=r"a\.tar has 3 bytes instead of 5: .*remove its folder, or .* --force"):
        make_stage(tmp_path, "prepare", INPUTS, OPTIONS).find()
    (tmp_path / "val" / "a.tar").unlink()
    with pytest.raises(ArtifactError, match=r"a\.tar is missing"):
        read_artifact(tmp_path)


def test_a_damaged_or_absent_record_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"holds no artifact\.json"):
        read_artifact(tmp_path)
    (tmp_path / "artifact.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"artifact\.json: is damaged"):
        read_artifact(tmp_path)
    for content in (
        "[]",
        '{"stage": 3}',
        '{"stage": "train", "fingerprint": "x", "inputs": [], "options": {}}',
        '{"a": 1}',
    ):
        (tmp_path / "artifact.json").write_text(content)
        with pytest.raises(ArtifactError, match=r"artifact\.json is no record of a stage .*; remove its folder, or"):
            read_artifact(tmp_path)


def test_what_a_killed_process_was_writing_is_no_part_of_the_artifact(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_stage(out, "prepare", INPUTS, OPTIONS).start()
    scrap = out / "raw" / ".chunk-000000.npz.77.tmp"
    scrap.parent.mkdir()
    for file in (scrap, out / "whole.jsonl"):
        file.write_text("whole")
    assert make_stage(out, "prepare", INPUTS, OPTIONS).finish({}).artifact.files == {"whole.jsonl": 5}
    (out / "artifact.json").rename(out / "unfinished.json")
    assert make_stage(out, "prepare", INPUTS, OPTIONS).start() is True
    assert not scrap.exists()


def test_the_artifacts_in_its_subfolders_are_no_part_of_an_artifact(tmp_path: Path) -> None:
    outer = make_stage(tmp_path / "run", "train", {}, {})
    outer.start()
    for name in ("report", "more/score"):
        make_stage(tmp_path / "run" / name, "score", {}, {"seed": 1}).start()
        (tmp_path / "run" / name / "deep").mkdir()
        (tmp_path / "run" / name / "deep" / "page").write_text("first")
    make_stage(tmp_path / "run" / "report", "score", {}, {"seed": 1}).finish({})
    (tmp_path / "run" / "more" / "log").write_text("log")
    finished = outer.finish({}).artifact
    assert finished is not None
    assert list(finished.files) == ["more/log"]
    # Made again, they leave it whole.
    (tmp_path / "run" / "report" / "deep" / "page").write_text("second one")
    assert read_artifact(tmp_path / "run").files == {"more/log": 3}


def test_force_clears_interrupted_work_of_other_settings(tmp_path: Path) -> None:
    make_stage(tmp_path / "out", "train", INPUTS, OPTIONS).start()
    (tmp_path / "out" / "log.jsonl").touch()
    assert make_stage(tmp_path / "out", "train", INPUTS, {**OPTIONS, "limit": 5}).start(force=True) is False
    assert not (tmp_path / "out" / "log.jsonl").exists()


def test_a_pointer_in_place_of_a_file_is_told_as_one(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(500))
    make_stage(tmp_path, "train", {}, {}).finish({})
    (tmp_path / "weights.bin").write_bytes(POINTER)
    with pytest.raises(ArtifactError, match=r"weights\.bin is a Git LFS pointer; run `git lfs pull`"):
        read_artifact(tmp_path)


def test_the_record_holds_the_digest_of_every_file_but_shards_and_its_own(tmp_path: Path) -> None:
    make_stage(tmp_path, "predict", INPUTS, OPTIONS).start()
    (tmp_path / "val-000000.tar").write_bytes(b"12345")
    (tmp_path / "predictions.jsonl").write_bytes(b"{}\n")
    record = make_stage(tmp_path, "predict", INPUTS, OPTIONS).finish({"expressions": 1}).artifact
    assert record is not None
    assert record.digests == {"predictions.jsonl": hashlib.sha256(b"{}\n").hexdigest()}
    assert read_artifact(tmp_path).checksum == record.expected_checksum
    assert replace(record, counts={"expressions": 2}).expected_checksum != record.checksum
