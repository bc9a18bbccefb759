"""Predictions as files of labelme come back, edited or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipelines.prediction.image_predictions import ImagePredictions
from pipelines.prediction.labelme_export import describe_image, write_labelme
from pipelines.prediction.labelme_import import list_labelme, read_labelme
from pipelines.prediction.prediction import Prediction
from shards.errors import DataError
from shards.masks import decode_mask, encode_mask
from shards.reader import ShardReader
from tests.support.drawn_shards import HEIGHT, WIDTH, fill, write_shards

TEXTS = ("the red cars", "a dog", "a dog", "nothing")
PREDICTIONS = (
    Prediction(id="a.png/0", boxes=[[0, 0, 4, 4], [6, 2, 10.25, 8]], scores=[0.9, 0.75],
               mask=fill((0, 0, 4, 4), (6, 2, 10, 8)), no_target=False),
    Prediction(id="a.png/1", boxes=[[1, 1, 2, 2]], scores=[0.8], mask=fill((1, 1, 2, 2)), no_target=False),
    Prediction(id="a.png/2", boxes=[], scores=[], mask=fill((5, 1, 6, 2)), no_target=True),
    Prediction(id="a.png/3", boxes=[], scores=[], mask=fill(), no_target=True),
)  # fmt: skip
IMAGE = ImagePredictions(file_name="in/a.png", size=(HEIGHT, WIDTH), texts=TEXTS, predictions=PREDICTIONS)


def write(folder: Path, image: ImagePredictions = IMAGE) -> Path:
    folder.mkdir(exist_ok=True)
    write_labelme(folder, [image])
    return folder / "a.json"


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    document = json.loads(file.read_text(encoding="utf-8"))
    change(document)
    file.write_text(json.dumps(document))
    return file


def test_a_file_holds_what_labelme_reads() -> None:
    document = describe_image(IMAGE)
    assert {"version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"} <= document.keys()
    assert (document["imagePath"], document["imageHeight"], document["imageWidth"]) == ("a.png", HEIGHT, WIDTH)
    for shape in document["shapes"]:
        assert {"label", "points", "group_id", "shape_type", "flags"} <= shape.keys()
        assert shape["label"] == TEXTS[shape["group_id"]]
    first = [shape for shape in document["shapes"] if shape["group_id"] == 0]
    assert [shape["shape_type"] for shape in first] == ["polygon", "polygon", "rectangle", "rectangle"]
    assert first[0]["points"] == [[0, 0], [4, 0], [4, 4], [0, 4]]
    assert first[3]["points"] == [[6, 2], [10.25, 8]]


def test_predictions_come_back_as_they_were(tmp_path: Path) -> None:
    assert tuple(read_labelme([write(tmp_path)], None)) == PREDICTIONS


@given(
    arrays(np.bool_, (HEIGHT, WIDTH)),
    st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5), st.floats(5, 9), st.floats(5, 9)).map(list), max_size=3),
    st.booleans(),
    st.sampled_from(["both", "boxes", "mask"]),
)
@settings(deadline=None, max_examples=50)
def test_any_prediction_comes_back(
    tmp_path_factory: pytest.TempPathFactory, mask: Any, boxes: list[list[float]], no_target: bool, kinds: str
) -> None:
    prediction = Prediction(
        id="é/1",
        boxes=None if kinds == "mask" else boxes,
        scores=None if kinds == "mask" else [0.5] * len(boxes),
        mask=None if kinds == "boxes" else encode_mask(mask),
        no_target=no_target,
    )
    image = ImagePredictions(file_name="a.png", size=(HEIGHT, WIDTH), texts=("x",), predictions=(prediction,))
    assert read_labelme([write(tmp_path_factory.mktemp("labels"), image)], None) == [prediction]


def test_the_mask_of_a_large_image_comes_back_to_the_pixel(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:240, :320]
    distance = np.hypot(rows - 120, columns - 160)
    mask = (distance < 100) & (distance > 37) | (columns < 20)
    prediction = Prediction(id="a/0", boxes=None, scores=None, mask=encode_mask(mask), no_target=False)
    image = ImagePredictions(file_name="a.png", size=(240, 320), texts=("ring",), predictions=(prediction,))
    (back,) = read_labelme([write(tmp_path, image)], None)
    assert back.mask is not None
    assert np.array_equal(decode_mask(back.mask), mask)


def test_what_was_edited_counts(tmp_path: Path) -> None:
    def redraw(document: dict[str, Any]) -> None:
        document["shapes"] = [
            {"label": "nothing", "shape_type": "polygon", "points": [[0, 0], [3, 0], [3, 2], [0, 2]]},
            {"label": "nothing", "shape_type": "rectangle", "points": [[3, 2.5], [0, 0]], "group_id": None},
            {"label": "a dog", "shape_type": "rectangle", "points": [[4, 0], [6, 0], [6, 1], [4, 1]], "group_id": 1},
        ]
        del document["expressions"][2]["no_target"]

    cars, dog, other_dog, nothing = read_labelme([edit(write(tmp_path), redraw)], None)
    assert (cars.boxes, cars.mask, cars.no_target) == ([], fill(), True)
    assert (dog.boxes, dog.scores, dog.no_target) == ([[4, 0, 6, 1]], None, False)
    assert (other_dog.boxes, other_dog.no_target) == ([], True)
    assert (nothing.boxes, nothing.mask, nothing.no_target) == ([[0, 0, 3, 2.5]], fill((0, 0, 3, 2)), False)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"label": "a cat"}, r'label "a cat".*: no expression of the file has it; its texts are "the red cars", "a d'),
        ({"label": "a dog", "group_id": 7}, 'label "a dog" and group_id 7: no expression'),
        ({"shape_type": "circle"}, 'shape_type is "circle"; draw polygons for masks and rectangles for boxes'),
        ({"points": [[0, 0], [1, 1]]}, "polygon has 2 points; a polygon has at least 3"),
        ({"points": [[0, 0], [1, 1], [2]]}, r"point \[2\] is not two finite numbers"),
        ({"points": [[0, 0], [1, 1], [1e300, 1]]}, "lies beyond any image"),
        ({"points": "x"}, 'points is "x", not a list of points'),
        ({"shape_type": "rectangle", "points": [[0, 0]]}, "rectangle has 1 points, not two opposite corners"),
        ({"shape_type": "rectangle", "points": [[0, 0], [1, 1]], "score": "x"}, 'score "x" is not a finite number'),
    ],
)
def test_a_shape_that_cannot_be_read_is_named(tmp_path: Path, shape: dict[str, Any], said: str) -> None:
    sound = {"label": "nothing", "shape_type": "polygon", "points": [[0, 0], [3, 0], [3, 2]]}
    file = edit(write(tmp_path), lambda document: document.update(shapes=[sound, sound | shape]))
    with pytest.raises(DataError, match=rf"a\.json, shape 2: .*{said}"):
        read_labelme([file], None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"expressions": None}, "expressions is null, not a list"),
        ({"expressions": [{"text": "x"}]}, "the id of an expression is null, not a string"),
        ({"imageHeight": 0}, "imageHeight is 0, not a number of pixels"),
        ({"imageWidth": True}, "imageWidth is true, not a number of pixels"),
        ({"imageHeight": None}, "imageHeight is null, not a number of pixels"),
        ({"shapes": {}}, r"shapes is \{\}, not a list"),
        (
            {"expressions": [{"group_id": 0, "id": "a/0", "text": "x", "predicted": [["mask"]]}]},
            r'predicted holds \["mask"\], which is neither boxes nor mask',
        ),
        ({"imageHeight": None, "imageWidth": None}, "shape 1: has no imageHeight and imageWidth.* masks need; save it"),
        ({"imageHeight": None, "imageWidth": None, "shapes": []}, "has no imageHeight and imageWidth"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=rf"a\.json[:,] {said}"):
        read_labelme([edit(write(tmp_path), lambda document: document.update(change))], None)


def test_files_of_others_have_no_expressions(tmp_path: Path) -> None:
    file = edit(write(tmp_path), lambda document: document.pop("expressions"))
    with pytest.raises(DataError, match="has no list 'expressions' with ids and texts; give files that igvg convert"):
        read_labelme([file], None)


def test_boxes_alone_need_no_size_of_the_image(tmp_path: Path) -> None:
    boxes_alone = tuple(
        Prediction(id=p.id, boxes=p.boxes, scores=p.scores, mask=None, no_target=not p.boxes) for p in PREDICTIONS
    )
    image = ImagePredictions(file_name="in/a.png", size=None, texts=TEXTS, predictions=boxes_alone)
    file = write(tmp_path, image)
    assert json.loads(file.read_text())["imageHeight"] is None
    assert read_labelme([file], None) == list(boxes_alone)


def test_folders_are_read_by_name_and_an_image_once(tmp_path: Path) -> None:
    file = write(tmp_path / "labels")
    (tmp_path / "labels" / "artifact.json").write_text("{}")
    assert list_labelme([tmp_path / "labels"]) == [file]
    copy = tmp_path / "copy.json"
    copy.write_bytes(file.read_bytes())
    with pytest.raises(DataError, match=rf"copy\.json: a\.png/0 is also in {file}"):
        read_labelme([file, copy], None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no \.json file"):
        list_labelme([tmp_path / "empty"])


def test_the_expressions_are_those_of_the_split(tmp_path: Path) -> None:
    with ShardReader(write_shards(tmp_path / "drawn", images=1, references=((0,),)), "val") as reader:
        with pytest.raises(DataError, match=r"a\.json: a\.png/0 is no expression of 'val'"):
            read_labelme([write(tmp_path)], reader)
        with pytest.raises(DataError, match="1 of 1 expressions of 'val' are in no file, the first grefcoco/1/0"):
            read_labelme([], reader)
        prediction = Prediction(id="grefcoco/1/0", boxes=[], scores=[], mask=fill(), no_target=True)
        image = ImagePredictions(file_name="a.png", size=(8, 9), texts=("x",), predictions=(prediction,))
        with pytest.raises(DataError, match="imageWidth × imageHeight is 9 × 8; the image of the shards has 12 × 8"):
            read_labelme([write(tmp_path, image)], reader)


def write_foreign(folder: Path, reader: ShardReader, shapes: Callable[[int], list[dict[str, Any]]]) -> list[Path]:
    """A file of another program for each image of a split."""
    folder.mkdir()
    for position in range(len(reader)):
        record = reader.record(position)
        document = {"imagePath": f"..\\images\\{record.file_name}", "imageHeight": record.height,
                    "imageWidth": record.width, "shapes": shapes(position)}  # fmt: skip
        (folder / f"{position}.json").write_text(json.dumps(document))
    return list_labelme([folder])


def test_files_of_other_programs_are_read_by_the_names_of_images_and_the_texts_of_expressions(tmp_path: Path) -> None:
    reader = ShardReader(write_shards(tmp_path / "shards"), "val")
    labeled = reader.record(0).expressions[0]

    def draw(position: int) -> list[dict[str, Any]]:
        box = {"label": labeled.text, "shape_type": "rectangle", "points": [[1, 2], [5, 6]]}
        outline = {"label": labeled.text, "shape_type": "polygon", "points": [[1, 2], [5, 2], [5, 6], [1, 6]]}
        return [] if position else [box, outline]

    predictions = read_labelme(write_foreign(tmp_path / "labels", reader, draw), reader)
    texts = {expression.id: expression.text for record in reader.records() for expression in record.expressions}
    assert [prediction.id for prediction in predictions] == list(texts)
    first = {expression.id for expression in reader.record(0).expressions}
    for prediction in predictions:
        is_labeled = prediction.id in first and texts[prediction.id] == labeled.text
        assert prediction.boxes == ([[1, 2, 5, 6]] if is_labeled else [])
        assert prediction.no_target != is_labeled
        assert prediction.mask is not None
        assert decode_mask(prediction.mask).sum() == (16 if is_labeled else 0)


def test_files_of_other_programs_that_cannot_be_assigned_are_refused(tmp_path: Path) -> None:
    reader = ShardReader(write_shards(tmp_path / "shards"), "val")
    files = write_foreign(tmp_path / "labels", reader, lambda _: [])
    with pytest.raises(
        DataError, match=r"no list 'expressions'.*or the --shards and --split whose expressions the labels"
    ):
        read_labelme(files, None)
    with pytest.raises(DataError, match=r"in no file, the first"):
        read_labelme(files[1:], reader)
    shape = {"label": "a zebra", "shape_type": "rectangle", "points": [[1, 2], [5, 6]]}
    edit(files[0], lambda document: document.update(shapes=[shape]))
    with pytest.raises(DataError, match=r'label "?a zebra"?: no expression of the image has it; its texts are'):
        read_labelme(files, reader)
    edit(files[0], lambda document: document.update(imagePath="other.jpg"))
    with pytest.raises(DataError, match=r"imagePath is .*other\.jpg.*has no images of this name"):
        read_labelme(files, reader)
