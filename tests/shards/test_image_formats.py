"""Images are read in formats alone whose decoders run no other program, and not if they are made to fill memory."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from pipelines.data.image_decoding import decode_upright
from shards.errors import DataError
from shards.image_formats import IMAGE_FORMATS, ImageBombError, open_image
from shards.image_validation import check_image
from tests.support.bombs import make_jpeg, make_png, make_webp
from tests.support.tiny_shards import make_record

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"


@pytest.fixture
def ghostscript_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file to which a program in Ghostscript's place writes that it ran."""
    log, program = tmp_path / "ran.txt", tmp_path / "gs"
    program.write_text(f"#!/bin/sh\necho ran >> {log}\necho 10\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return log


def test_a_postscript_file_named_as_an_image_runs_no_program(ghostscript_log: Path) -> None:
    with pytest.raises(DataError):
        check_image(EPS, Path("image.jpg"), make_record(1, "image.jpg", (10, 10), 1), "image 1")
    with pytest.raises(DataError):
        decode_upright(EPS, "image.jpg")
    assert not ghostscript_log.exists()


@pytest.mark.parametrize("kind", IMAGE_FORMATS)
def test_every_format_that_is_read_is_one_that_pillow_decodes_itself(kind: str) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 120, dtype=np.uint8)).save(stream, kind)
    stream.seek(0)
    with open_image(stream) as image:
        assert np.asarray(image.convert("RGB")).shape == (8, 8, 3)


# Kind, width, height, and the fewest bytes that an image of this size needs to be decoded.
LIMITS = {
    "png": (lambda w, h: make_png(w, h, bits=8), 8000, 6400, 200_000),
    "bilevel png": (make_png, 8000, 6400, 25_000),
    "jpg": (make_jpeg, 8000, 6400, 400_000),
    "webp": (make_webp, 5120, 5000, 100_000),
}


@pytest.mark.parametrize("kind", LIMITS)
def test_a_large_image_whose_bytes_stand_for_too_many_pixels_is_refused(kind: str, tmp_path: Path) -> None:
    make, width, height, num_bytes = LIMITS[kind]
    head = make(width, height)
    file = tmp_path / "a.image"
    for size, refused in ((num_bytes, False), (num_bytes - 1, True)):
        data = head.ljust(size, b"\0")
        file.write_bytes(data)
        for opened in (file, io.BytesIO(data)):
            if refused:
                with pytest.raises(
                    ImageBombError, match=rf"{width} × {height} pixels in {size:,} bytes; expected a byte"
                ):
                    open_image(opened)
            else:
                with open_image(opened) as image:
                    assert image.size == (width, height)


def test_smaller_images_of_one_color_are_read() -> None:
    for data, size in ((make_png(8000, 6000, bits=8), (8000, 6000)), (make_webp(6000, 4000), (6000, 4000))):
        with open_image(io.BytesIO(data)) as image:
            assert image.size == size


def test_a_large_blank_scan_is_read(tmp_path: Path) -> None:
    Image.new("L", (8000, 6200), 255).save(tmp_path / "scan.jpg")
    with open_image(tmp_path / "scan.jpg") as image:
        assert image.size == (8000, 6200)


def test_a_bomb_in_a_shard_is_named_with_its_record() -> None:
    bomb = make_webp(8000, 8000)
    record = make_record(1, "a.webp", (8000, 8000), 1)
    with pytest.raises(DataError, match=r"^val-000000.tar, key 1: has 8000 × 8000 pixels in \d+ bytes; .*; reduce the"):
        check_image(bomb, Path("val-000000.tar"), record, "key 1")
    with pytest.raises(DataError, match=r"^val-000000.tar, key 1: has 8000 × 8000 pixels in \d+ bytes; .*; reduce the"):
        decode_upright(bomb, "val-000000.tar, key 1")
