"""PNG masks come back as the predictions that they were, edited or not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.prediction.image_predictions import ImagePredictions
from pipelines.prediction.png_export import INDEX, write_png_masks
from pipelines.prediction.png_import import read_png_masks
from pipelines.prediction.prediction import Prediction
from pipelines.stages import convert
from shards.errors import DataError
from shards.masks import decode_mask, encode_mask
from shards.reader import ShardReader
from tests.support.drawn_shards import write_shards
from tests.support.pipeline_runs import run_here
from tests.support.refusals import limit_memory

MASKS = [np.random.default_rng(seed).random((30, 40)) < density for seed, density in enumerate((0, 0.5, 1.1))]
PREDICTIONS = tuple(
    Prediction(id=f"a.jpg/{row}", boxes=[[0, 0, 2, 2]], scores=[0.5], mask=encode_mask(mask), no_target=not row)
    for row, mask in enumerate(MASKS)
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three masks of one image."""
    (tmp_path / "masks").mkdir()
    texts = tuple(f"text {row}" for row in range(3))
    image = ImagePredictions(file_name="a.jpg", size=(30, 40), texts=texts, predictions=PREDICTIONS)
    write_png_masks(tmp_path / "masks", [image])
    return tmp_path / "masks"


def test_predictions_come_back_as_they_were(folder: Path) -> None:
    assert read_png_masks(folder, None) == list(PREDICTIONS)


def test_an_edited_mask_is_read(folder: Path) -> None:
    file = folder / json.loads((folder / INDEX).read_text())[1]["file"]
    pixels = np.zeros((30, 40), dtype=bool)
    pixels[3:9, 4:7] = True
    Image.fromarray(pixels).save(file)
    mask = read_png_masks(folder, None)[1].mask
    assert mask is not None
    assert np.array_equal(decode_mask(mask), pixels)


def test_the_command_knows_the_folder_and_the_split_gives_the_order(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards")
    reader = ShardReader(shards, "val")
    lines = [
        {"id": expression.id, "boxes": [], "scores": [], "no_target": True,
         "mask": encode_mask(np.zeros((record.height, record.width), dtype=bool))}
        for record in reader.records()
        for expression in record.expressions
    ]  # fmt: skip
    file = tmp_path / "predictions.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    convert.export_images("png", file, convert.Split(shards=shards, name="val"), tmp_path / "masks")
    entries = json.loads((tmp_path / "masks" / INDEX).read_text())
    (tmp_path / "masks" / INDEX).write_text(json.dumps(entries[::-1]))
    for source in ([], ["--from", "png"]):
        out = tmp_path / f"back-{len(source)}.jsonl"
        run_here("convert", tmp_path / "masks", *source, "--shards", shards, "--split", "val", "--out", out)
        assert [json.loads(line) for line in out.read_text().splitlines()] == [
            {key: line[key] for key in ("id", "boxes", "scores", "mask", "no_target")} for line in lines
        ]
    (tmp_path / "masks" / INDEX).write_text(json.dumps(entries[1:]))
    with pytest.raises(DataError, match="has no mask for"):
        read_png_masks(tmp_path / "masks", reader)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda entry: entry.update(file="../a.png"), "is not the name of a file in this folder"),
        (lambda entry: entry.update(file=7), "file is 7"),
        (lambda entry: entry.update(file="missing.png"), "no such mask"),
        (lambda entry: entry.update(file=INDEX), "cannot be read as PNG"),
        (lambda entry: entry.update(id="a.jpg/1"), "is given twice"),
        (lambda entry: entry.update(boxes=[[1]]), "is not four finite numbers"),
    ],
)  # fmt: skip
def test_an_index_that_does_not_fit_is_refused(folder: Path, change: Callable[[Any], object], words: str) -> None:
    entries = json.loads((folder / INDEX).read_text())
    change(entries[0])
    (folder / INDEX).write_text(json.dumps(entries))
    with pytest.raises(DataError, match=words):
        read_png_masks(folder, None)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (Image.new("L", (40, 30), 128), "holds the value 128"),
        (Image.new("RGB", (40, 30)), "in mode RGB, no mask"),
    ],
)
def test_a_file_that_is_no_mask_is_refused(folder: Path, image: Image.Image, words: str) -> None:
    image.save(folder / json.loads((folder / INDEX).read_text())[0]["file"])
    with pytest.raises(DataError, match=words):
        read_png_masks(folder, None)


def test_a_damaged_mask_takes_no_more_memory_than_it_has_bytes(folder: Path) -> None:
    file = folder / json.loads((folder / INDEX).read_text())[1]["file"]
    data = file.read_bytes()
    at = data.index(b"IDAT") - 4
    # A chunk that says that it has 4 GB; the pixels before its end are whole.
    file.write_bytes(data[:at] + b"\xff\xff\xff\xf0" + data[at + 4 :])
    with limit_memory(500):
        assert read_png_masks(folder, None) == list(PREDICTIONS)


def test_a_pipe_in_the_place_of_a_mask_is_not_waited_for(folder: Path) -> None:
    file = folder / json.loads((folder / INDEX).read_text())[1]["file"]
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(DataError, match="cannot be read as PNG"):
        read_png_masks(folder, None)
