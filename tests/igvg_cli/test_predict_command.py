"""`igvg predict` on one's own images: several after one option, pairs from a file, and the files that are saved."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from typer.testing import CliRunner

from igvg_cli.app import build_app
from igvg_cli.variadic import repeat_option
from pipelines.config.settings import PredictSettings
from pipelines.data.image_queries import query_images
from pipelines.prediction.prediction_file import read_predictions
from pipelines.report.image_outputs import parse_outputs
from pipelines.stages.predict_images import describe_images
from shards.masks import decode_mask
from tests.support.pipeline_runs import draw_published, igvg, only_error, run_here

PREDICT = ("predict", "--checkpoint", "shapes", "--set", "workers=0")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three images, two of them with one name."""
    for index, name in enumerate(("a.png", "more/a.png", "more/b.png")):
        file = tmp_path / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", (40 + index, 30), (210, 210, 210))
        image.paste((200, 30, 30), (5, 5, 25, 25))
        image.save(file)
    return tmp_path / "images"


# --image A B FOLDER


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--image a b c --out o", "--image a --image b --image c --out o"),
        ("--image a --image b", "--image a --image b"),
        ("--image=a b --text t", "--image=a --image b --text t"),
        ("--image a --text t u", "--image a --text t u"),
        ("--text t --image a -x b", "--text t --image a -x b"),
        ("--image - b", "--image - --image b"),
        ("--image a b -- c", "--image a --image b -- c"),
        ("--image", "--image"),
        ("a b", "a b"),
    ],
)
def test_an_option_is_repeated_before_each_of_its_values(words: str, expected: str) -> None:
    assert repeat_option(words.split(), ("--image",)) == expected.split()


def test_several_images_and_folders_stand_after_one_option(images: Path, tmp_path: Path) -> None:
    result = igvg(*PREDICT, "--image", images / "a.png", images / "more", "--text", "the red square", "--text",
                  "a dog", "--out", tmp_path / "out")  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert f"{images / 'more' / 'a.png'} is named a.png~2 in the results: another image has its name" in result.stderr
    found = list(read_predictions(tmp_path / "out" / "predictions.jsonl"))
    assert [one.id for one in found] == ["a.png/0", "a.png/1", "a.png~2/0", "a.png~2/1", "b.png/0", "b.png/1"]
    assert [one.mask["size"][1] for one in found if one.mask] == [40, 40, 41, 41, 42, 42]
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 6
    run_here(*PREDICT, "--image", images / "a.png", "--image", images / "more", "--text", "the red square", "--text",
             "a dog", "--out", tmp_path / "again")  # fmt: skip
    for name in ("predictions.jsonl", "overlays/a-png~2-1.png"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--image a.png --out o", "--image and --text go together"),
        ("--image a.png --text t --pairs p.csv --out o", "give either --shards and --split, or --image and --text, or"),
        ("--pairs p.csv --text t --out o", "give either"),
        ("--shards s --split val --save masks --out o", "--save and --show go with --image or --pairs"),
        ("--image a.png --text t --save mask --out o", "--save has no mask; did you mean masks?"),
        ("--image a.png --text t --show boxes,mask --out o", "--show has no mask; did you mean masks?"),
        ("--image a.png --text two words --out o", "unexpected extra argument"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(words: str, line: str) -> None:
    result = CliRunner().invoke(build_app(), ["predict", "--checkpoint", "shapes", *words.split()])
    assert result.exit_code == 2
    assert line in " ".join(result.output.replace("│", " ").split())


# --pairs


def test_pairs_of_a_file_are_predicted_image_by_image_and_convert_to_labelme(images: Path, tmp_path: Path) -> None:
    rows = [("a.png", "the red square"), ("more/b.png", "a, b"), ("a.png", "the red square"), ("more/a.png", "dog")]
    with (images / "pairs.csv").open("w", newline="", encoding="utf-8-sig") as stream:
        csv.writer(stream).writerows([("image", "text"), *rows])
    run_here(*PREDICT, "--pairs", images / "pairs.csv", "--out", tmp_path / "out")
    found = list(read_predictions(tmp_path / "out" / "predictions.jsonl"))
    assert [one.id for one in found] == ["a.png/0", "a.png/2", "b.png/1", "a.png~2/3"]
    assert found[0].boxes == found[1].boxes
    run_here("convert", tmp_path / "out", "--to", "labelme", "--out", tmp_path / "labels")
    document = json.loads((tmp_path / "labels" / "b.json").read_text())
    assert [expression["text"] for expression in document["expressions"]] == ["a, b"]


def test_a_line_of_the_pairs_that_cannot_be_used_ends_in_one_error(images: Path, tmp_path: Path) -> None:
    (images / "pairs.jsonl").write_text('{"image": "a.png", "text": "t"}\n{"image": "gone.png", "text": "t"}\n')
    error = only_error(igvg(*PREDICT, "--pairs", images / "pairs.jsonl", "--out", tmp_path / "out"))
    assert "pairs.jsonl: 1 of 2 pairs cannot be used: line 2:" in error
    assert not (tmp_path / "out").exists()


# --save and --show


def test_every_kind_of_file_is_saved_in_a_folder_of_its_own(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    scene = draw_published(tmp_path / "published") / "images" / "train2014" / "COCO_train2014_000000000009.jpg"
    scene.rename(images / "a.png")
    words = (*PREDICT, "--image", images / "a.png", images / "more", "--text", "the red star", "--out", out)
    run_here(*words, "--save", "overlays,masks, cutouts,json,coco", "--show", "boxes,attention")
    found = {one.id: one for one in read_predictions(out / "predictions.jsonl")}
    for entry in json.loads((out / "masks" / "index.json").read_text()):
        mask = found[entry["id"]].mask
        assert mask is not None
        np.testing.assert_array_equal(np.asarray(Image.open(out / "masks" / entry["file"])) > 0, decode_mask(mask))
    assert len(list((out / "overlays").iterdir())) == 3
    assert {file.name for file in (out / "json").iterdir()} == {"a.json", "a~2.json", "b.json"}
    assert len(json.loads((out / "cutouts" / "index.json").read_text())) == 3
    coco = COCO(str(out / "coco" / "annotations.json"))
    assert [image["expression_id"] for image in coco.loadImgs(coco.getImgIds())] == list(found)
    boxes = coco.loadRes(str(out / "coco" / "boxes.json"))
    assert len(boxes.getAnnIds()) == sum(len(one.boxes or ()) for one in found.values())
    segmentations = coco.loadRes(str(out / "coco" / "segmentations.json"))
    assert segmentations.getAnnIds(imgIds=[1])
    assert (out / "cutouts" / "a.png-0.png").is_file()
    listed = json.loads((out / "artifact.json").read_text())["files"]
    assert {"masks/index.json", "cutouts/index.json", "coco/annotations.json", "json/a.json"} <= set(listed)


def test_nothing_but_predictions_and_raw_outputs_is_left_where_nothing_is_saved(images: Path, tmp_path: Path) -> None:
    run_here(*PREDICT, "--image", images / "a.png", "--text", "a", "--save", "", "--out", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"artifact.json", "predictions.jsonl", "raw"}


def test_options_that_change_files_are_part_of_the_fingerprint_and_the_default_is_that_of_before(images: Path) -> None:
    def identify(save: str | None = None, show: str | None = None, *names: str) -> str:
        queries = query_images([images / name for name in names or ("a.png",)], ["a"])
        stage = describe_images(
            PredictSettings(),
            Path("pipelines/networks/shapes"),
            queries,
            Path("out"),
            outputs=parse_outputs(save, show),
        )
        return stage.fingerprint

    default = identify()
    assert identify("overlays", "points,masks,boxes") == default
    assert identify("overlays,overlays") == default
    different = [default, identify("masks"), identify("masks,overlays"), identify(None, "boxes"), identify("")]
    assert len(set(different)) == len(different)
    # Overlays that are not written show nothing.
    assert identify("masks", "boxes") == identify("masks")
    assert identify("masks,json") == identify("json,masks")
    assert identify(None, None, "a.png", "more/b.png") != identify(None, None, "more/b.png", "a.png")
