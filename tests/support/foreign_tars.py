"""Tars with any members, as other programs write them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from PIL import Image

from tests.support.tiny_shards import fill_masks, make_record


def draw_image(size: tuple[int, int] = (16, 12)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, "red").save(stream, "PNG")
    return stream.getvalue()


def make_info(name: str, content: bytes = b"x", **values: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in values.items():
        setattr(info, key, value)
    return info, content


def make_pair(key: str = "a", image_id: int = 1, image: bytes = b"") -> list[tuple[tarfile.TarInfo, bytes]]:
    record = json.dumps(fill_masks(make_record(image_id, "a.png", (16, 12), 2)).to_json()).encode()
    return [make_info(f"{key}.png", image or draw_image()), make_info(f"{key}.json", record)]


def write_tar(file: Path, members: list[tuple[tarfile.TarInfo, bytes]], tar_format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(file, "w", format=tar_format) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content) if content else None)
    return file
