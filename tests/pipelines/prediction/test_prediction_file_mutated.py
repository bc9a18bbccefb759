"""Ten thousand corrupted lines: each is read as a prediction or refused with its line, never anything else."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from pipelines.prediction.prediction import parse_prediction
from shards.errors import DataError
from shards.masks import decode_mask, encode_mask
from tests.support.corrupted_bytes import corrupt

FILE, LINE_NUMBER = Path("p.jsonl"), 17
LINE = json.dumps({
    "id": "grefcoco/12/3",
    "boxes": [[1.5, 0, 3, 2.25], [0, 0, 1e0, 1]],
    "scores": [0.93, 0.4],
    "mask": encode_mask(np.arange(12).reshape(3, 4) % 5 > 1),
    "no_target": False,
}).encode()  # fmt: skip


@pytest.mark.parametrize("seed", range(10))
def test_a_corrupted_line_is_read_or_named(seed: int) -> None:
    source = random.Random(seed)
    messages = []
    for _ in range(1000):
        line = corrupt(LINE, source)
        try:
            prediction = parse_prediction(line, FILE, LINE_NUMBER)
        except DataError as error:
            messages.append(str(error))
            continue
        assert all(len(box) == 4 for box in prediction.boxes or ()), line
        if prediction.mask is not None:
            assert decode_mask(prediction.mask).shape == tuple(prediction.mask["size"]), line
    assert 500 < len(messages) < 1000
    assert all(f"line {LINE_NUMBER}" in message and "\n" not in message for message in messages)
