"""Overlays of one's own images: drawn from what the network saw, at a size of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.config.settings import PostprocessSettings
from pipelines.data.image_queries import check_images, query_images
from pipelines.prediction.postprocess import postprocess, square_instance_masks
from pipelines.report import own_images
from pipelines.report.overlay import DEFAULT_LAYERS, OverlayContent, draw_overlay
from pipelines.report.own_images import OverlayArtist
from tests.support.drawn_outputs import draw_output

SETTINGS = PostprocessSettings(score_threshold=0.1)


@pytest.fixture
def artist(tmp_path: Path) -> OverlayArtist:
    for name, size in (("a.png", (30, 20)), ("b.png", (3000, 2000))):
        Image.effect_noise(size, 60).convert("RGB").save(tmp_path / name)
    return OverlayArtist(check_images(query_images([tmp_path], ["the star", "two stars"])), DEFAULT_LAYERS)


@pytest.mark.parametrize(("index", "name"), [(0, "a-png-0.png"), (1, "a-png-1.png"), (3, "b-png-1.png")])
def test_an_overlay_is_that_of_the_result_on_the_image(artist: OverlayArtist, index: int, name: str) -> None:
    image, text = artist.images.pairs[index]
    raw = draw_output("x", artist.images.sizes[image], 0)
    result = postprocess(raw, SETTINGS)
    assert not result.no_target
    found, overlay = artist.draw_result(index, raw, result, settings=SETTINGS)
    assert found == name
    with Image.open(artist.images.files[image]) as opened:
        pixels = np.asarray(opened.convert("RGB"))
    squares = square_instance_masks(raw, result.queries, SETTINGS)
    assert squares.shape == (len(result.boxes), raw.image_size, raw.image_size)
    full = OverlayContent(
        boxes=result.boxes, scores=result.scores, mask=result.mask, instance_masks=squares, points=result.points
    )
    expected = np.asarray(draw_overlay(pixels, artist.images.texts[text], full)).astype(int)
    assert overlay.size == expected.shape[1::-1]
    # The masks are drawn from the square that the network saw, not from its steps in the image.
    assert (np.abs(np.asarray(overlay) - expected).max(axis=2) > 60).mean() < 0.05


def test_an_image_is_read_once_for_all_of_its_texts(artist: OverlayArtist, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = own_images.read_image

    def count(file: Path) -> object:
        read.append(file.name)
        return original(file)

    monkeypatch.setattr(own_images, "read_image", count)
    for index in (0, 1, 2, 3):
        raw = draw_output("x", artist.images.sizes[artist.images.pairs[index][0]], index)
        artist.draw_result(index, raw, postprocess(raw, SETTINGS), settings=SETTINGS)
    assert read == ["a.png", "b.png"]
