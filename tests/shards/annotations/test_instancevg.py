"""InstanceVG's merged layout: the same images, targets and texts as the files that it was made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shards.annotations.drafts import ImageDraft, build_record, list_files, read_dataset
from shards.annotations.error_collector import ErrorCollector
from shards.errors import DataError
from tests.support.published_files import SQUARE, make_ref, write_files

OTHER = [[1, 1, 9, 1, 9, 9, 1, 9]]


def make_sample(*segmentations: Any, raw: Any = "the red one", **changes: Any) -> dict[str, Any]:
    annotations = [{"bbox": [10, 5, 10, 10], "segmentation": segmentation} for segmentation in segmentations]
    sample = {"image_id": 7, "width": 40, "height": 30, "expressions": {"raw": raw}, "annotations": annotations}
    return {**sample, **changes}


def read(folder: Path, dataset: str, sets: dict[str, Any], index: Any = None, splits: tuple[str, ...] = ()) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "instance.json").write_text(json.dumps(sets))
    if index is not None:
        (folder / "instance_index.json").write_text(json.dumps(index))
    collector = ErrorCollector()
    return read_dataset(dataset, folder, collector, splits), collector


def list_expressions(drafts: list[ImageDraft]) -> list[tuple[str, tuple[int, ...]]]:
    return [(expression.id, expression.instances) for draft in drafts for expression in draft.expressions]


def test_a_sample_is_a_reference_with_its_objects(tmp_path: Path) -> None:
    samples = [make_sample(SQUARE, OTHER), make_sample(OTHER), make_sample(None)]
    drafts, collector = read(tmp_path, "grefcoco", {"val": samples})
    assert list_expressions(drafts) == [("grefcoco/1/0", (0, 1)), ("grefcoco/2/0", (1,)), ("grefcoco/3/0", ())]
    assert len(collector) == 0
    assert [(draft.split, len(draft.annotations)) for draft in drafts] == [("val", 2)]
    assert drafts[0].image.file_name == "COCO_train2014_000000000007.jpg"


def test_records_equal_those_of_the_files_of_references(tmp_path: Path) -> None:
    published = write_files(tmp_path / "refs", "grefs(unc).json", [make_ref([70])])
    (expected,) = read_dataset("grefcoco", published, ErrorCollector())
    (draft,), _ = read(tmp_path / "merged", "grefcoco", {"val": [make_sample(SQUARE)]})
    mine, theirs = build_record(draft), build_record(expected)
    assert [(instance.box, instance.mask) for instance in mine.instances] == [
        (instance.box, instance.mask) for instance in theirs.instances
    ]


def test_several_texts_of_a_sample_are_sentences_of_one_reference(tmp_path: Path) -> None:
    drafts, _ = read(tmp_path, "ref-zom", {"test": [make_sample(SQUARE, raw=["one", "the same"], file_name="a.jpg")]})
    assert list_expressions(drafts) == [("ref-zom/1/0", (0,)), ("ref-zom/1/1", (0,))]
    assert drafts[0].image.file_name == "a.jpg"


@pytest.mark.parametrize("empty", [None, []])
def test_objects_after_the_first_without_a_mask_are_left_out(tmp_path: Path, empty: Any) -> None:
    drafts, _ = read(tmp_path, "grefcoco", {"val": [make_sample(SQUARE, empty, OTHER), make_sample(empty, SQUARE)]})
    assert [instances for _, instances in list_expressions(drafts)] == [(0,), ()]


def test_an_object_without_a_box_gets_that_of_its_mask(tmp_path: Path) -> None:
    sample = make_sample(annotations=[{"bbox": None, "segmentation": SQUARE}])
    (draft,), _ = read(tmp_path, "grefcoco", {"val": [sample]})
    assert build_record(draft).instances[0].box == (10.0, 5.0, 20.0, 15.0)


def test_the_classic_sets_hold_one_object_in_the_sample_itself(tmp_path: Path) -> None:
    sample = {"image_id": 7, "expressions": ["a", "b"], "bbox": [10, 5, 10, 10], "mask": SQUARE}
    sets = {"train": [sample], "testA_refcocoplus_unc": [sample], "testA_refcoco_unc": [sample, sample]}
    drafts, _ = read(tmp_path, "refcoco+", sets)
    assert list_expressions(drafts) == [
        ("refcoco+/2/0", (0,)), ("refcoco+/2/1", (0,)), ("refcoco+/1/0", (0,)), ("refcoco+/1/1", (0,))
    ]  # fmt: skip
    assert [draft.split for draft in drafts] == ["testA", "train"]


def test_numbers_do_not_hang_on_the_splits_asked_for(tmp_path: Path) -> None:
    sets = {"train": [make_sample(SQUARE)] * 3, "val": [make_sample(SQUARE)]}
    drafts, _ = read(tmp_path, "grefcoco", sets, splits=("val",))
    assert list_expressions(drafts) == [("grefcoco/4/0", (0,))]


def test_annotations_listed_for_each_expression_belong_to_it(tmp_path: Path) -> None:
    boxes = [[{"bbox": [10, 5, 10, 10], "segmentation": SQUARE, "id": 70}], [{"bbox": [0, 0, 0, 0]}]]
    sample = {"image_id": 7, "expressions": ["one", "none"], "annotations": boxes}
    (draft,), _ = read(tmp_path, "grefcoco", {"train": [sample]})
    assert [expression.instances for expression in draft.expressions] == [(0,), ()]
    assert draft.annotations[0].ann_id == 70


def test_ranges_of_the_index_join_groups_to_references(tmp_path: Path) -> None:
    groups = [[make_sample(SQUARE)], [make_sample(None)], [make_sample(OTHER)]]
    sets = {"train": [[make_sample(SQUARE), make_sample(None)]], "val_rrefcoco": groups, "val_rrefcoco+": groups}
    drafts, _ = read(tmp_path, "rrefcoco", sets, {"val_rrefcoco": [["0", "2"], ["2", "3"]]})
    assert list_expressions(drafts) == [
        ("rrefcoco/1/0", (0,)), ("rrefcoco/1/1", ()),
        ("rrefcoco/2/0", (0,)), ("rrefcoco/2/1", ()), ("rrefcoco/4/0", (1,)),
    ]  # fmt: skip
    assert [expression.ref_id for expression in drafts[1].expressions] == [2, 2, 4]


@pytest.mark.parametrize(
    "ranges", [[[0, 1]], [[0, 1], [2, 2]], [[1, 2]], [[0, 3]], [], [0, 2], [["a", 2]], [[0, float("inf")]], 5]
)
def test_ranges_that_do_not_divide_the_samples_are_refused(tmp_path: Path, ranges: Any) -> None:
    sets = {"val_rrefcocog": [[make_sample(SQUARE)], [make_sample(None)]]}
    with pytest.raises(DataError, match=r"instance_index\.json"):
        read(tmp_path, "rrefcocog", sets, {"val_rrefcocog": ranges})


@pytest.mark.parametrize("index", [{}, {"val_rrefcoco": [[0, 1]]}, [], 5, "val_rrefcocog"])
def test_an_index_without_the_set_is_refused(tmp_path: Path, index: Any) -> None:
    with pytest.raises(DataError, match=r"instance_index\.json: has no list val_rrefcocog"):
        read(tmp_path, "rrefcocog", {"val_rrefcocog": [[make_sample(SQUARE)]]}, index)


def test_a_reference_is_about_one_image(tmp_path: Path) -> None:
    groups = [[make_sample(SQUARE)], [make_sample(None, image_id=8)]]
    drafts, collector = read(tmp_path, "rrefcoco", {"val_rrefcoco": groups}, {"val_rrefcoco": [[0, 2]]})
    assert list_expressions(drafts) == [("rrefcoco/1/0", (0,))]
    with pytest.raises(DataError, match=r"val_rrefcoco\[1\]: belongs to a reference about several images"):
        collector.raise_if_any()


def test_grouped_files_want_their_index(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no instance_index\.json"):
        read(tmp_path, "rrefcoco", {"val_rrefcoco": []})


@pytest.mark.parametrize(
    "sample",
    [
        5,
        [],
        {},
        make_sample(SQUARE, image_id=-1),
        make_sample(SQUARE, raw=" "),
        make_sample(SQUARE, raw=[]),
        make_sample(SQUARE, expressions=7),
        make_sample(SQUARE, annotations=None),
        make_sample(SQUARE, annotations=[3]),
        make_sample(SQUARE, annotations=[[], []]),
        make_sample(SQUARE, width=-4),
        [make_sample(SQUARE), make_sample(SQUARE, image_id=8)],
        make_sample(annotations=[{"id": "x", "segmentation": SQUARE}]),
    ],
)
def test_a_malformed_sample_is_named_and_left_out(tmp_path: Path, sample: Any) -> None:
    drafts, collector = read(tmp_path, "grefcoco", {"val": [make_sample(SQUARE), sample]})
    assert list_expressions(drafts) == [("grefcoco/1/0", (0,))]
    with pytest.raises(DataError, match=r"instance\.json, val\[1\]"):
        collector.raise_if_any()


@pytest.mark.parametrize("content", ["[]", '{"other": []}', '{"val": 5}', '{"val": [', ""])
def test_another_kind_of_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "instance.json").write_text(content)
    with pytest.raises(DataError, match=r"instance\.json"):
        read_dataset("grefcoco", tmp_path, ErrorCollector())


def test_a_split_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no split 'testA' of grefcoco; there are val"):
        read(tmp_path, "grefcoco", {"val": [make_sample(SQUARE)]}, splits=("testA",))


def test_a_merged_file_may_have_the_name_of_cocos(tmp_path: Path) -> None:
    (tmp_path / "instances.json").write_text(json.dumps({"val": [make_sample(SQUARE)]}))
    assert [file.name for file in list_files("grefcoco", tmp_path)] == ["instances.json"]
    (tmp_path / "instances.json").write_text(json.dumps({"images": [], "annotations": []}))
    with pytest.raises(DataError, match=r"holds no grefs\(unc\)\.json or grefs\(unc\)\.p; .* of InstanceVG"):
        list_files("grefcoco", tmp_path)


def test_files_of_references_go_before_a_merged_one(tmp_path: Path) -> None:
    write_files(tmp_path, "grefs(unc).json", [make_ref([70])])
    drafts, _ = read(tmp_path, "grefcoco", {"val": []})
    assert list_expressions(drafts) == [("grefcoco/5/11", (0,))]


def name_annotation(sample: dict[str, Any], ann_id: int) -> dict[str, Any]:
    sample["annotations"][0]["id"] = ann_id
    return sample


def test_annotations_of_one_id_that_differ_are_refused_in_every_sample(tmp_path: Path) -> None:
    samples = [name_annotation(make_sample(SQUARE), 1), name_annotation(make_sample(OTHER), 1), make_sample(OTHER)]
    drafts, collector = read(tmp_path, "grefcoco", {"val": samples})
    assert list_expressions(drafts) == [("grefcoco/3/0", (0,))]
    assert collector.count_kinds() == {"repeated id": 2, "refers to a refused entry": 2}
    with pytest.raises(DataError, match=r"annotation 1 \(val\[0\]\): has the same id as val\[1\], and they differ"):
        collector.raise_if_any()


def test_an_annotation_that_several_samples_repeat_is_one(tmp_path: Path) -> None:
    samples = [name_annotation(make_sample(SQUARE), 1), name_annotation(make_sample(SQUARE, raw="another"), 1)]
    drafts, collector = read(tmp_path, "grefcoco", {"val": samples})
    assert (len(collector), len(drafts[0].annotations)) == (0, 1)


def test_images_of_one_id_that_differ_are_refused_and_a_missing_size_is_no_difference(tmp_path: Path) -> None:
    unsized = make_sample(SQUARE)
    del unsized["width"]
    assert not len(read(tmp_path / "a", "grefcoco", {"val": [unsized, make_sample(OTHER), dict(unsized)]})[1])
    samples = [make_sample(SQUARE), make_sample(OTHER, file_name="other.jpg")]
    assert read(tmp_path / "b", "grefcoco", {"val": samples})[1].count_kinds() == {
        "repeated id": 2, "refers to a refused entry": 2
    }  # fmt: skip


def test_a_crowd_of_the_merged_layout_is_marked(tmp_path: Path) -> None:
    sample = make_sample(SQUARE)
    sample["annotations"][0]["iscrowd"] = 1
    drafts, _ = read(tmp_path, "grefcoco", {"val": [sample]})
    assert build_record(drafts[0]).instances[0].crowd
