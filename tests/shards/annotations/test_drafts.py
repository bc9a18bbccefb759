"""The published data sets, from files under their published names to drafts."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from shards.annotations.drafts import build_record, list_files, read_dataset
from shards.annotations.error_collector import ErrorCollector
from shards.errors import DataError
from tests.support.paths import SHARED
from tests.support.published_files import Record, change_annotation, make_ref, read, write_files

shared_only = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of shared trial data is not here")


def test_an_expression_is_named_by_data_set_ref_and_sentence_and_keeps_the_text_as_typed(tmp_path: Path) -> None:
    drafts, _ = read(tmp_path, [make_ref()], "refcoco+")
    (expression,) = drafts[0].expressions
    assert (expression.id, expression.text, expression.ref_id) == ("refcoco+/5/11", "The red one!", 5)


@pytest.mark.parametrize("sentence", [{"sent": "cleaned"}, {"raw": "  ", "sent": "cleaned"}, {"sent": b"cleaned"}])
def test_the_cleaned_text_stands_in_for_a_missing_one(tmp_path: Path, sentence: Record) -> None:
    # Protocol 2 has no bytes.
    folder = write_files(tmp_path, "refs(unc).p", [])
    (folder / "refs(unc).p").write_bytes(pickle.dumps([make_ref(sentences=[{"sent_id": 1, **sentence}])], 4))
    (draft,) = read_dataset("refcoco", folder, ErrorCollector())
    assert draft.expressions[0].text == "cleaned"


@pytest.mark.parametrize(
    ("changes", "number"), [({"sent_ids": [33]}, 33), ({"sent_ids": [33, 34]}, 0), ({"sent_ids": None}, 0), ({}, 0)]
)
def test_a_sentence_without_a_number_takes_the_records_or_its_place(
    tmp_path: Path, changes: Record, number: int
) -> None:
    drafts, _ = read(tmp_path, [make_ref(sentences=[{"raw": "a"}], **changes)])
    assert drafts[0].expressions[0].id == f"refcoco/5/{number}"


def test_there_is_one_draft_per_image_and_split_sorted_by_both(tmp_path: Path) -> None:
    refs = [
        make_ref(80, ref_id=1, image_id=8, split="val"),
        make_ref(70, ref_id=2, split="val"),
        make_ref(71, ref_id=3, split="val"),
        make_ref(80, ref_id=4, image_id=8, split="train"),
    ]
    drafts, _ = read(tmp_path, refs)
    assert [(draft.split, draft.image.image_id, len(draft.expressions)) for draft in drafts] == [
        ("train", 8, 1), ("val", 7, 2), ("val", 8, 1)
    ]  # fmt: skip


def test_only_annotations_in_use_are_kept_in_the_order_of_first_use(tmp_path: Path) -> None:
    refs = [make_ref([72, 70], ref_id=1), make_ref([70], ref_id=2)]
    drafts, _ = read(tmp_path, refs, "grefcoco")
    assert [annotation.ann_id for annotation in drafts[0].annotations] == [72, 70]
    assert [expression.instances for expression in drafts[0].expressions] == [(0, 1), (1,)]


def test_an_annotation_named_twice_in_a_ref_stays_twice_in_its_expression_and_once_in_the_record(
    tmp_path: Path,
) -> None:
    drafts, _ = read(tmp_path, [make_ref([70, 70])], "grefcoco")
    record = build_record(drafts[0])
    assert record.expressions[0].instances == (0, 0)
    assert len(record.instances) == 1


def test_the_draft_shows_all_that_its_record_depends_on(tmp_path: Path) -> None:
    before, _ = read(tmp_path, [make_ref()])
    for changes in ({"category_id": 4}, {"bbox": [1, 1, 2, 2]}, {"segmentation": [[0, 0, 9, 0, 9, 9]]}):
        after, _ = read(tmp_path, [make_ref()], instances=change_annotation(**changes))
        assert repr(before) != repr(after)


def test_asked_for_splits_only_they_are_read_and_only_their_errors_reported(tmp_path: Path) -> None:
    refs = [make_ref(ref_id=1), make_ref(999, ref_id=2, split="train"), make_ref(ref_id=3, split="testA")]
    drafts, collector = read(tmp_path, refs, splits=("testA", "val"))
    assert [draft.split for draft in drafts] == ["testA", "val"]
    assert len(collector) == 0


def test_a_split_that_does_not_exist_is_refused_and_the_others_are_listed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"refs\(unc\)\.p: has no split 'test'; there are val, train"):
        read(tmp_path, [make_ref(), make_ref(split="train")], splits=("test",))


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("grefcoco", "grefs(unc).json"),
        ("grefcoco", "grefs(unc).p"),
        ("ref-zom", "refs(final).p"),
        ("ref-zom", "Ref-ZOM(final).p"),
        ("ref-zom", "Ref_ZOM.p"),
        ("rrefcoco", "refs(unc).p"),
        ("rrefcoco+", "refs(unc).p"),
        ("rrefcocog", "refs(umd).p"),
        ("rrefcocog", "refs(google).p"),
        *((name, f"refs({by}).p") for name in ("refcoco", "refcoco+", "refcocog") for by in ("unc", "umd", "google")),
    ],
)
def test_every_published_file_name_is_read(tmp_path: Path, dataset: str, name: str) -> None:
    folder = write_files(tmp_path, name, [make_ref()])
    assert list_files(dataset, folder) == [folder / name, folder / "instances.json"]
    (draft,) = read_dataset(dataset, folder, ErrorCollector())
    assert draft.expressions[0].id == f"{dataset}/5/11"


def test_of_several_files_unc_comes_before_umd_and_google(tmp_path: Path) -> None:
    for by in ("google", "umd", "unc"):
        folder = write_files(tmp_path, f"refs({by}).p", [make_ref()])
        assert list_files("refcocog", folder)[0].name == f"refs({by}).p"


def test_a_wrong_folder_is_answered_with_the_names_that_are_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no grefs\(unc\)\.json or grefs\(unc\)\.p; give the folder with"):
        list_files("grefcoco", tmp_path)


def test_missing_instances_are_named(tmp_path: Path) -> None:
    (write_files(tmp_path, "refs(unc).p", []) / "instances.json").unlink()
    with pytest.raises(DataError, match=r"holds no instances\.json; give the folder with refs\(unc\)\.p and inst"):
        list_files("rrefcoco", tmp_path)


@pytest.mark.parametrize("content", [{}, [], "refs", None, 3])
def test_a_file_without_a_list_of_references_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(DataError, match=r"holds an? .*, not a list of references; use the file as it was published"):
        read(tmp_path, content)


@shared_only
@pytest.mark.parametrize(
    ("dataset", "refs", "expressions", "images"),
    [("refcoco", 35, 102, 13), ("refcoco+", 33, 96, 12), ("refcocog", 13, 24, 7), ("grefcoco", 8, 23, 3)],
)
def test_the_real_trial_data_have_their_known_counts(dataset: str, refs: int, expressions: int, images: int) -> None:
    collector = ErrorCollector()
    drafts = read_dataset(dataset, SHARED / "real" / dataset, collector)
    collector.raise_if_any()
    records = [build_record(draft) for draft in drafts]
    found = [expression for record in records for expression in record.expressions]
    assert len({expression.ref_id for expression in found}) == refs
    assert len(found) == len({expression.id for expression in found}) == expressions
    assert len({record.image_id for record in records}) == images


@shared_only
def test_the_real_grefcoco_has_8_single_12_multiple_and_3_empty_targets() -> None:
    drafts = read_dataset("grefcoco", SHARED / "real" / "grefcoco", ErrorCollector())
    sizes = [len(expression.instances) for draft in drafts for expression in draft.expressions]
    assert (sizes.count(1), sizes.count(0), sum(size > 1 for size in sizes)) == (8, 3, 12)
