"""Images as Python programs hold them become the same RGB pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.data.image_decoding import read_image
from pipelines.data.image_input import list_batch, load_image
from shards.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "image",
    [
        PIXELS,
        PIXELS.transpose(2, 0, 1),
        torch.from_numpy(PIXELS),
        torch.from_numpy(PIXELS).permute(2, 0, 1),
        torch.from_numpy(PIXELS).permute(2, 0, 1) / 255,
        PIXELS / 255,
        (PIXELS / 255).astype(np.float32),
        np.concatenate((PIXELS, PIXELS[..., :1]), axis=2),
        Image.fromarray(PIXELS),
        Image.fromarray(PIXELS).convert("RGBA"),
    ],
    ids=lambda image: f"{type(image).__name__}{getattr(image, 'shape', '')}{getattr(image, 'dtype', '')}",
)
def test_every_form_gives_the_same_pixels(image: Any) -> None:
    assert np.array_equal(load_image(image), PIXELS)


@pytest.mark.parametrize("gray", [PIXELS[..., 0], PIXELS[..., :1], torch.from_numpy(PIXELS[None, ..., 0])])
def test_gray_becomes_three_equal_channels(gray: Any) -> None:
    assert np.array_equal(load_image(gray), np.repeat(PIXELS[..., :1], 3, axis=2))


def test_an_image_as_wide_as_it_has_channels_is_read_in_its_own_order() -> None:
    assert load_image(np.zeros((3, 5, 3), dtype=np.uint8)).shape == (3, 5, 3)
    assert load_image(torch.zeros(3, 5, 3)).shape == (5, 3, 3)


def test_a_file_is_read_as_by_the_command_and_sixteen_bits_as_well(tmp_path: Path) -> None:
    deep = PIXELS[..., 0].astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    with Image.open(tmp_path / "deep.png") as opened:
        for image in (tmp_path / "deep.png", str(tmp_path / "deep.png"), opened):
            assert np.array_equal(load_image(image), read_image(tmp_path / "deep.png"))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 5, 6, 3)), r"shape \(4, 5, 6, 3\)"),
        (np.zeros((0, 5, 3)), r"shape \(0, 5, 3\)"),
        (np.zeros((8, 9, 7)), "without 1, 3 or 4 channels"),
        (np.zeros((4, 5), dtype=np.int64), "holds int64"),
        (np.full((4, 5), 200.0), "floats from 200.0 to 200.0"),
        (np.full((4, 5), np.nan), "floats from nan to nan"),
        (7, "is of type int"),
    ],
)  # fmt: skip
def test_something_else_is_refused_in_one_line(image: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load_image(image)


def test_a_batch_is_told_from_one_image() -> None:
    for image in ("a.png", Path("a.png"), Image.fromarray(PIXELS), PIXELS, torch.from_numpy(PIXELS)):
        assert list_batch(image) == [image] if isinstance(image, str | Path) else len(list_batch(image)) == 1
    assert list_batch(["a.png", "b.png"]) == ["a.png", "b.png"]
    assert [image.shape for image in list_batch(torch.zeros(2, 3, 4, 5))] == [(3, 4, 5)] * 2  # type: ignore[union-attr]
