"""Images are read in formats alone whose decoders run no other program."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from pipelines.data.image_decoding import decode_upright
from shards.errors import DataError
from shards.image_formats import IMAGE_FORMATS, open_image
from shards.image_validation import check_image
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
