"""Cut-outs with alpha."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.prediction.cutout_export import cut_out, write_cutouts
from pipelines.prediction.image_predictions import ImagePredictions
from pipelines.prediction.prediction import Prediction
from shards.masks import encode_mask

PIXELS = np.random.default_rng(0).integers(1, 256, (20, 30, 3), dtype=np.uint8)


def ring() -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    mask = np.zeros((20, 30), dtype=bool)
    mask[4:12, 6:25] = True
    mask[6:9, 10:20] = False
    return mask


def test_a_cut_out_has_the_image_s_colors_inside_the_mask_and_is_transparent_outside() -> None:
    cut = np.asarray(cut_out(PIXELS, ring(), (6, 4, 25, 12)))
    inside = ring()[4:12, 6:25]
    np.testing.assert_array_equal(cut[..., 3], inside * 255)
    np.testing.assert_array_equal(cut[inside][:, :3], PIXELS[4:12, 6:25][inside])
    assert not cut[~inside].any()


def test_there_is_one_for_each_expression_with_a_target(tmp_path: Path) -> None:
    masks = [ring(), np.zeros((20, 30), dtype=bool), ring()]
    predictions = tuple(
        Prediction(id=f"a.png/{index}", boxes=[], scores=[], mask=encode_mask(mask), no_target=index == 2)
        for index, mask in enumerate(masks)
    )
    images = ImagePredictions(
        file_name="a.png", size=(20, 30), texts=("ring", "nothing", "none"), predictions=predictions
    )
    read: list[str] = []

    def read_pixels(name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        read.append(name)
        return PIXELS

    assert write_cutouts(tmp_path, [images], read_pixels) == {"cutouts": 1}
    entries = json.loads((tmp_path / "index.json").read_text())
    assert [(entry["id"], entry["text"], entry["file"], entry["crop"]) for entry in entries] == [
        ("a.png/0", "ring", "a.png-0.png", [6, 4, 25, 12]),
        ("a.png/1", "nothing", None, None),
        ("a.png/2", "none", None, None),
    ]
    with Image.open(tmp_path / "a.png-0.png") as saved:
        assert (saved.mode, saved.size) == ("RGBA", (19, 8))
    assert read == ["a.png"]
