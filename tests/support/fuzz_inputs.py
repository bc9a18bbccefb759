"""Inputs with a few bytes changed, always the same for a seed: each must be a valid reading or one line of error.

`python -m tests.support.fuzz_inputs 2000` tries so many of every kind and
prints what came of them, the seconds and the peak of memory; the tests try a short slice.
"""

from __future__ import annotations

import io
import json
import random
import resource
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.data.image_decoding import decode_image, inspect_image
from pipelines.prediction.image_predictions import ImagePredictions
from pipelines.prediction.labelme_export import describe_image
from pipelines.prediction.labelme_import import read_labelme
from pipelines.prediction.prediction import Prediction
from pipelines.prediction.prediction_file import read_predictions
from shards.errors import DataError
from shards.masks import decode_mask, encode_mask
from tests.support.exif_blocks import ASCII, LONG, ORIENTATION, RATIONAL, SHORT, make_block, make_entry

HEIGHT, WIDTH = 6, 10
_EXTREMES = (b"\x00", b"\xff", b"\x00\x00", b"\xff\xff", b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"\x08\x00\x00\x00",
             b"Exif\x00\x00", b"II*\x00", b"MM\x00*")  # fmt: skip
_JSON = (b"null", b"NaN", b"-1", b"1e999", b"true", b'""', b"[]", b"{", b"}", b"[", b",", b"\n", b"0.5", b'"boxes"',
         b"b'", b'"mask":null', b"\xff", b"\x00", b"\xef\xbb\xbf", b"\\ud800", b"9" * 30)  # fmt: skip


def change(data: bytes, source: random.Random, tokens: tuple[bytes, ...]) -> bytes:
    """One or two changes: a byte, a token in place of bytes or between them, a piece left out, doubled or cut off."""
    for _ in range(source.randint(1, 2)):
        start = source.randrange(len(data) + 1)
        end = min(len(data), start + source.randint(1, 8))
        kind = source.randrange(6)
        if kind == 0:
            data = data[:start] + bytes([source.randrange(256)]) + data[start + 1 :]
        elif kind == 1:
            token = source.choice(tokens)
            data = data[:start] + token + data[start + len(token) :]
        elif kind == 2:
            data = data[:start] + source.choice(tokens) + data[start:]
        elif kind == 3:
            data = data[:start] + data[end:]
        elif kind == 4:
            data = data[:end] + data[start:end] + data[end:]
        elif source.random() < 0.3:
            data = data[:start]
    return data


def make_exif(order: str) -> bytes:
    """A block as cameras write it: texts, fractions, the mark, a directory inside."""
    inner = struct.pack(f"{order}H", 1) + make_entry(0x9003, ASCII, 4, b"2026", order) + bytes(4)
    entries = [
        make_entry(0x10F, ASCII, 6, struct.pack(f"{order}L", 74), order),
        make_entry(ORIENTATION, SHORT, 1, struct.pack(f"{order}HH", 6, 0), order),
        make_entry(0x11A, RATIONAL, 1, struct.pack(f"{order}L", 80), order),
        make_entry(0x128, SHORT, 1, struct.pack(f"{order}HH", 2, 0), order),
        make_entry(0x8769, LONG, 1, struct.pack(f"{order}L", 88), order),
    ]
    return make_block(entries, b"maker\0" + struct.pack(f"{order}LL", 72, 1) + inner, order)


def encode_jpeg(exif: bytes = b"") -> bytes:
    """A small image; `exif` is what follows the header of the block."""
    stream = io.BytesIO()
    ramp = np.arange(HEIGHT * WIDTH * 3, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3)
    Image.fromarray(ramp).save(stream, "JPEG", **{"exif": b"Exif\0\0" + exif} if exif else {})
    return stream.getvalue()


def try_exif(seed: int, folder: Path) -> str:
    """Read an image whose EXIF block is corrupted: its pixels are those of the image without one, turned or not."""
    source = random.Random(f"exif {seed}")
    data = encode_jpeg(change(make_exif(source.choice("<>")), source, _EXTREMES))
    file = folder / "corrupted.jpg"
    file.write_bytes(data)
    stored = decode_image(encode_jpeg(), "plain.jpg")
    assert (decode_image(data, "corrupted.jpg") == stored).all(), seed
    pixels, remark = inspect_image(file)
    assert "\n" not in remark, seed
    turned = [np.rot90(view, quarter) for view in (stored, stored[:, ::-1]) for quarter in range(4)]
    assert any(pixels.shape == view.shape and (pixels == view).all() for view in turned), seed
    upright = pixels.shape == stored.shape
    return ("not turned" if upright else "turned") + (", noted" if remark else "")


def make_lines(source: random.Random) -> bytes:
    """A prediction file of three lines: with boxes and masks, or with either."""
    kinds = source.choice((("boxes", "scores", "mask"), ("boxes",), ("mask",)))
    line = {
        "boxes": [[1.5, 0, 3, 2.25]],
        "scores": [0.93],
        "mask": encode_mask(np.arange(12).reshape(3, 4) % 5 > 1),
    }
    lines = ({"id": f"grefcoco/1/{number}"} | {key: line[key] for key in kinds} for number in range(3))
    return "".join(json.dumps(one) + "\n" for one in lines).encode()


def try_predictions(seed: int, folder: Path) -> str:
    """Read a corrupted prediction file: predictions that all give the same, or one line that names the file."""
    source = random.Random(f"predictions {seed}")
    file = folder / "corrupted.jsonl"
    file.write_bytes(change(make_lines(source), source, _JSON))
    try:
        predictions = list(read_predictions(file))
    except DataError as error:
        if not str(error).startswith(str(file)) or "\n" in str(error):
            raise AssertionError(seed) from error
        return "refused"
    assert len({(one.boxes is None, one.mask is None) for one in predictions}) <= 1, seed
    for one in predictions:
        assert one.boxes is not None or one.mask is not None, seed
        assert one.mask is None or list(decode_mask(one.mask).shape) == one.mask["size"], seed
    return "read"


def make_labels() -> bytes:
    """A file of labelme with two expressions, one without a target."""
    mask = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 7 > 2
    found = Prediction(id="a/0", boxes=[[1.5, 0, 3, 2.25]], scores=[0.9], mask=encode_mask(mask), no_target=False)
    empty = Prediction(id="a/1", boxes=[], scores=[], mask=encode_mask(mask & False), no_target=True)
    image = ImagePredictions(file_name="a.png", size=(HEIGHT, WIDTH), texts=("red", "blue"), predictions=(found, empty))
    return json.dumps(describe_image(image)).encode()


def try_labelme(seed: int, folder: Path) -> str:
    """Read a corrupted file of labelme: predictions with masks of the image's size, or one line that names the file."""
    source = random.Random(f"labelme {seed}")
    file = folder / "corrupted.json"
    file.write_bytes(change(make_labels(), source, _JSON))
    try:
        predictions = read_labelme([file], None)
    except DataError as error:
        if not str(error).startswith(str(file)) or "\n" in str(error):
            raise AssertionError(seed) from error
        return "refused"
    assert all(one.mask is None or list(decode_mask(one.mask).shape) == one.mask["size"] for one in predictions), seed
    return "read"


KINDS = {"exif": try_exif, "predictions": try_predictions, "labelme": try_labelme}


def main(count: int) -> None:
    """Try `count` inputs of each kind and say what came of them."""
    for kind, attempt in KINDS.items():
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            results = Counter(attempt(seed, Path(folder)) for seed in range(count))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        seconds = time.perf_counter() - start
        sys.stdout.write(f"{kind}: {dict(results)}, {seconds:.0f} s, peak {peak} MB\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
