"""Expressions made of the categories of a detection data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.config.settings import CocoSettings
from pipelines.stages.selection import Selection, select_items
from shards.annotations.coco_phrases import CROWDED, form_plural, read_templates
from shards.annotations.drafts import build_record
from shards.errors import DataError
from shards.record import ImageRecord

NAMES = ("person", "dog", "bicycle", "wine glass")
CATEGORIES = [{"id": 10 * rank, "name": name} for rank, name in enumerate(NAMES, 1)]
SQUARE = [[10, 5, 20, 5, 20, 15, 10, 15]]


def annotate(ann_id: int, image_id: int, category: str, **changes: Any) -> dict[str, Any]:
    category_id = 10 * (NAMES.index(category) + 1)
    return {"id": ann_id, "image_id": image_id, "category_id": category_id, "bbox": [10, 5, 10, 10], **changes}


def make_document(*annotations: dict[str, Any], images: int = 3) -> dict[str, Any]:
    entries = [{"id": n, "file_name": f"{n}.png", "width": 40, "height": 30} for n in range(1, images + 1)]
    return {"images": entries, "annotations": list(annotations), "categories": CATEGORIES}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for n in range(1, 21):
        Image.new("RGB", (40, 30), (n, 0, 0)).save(tmp_path / "images" / f"{n}.png")
    return tmp_path


def select(home: Path, document: Any, **settings: Any) -> Selection:
    (home / "instances.json").write_text(json.dumps(document))
    return select_items(CocoSettings(dataset="coco", **settings), home / "instances.json", [home / "images"])


def read(home: Path, document: Any, **settings: Any) -> list[ImageRecord]:
    selection = select(home, document, **settings)
    selection.collector.raise_if_any()
    return [build_record(draft) for draft, _ in selection.items]


def test_an_image_gets_an_expression_for_each_of_its_categories_and_some_with_empty_targets(home: Path) -> None:
    document = make_document(annotate(1, 1, "dog"), annotate(2, 1, "dog"), annotate(3, 1, "person"))
    records = read(home, document, empty=2, name="pets")
    targets = {each.text: records[0].targets(each) for each in records[0].expressions}
    assert {text: [each.ann_id for each in found] for text, found in targets.items()} == {
        "all dogs": [1, 2],
        "all people": [3],
        "all bicycles": [],
        "all wine glasses": [],
    }
    assert [len(record.expressions) for record in records] == [4, 2, 2]
    ids = [each.id for record in records for each in record.expressions]
    assert len(set(ids)) == len(ids)
    assert all(each.startswith("pets/") for each in ids)


def test_what_is_drawn_depends_on_the_seed_and_the_image_alone(home: Path) -> None:
    texts = ("all {categories}", "any {category}")
    first = read(home, make_document(images=20), phrases=texts, seed=1)
    assert read(home, make_document(images=20), phrases=texts, seed=1) == first
    assert read(home, make_document(images=5), phrases=texts, seed=1) == first[:5]
    assert read(home, make_document(images=20), phrases=texts, seed=2) != first
    shown = {each.text for record in first for each in record.expressions}
    assert {"all dogs", "any dog"} <= shown


def test_a_category_with_a_crowd_region_gets_no_expression_there_neither_full_nor_empty(home: Path) -> None:
    crowd = annotate(2, 1, "dog", iscrowd=1, segmentation={"size": [30, 40], "counts": [300, 60, 840]})
    selection = select(home, make_document(annotate(1, 1, "dog"), crowd, images=1), empty=9)
    ((draft, _),) = selection.items
    assert {each.text for each in draft.expressions} == {"all people", "all bicycles", "all wine glasses"}
    assert selection.notes.count_kinds() == {CROWDED: 1}


def test_a_box_alone_is_enough_and_is_cut_off_at_the_edge(home: Path) -> None:
    document = make_document(
        annotate(1, 1, "dog"), annotate(2, 1, "dog", segmentation=[], bbox=[30, 20, 50, 50]),
        annotate(3, 1, "dog", segmentation=SQUARE, bbox=None), images=1,
    )  # fmt: skip
    (record,) = read(home, document, empty=0)
    assert [(each.box, each.mask is None) for each in record.instances] == [
        ((10, 5, 20, 15), True),
        ((30, 20, 40, 30), True),
        ((10, 5, 20, 15), False),
    ]


def test_files_of_a_folder_are_splits_by_their_names(home: Path) -> None:
    folder = home / "annotations"
    folder.mkdir()
    for name in ("instances_train2017.json", "instances_val2017.json"):
        (folder / name).write_text(json.dumps(make_document(annotate(1, 1, "dog"))))
    selection = select_items(CocoSettings(dataset="coco"), folder, [home / "images"])
    assert {draft.split for draft, _ in selection.items} == {"train", "val"}
    one = select_items(CocoSettings(dataset="coco", splits=("val",)), folder, [home / "images"])
    assert one.items == [(draft, file) for draft, file in selection.items if draft.split == "val"]
    (folder / "more_val.json").write_text("{}")
    with pytest.raises(DataError, match=r"more_val\.json: is split 'val' like instances_val2017\.json"):
        select_items(CocoSettings(dataset="coco"), folder, [home / "images"])


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (annotate(1, 9, "dog"), "image 9 is not among the images"),
        (annotate(1, 1, "dog", category_id=7), "category 7 is not among the categories"),
        (annotate(1, 1, "dog", bbox=[1, 2, 0, 5]), "has neither a segmentation nor a bbox with an area"),
        (annotate(1, 1, "dog", bbox=[50, 50, 5, 5]), "has no box inside the image, and no mask"),
        (annotate(1, 1, "dog", segmentation=[[1, 2, 3, 4]]), "fewer than three points"),
    ],
)
def test_an_annotation_that_cannot_be_used_is_named(home: Path, annotation: dict[str, Any], words: str) -> None:
    ((_, error),) = select(home, make_document(annotation)).collector
    assert words in error.what
    assert error.record == "annotation 1"


@pytest.mark.parametrize("categories", [None, [], [{"id": 1}], [{"id": 1, "name": ""}], 7])
def test_categories_without_names_are_refused(home: Path, categories: Any) -> None:
    with pytest.raises(DataError, match=r"categories|category"):
        select(home, make_document() | {"categories": categories})


@pytest.mark.parametrize(
    ("category", "plural"),
    [("person", "people"), ("dog", "dogs"), ("wine glass", "wine glasses"), ("bus", "buses"), ("sheep", "sheep"),
     ("scissors", "scissors"), ("bench", "benches"), ("toothbrush", "toothbrushes"), ("teddy bear", "teddy bears"),
     ("baby", "babies"), ("toy", "toys"), ("knife", "knives"), ("mouse", "mice"), ("skis", "skis"), ("box", "boxes")],
)  # fmt: skip
def test_plurals_are_english(category: str, plural: str) -> None:
    assert form_plural(category) == plural


def test_files_of_several_splits_may_each_number_their_images_and_annotations_from_1(home: Path) -> None:
    for split, file_name, box in (("train", "5.png", [1, 1, 4, 4]), ("val", "6.png", [20, 9, 6, 6])):
        document = make_document(annotate(1, 1, "dog", bbox=box), annotate(2, 2, "dog", bbox=[90, 90, 9, 9]), images=2)
        document["images"][0]["file_name"] = file_name
        document["images"][1]["file_name"] = f"1{file_name}"
        (home / "annotations").mkdir(exist_ok=True)
        (home / "annotations" / f"{split}.json").write_text(json.dumps(document))
    selection = select_items(CocoSettings(dataset="coco", empty=0), home / "annotations", [home / "images"])
    found = [(draft.split, draft.image.file_name, file.name, build_record(draft)) for draft, file in selection.items]
    assert [(*names, record.instances[0].box) for *names, record in found] == [
        ("train", "5.png", "5.png", (1, 1, 5, 5)),
        ("val", "6.png", "6.png", (20, 9, 26, 15)),
    ]
    assert len(selection.collector) == 2, "annotation 2 of each file lies outside its image"


@pytest.mark.parametrize("changes", [{"bbox": [1, 1, 0, 0]}, {"id": "two"}], ids=["no area", "no id"])
def test_no_expression_is_about_a_category_with_a_refused_annotation(home: Path, changes: dict[str, Any]) -> None:
    document = make_document(annotate(1, 1, "dog"), annotate(2, 1, "dog", **changes), annotate(3, 1, "person"))
    document["annotations"].append(annotate(4, 2, "person", **changes))
    selection = select(home, document, empty=4)
    found = [sorted((each.text, bool(each.instances)) for each in draft.expressions) for draft, _ in selection.items]
    others = [("all bicycles", False), ("all wine glasses", False)]
    assert found[0] == sorted([*others, ("all people", True)]), "one of the two dogs is not known"
    assert found[1] == sorted([*others, ("all dogs", False)]), "image 2 shows a person"


def test_an_image_with_an_object_of_no_category_gets_no_expressions(home: Path) -> None:
    document = make_document(annotate(1, 1, "dog"), annotate(2, 1, "dog", category_id=None), annotate(3, 2, "dog"))
    selection = select(home, document, empty=4)
    assert [draft.image.image_id for draft, _ in selection.items] == [2, 3]


def test_categories_whose_names_differ_in_capitals_alone_are_one(home: Path) -> None:
    document = make_document(annotate(1, 1, "dog"), annotate(2, 1, "person"), images=1)
    document["categories"] = [{"id": 20, "name": "dog"}, {"id": 10, "name": "Dog"}]
    (record,) = read(home, document, empty=4)
    assert [(each.text, each.instances) for each in record.expressions] == [("all dogs", (0, 1))]


def test_templates_are_texts_or_the_lines_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "templates.txt"
    file.write_text("every {category}\r\n\n  the {categories} \n", encoding="utf-8-sig")
    expected = ("every {category}", "the {categories}", "all {categories}")
    assert read_templates([str(file), expected[2]]) == expected
    assert read_templates(["all dogs", "x" * 5000]) == ("all dogs", "x" * 5000)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no templates of expressions; write {category}"),
        (b"all {categories}\nall dogs\n", "line 2: 'all dogs' names no category"),
        (b"\xff\xfe", "templates.txt: "),
    ],
)
def test_a_file_of_templates_that_is_none_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "templates.txt").write_bytes(content)
    with pytest.raises(DataError) as error:
        read_templates([str(tmp_path / "templates.txt")])
    assert said in str(error.value)
