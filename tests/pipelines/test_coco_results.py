"""Predictions as COCO's files and back; pycocotools is the reference for what COCO's files are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from drawn_shards import BOXES, HEIGHT, WIDTH, fill, predict_truth, write_lines, write_shards
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipelines import convert, score
from pipelines.artifact import ArtifactError
from pipelines.coco_export import to_xywh
from pipelines.coco_results import read_box, read_results
from pipelines.predictions import Prediction, read_predictions
from pipelines.settings import ScoreSettings
from shards.errors import DataError
from shards.masks import decode_mask, encode_segmentation, expand_counts, measure_area
from shards.reader import ShardReader

if TYPE_CHECKING:
    from pathlib import Path

    from shards.record import Rle

Line = dict[str, Any]
SCORED = {"scores": [0.25, 0.75]}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """The data set that the truth is written as."""
    return export(tmp_path_factory.mktemp("coco"), shards, predict_truth()) / "annotations.json"


def export(folder: Path, shards: Path, lines: list[Line], **options: bool) -> Path:
    """COCO's files of some predictions."""
    convert.export_predictions(write_lines(folder / "p.jsonl", lines), shards, "val", folder / "coco", **options)
    return folder / "coco"


def load(file: Path) -> Any:
    return json.loads(file.read_text())


def evaluate(folder: Path, name: str, kind: str) -> float:
    """COCO's average precision of a result file, whatever the categories."""
    truth = COCO(str(folder / "annotations.json"))
    evaluation = COCOeval(truth, truth.loadRes(str(folder / name)), kind)
    evaluation.params.useCats = 0
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0])


def test_every_expression_is_an_image_in_the_order_of_the_shards(annotations: Path) -> None:
    coco = COCO(str(annotations))
    assert list(coco.imgs) == list(range(1, 13))
    assert [image["expression_id"] for image in coco.loadImgs(coco.getImgIds())] == [
        line["id"] for line in predict_truth()
    ]
    assert coco.imgs[7] == {
        "id": 7, "file_name": "2.png", "width": WIDTH, "height": HEIGHT, "caption": "phrase 2",
        "expression_id": "grefcoco/2/2", "original_id": 2,
    }  # fmt: skip


def test_the_targets_are_the_annotations(annotations: Path) -> None:
    coco = COCO(str(annotations))
    assert [len(coco.getAnnIds(imgIds=[image])) for image in range(1, 5)] == [0, 1, 1, 2]
    (annotation,) = coco.loadAnns(coco.getAnnIds(imgIds=[3]))
    assert annotation | {"segmentation": None} == {
        "id": 2, "image_id": 3, "category_id": 1, "bbox": [6, 2, 4, 6], "area": 24, "iscrowd": 0, "segmentation": None,
    }  # fmt: skip
    assert (coco.annToMask(annotation) == decode_mask(fill(BOXES[1]))).all()
    assert coco.loadCats(coco.getCatIds()) == [{"id": 1, "name": "category 1"}]


def test_the_truth_as_boxes_has_an_average_precision_of_one(annotations: Path) -> None:
    assert evaluate(annotations.parent, "boxes.json", "bbox") == pytest.approx(1)


def test_the_truth_about_single_targets_as_masks_has_an_average_precision_of_one(tmp_path: Path) -> None:
    references = ((), (0,), (1,))
    shards = write_shards(tmp_path, references=references)
    folder = export(tmp_path, shards, predict_truth(references=references))
    assert evaluate(folder, "segmentations.json", "segm") == pytest.approx(1)


def test_boxes_are_x_y_width_height_with_their_scores_or_one(tmp_path: Path, shards: Path) -> None:
    lines = predict_truth()
    lines[3] |= SCORED
    found = load(export(tmp_path, shards, lines) / "boxes.json")
    assert found[:4] == [
        {"image_id": 2, "category_id": 1, "bbox": [0, 0, 4, 4], "score": 1},
        {"image_id": 3, "category_id": 1, "bbox": [6, 2, 4, 6], "score": 1},
        {"image_id": 4, "category_id": 1, "bbox": [0, 0, 4, 4], "score": 0.25},
        {"image_id": 4, "category_id": 1, "bbox": [6, 2, 4, 6], "score": 0.75},
    ]


def test_masks_with_pixels_are_segmentations_with_the_best_score(tmp_path: Path, shards: Path) -> None:
    lines = predict_truth()
    lines[3] |= SCORED
    found = load(export(tmp_path, shards, lines) / "segmentations.json")
    assert [entry["image_id"] for entry in found] == [2, 3, 4, 6, 7, 8, 10, 11, 12]
    assert found[2] == {"image_id": 4, "category_id": 1, "segmentation": fill(*BOXES), "score": 0.75}


def test_where_nothing_is_predicted_the_results_are_empty_lists(tmp_path: Path, shards: Path) -> None:
    lines = [line | {"boxes": [], "mask": fill()} for line in predict_truth()]
    folder = export(tmp_path, shards, lines)
    assert [load(folder / name) for name in ("boxes.json", "segmentations.json")] == [[], []]
    assert all(prediction.no_target for prediction in restore(folder, shards))


def restore(folder: Path, shards: Path) -> list[Prediction]:
    """The predictions that COCO's files make."""
    results = [folder / "boxes.json", folder / "segmentations.json"]
    convert.import_results(results, folder / "annotations.json", shards, "val", folder.parent / "back.jsonl")
    return list(read_predictions(folder.parent / "back.jsonl"))


@pytest.mark.parametrize("dataset", ["grefcoco", "ref-zom", "rrefcoco", "refcoco"])
def test_there_and_back_all_metrics_are_the_same(tmp_path: Path, dataset: str) -> None:
    references = ((0,), (1,)) if dataset == "refcoco" else ((), (0,), (1,), (0, 1))
    shards = write_shards(tmp_path, dataset, pictures=5, references=references)
    source = np.random.default_rng(5)
    lines = predict_truth(dataset, 5, references)
    for line in lines:
        corners = np.sort(source.uniform(0, 8, (2, 2, 2)), axis=1).reshape(2, 4)
        kept = [box for box in [*line["boxes"], *corners.tolist()] if source.random() < 0.7]
        mask = source.random((HEIGHT, WIDTH)) < source.choice([0, 0.3])
        line["boxes"] = kept
        line["scores"] = source.normal(size=len(kept)).tolist() if source.random() < 0.8 else None
        line["mask"] = encode_segmentation(runs(mask | decode_mask(line["mask"])), HEIGHT, WIDTH)
        line["no_target"] = bool(source.random() < 0.5)
    folder = export(tmp_path, shards, lines)
    restore(folder, shards)
    settings = ScoreSettings(split="val")
    before, after = (score.run(tmp_path / name, shards, settings).document for name in ("p.jsonl", "back.jsonl"))
    assert after == before


def runs(mask: np.ndarray) -> dict[str, Any]:
    """A mask as run lengths that are not compressed."""
    changes = np.flatnonzero(np.diff(mask.T.ravel(), prepend=False, append=not mask[-1, -1]))
    return {"size": list(mask.shape), "counts": np.diff(changes, prepend=0).tolist()}


@pytest.mark.parametrize("no_target", [True, False])
@pytest.mark.parametrize("line", [0, 3])
def test_a_flag_that_boxes_and_mask_contradict_comes_back(
    tmp_path: Path, shards: Path, line: int, no_target: bool
) -> None:
    lines = predict_truth()
    lines[line] |= {"no_target": no_target}
    folder = export(tmp_path, shards, lines)
    assert restore(folder, shards)[line].no_target is no_target
    truth = COCO(str(folder / "annotations.json"))
    assert len(truth.loadRes(str(folder / "segmentations.json")).anns) == 9 + (line == 0 and not no_target)


def test_boxes_without_a_mask_come_back_without_one(tmp_path: Path, shards: Path) -> None:
    lines = predict_truth()
    lines[3] |= {"mask": fill(), "no_target": True, "scores": [-2.5, -7]}
    prediction = restore(export(tmp_path, shards, lines), shards)[3]
    assert (prediction.boxes, prediction.scores) == ([list(box) for box in BOXES], [-2.5, -7])
    assert (measure_area(prediction.mask), prediction.no_target) == (0, True)


@given(st.tuples(*[st.floats(-2000, 2000)] * 4))
def test_a_box_comes_back_to_a_billionth_of_a_pixel(values: tuple[float, ...]) -> None:
    x0, x1, y0, y1 = *sorted(values[:2]), *sorted(values[2:])
    assert np.abs(np.subtract(read_box(to_xywh([x0, y0, x1, y1])), [x0, y0, x1, y1])).max() <= 1e-9


def test_a_box_too_large_for_a_width_is_refused(tmp_path: Path, shards: Path) -> None:
    lines = predict_truth()
    lines[1] |= {"boxes": [[-1.5e308, 0, 1.5e308, 1]]}
    with pytest.raises(DataError, match=r"p\.jsonl: a box of grefcoco/1/1 is larger than numbers go"):
        export(tmp_path, shards, lines)
    assert [file.name for file in tmp_path.iterdir()] == ["p.jsonl"]


def test_a_mask_of_another_size_is_refused_and_nothing_is_left(tmp_path: Path, shards: Path) -> None:
    lines = predict_truth()
    lines[11] |= {"mask": {"size": [1, 1], "counts": [1]}}
    with pytest.raises(DataError, match=r"p\.jsonl: the mask of grefcoco/3/3 has size \[1, 1\]"):
        export(tmp_path, shards, lines)
    assert [file.name for file in tmp_path.iterdir()] == ["p.jsonl"]


def test_predictions_that_are_missing_are_named_and_nothing_is_left(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(DataError, match="no prediction for grefcoco/3/3"):
        export(tmp_path, shards, predict_truth()[:-1])
    assert [file.name for file in tmp_path.iterdir()] == ["p.jsonl"]


def read(folder: Path, shards: Path, annotations: Path, entries: Any, threshold: float = 0) -> list[Prediction]:
    """The predictions that some entries make."""
    file = folder / "r.json"
    file.write_text(entries if isinstance(entries, str) else json.dumps(entries))
    with ShardReader(shards, "val") as reader:
        return read_results([file], annotations, reader, threshold)


def test_an_expression_without_entries_has_no_target(tmp_path: Path, shards: Path, annotations: Path) -> None:
    found = read(tmp_path, shards, annotations, [{"image_id": 2, "bbox": [0, 0, 4, 4], "score": 0.5}])
    assert [prediction.id for prediction in found] == [line["id"] for line in predict_truth()]
    assert [prediction.no_target for prediction in found] == [True, False] + [True] * 10
    assert all(prediction.mask == fill() for prediction in found)


def test_boxes_keep_their_order_and_masks_are_united(tmp_path: Path, shards: Path, annotations: Path) -> None:
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
        ({"bbox": [1.5e308, 0, 1.5e308, 1]}, "ends beyond double precision"),
        ({"score": "high"}, 'score "high" is not a finite number'),
        ({"score": None}, "score null is not a finite number"),
        ({"bbox": None}, "has neither 'bbox' nor 'segmentation'"),
        ({"segmentation": "x"}, "segmentation is a str"),
        ({"segmentation": {"size": [1, 1], "counts": [1]}}, r"size \[1, 1\] in a picture of \[8, 12\]"),
        ({"segmentation": {"size": [8, 12], "counts": [97]}}, "do not add up to the 96 pixels"),
        ({"segmentation": {"size": [8, 12], "counts": "o"}}, "no compressed string"),
        ({"segmentation": {"size": [8, 12]}}, "run lengths without size and counts"),
        ({"segmentation": [[0, 0, 1, "x", 2, 2]]}, "a polygon that is not a flat list"),
        ({"segmentation": [[0, 0, 1e9, 0, 1e9, 1e9]]}, "points far beyond any picture"),
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
        ("", r"r\.json: is no list; give COCO results"),
        ('{"images": []}', r"r\.json: is no list"),
        ("[", r"entry 1: not JSON"),
        ("[{}", r"entry 1: has no 'image_id'"),
        ("[3]", r"entry 1: 3 is not a JSON object"),
        ("[null, 3]", r"entry 1: null is not a JSON object"),
        ("[GOOD", r"entry 1: is the last before the file breaks off"),
        ("[GOOD GOOD]", r'entry 1: is followed by "\{"'),
        ("[GOOD,]", r"entry 2: not JSON"),
        ("[GOOD] GOOD", r"entry 1: goes on after the end of its list"),
        ('[GOOD, {"image_id": 2, "bbox": [0, 0, NaN, 1]}]', "entry 2: NaN is not a number that JSON knows"),
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


def test_bytes_that_are_no_text_are_named(tmp_path: Path, shards: Path, annotations: Path) -> None:
    file = tmp_path / "r.json"
    file.write_bytes(b"[\xff]")
    with ShardReader(shards, "val") as reader, pytest.raises(DataError, match=r"r\.json: is no text in UTF-8"):
        read_results([file], annotations, reader)


def test_contradicting_flags_are_named(tmp_path: Path, shards: Path, annotations: Path) -> None:
    entries = [GOOD | {"no_target": True}, GOOD | {"no_target": False}]
    with pytest.raises(DataError, match="entry 2: no_target is false, in an entry before it is not"):
        read(tmp_path, shards, annotations, entries)


def test_boxes_of_an_expression_in_two_files_are_refused(tmp_path: Path, shards: Path, annotations: Path) -> None:
    # Some detectors write the same boxes beside their masks once more.
    files = [tmp_path / name for name in ("one.json", "two.json")]
    for file in files:
        file.write_text(json.dumps([GOOD]))
    with ShardReader(shards, "val") as reader, pytest.raises(DataError, match=r"two\.json, entry 1: .*one\.json holds"):
        read_results(files, annotations, reader)


def change_annotations(folder: Path, annotations: Path, **changes: Any) -> Path:
    document = load(annotations)
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
        ({"expression_id": "grefcoco/9/9"}, r"a\.json: no image for 1 of 12 expressions of 'val', the first grefcoco/1/1"),
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
    document = load(annotations)
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
    try:
        found = read(folder, shards, annotations, [GOOD | {"segmentation": fill(BOXES[0])} | {key: value}])
    except DataError as fault:
        assert "entry 1" in str(fault)
        assert "\n" not in str(fault)
    else:
        assert all(is_sound(prediction.mask) for prediction in found)


def is_sound(mask: Rle) -> bool:
    """Whether COCO's C code can read a mask, and unite it with others."""
    lengths = expand_counts(mask["counts"].encode())
    return coco_mask.decode(mask).shape == (HEIGHT, WIDTH) and bool(lengths[1:].all())


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
