"""Annotation files with a few bytes or values changed: each is a valid reading or errors of one line each.

By hand, every layout with as many inputs as one likes: `python -m tests.support.mutated_annotations 2500`.
"""

from __future__ import annotations

import copy
import json
import pickle
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.config.settings import PrepareSettings
from pipelines.stages.selection import select_items
from shards.annotations.drafts import build_record
from shards.errors import DataError
from shards.masks import rle_area
from shards.record import ImageRecord

SIZE = (40, 30)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 7, 8, 70, 71, 2**31, 2**63, 10**30, 0.5, 1e308, float("nan"), float("inf"), "", "7",
    "\n", "../x", "clip/\nframe.png", "\ud800", "\0", "x" * 3000, [], [[]], {}, [-1], [70, -1], [[1, 2]], [[1e7] * 6],
    {"size": [30, 40], "counts": [1200]}, {"size": [30, 40], "counts": "PPPP"}, {"size": [10**9, 10**9], "counts": []},
)  # fmt: skip
TOKENS = (
    b"null", b"NaN", b"1e999", b"-1", b'""', b"[]", b"{}", b"[", b"}", b'"', b",", b"\\ud800", b"\xff", b"\0", b"[[[[",
    b"]", b"(", b"}(", b"t", b"R", b"b", b"0", b"2", b"h\x00", b"q\x01", b"r\xff\xff\xff\xff", b"c__builtin__\nlist\n",
    b"cnumpy\ndtype\n", b"ccollections\nOrderedDict\n", b"\x8c\x03abc", b"B\xff\xff\xff\x7f", b"X\xff\xff\xff\xff",
    b".",
)  # fmt: skip


def make_documents() -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """An instances.json, refs about it, and the same in InstanceVG's merged layout."""
    square = [[10, 5, 20, 5, 20, 15, 10, 15]]
    crowd = {"size": [30, 40], "counts": [300, 60, 840]}
    instances = {
        "images": [{"id": n, "file_name": f"clip/{n}.png", "width": SIZE[0], "height": SIZE[1]} for n in (7, 8)],
        "annotations": [
            {"id": 10 * n + k, "image_id": n, "category_id": 3, "bbox": [10, 5, 10, 10], "iscrowd": k,
             "segmentation": crowd if k else square}
            for n in (7, 8) for k in (0, 1)
        ],
    }  # fmt: skip
    refs = [
        {"ref_id": ref, "image_id": image, "ann_id": ann_ids, "split": "val", "no_target": False,
         "sent_ids": [2 * ref, 2 * ref + 1],
         "sentences": [{"sent_id": 2 * ref + k, "raw": f"phrase {k}", "sent": "café", "exist": True} for k in (0, 1)]}
        for ref, (image, ann_ids) in enumerate(((7, [70]), (7, [70, 71]), (8, [80])))
    ]  # fmt: skip
    targets = [{"id": 70, "bbox": [10, 5, 10, 10], "segmentation": square, "category_id": 3}]
    sample = {"image_id": 7, "width": 40, "height": 30, "file_name": "clip/7.png", "annotations": targets}
    merged = {"val": [{**sample, "expressions": {"raw": [f"phrase {n}", "another"]}} for n in range(3)]}
    return instances, refs, merged


def make_lines() -> list[dict[str, Any]]:
    """JSON lines of one's own about the same images, with every kind of target; mask.png is one of them."""
    targets = [
        {"box": [10, 5, 20, 15]},
        {"bbox": [10, 5, 10, 10], "polygons": [[10, 5, 20, 5, 20, 15, 10, 15]]},
        {"rle": {"size": [30, 40], "counts": [300, 60, 840]}},
        {"mask": "mask.png"},
    ]
    return [
        {"image": "clip/7.png", "text": "one box", "targets": targets[:1], "split": "val"},
        {"image": "clip/7.png", "text": ["several", "they"], "targets": targets, "split": "val"},
        {"image": "clip/8.png",
         "expressions": [{"text": "nothing", "targets": []}, {"text": "it", "targets": targets[3:]}]},
    ]  # fmt: skip


def change_value(document: Any, source: random.Random) -> Any:
    """A copy with one to three values replaced, left out or doubled, anywhere."""
    changed = copy.deepcopy(document)
    for _ in range(source.randint(1, 3)):
        places = list(_list_places(changed))
        if not places:
            return changed
        holder, key = source.choice(places)
        action = source.randrange(4)
        if action == 0:
            del holder[key]
        elif action == 1 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        else:
            holder[key] = copy.deepcopy(source.choice(VALUES))
    return changed


def change_bytes(data: bytes, source: random.Random) -> bytes:
    """One to four bytes changed, pieces left out or doubled, tokens put in, or the end cut off."""
    for _ in range(source.randint(1, 4)):
        start = source.randrange(len(data) + 1)
        end = min(len(data), start + source.randint(0, 8))
        action = source.randrange(5)
        if action == 0:
            data = data[:start] + bytes([source.randrange(256)]) + data[start + 1 :]
        elif action == 1:
            data = data[:start] + data[end:]
        elif action == 2:
            data = data[:end] + data[start:end] + data[end:]
        elif action == 3:
            data = data[:start] + source.choice(TOKENS) + data[source.choice((start, end)) :]
        elif source.randrange(8) == 0:
            data = data[:start]
    return data


def write_mutated(folder: Path, layout: str, seed: int) -> str:
    """Write annotation files of which one is changed; returns the data set that they are."""
    source = random.Random(f"{layout}/{seed}")
    instances, refs, merged = make_documents()
    separate = [entry | {"iscrowd": entry["id"] % 80 == 1} for entry in instances["annotations"]]
    categories = instances | {
        "annotations": separate,
        "categories": [{"id": 3, "name": "dog"}, {"id": 4, "name": "wine glass"}],
    }
    dataset, name, document, encode = {
        "instances.json": ("grefcoco", "instances.json", instances, _to_json),
        "grefs json": ("grefcoco", "grefs(unc).json", refs, _to_json),
        "refs pickle": ("rrefcoco", "refs(unc).p", refs, _to_pickle(source)),
        "merged": ("grefcoco", "instance.json", merged, _to_json),
        "json lines": ("jsonl", "own.jsonl", make_lines(), _to_lines),
        "categories": ("coco", "own.json", categories, _to_json),
    }[layout]
    if dataset == "jsonl":
        mask = np.zeros(SIZE[::-1], dtype=np.uint8)
        mask[5:15, 10:20] = 255
        Image.fromarray(mask).save(folder / "mask.png")
    elif layout not in ("merged", "categories"):
        (folder / "instances.json").write_bytes(_to_json(instances))
        (folder / "grefs(unc).json").write_bytes(_to_json(refs))
    if source.randrange(2):
        document = change_value(document, source)
    data = encode(document)
    (folder / name).write_bytes(change_bytes(data, source) if source.randrange(2) else data)
    return dataset


def read_mutated(folder: Path, images: Path, layout: str, seed: int) -> str:
    """Read one input as `igvg prepare` does; says what came of it.

    Raises:
        AssertionError: an error has several lines, or a record contradicts itself.
    """
    for file in folder.iterdir():
        file.unlink()
    dataset = write_mutated(folder, layout, seed)
    outcome, lines = "read", []
    try:
        annotations = folder / {"jsonl": "own.jsonl", "coco": "own.json"}.get(dataset, "")
        selection = select_items(PrepareSettings(dataset=dataset), annotations, [images])
        for draft, _ in selection.items:
            record = build_record(draft)
            assert all(rle_area(instance.mask) for instance in record.instances if instance.mask is not None)
            assert ImageRecord.from_json(json.loads(json.dumps(record.to_json()))) == record
        lines = [str(error) for _, error in (*selection.collector, *selection.notes)]
        selection.collector.raise_if_any()
    except DataError as error:
        outcome, lines = "refused", [*lines, str(error)]
    assert all(len(line.splitlines()) == 1 for line in lines), f"{layout} {seed}: {lines}"
    return outcome


def draw_images(folder: Path) -> Path:
    """The two images of the documents."""
    (folder / "clip").mkdir(parents=True)
    for number in (7, 8):
        Image.new("RGB", SIZE).save(folder / "clip" / f"{number}.png")
    return folder


LAYOUTS = ("instances.json", "grefs json", "refs pickle", "merged", "json lines", "categories")


def _list_places(document: Any) -> list[tuple[Any, Any]]:
    if isinstance(document, dict):
        found: list[tuple[Any, Any]] = [(document, key) for key in document]
    elif isinstance(document, list):
        found = [(document, index) for index in range(len(document))]
    else:
        return []
    return found + [place for holder, key in found for place in _list_places(holder[key])]


def _to_json(document: Any) -> bytes:
    return json.dumps(document).encode()


def _to_lines(document: Any) -> bytes:
    lines = document if isinstance(document, list) else [document]
    return b"\n".join(map(_to_json, lines))


def _to_pickle(source: random.Random) -> Callable[[Any], bytes]:
    protocol = source.randrange(6)
    number = source.choice([int, np.int64])

    def encode(document: Any) -> bytes:
        if isinstance(document, list) and document and isinstance(document[0], dict):
            document[0]["ref_id"] = number(4)
        # A lone surrogate is written as Python writes it, and cannot be encoded otherwise.
        return pickle.dumps(document, protocol)

    return encode


def main(count: int) -> None:
    """Read `count` inputs of each layout and tell what came of them."""
    with tempfile.TemporaryDirectory() as home:
        images, folder = draw_images(Path(home) / "images"), Path(home) / "annotations"
        folder.mkdir()
        for layout in LAYOUTS:
            started, slowest, refused = time.monotonic(), 0.0, 0
            for seed in range(count):
                begun = time.monotonic()
                refused += read_mutated(folder, images, layout, seed) == "refused"
                slowest = max(slowest, time.monotonic() - begun)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            taken = time.monotonic() - started
            sys.stdout.write(
                f"{layout}: {count} inputs, {refused} refused, {taken:.0f} s, the slowest {slowest:.2f} s, {peak} MB\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2500)
