"""Audits: images shared by training and held-out splits, images under two ids, contradicting expressions."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.inspection.audit import Leak, audit
from shards.errors import DataError
from tests.support.overlapping_sets import write_images


@pytest.fixture
def sets(tmp_path: Path) -> list[Path]:
    first = write_images(tmp_path / "grefcoco", "train", {9: 9, 25: 25, 30: 30})
    write_images(first, "val", {40: 40})
    second = write_images(tmp_path / "refcoco", "train", {30: 30, 40: 140})
    write_images(second, "val", {25: 25, 9: 109, 50: 50, 51: 51})
    return [first, second]


def test_images_of_a_training_split_in_a_held_out_split_are_counted(sets: list[Path]) -> None:
    report = audit(sets)
    assert report.leaks == (
        Leak(training="grefcoco/train", held_out="refcoco/val", images=2, same_bytes=1, held_out_images=4,
             training_expressions=4, held_out_expressions=4),
        Leak(training="refcoco/train", held_out="grefcoco/val", images=1, same_bytes=0, held_out_images=1,
             training_expressions=2, held_out_expressions=2),
    )  # fmt: skip
    assert (report.leaked_images, report.leaked_expressions) == (3, 6)
    assert (report.duplicates, report.contradictions) == ((), ())
    assert [(each["split"], each["held_out"]) for each in report.splits] == [
        ("grefcoco/train", False), ("grefcoco/val", True), ("refcoco/train", False), ("refcoco/val", True),
    ]  # fmt: skip


def test_full_finds_the_same(sets: list[Path]) -> None:
    assert audit(sets, full=True).leaks == audit(sets).leaks


def test_splits_that_are_trained_on_are_not_held_out(sets: list[Path]) -> None:
    assert audit(sets, train_splits=("val",)).leaks == ()


def test_a_set_alone_and_a_set_given_twice_are_audited_once(sets: list[Path]) -> None:
    assert audit(sets[:1]).leaks == ()
    assert len(audit([sets[0], sets[0]]).splits) == 2


def test_a_set_may_hold_an_image_in_both_of_its_splits(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "own", "train", {1: 1, 2: 2}, coco=False)
    write_images(folder, "val", {7: 2}, coco=False)
    report = audit([folder])
    assert [(leak.images, leak.same_bytes) for leak in report.leaks] == [(1, 1)]
    assert [each.records for each in report.duplicates] == [(("own/train", 2), ("own/val", 7))]


def test_an_image_under_two_ids_of_coco_is_named_and_one_under_its_own_id_elsewhere_is_not(tmp_path: Path) -> None:
    first = write_images(tmp_path / "grefcoco", "train", {9: 9, 25: 9, 30: 30})
    second = write_images(tmp_path / "refcoco", "train", {30: 30})
    own = write_images(tmp_path / "own", "train", {1: 30}, coco=False)
    report = audit([first, second, own])
    assert [each.records for each in report.duplicates] == [(("grefcoco/train", 9), ("grefcoco/train", 25))]


def test_same_words_about_the_same_image_with_other_targets_contradict_each_other(tmp_path: Path) -> None:
    first = write_images(tmp_path / "grefcoco", "train", {9: 9}, texts=[("The  Left one", (0,)), ("both", (0, 1))])
    second = write_images(tmp_path / "refcoco", "val", {9: 9}, texts=[("the left one", (1,)), ("both", (1, 0))])
    (found,) = audit([first, second]).contradictions
    assert (found.text, found.image_id) == ("the left one", 9)
    assert found.expressions == (("grefcoco/train", "grefcoco/9/0", 1), ("refcoco/val", "refcoco/9/0", 1))


def test_an_expression_with_and_without_a_target_contradicts_itself(tmp_path: Path) -> None:
    texts = [("dog", (0,)), ("dog", ()), ("dog", (0,)), ("cat", ())]
    folder = write_images(tmp_path / "grefcoco", "train", {9: 9}, texts=texts)
    (found,) = audit([folder]).contradictions
    assert [(id_, count) for _, id_, count in found.expressions] == [("grefcoco/9/0", 1), ("grefcoco/9/1", 0)]


def test_same_words_about_other_images_do_not_contradict_each_other(tmp_path: Path) -> None:
    first = write_images(tmp_path / "one", "train", {1: 1}, coco=False, texts=[("left", (0,))])
    second = write_images(tmp_path / "two", "train", {1: 2}, coco=False, texts=[("left", (1,))])
    assert audit([first, second]).contradictions == ()


def test_findings_beyond_the_limit_are_counted_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.inspection.audit.MAX_LISTED", 2)
    texts = [("dog", (0,)), ("dog", ()), ("cat", (0,)), ("cat", (1,)), ("red", (0,)), ("red", (0, 1))]
    report = audit([write_images(tmp_path / "grefcoco", "train", {9: 9, 25: 9}, texts=texts)])
    assert [each.text for each in report.contradictions] == ["dog", "cat"]
    assert (report.num_contradictions, report.num_duplicates, len(report.duplicates)) == (3, 1, 1)


def test_a_folder_that_is_not_prepared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no prepared split"):
        audit([tmp_path])
