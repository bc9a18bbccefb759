"""Image files are decoded to their end and compared with their record before they enter a shard."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shards.errors import DataError
from shards.image_validation import read_valid_image
from tests.support.tiny_shards import make_items, make_record


def test_a_file_that_is_no_image_by_its_name_is_an_error(tmp_path: Path) -> None:
    [(record, file)] = make_items(tmp_path / "images", [1])
    with pytest.raises(DataError, match=r"image\.xyz, image 100: '\.xyz' is no known extension"):
        read_valid_image(file.rename(tmp_path / "image.xyz"), record)


@pytest.mark.parametrize("extension", ["jpg", "png"])
@settings(deadline=None)
@given(st.data())
def test_an_image_that_breaks_off_anywhere_is_an_error(
    tmp_path_factory: pytest.TempPathFactory, extension: str, data: st.DataObject
) -> None:
    [(record, file)] = make_items(tmp_path_factory.mktemp("cut"), [1], extension)
    whole = file.read_bytes()
    # The last bytes hold end marks only: the pixels are whole without them.
    file.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 24))])
    with pytest.raises(DataError) as caught:
        read_valid_image(file, record)
    assert caught.value.file == file


def test_a_large_jpeg_that_breaks_off_is_an_error(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.effect_noise((640, 480), 60).convert("RGB").save(stream, "JPEG")
    file = tmp_path / "large.jpg"
    record = make_record(1, file.name, (640, 480), 1)
    file.write_bytes(stream.getvalue()[:-100])
    with pytest.raises(DataError, match="truncated"):
        read_valid_image(file, record)
    file.write_bytes(stream.getvalue())
    assert read_valid_image(file, record) == stream.getvalue()
