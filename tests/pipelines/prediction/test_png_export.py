"""PNG masks: to the pixel, with an index that says which is which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.prediction.image_predictions import FileNames, ImagePredictions
from pipelines.prediction.png_export import write_png_masks
from pipelines.prediction.prediction import Prediction
from shards.errors import DataError
from shards.masks import decode_mask, encode_mask


def predict(identity: str, mask: Any) -> Prediction:
    return Prediction(id=identity, boxes=[[0, 0, 2, 2]], scores=[0.5], mask=encode_mask(mask), no_target=False)


def group(*predictions: Prediction) -> ImagePredictions:
    texts = tuple(f"text {index}" for index in range(len(predictions)))
    return ImagePredictions(file_name="a.jpg", size=(30, 40), texts=texts, predictions=predictions)


def test_every_mask_is_a_file_of_0_and_255_and_the_index_names_it(tmp_path: Path) -> None:
    masks = [np.random.default_rng(seed).random((30, 40)) < density for seed, density in enumerate((0, 0.5, 1.1))]
    predictions = [predict(f"grefcoco/{index}/1", mask) for index, mask in enumerate(masks)]
    assert write_png_masks(tmp_path, [group(*predictions)]) == {"images": 1, "masks": 3}
    index = json.loads((tmp_path / "index.json").read_text())
    assert {"index.json", *(entry["file"] for entry in index)} == {file.name for file in tmp_path.iterdir()}
    for number, (entry, prediction, mask) in enumerate(zip(index, predictions, masks, strict=True)):
        pixels = np.asarray(Image.open(tmp_path / entry["file"]))
        assert prediction.mask is not None
        assert np.array_equal(pixels, np.where(decode_mask(prediction.mask), 255, 0))
        assert np.array_equal(pixels > 0, mask)
        assert entry == {
            "id": prediction.id, "boxes": [[0, 0, 2, 2]], "scores": [0.5], "no_target": False, "image": "a.jpg",
            "text": f"text {number}", "file": f"grefcoco-{number}-1.png",
        }  # fmt: skip


def test_without_expressions_the_index_is_empty(tmp_path: Path) -> None:
    write_png_masks(tmp_path, [])
    assert json.loads((tmp_path / "index.json").read_text()) == []


def test_predictions_of_boxes_alone_have_no_masks_to_write(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="the predictions have no masks; write boxes --to labelme, or predict with --masks"
    ):
        write_png_masks(tmp_path, [group(Prediction(id="a", boxes=[], scores=[], mask=None, no_target=True))])


def test_file_names_are_safe_and_unique() -> None:
    names = FileNames("png")
    chosen = [names.choose(name) for name in ("../a/b", "-a-b", "-A-b", "", "..", "é" * 300, "c:d*e", "a\x00\n")]
    assert chosen[:5] == ["-a-b.png", "-a-b~2.png", "-A-b~3.png", "-.png", "-~2.png"]
    assert chosen[6:] == ["c-d-e.png", "a--.png"]
    assert all(len(name.encode()) < 255 and "/" not in name for name in chosen)
    assert len({name.casefold() for name in chosen}) == len(chosen)
