"""Small files that say, or unpack to, far more than fits into memory, and files that cannot be read to an end."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

from PIL import Image


def make_png(width: int, height: int, *, filled: bool = False, bits: int = 1) -> bytes:
    """A gray PNG that says its size; `filled` with zeros to its end, or broken off after the first of them."""
    packer = zlib.compressobj(9)
    row = bytes(1 + -(-width * bits // 8))
    rows = b"".join(packer.compress(row) for _ in range(height if filled else 1)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _draw(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, kind, **options)
    return stream.getvalue()


def make_jpeg(width: int, height: int) -> bytes:
    """A JPEG that says its size, and breaks off after the first pixels."""
    data = _draw("JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def _make_gif() -> bytes:
    data = _draw("GIF")
    at = data.index(b",\0\0\0\0")
    huge = struct.pack("<HH", 65_535, 65_535)
    return data[:6] + huge + data[10 : at + 5] + huge + data[at + 9 :]


def _make_tiff() -> bytes:
    data = bytearray(_draw("TIFF"))
    directory = struct.unpack_from("<I", data, 4)[0]
    for entry in range(struct.unpack_from("<H", data, directory)[0]):
        at = directory + 2 + 12 * entry
        if struct.unpack_from("<H", data, at)[0] in (256, 257):
            data[at + 2 : at + 12] = struct.pack("<HII", 4, 1, 200_000)
    return bytes(data)


def _make_bmp() -> bytes:
    data = _draw("BMP")
    return data[:18] + struct.pack("<ii", 60_000, 60_000) + data[26:]


def make_webp(width: int, height: int) -> bytes:
    """A WebP of one color, which takes as many bytes at any size, 16,384 × 16,384 at most."""
    data = _draw("WEBP", lossless=True)
    at = data.index(b"VP8L") + 9
    bits = struct.unpack_from("<I", data, at)[0] & ~0xFFFFFFF
    return data[:at] + struct.pack("<I", bits | (width - 1) | (height - 1) << 14) + data[at + 4 :]


IMAGES = {
    "said.png": lambda: make_png(60_000, 60_000, bits=8),
    "filled.png": lambda: make_png(20_000, 20_000, filled=True),
    "wide.png": lambda: make_png(2**31 - 1, 1),
    "flat.png": lambda: make_png(10_000, 10_000, filled=True, bits=8),
    "flat.webp": lambda: make_webp(10_000, 10_000),
    "huge.jpg": lambda: make_jpeg(65_500, 65_500),
    "huge.gif.jpg": _make_gif,
    "huge.tif": _make_tiff,
    "huge.bmp": _make_bmp,
    "huge.webp": lambda: make_webp(16_384, 16_384),
    "program.jpg": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30000 30000\n%%EndComments\n{} loop\n%%EOF\n",
    "text.jpg": lambda: b"P6\n60000 60000\n255\n",
}
"""What makes an image bomb, by its file name."""


def _pack_zip(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _pack_tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        info = tarfile.TarInfo("a.png")
        info.size = 200 << 20
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    return stream.getvalue()


def _make_doubled_pickle() -> bytes:
    lists = b"]q\0" + b"".join(b"]q%c(h%ch%ce" % (level + 1, level, level) for level in range(60))
    return b"\x80\x02" + lists + b"."


def _make_checkpoint() -> bytes:
    return _pack_zip({"a/data.pkl": b"\x80\x02}.", "a/data/0": bytes(200 << 20), "a/version": b"3\n"})


FILES = {
    "gzip": lambda: gzip.compress(bytes(200 << 20), 9),
    "tar.gz": _pack_tar,
    "zip in zip": lambda: _pack_zip({"a.zip": _pack_zip({"b": bytes(200 << 20)})}),
    "checkpoint": _make_checkpoint,
    "pickle of lists": _make_doubled_pickle,
    "pickle of a tuple": lambda: b"\x80\x02})" + b"2\x86" * 60 + b"Ns.",
    "pickle of bytes": lambda: b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",
    "nested JSON": lambda: b"[" * 100_000 + b"]" * 100_000,
    "nested objects": lambda: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "number": lambda: b"[" + b"9" * 1_000_000 + b"]",
    "zeros": lambda: bytes(1 << 20),
    "nested TOML": lambda: b"a = " + b"[" * 20_000 + b"]" * 20_000,
}
"""What makes a bomb that is no image."""


def write_special(folder: Path) -> list[Path]:
    """A pipe that no one writes to, a device that never ends, and a link that leads to itself."""
    os.mkfifo(folder / "pipe.json")
    (folder / "device.json").symlink_to("/dev/zero")
    (folder / "loop.json").symlink_to("loop.json")
    return [folder / name for name in ("pipe.json", "device.json", "loop.json")]


def make_instances(width: int, height: int, segmentation: object) -> bytes:
    """An instances.json of one image and one annotation."""
    image = {"id": 1, "file_name": "1.png", "width": width, "height": height}
    annotation = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [1, 1, 5, 5],
        "segmentation": segmentation,
        "iscrowd": 0,
    }
    categories = [{"id": 1, "name": "dog"}]
    return json.dumps({"images": [image], "annotations": [annotation], "categories": categories}).encode()
