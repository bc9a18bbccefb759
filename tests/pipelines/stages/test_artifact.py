"""Artifacts: found again, never overwritten unasked, never used when damaged."""

from pathlib import Path

import pytest

from pipelines.stages.artifact import begin_work, compute_fingerprint, find_finished, finish_work, read_artifact
from shards.errors import ArtifactError, DataError
from tests.support.foreign_contents import POINTER

INPUTS, OPTIONS = {"annotations": "abc"}, {"limit": 0, "nested": {"lr": 1e-4}}


def make(folder: Path) -> None:
    begin_work(folder, "prepare", INPUTS, OPTIONS)
    (folder / "val").mkdir()
    (folder / "val" / "a.tar").write_bytes(b"12345")
    finish_work(folder, "prepare", INPUTS, OPTIONS, {"val": 3})


def test_the_same_inputs_and_options_are_found_again(tmp_path: Path) -> None:
    make(tmp_path / "out")
    found = find_finished(tmp_path / "out", "prepare", INPUTS, OPTIONS)
    assert found is not None
    assert (found.counts, found.files) == ({"val": 3}, {"val/a.tar": 5})
    assert found.versions["igvg"]


def test_what_unfinished_work_goes_on_from_stays_until_the_work_is_recorded(tmp_path: Path) -> None:
    begin_work(tmp_path, "train", INPUTS, OPTIONS)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.pt").write_bytes(b"123")
    # The record cannot take its place.
    (tmp_path / "artifact.json").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        finish_work(tmp_path, "train", INPUTS, OPTIONS, {}, scratch=("state",))
    assert (tmp_path / "state" / "state.pt").read_bytes() == b"123"
    (tmp_path / "artifact.json").rmdir()
    assert finish_work(tmp_path, "train", INPUTS, OPTIONS, {}, scratch=("state",)).files == {}
    assert [file.name for file in tmp_path.iterdir()] == ["artifact.json"]


def test_an_empty_or_missing_folder_may_be_built_in(tmp_path: Path) -> None:
    assert find_finished(tmp_path, "prepare", INPUTS, OPTIONS) is None
    assert find_finished(tmp_path / "new", "prepare", INPUTS, OPTIONS) is None


def test_the_fingerprint_is_of_content_and_not_of_key_order() -> None:
    one = compute_fingerprint("prepare", {"a": 1, "b": 2}, {})
    assert one == compute_fingerprint("prepare", {"b": 2, "a": 1}, {})
    assert one != compute_fingerprint("train", {"a": 1, "b": 2}, {})
    assert one != compute_fingerprint("prepare", {"a": 1, "b": 3}, {})


def test_other_settings_are_told_by_name_and_leave_the_artifact_alone(tmp_path: Path) -> None:
    make(tmp_path / "out")
    before = (tmp_path / "out" / "artifact.json").read_bytes()
    with pytest.raises(ArtifactError, match=r"nested\.lr 0\.0001 → 0\.001; choose another --out, or .* --force"):
        find_finished(tmp_path / "out", "prepare", INPUTS, {"limit": 0, "nested": {"lr": 1e-3}})
    with pytest.raises(ArtifactError, match="input annotations differs"):
        find_finished(tmp_path / "out", "prepare", {"annotations": "xyz"}, OPTIONS)
    assert (tmp_path / "out" / "artifact.json").read_bytes() == before


def test_an_input_whose_name_holds_spaces_is_told_whole(tmp_path: Path) -> None:
    finish_work(tmp_path, "prepare", {"images": {"my photo.png": "abc"}}, {}, {})
    with pytest.raises(ArtifactError, match=r"input images\.my photo\.png differs, input images\.a b differs"):
        find_finished(tmp_path, "prepare", {"images": {"my photo.png": "xyz", "a b": "c"}}, {})


def test_force_allows_to_replace_and_clears_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out)
    assert find_finished(out, "prepare", {"annotations": "xyz"}, OPTIONS, force=True) is None
    assert begin_work(out, "prepare", {"annotations": "xyz"}, OPTIONS, force=True) is False
    assert not (out / "val").exists()


def test_a_folder_of_somebody_elses_files_is_never_touched_even_by_force(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for force in (False, True):
        with pytest.raises(ArtifactError, match="not empty and holds nothing of igvg's"):
            find_finished(tmp_path, "train", INPUTS, OPTIONS, force=force)


def test_a_file_given_as_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="is a file; --out must be a folder"):
        find_finished(tmp_path / "file", "train", INPUTS, OPTIONS)


def test_interrupted_work_of_the_same_settings_continues(tmp_path: Path) -> None:
    assert begin_work(tmp_path, "train", INPUTS, OPTIONS) is False
    (tmp_path / "log.jsonl").touch()
    assert find_finished(tmp_path, "train", INPUTS, OPTIONS) is None
    assert begin_work(tmp_path, "train", INPUTS, OPTIONS) is True
    assert (tmp_path / "log.jsonl").exists()


def test_interrupted_work_of_other_settings_is_left_alone(tmp_path: Path) -> None:
    begin_work(tmp_path, "train", INPUTS, OPTIONS)
    with pytest.raises(ArtifactError, match="unfinished work of other inputs or settings: limit 0 → 5"):
        begin_work(tmp_path, "train", INPUTS, {**OPTIONS, "limit": 5})
    with pytest.raises(ArtifactError, match="unfinished work of igvg train"):
        find_finished(tmp_path, "predict", INPUTS, OPTIONS)


def test_an_artifact_of_another_stage_is_told(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(ArtifactError, match="made by igvg prepare, not by igvg train"):
        read_artifact(tmp_path, "train")


def test_a_missing_or_cut_file_makes_the_artifact_damaged(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "val" / "a.tar").write_bytes(b"123")
    with pytest.raises(ArtifactError, match=r"a\.tar has 3 bytes instead of 5: .*remove its folder, or .* --force"):
        find_finished(tmp_path, "prepare", INPUTS, OPTIONS)
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
    begin_work(out, "prepare", INPUTS, OPTIONS)
    scrap = out / "raw" / ".chunk-000000.npz.77.tmp"
    scrap.parent.mkdir()
    for file in (scrap, out / "whole.jsonl"):
        file.write_text("whole")
    assert finish_work(out, "prepare", INPUTS, OPTIONS, {}).files == {"whole.jsonl": 5}
    (out / "artifact.json").rename(out / "unfinished.json")
    assert begin_work(out, "prepare", INPUTS, OPTIONS) is True
    assert not scrap.exists()


def test_force_clears_interrupted_work_of_other_settings(tmp_path: Path) -> None:
    begin_work(tmp_path / "out", "train", INPUTS, OPTIONS)
    (tmp_path / "out" / "log.jsonl").touch()
    assert begin_work(tmp_path / "out", "train", INPUTS, {**OPTIONS, "limit": 5}, force=True) is False
    assert not (tmp_path / "out" / "log.jsonl").exists()


def test_a_pointer_in_place_of_a_file_is_told_as_one(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(500))
    finish_work(tmp_path, "train", {}, {}, {})
    (tmp_path / "weights.bin").write_bytes(POINTER)
    with pytest.raises(ArtifactError, match=r"weights\.bin is a Git LFS pointer; run `git lfs pull`"):
        read_artifact(tmp_path)
