"""What a published record refers to, and every way in which it can be wrong."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.annotations.drafts import DATASETS, read_dataset
from shards.annotations.error_collector import ErrorCollector
from shards.errors import DataError
from tests.support.published_files import Record, change_annotation, make_ref, read, read_targets, write_files


@pytest.mark.parametrize("dataset", ["rrefcoco", "rrefcoco+", "rrefcocog"])
def test_r_refcoco_mixes_sentences_that_exist_with_such_that_do_not(tmp_path: Path, dataset: str) -> None:
    flags = [{}, {"exist": True}, {"exist": 1}, {"exist": None}, {"exist": False}, {"exist": 0}]
    sentences = [{"sent_id": n, "raw": "red", **flag} for n, flag in enumerate(flags)]
    assert read_targets(tmp_path, [make_ref(sentences=sentences)], dataset) == [(70,)] * 4 + [()] * 2


@pytest.mark.parametrize("dataset", ["refcoco", "refcoco+", "refcocog"])
def test_refcoco_refers_to_one_object(tmp_path: Path, dataset: str) -> None:
    assert read_targets(tmp_path, [make_ref(71)], dataset) == [(71,)]


@pytest.mark.parametrize(
    ("record", "target"),
    [
        ({"ann_id": [-1]}, ()),
        ({"ann_id": -1}, ()),
        ({"ann_id": [-1, -1]}, ()),
        ({"ann_id": [-1], "no_target": False}, ()),
        ({"ann_id": [70], "no_target": True}, ()),
        ({"ann_id": [], "no_target": True}, ()),
        ({"ann_id": 70}, (70,)),
        ({"ann_id": [70]}, (70,)),
        ({"ann_id": [71, 70], "no_target": False}, (71, 70)),
        ({"ann_id": [70.0], "no_target": None}, (70,)),
    ],
)
def test_grefcoco_refers_to_none_one_or_many(tmp_path: Path, record: Record, target: tuple[int, ...]) -> None:
    assert read_targets(tmp_path, [make_ref(**record)], "grefcoco") == [target]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"ann_id": [70, -1]}, r"ref 5: ann_id mixes -1, which means no target, with annotations: \[70, -1\]"),
        ({"ann_id": [70, -1], "no_target": True}, "mixes -1"),
        ({"ann_id": []}, "ref 5: ann_id is an empty list"),
        ({"no_target": "no"}, "ref 5: no_target is 'no', neither true nor false"),
    ],
)
def test_grefcocos_contradictions_are_reported(tmp_path: Path, record: Record, words: str) -> None:
    _, collector = read(tmp_path, [make_ref(**record)], "grefcoco")
    with pytest.raises(DataError, match=words):
        collector.raise_if_any()


@pytest.mark.parametrize(
    ("record", "target"),
    [
        ({"ann_id": [], "source": "zero"}, ()),
        ({"ann_id": [70, 71], "source": "zero"}, ()),
        ({"ann_id": [999], "source": "zero"}, ()),
        ({"ann_id": [70], "source": "one"}, (70,)),
        ({"ann_id": 70, "source": "one"}, (70,)),
        ({"ann_id": [70, 71], "source": "many"}, (70, 71)),
        ({"ann_id": [70]}, (70,)),
        ({"ann_id": [70], "source": None}, (70,)),
    ],
)
def test_ref_zom_refers_to_zero_one_or_many(tmp_path: Path, record: Record, target: tuple[int, ...]) -> None:
    assert read_targets(tmp_path, [make_ref(**record)], "ref-zom") == [target]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"ann_id": [-1], "source": "one"}, "has no annotation -1"),
        ({"ann_id": [], "source": "many"}, "ann_id is an empty list"),
        ({"source": 0}, "source is 0, not a text"),
    ],
)
def test_ref_zoms_contradictions_are_reported(tmp_path: Path, record: Record, words: str) -> None:
    _, collector = read(tmp_path, [make_ref(**record)], "ref-zom")
    with pytest.raises(DataError, match=words):
        collector.raise_if_any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ann_id": 999}, r"ref 5: instances\.json has no annotation 999"),
        ({"ann_id": 80}, "ref 5: annotation 80 belongs to image 8, the ref to 7"),
        ({"image_id": 9}, r"ref 5: instances\.json has no image 9"),
        ({"ann_id": "70"}, "ref 5: ann_id is '70', not a whole number"),
        ({"ann_id": []}, "ref 5: ann_id is an empty list"),
        ({"ref_id": "five"}, "reference number 1: ref_id is 'five', not a whole number"),
        ({"image_id": None}, "ref 5: image_id is None, not a whole number"),
        ({"split": 3}, "ref 5: split is 3, not a text"),
        ({"split": "../val"}, r"ref 5: split is '\.\./val', which names no folder"),
        ({"split": "Notes.JSON"}, r"ref 5: split is 'Notes\.JSON', which names no folder; give up to 64 of A-Z"),
        ({"sentences": []}, "ref 5: has no list of sentences"),
        ({"sentences": ["red"]}, "ref 5, sentence number 1: a str where a sentence should be"),
        ({"sentences": [{"sent_id": 1}]}, "ref 5, sentence number 1: has no text, neither raw nor sent"),
        ({"sentences": [{"sent_id": 1, "raw": 3}]}, "ref 5, sentence number 1: raw is 3, not a text"),
        ({"sentences": [{"sent_id": "a", "raw": "a"}]}, "ref 5, sentence number 1: sent_id is 'a', not a whole number"),
        (
            {"sentences": [{"sent_id": 1, "raw": "a"}, {"sent_id": 1, "raw": "b"}]},
            r"ref 5, sentence 1 \(entry 2 of sentences\): has the same id as entry 1 of sentences, and they differ",
        ),
        ({"sentences": [{"raw": "a", "exist": "maybe"}]}, "ref 5: exist is 'maybe', neither true nor false"),
    ],
)
def test_a_record_that_cannot_be_used_is_reported_by_its_ref(tmp_path: Path, changes: Record, words: str) -> None:
    _, collector = read(tmp_path, [make_ref(**changes)])
    with pytest.raises(DataError, match=rf"refs\(unc\)\.p, {words}"):
        collector.raise_if_any()


def test_a_record_that_is_no_dictionary_is_reported_by_its_place(tmp_path: Path) -> None:
    drafts, collector = read(tmp_path, [make_ref(), 3])
    assert len(drafts) == 1
    with pytest.raises(DataError, match="reference number 2: a int where a record should be"):
        collector.raise_if_any()


def test_kinds_of_contradictions_are_told_apart(tmp_path: Path) -> None:
    refs = [
        make_ref(999, ref_id=1), make_ref(80, ref_id=2), make_ref(ref_id=3, image_id=9), make_ref("x", ref_id=4)
    ]  # fmt: skip
    _, collector = read(tmp_path, refs)
    assert collector.count_kinds() == {
        "malformed record": 1, "unknown annotation": 1, "annotation of another picture": 1, "unknown picture": 1
    }  # fmt: skip


def test_what_is_sound_is_kept_beside_what_is_not(tmp_path: Path) -> None:
    sentences = [{"sent_id": 1, "raw": "sound"}, {"sent_id": 2}]
    drafts, collector = read(tmp_path, [make_ref(sentences=sentences), make_ref(999, ref_id=6)])
    assert [expression.text for expression in drafts[0].expressions] == ["sound"]
    assert len(collector) == 2


@given(
    changes=st.dictionaries(
        st.sampled_from(["ref_id", "ann_id", "image_id", "split", "sentences", "source", "no_target", "sent_ids"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=3),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["sent_id", "raw", "sent", "exist"]), inner, max_size=3)
            ),
            max_leaves=6,
        ),
        max_size=4,
    ),
    dataset=st.sampled_from(["refcoco", "ref-zom", "rrefcoco"]),
)
def test_whatever_a_record_holds_it_becomes_expressions_or_errors(
    changes: Record, dataset: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = write_files(tmp_path_factory.getbasetemp() / "any", DATASETS[dataset].files[0], [])
    (folder / DATASETS[dataset].files[0]).write_bytes(pickle.dumps([make_ref(**changes)], 4))
    collector = ErrorCollector()
    drafts = read_dataset(dataset, folder, collector)
    assert drafts or len(collector)


def test_refs_of_one_id_that_differ_are_all_refused(tmp_path: Path) -> None:
    refs = [make_ref(70), make_ref(80, image_id=8), make_ref(71, ref_id=6)]
    drafts, collector = read(tmp_path, refs)
    assert [expression.ref_id for draft in drafts for expression in draft.expressions] == [6]
    assert collector.count_kinds() == {"repeated id": 2}
    with pytest.raises(DataError, match=r"ref 5 \(entry 1\): has the same id as entry 2, and they differ"):
        collector.raise_if_any()


def test_refs_of_one_id_in_two_splits_are_refused_where_both_splits_are_read(tmp_path: Path) -> None:
    refs = [make_ref(70), make_ref(70, split="train")]
    assert read(tmp_path, refs)[1].count_kinds() == {"repeated id": 2}
    assert not len(read(tmp_path, refs, splits=("val",))[1])


def test_identical_refs_and_sentences_are_harmless(tmp_path: Path) -> None:
    sentence = make_ref()["sentences"][0]
    drafts, collector = read(tmp_path, [make_ref(sentences=[sentence, dict(sentence)]), make_ref()])
    assert not len(collector)
    assert len(drafts[0].expressions) == 1


def test_a_ref_to_a_repeated_id_is_told_so(tmp_path: Path) -> None:
    instances = change_annotation()
    instances["annotations"].append({**instances["annotations"][0], "bbox": [1, 1, 2, 2]})
    drafts, collector = read(tmp_path, [make_ref(70), make_ref(71, ref_id=6)], instances=instances)
    assert len(drafts[0].expressions) == 1
    assert collector.count_kinds() == {"repeated id": 2, "refers to a refused entry": 1}
    with pytest.raises(DataError, match=r"ref 5: annotation 70 cannot be used: its entry was refused"):
        collector.raise_if_any()


def test_a_ref_id_that_python_does_not_write_out_is_named_in_short(tmp_path: Path) -> None:
    _, collector = read(tmp_path, [make_ref(70) | {"ref_id": 10**5000}])
    assert ["a number of thousands of digits" in str(error) for _, error in collector] == [True]
