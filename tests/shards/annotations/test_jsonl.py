"""JSON lines of one's own: what they become, and what is refused in which line."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.config.settings import JsonLinesSettings
from pipelines.stages.selection import Selection, select_items
from shards.annotations.drafts import build_record
from shards.errors import DataError
from shards.masks import decode_mask
from shards.record import ImageRecord

SQUARE = [[10, 5, 20, 5, 20, 15, 10, 15]]
LINE: dict[str, Any] = {"image": "a/1.png", "text": "it", "targets": [{"box": [10, 5, 20, 15]}]}


def make_mask() -> np.ndarray[Any, np.dtype[np.uint8]]:
    mask = np.zeros((30, 40), dtype=np.uint8)
    mask[5:15, 10:20] = 7
    return mask


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "images" / "a").mkdir(parents=True)
    for name in ("a/1.png", "2.png"):
        Image.new("RGB", (40, 30)).save(tmp_path / "images" / name)
    (tmp_path / "masks").mkdir()
    Image.fromarray(make_mask()).save(tmp_path / "masks" / "it.png")
    return tmp_path


def select(home: Path, lines: list[Any] | bytes, **settings: Any) -> Selection:
    file = home / "own.jsonl"
    file.write_bytes(lines if isinstance(lines, bytes) else "\n".join(map(json.dumps, lines)).encode())
    return select_items(JsonLinesSettings(dataset="jsonl", **settings), file, [home / "images"])


def read(home: Path, *lines: Any, **settings: Any) -> list[ImageRecord]:
    selection = select(home, list(lines), **settings)
    selection.collector.raise_if_any()
    return [build_record(draft) for draft, _ in selection.items]


def refuse(home: Path, line: Any) -> str:
    """The error of the second of two lines, without the file and the line."""
    first = json.dumps(LINE).encode()
    data = line if isinstance(line, bytes) else json.dumps(line).encode()
    selection = select(home, first + b"\n" + data + b"\n")
    assert [draft.image.file_name for draft, _ in selection.items] == ["a/1.png"]
    ((_, error),) = selection.collector
    assert error.record is not None
    assert error.record.startswith("line 2") or error.record == "image 3.png"
    return error.what


@pytest.mark.parametrize(
    ("target", "box", "has_mask"),
    [
        ({"box": [10, 5, 20, 15]}, (10, 5, 20, 15), False),
        ({"bbox": [10, 5, 10, 10]}, (10, 5, 20, 15), False),
        ({"polygons": SQUARE}, (10, 5, 20, 15), True),
        ({"rle": {"size": [30, 40], "counts": [305, *[10, 20] * 9, 10, 615]}}, (10, 5, 20, 15), True),
        ({"mask": "masks/it.png"}, (10, 5, 20, 15), True),
        ({"mask": "masks/it.png", "box": [9.5, 5, 20, 15]}, (9.5, 5, 20, 15), True),
        ({"box": [-0.5, 5, 20, 30.5]}, (0, 5, 20, 30), False),
    ],
)
def test_every_kind_of_target_becomes_an_instance(
    home: Path, target: dict[str, Any], box: tuple[float, ...], has_mask: bool
) -> None:
    (record,) = read(home, {**LINE, "targets": [target]})
    (instance,) = record.instances
    assert instance.box == box
    assert (instance.mask is not None) == has_mask
    if instance.mask is not None:
        assert (decode_mask(instance.mask) == (make_mask() > 0)).all()
    assert ImageRecord.from_json(record.to_json()) == record
    assert ("mask" in record.to_json()["instances"][0]) == has_mask


def test_lines_about_an_image_become_one_record_and_equal_targets_one_instance(home: Path) -> None:
    other = {"polygons": SQUARE}
    (record,) = read(
        home,
        LINE,
        {"image": "a/1.png", "expressions": [{"text": ["both", "all"], "targets": [other, LINE["targets"][0]]},
                                             {"text": "no dog", "targets": []}]},
        name="mine",
    )  # fmt: skip
    assert [(each.id, each.text, each.instances) for each in record.expressions] == [
        ("mine/1/0", "it", (0,)),
        ("mine/2/0", "both", (1, 0)),
        ("mine/2/1", "all", (1, 0)),
        ("mine/3/0", "no dog", ()),
    ]
    assert len(record.instances) == 2


def test_splits_are_those_of_the_lines_and_ids_do_not_depend_on_the_chosen_one(home: Path) -> None:
    lines = [LINE, {**LINE, "image": "2.png", "split": "val"}, {**LINE, "text": "again", "split": "val"}]
    records = read(home, *lines)
    assert [record.image_id for record in records] == [1, 1, 2]
    assert read(home, *lines, splits=("val",)) == records[1:]
    with pytest.raises(DataError, match=r"own\.jsonl: has no split 'test'; there are train, val"):
        read(home, *lines, splits=("test",))


def test_blank_lines_carriage_returns_and_a_byte_order_mark_are_passed_over(home: Path) -> None:
    data = b"\xef\xbb\xbf" + json.dumps(LINE).encode() + b"\r\n\r\n  \n"
    assert len(select(home, data).items) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"txt": "it"}, "has the unknown key 'txt'; did you mean text?"),
        ({"image": "../1.png"}, "image is '../1.png'; write its path below the folder that --images gives"),
        ({"image": "/data/1.png"}, "write its path below the folder"),
        ({"image": "a\n1.png"}, "which names no file"),
        ({"image": 7}, "image is 7, not a text"),
        ({"image": "3.png"}, "no image 3.png in"),
        ({"split": "a/b"}, "split is 'a/b', which names no folder"),
        ({"split": "artifact.json"}, "split is 'artifact.json', which names no folder; give up to 64 of A-Z"),
        ({"text": " "}, "text is empty"),
        ({"text": []}, "has no text"),
        ({"text": "\ud800"}, "not valid Unicode"),
        ({"targets": None}, "targets is None, not a list"),
        ({"targets": [None]}, "target 1 is None, not an object with box, bbox, polygons, rle, mask"),
        ({"targets": [{}]}, "target 1 is empty; give one of box, bbox, polygons, rle, mask"),
        ({"targets": [{"boxes": [1, 2, 3, 4]}]}, "target 1 has the unknown key 'boxes'; did you mean box"),
        ({"targets": [{"box": [1, 2, 3]}]}, "target 1 has box [1, 2, 3], which is no list of four numbers"),
        ({"targets": [{"box": [1, 2, 3, True]}]}, "no list of four numbers"),
        ({"targets": [{"box": [1, 2, 3, 10**400]}]}, "no list of four numbers"),
        ({"targets": [{"box": [20, 5, 10, 15]}]}, "covers nothing; expected x0, y0, x1, y1 with x0 < x1 and y0 < y1"),
        ({"targets": [{"bbox": [20, 5, 0, 15]}]}, "covers nothing; expected x, y, width, height above 0"),
        ({"targets": [{"box": [20, 5, 50, 15]}]}, "reaches beyond the image of 40 × 30 pixels"),
        ({"targets": [{"box": [0.1, 0.2, 0.3, 0.4]}]}, "give pixels, not fractions of the image"),
        ({"targets": [{"box": [1, 2, 3, 4], "bbox": [1, 2, 3, 4]}]}, "target 1 has box and bbox; give one of them"),
        ({"targets": [{"polygons": SQUARE, "mask": "masks/it.png"}]}, "has polygons and mask; give one of them"),
        ({"targets": [{"polygons": [[1, 2, 3, 4]]}]}, "fewer than three points"),
        ({"targets": [{"polygons": 7}]}, "polygons that are 7, not a list of polygons"),
        ({"targets": [{"rle": {"size": [40, 30], "counts": [1200]}}]}, "run lengths of size [40, 30] in an image of"),
        ({"targets": [{"mask": "../it.png"}]}, "has mask '../it.png'; write the path of a PNG relative to the folder"),
        ({"targets": [{"mask": "masks/none.png"}]}, "mask none.png: no such file"),
        ({"targets": [{"mask": "own.jsonl"}]}, "mask own.jsonl: "),
        ({"targets": [{"mask": "x" * 3000}]}, "mask "),
        ({"expressions": []}, "has expressions beside text or targets"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_used_is_named(home: Path, changes: dict[str, Any], words: str) -> None:
    assert words in refuse(home, {**LINE, "image": "2.png", **changes})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"nonsense", "is no JSON (Expecting value at character 1)"),
        (b"7", "is a int, not an object with image, text and targets"),
        (b'{"image": "2.png", "text": "a", "text": "b", "targets": []}', "has 'text' twice in one object"),
        (b'{"image": "2.png", "text": "a", "targets": [{"box": [1, 2, NaN, 4]}]}', "holds NaN"),
        (b'{"image": "\xff.png"}', "is no UTF-8 (byte 11)"),
        (b"[" * 100_000, "is no JSON that can be read"),
        ({"image": "2.png", "text": "a"}, "has no targets; write [] for an expression about nothing in the image"),
        ({"image": "2.png", "targets": []}, "has no text"),
        ({"image": "2.png", "expressions": [{"text": "a", "target": []}]}, "key 'target'; did you mean targets?"),
    ],
)  # fmt: skip
def test_a_line_of_another_form_is_named(home: Path, line: Any, words: str) -> None:
    assert words in refuse(home, line)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.zeros((30, 40), dtype=np.uint8), "covers no pixel"),
        (np.ones((40, 30), dtype=np.uint8), "has 30 × 40 pixels, its image 40 × 30; give masks of its size"),
        (np.ones((30, 40, 3), dtype=np.uint8), "has 3 channels; expected one"),
    ],
)
def test_a_mask_that_cannot_be_used_is_named(home: Path, pixels: Any, words: str) -> None:
    Image.fromarray(pixels).save(home / "masks" / "bad.png")
    assert words in refuse(home, {**LINE, "image": "2.png", "targets": [{"mask": "masks/bad.png"}]})


def test_all_bad_lines_are_collected_and_the_rest_is_kept(home: Path) -> None:
    lines = [{**LINE, "text": f"number {n}", **({} if n % 3 else {"targets": 7})} for n in range(30)]
    selection = select(home, lines)
    assert [error.record for _, error in selection.collector] == [f"line {n}" for n in range(1, 31, 3)]
    ((draft, _),) = selection.items
    assert [each.ref_id for each in draft.expressions] == [n + 1 for n in range(30) if n % 3]


@pytest.mark.parametrize(
    ("data", "words"), [(b"", "holds no lines"), (b"\n\n", "holds no lines"), (b"[\n{}]", "write one object per line")]
)
def test_a_file_without_lines_is_refused(home: Path, data: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        select(home, data)


def test_a_folder_or_a_missing_file_is_refused(home: Path) -> None:
    for path in (home, home / "none.jsonl"):
        with pytest.raises(DataError, match=r"give the \.jsonl file as --annotations"):
            select_items(JsonLinesSettings(dataset="jsonl"), path, [home / "images"])


def test_targets_are_equal_whichever_way_their_numbers_are_written(home: Path) -> None:
    targets = [{"box": [10, 5, 20, 15]}, {"box": [10.0, 5.0, 20, 15]}, {"bbox": [10, 5, 10, 10]}]
    outlines = [{"polygons": SQUARE}, {"polygons": [[float(value) for value in SQUARE[0]]]}]
    (record,) = read(home, {**LINE, "targets": targets + outlines})
    assert [instance.mask is None for instance in record.instances] == [True, False]
    assert record.expressions[0].instances == (0, 1)


def test_a_box_that_does_not_touch_its_mask_is_refused(home: Path) -> None:
    line = {**LINE, "text": "the other", "targets": [{"box": [25, 20, 35, 28], "polygons": SQUARE}]}
    assert "box [25.0, 20.0, 35.0, 28.0] does not touch its mask, which lies in [10.0, 5.0, 20.0, 15.0]" in refuse(
        home, line
    )


def test_a_pipe_in_place_of_a_mask_is_refused_without_waiting(home: Path) -> None:
    pipe = home / "pipe.png"
    os.mkfifo(pipe)
    # A reader that waits would get an empty file from this writer: the test fails instead of hanging.
    writer = threading.Thread(target=pipe.write_bytes, args=(b"",), daemon=True)
    writer.start()
    assert "mask pipe.png: is a device or a pipe" in refuse(home, {**LINE, "targets": [{"mask": "pipe.png"}]})
    writer.join(0.2)
    assert writer.is_alive(), "the pipe was read"
    os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))
