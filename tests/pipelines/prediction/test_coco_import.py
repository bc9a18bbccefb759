"""COCO results of other programs as predictions: what is read, and what is refused with its entry."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from pipelines.prediction.coco_import import CocoResults, read_results
from pipelines.prediction.prediction import Prediction
from pipelines.stages import convert
from shards.errors import DataError
from shards.masks import decode_rle_counts
from shards.progress import set_sink
from shards.reader import ShardReader
from shards.record import Rle
from tests.support.corrupted_bytes import corrupt
from tests.support.drawn_shards import BOXES, HEIGHT, WIDTH, fill, predict_truth, write_lines, write_shards
from tests.support.foreign_contents import list_foreign_contents

Line = dict[str, Any]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """The ground truth as a COCO data set."""
    folder = tmp_path_factory.mktemp("coco")
    convert.export_predictions(write_lines(folder / "p.jsonl", predict_truth()), shards, "val", folder / "coco")
    return folder / "coco" / "annotations.json"


def read(folder: Path, shards: Path, annotations: Path, entries: Any, threshold: float = 0) -> list[Prediction]:
    """The predictions that some entries make."""
    file = folder / "r.json"
    file.write_text(entries if isinstance(entries, str) else json.dumps(entries))
    with ShardReader(shards, "val") as reader:
        return read_results(CocoResults(files=[file], annotations=annotations, threshold=threshold), reader)


def test_an_expression_without_entries_has_no_target(tmp_path: Path, shards: Path, annotations: Path) -> None:
    predictions = read(tmp_path, shards, annotations, [{"image_id": 2, "bbox": [0, 0, 4, 4], "score": 0.5}])
    assert [prediction.id for prediction in predictions] == [line["id"] for line in predict_truth()]
    assert [prediction.no_target for prediction in predictions] == [True, False] + [True] * 10
    assert [prediction.boxes for prediction in predictions] == [[], [[0, 0, 4, 4]]] + [[]] * 10


SEGMENTATION = {"image_id": 3, "segmentation": fill(BOXES[0]), "score": 1}


@pytest.mark.parametrize(
    ("files", "has_boxes", "has_masks"),
    [
        ([[{"image_id": 2, "bbox": [0, 0, 4, 4], "segmentation": []}]], True, False),
        ([[{"image_id": 2, "bbox": [], "segmentation": fill(BOXES[0])}]], False, True),
        ([[{"image_id": 2, "bbox": [0, 0, 4, 4]}, SEGMENTATION]], True, True),
        ([[{"image_id": 2, "bbox": [0, 0, 4, 4]}], [SEGMENTATION]], True, True),
        # Files without entries may be of either kind.
        ([[{"image_id": 2, "bbox": [0, 0, 4, 4]}], []], True, True),
        ([[], [SEGMENTATION]], True, True),
        ([[]], True, True),
    ],
)
def test_what_no_file_gives_is_not_predicted(
    tmp_path: Path, shards: Path, annotations: Path, files: list[Any], has_boxes: bool, has_masks: bool
) -> None:
    for index, entries in enumerate(files):
        (tmp_path / f"{index}.json").write_text(json.dumps(entries))
    results = CocoResults(files=[tmp_path / f"{index}.json" for index in range(len(files))], annotations=annotations)
    with ShardReader(shards, "val") as reader:
        predictions = read_results(results, reader)
    assert {prediction.boxes is not None for prediction in predictions} == {has_boxes}
    assert {prediction.mask is not None for prediction in predictions} == {has_masks}


def test_progress_reports_how_far_the_file_is_read(tmp_path: Path, shards: Path, annotations: Path) -> None:
    file, reports = tmp_path / "many.json", list[tuple[int, int, str]]()
    file.write_text(json.dumps([{"image_id": 2, "bbox": [0, 0, 4, 4], "score": 0.5}] * 2000))
    with ShardReader(shards, "val") as reader, set_sink(progress=lambda *report: reports.append(report)):
        read_results(CocoResults(files=[file], annotations=annotations), reader)
    assert [round(4 * done / total) for done, total, _ in reports] == [1, 2, 3, 4]
    assert {(total, remark) for _, total, remark in reports} == {(file.stat().st_size, "many.json")}


def test_boxes_keep_their_order_and_masks_are_merged(tmp_path: Path, shards: Path, annotations: Path) -> None:
    both = [
        {"image_id": 4, "bbox": [6, 2, 4, 6], "segmentation": fill(BOXES[1]), "score": 0.1},
        {"image_id": 4, "bbox": [0, 0, 4, 4], "segmentation": fill(BOXES[0]), "score": 0.9},
    ]
    prediction = read(tmp_path, shards, annotations, both)[3]
    assert (prediction.boxes, prediction.scores) == ([list(BOXES[1]), list(BOXES[0])], [0.1, 0.9])
    assert prediction.mask == fill(*BOXES)


@pytest.mark.parametrize(
    "segmentation",
    [
        [[0, 0, 4, 0, 4, 4, 0, 4]],
        {"size": [HEIGHT, WIDTH], "counts": [0, 4, 4, 4, 4, 4, 4, 4, 68]},
        # A run of no pixels: COCO's merge would stop there.
        {"size": [HEIGHT, WIDTH], "counts": [0, 4, 4, 2, 0, 2, 4, 4, 4, 4, 68]},
        fill(BOXES[0]),
    ],
    ids=["polygon", "list", "list with an empty run", "string"],
)
def test_segmentations_of_every_form_are_read(
    tmp_path: Path, shards: Path, annotations: Path, segmentation: Any
) -> None:
    entries = [{"image_id": 4, "segmentation": one, "score": 1} for one in (fill(BOXES[1]), segmentation)]
    assert read(tmp_path, shards, annotations, entries)[3].mask == fill(*BOXES)


@pytest.mark.parametrize(("threshold", "boxes"), [(0, 3), (0.3, 2), (0.5, 2), (0.51, 1)])
def test_entries_that_score_below_the_threshold_are_left_out(
    tmp_path: Path, shards: Path, annotations: Path, threshold: float, boxes: int
) -> None:
    entries = [{"image_id": 4, "bbox": [0, 0, 4, 4], "score": value} for value in (-0.1, 0.5, 0.9)]
    assert len(read(tmp_path, shards, annotations, entries, threshold)[3].boxes) == boxes


def test_an_entry_that_is_left_out_leaves_no_mask(tmp_path: Path, shards: Path, annotations: Path) -> None:
    entries = [{"image_id": 4, "segmentation": fill(BOXES[0]), "score": 0.2, "no_target": False}]
    prediction = read(tmp_path, shards, annotations, entries, 0.3)[3]
    assert (prediction.mask, prediction.no_target) == (fill(), True)


def test_an_entry_without_a_score_scores_one(tmp_path: Path, shards: Path, annotations: Path) -> None:
    entries = [{"image_id": 4, "bbox": [0, 0, 4, 4], "segmentation": []}]
    assert read(tmp_path, shards, annotations, entries, 0.9)[3].scores == [1]


GOOD = {"image_id": 2, "bbox": [0, 0, 1, 1], "score": 0.5}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_id": 99}, "image 99 is not among the images"),
        ({"image_id": "2"}, 'image_id is "2", not a whole number'),
        ({"image_id": True}, "image_id is true"),
        ({"image_id": [2]}, r"image_id is \[2\]"),
        ({"bbox": [0, 0, -1, 1]}, "negative size"),
        ({"bbox": [0, 0, 1, -1]}, "negative size"),
        ({"bbox": [0, 0, 1]}, "not four finite numbers x, y, width, height"),
        ({"bbox": [0, 0, 1, "1"]}, "not four finite numbers"),
        ({"bbox": {}}, "not four finite numbers"),
        ({"bbox": [0, 0, 1, 10**400]}, "too large"),
        ({"bbox": [1.5e308, 0, 1.5e308, 1]}, "lies beyond any image"),
        ({"score": "high"}, 'score "high" is not a finite number'),
        ({"score": None}, "score null is not a finite number"),
        ({"bbox": None}, "has neither 'bbox' nor 'segmentation'"),
        ({"segmentation": "x"}, "segmentation is of type str"),
        ({"segmentation": {"size": [1, 1], "counts": [1]}}, r"size \[1, 1\] in an image of \[8, 12\]"),
        ({"segmentation": {"size": [8, 12], "counts": [97]}}, "do not add up to the 96 pixels"),
        ({"segmentation": {"size": [8, 12], "counts": "o"}}, "no compressed string"),
        ({"segmentation": {"size": [8, 12]}}, "run lengths without size and counts"),
        ({"segmentation": [[0, 0, 1, "x", 2, 2]]}, "a polygon that is not a flat list"),
        ({"segmentation": [[0, 0, 1e9, 0, 1e9, 1e9]]}, "points far beyond any image"),
        ({"segmentation": [[0, 0, 1e6, 1e6] * 1000]}, "outline is far longer"),
        ({"no_target": 1}, "no_target is 1, not true or false"),
    ],
)
def test_an_entry_that_cannot_be_is_named(
    tmp_path: Path, shards: Path, annotations: Path, change: Line, words: str
) -> None:
    with pytest.raises(DataError, match=rf"r\.json, entry 2: .*{words}"):
        read(tmp_path, shards, annotations, [GOOD, GOOD | change])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"r\.json: is an empty file, not COCO's JSON"),
        ('{"images": []}', r"r\.json: is no list"),
        ("[", r"entry 1: not JSON"),
        ("[{}", r"entry 1: has no 'image_id'"),
        ("[3]", r"entry 1: 3 is not a JSON object"),
        ("[null, 3]", r"entry 1: null is not a JSON object"),
        ("[GOOD", r"entry 1: is the last before the file breaks off"),
        ("[GOOD GOOD]", r'entry 1: is followed by "\{"'),
        ("[GOOD,]", r"entry 2: not JSON"),
        ("[GOOD] GOOD", r"entry 1: is followed by more after the end of the list"),
        ('[GOOD, {"image_id": 2, "bbox": [0, 0, NaN, 1]}]', "entry 2: NaN is not a number in JSON"),
        ('[GOOD, {"image_id": 2, "bbox": [0, 0, 1e999, 1]}]', "entry 2: .*not four finite numbers"),
        ('[{"image_id": 2, "image_id": 3}]', 'entry 1: has "image_id" more than once'),
        ("[" * 100_000, "entry 1: not JSON"),
        ("[" + "9" * 5000 + "]", "entry 1: "),
    ],
)
def test_a_file_that_is_no_list_of_entries_is_named(
    tmp_path: Path, shards: Path, annotations: Path, text: str, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        read(tmp_path, shards, annotations, text.replace("GOOD", json.dumps(GOOD)))


@pytest.mark.parametrize("kind", [kind for kind in list_foreign_contents(b"") if kind != "half"])
def test_results_that_are_something_else_are_named(tmp_path: Path, shards: Path, annotations: Path, kind: str) -> None:
    content, words = list_foreign_contents(b"[]")[kind]
    file = tmp_path / "r.json"
    file.write_bytes(content)
    with ShardReader(shards, "val") as reader, pytest.raises(DataError, match=rf"r\.json: {words}, not COCO's JSON"):
        read_results(CocoResults(files=[file], annotations=annotations), reader)


def test_bytes_that_are_no_text_are_named(tmp_path: Path, shards: Path, annotations: Path) -> None:
    file = tmp_path / "r.json"
    file.write_bytes(b"[\xff]")
    words = r"r\.json: is damaged or not COCO's JSON \('utf-8' codec"
    with ShardReader(shards, "val") as reader, pytest.raises(DataError, match=words):
        read_results(CocoResults(files=[file], annotations=annotations), reader)


def test_contradicting_entries_are_named(tmp_path: Path, shards: Path, annotations: Path) -> None:
    entries = [GOOD | {"no_target": True}, GOOD | {"no_target": False}]
    with pytest.raises(DataError, match="entry 2: no_target is false, but true in an earlier entry"):
        read(tmp_path, shards, annotations, entries)


def test_boxes_of_an_expression_in_two_files_are_refused(tmp_path: Path, shards: Path, annotations: Path) -> None:
    # Some detectors write the same boxes beside their masks once more.
    files = [tmp_path / name for name in ("one.json", "two.json")]
    for file in files:
        file.write_text(json.dumps([GOOD]))
    with ShardReader(shards, "val") as reader, pytest.raises(DataError, match=r"two\.json, entry 1: .*one\.json holds"):
        read_results(CocoResults(files=files, annotations=annotations), reader)


def change_annotations(folder: Path, annotations: Path, **changes: Any) -> Path:
    document = json.loads(annotations.read_text())
    document["images"][1] |= changes
    (folder / "a.json").write_text(json.dumps(document))
    return folder / "a.json"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id": "2"}, r'a\.json, image number 2: id is "2", not a whole number'),
        ({"id": 1}, r"a\.json, image number 2: image 1, expression .*: given twice"),
        ({"expression_id": None}, r"a\.json, image number 2: expression_id is null, not a string"),
        ({"expression_id": "grefcoco/1/0"}, r"a\.json, image number 2: .*given twice"),
        ({"expression_id": "grefcoco/9/9"}, r"a\.json: no image for 1 of 12 expressions .* first grefcoco/1/1"),
    ],
)  # fmt: skip
def test_annotations_that_do_not_name_every_expression_are_refused(
    tmp_path: Path, shards: Path, annotations: Path, changes: Line, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        read(tmp_path, shards, change_annotations(tmp_path, annotations, **changes), [GOOD])


@pytest.mark.parametrize("text", ["[]", "{}", '{"images": 3}', "{", '{"images": [3]}', "[" * 100_000])
def test_annotations_that_are_none_are_named(tmp_path: Path, shards: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"a\.json.*; give the annotations\.json that igvg convert wrote"):
        read(tmp_path, shards, tmp_path / "a.json", [GOOD])


def test_an_entry_about_another_split_is_named(tmp_path: Path, shards: Path, annotations: Path) -> None:
    document = json.loads(annotations.read_text())
    document["images"].append({"id": 50, "expression_id": "grefcoco/50/0"})
    (tmp_path / "a.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match='entry 1: image 50 is expression "grefcoco/50/0", which is not in this split'):
        read(tmp_path, shards, tmp_path / "a.json", [GOOD | {"image_id": 50}])


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 100) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["size", "counts", "x"]), inner),
    max_leaves=8,
)


@given(key=st.sampled_from(["image_id", "bbox", "segmentation", "score", "no_target"]), value=anything)
def test_any_json_under_a_key_is_read_or_named(
    tmp_path_factory: pytest.TempPathFactory, shards: Path, annotations: Path, key: str, value: Any
) -> None:
    folder = tmp_path_factory.mktemp("any")
    message = "r.json, entry 1: "
    try:
        predictions = read(folder, shards, annotations, [GOOD | {"segmentation": fill(BOXES[0])} | {key: value}])
    except DataError as error:
        predictions, message = [], str(error)
    assert "r.json, entry 1: " in message
    assert "\n" not in message
    assert all(is_valid(prediction.mask) for prediction in predictions if prediction.mask)


def is_valid(mask: Rle) -> bool:
    """Whether COCO's C code can read a mask, and unite it with others."""
    lengths = decode_rle_counts(mask["counts"].encode())
    return coco_mask.decode(mask).shape == (HEIGHT, WIDTH) and bool(lengths[1:].all())


@pytest.mark.parametrize("seed", range(4))
def test_corrupted_results_are_read_or_named(tmp_path: Path, shards: Path, annotations: Path, seed: int) -> None:
    source = random.Random(seed)
    polygon = {"image_id": 3, "segmentation": [[0, 0.5, 4, 0, 4, 4]], "score": 1}
    runs = {"image_id": 4, "segmentation": {"size": [8, 12], "counts": [5, 9, 82]}, "score": 2e-1}
    text = json.dumps([GOOD, runs | {"no_target": False}, polygon, GOOD | {"segmentation": fill(*BOXES)}]).encode()
    messages = []
    with ShardReader(shards, "val") as reader:
        for _ in range(500):
            (tmp_path / "r.json").write_bytes(corrupt(text, source))
            try:
                predictions = read_results(CocoResults(files=[tmp_path / "r.json"], annotations=annotations), reader)
            except DataError as error:
                messages.append(str(error))
                continue
            assert len(predictions) == 12
            assert all(is_valid(prediction.mask) for prediction in predictions if prediction.mask)
    assert 200 < len(messages) < 500
    assert all("r.json" in message and "\n" not in message for message in messages)


@pytest.mark.parametrize("seed", range(2))
def test_corrupted_annotations_are_read_or_named(tmp_path: Path, shards: Path, annotations: Path, seed: int) -> None:
    source = random.Random(seed)
    text = json.dumps({"images": json.loads(annotations.read_text())["images"]}).encode()
    (tmp_path / "r.json").write_text(json.dumps([GOOD]))
    messages = []
    with ShardReader(shards, "val") as reader:
        for _ in range(300):
            (tmp_path / "a.json").write_bytes(corrupt(text, source))
            try:
                predictions = read_results(
                    CocoResults(files=[tmp_path / "r.json"], annotations=tmp_path / "a.json"), reader
                )
            except DataError as error:
                messages.append(str(error))
                continue
            assert len(predictions) == 12
    assert 100 < len(messages) < 300
    # A corrupted number may leave the entry about an image that is not there.
    assert all("a.json" in message or "r.json, entry 1" in message for message in messages)
