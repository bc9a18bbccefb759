"""Annotation files with a few bytes or values changed: each is a valid reading or errors of one line each.

By hand, with as many inputs as one likes: `python -m tests.support.fuzzing`.
"""

from __future__ import annotations

import io
import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.stages.prepare import choose_settings, describe
from pipelines.stages.selection import select_items
from shards.annotations.drafts import build_record
from shards.errors import DataError
from shards.image_validation import read_valid_image
from shards.masks import decode_mask, rle_area
from shards.record import ImageRecord
from tests.support.mutations import (
    change_bytes,
    change_opcodes,
    change_value,
    encode_json,
    encode_opcodes,
    encode_text_opcodes,
)
from tests.support.refusals import read_or_refuse

SIZE = (40, 30)
REFS = {
    "grefcoco": "grefs(unc).p", "ref-zom": "Ref-ZOM(final).p", "rrefcoco": "refs(unc).p", "rrefcoco+": "refs(unc).p",
    "rrefcocog": "refs(umd).p", "refcoco": "refs(unc).p", "refcoco+": "refs(google).p", "refcocog": "refs(umd).p",
}  # fmt: skip
"""The pickle of refs of each data set."""
MERGED = {
    "grefcoco": "val", "ref-zom": "val", "rrefcoco": "val_rrefcoco", "rrefcoco+": "val_rrefcoco+",
    "rrefcocog": "val_rrefcocog", "refcoco": "val_refcoco_unc", "refcoco+": "val_refcocoplus_unc",
    "refcocog": "val_refcocog_google",
}  # fmt: skip
"""The set of each data set's split val in InstanceVG's merged layout."""
LAYOUTS = (
    "instances.json", "grefs json", *(f"{dataset} pickle" for dataset in REFS),
    *(f"{dataset} merged" for dataset in MERGED),
    "instance_index.json", "json lines", "mask.png", "categories",
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


def write_mutated(folder: Path, layout: str, seed: int) -> str:
    """Write annotation files of which one is changed; returns the data set that they are."""
    source = random.Random(f"{layout}/{seed}")
    instances, refs, merged = make_documents()
    dataset = layout.rpartition(" ")[0]
    if layout in ("json lines", "mask.png"):
        _write_mask(folder / "mask.png", source if layout == "mask.png" else None)
        (folder / "own.jsonl").write_bytes(_change(make_lines(), _to_lines, source, layout == "json lines"))
        return "jsonl"
    if layout == "categories":
        (folder / "own.json").write_bytes(_change(_make_categories(instances), encode_json, source))
        return "coco"
    if layout == "instance_index.json" or (dataset in MERGED and layout.endswith("merged")):
        dataset = dataset or "rrefcoco"
        samples = merged["val"] if not dataset.startswith("rref") else [[sample] for sample in merged["val"]]
        indexed = layout == "instance_index.json"
        document, ranges = {MERGED[dataset]: samples}, {MERGED[dataset]: [[0, 1], [1, 3]]}
        (folder / "instance.json").write_bytes(_change(document, encode_json, source, not indexed))
        (folder / "instance_index.json").write_bytes(_change(ranges, encode_json, source, indexed))
        return dataset
    (folder / "instances.json").write_bytes(_change(instances, encode_json, source, layout == "instances.json"))
    if layout in ("instances.json", "grefs json"):
        (folder / "grefs(unc).json").write_bytes(_change(refs, encode_json, source, layout == "grefs json"))
        return "grefcoco"
    if dataset == "ref-zom":
        refs = [ref | {"source": "zero" if ref["ref_id"] == 2 else "comp"} for ref in refs]
    (folder / REFS[dataset]).write_bytes(_change_pickle(refs, source))
    return dataset


def read_mutated(folder: Path, images: Path, layout: str, seed: int) -> str:
    """Read one input as `igvg prepare` does; says what came of it.

    Raises:
        AssertionError: an error has several lines, or a record contradicts itself; or it took too much time or memory.
    """
    for file in folder.iterdir():
        file.unlink()
    dataset = write_mutated(folder, layout, seed)
    return read_or_refuse(lambda: _read(dataset, folder, images), folder.parent, f"{layout} {seed}")


def _read(dataset: str, folder: Path, images: Path) -> None:
    annotations = folder / {"jsonl": "own.jsonl", "coco": "own.json"}.get(dataset, "")
    settings = choose_settings({"dataset": dataset}, "fuzz")
    describe(settings, annotations, [images], folder / "out")
    selection = select_items(settings, annotations, [images])
    for draft, file in selection.items:
        record = build_record(draft)
        assert file.parent.parent == images, file
        check_record(record)
        assert len({expression.id for expression in record.expressions}) == len(record.expressions)
        assert len(repr(draft)) < 1_000_000
        try:
            read_valid_image(file, record)
        except DataError as error:
            selection.collector.add(error)
    for _, error in (*selection.collector, *selection.notes):
        assert str(error).isprintable(), str(error)
    selection.collector.raise_if_any()


def check_record(record: ImageRecord) -> None:
    """Check a record against what a reader of shards may rely on, and that it survives being written.

    Raises:
        AssertionError: it contradicts itself.
    """
    assert ImageRecord.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert type(record.image_id) is int
    assert 0 <= record.image_id < 2**63
    for instance in record.instances:
        x0, y0, x1, y1 = instance.box
        assert 0 <= x0 < x1 <= record.width, instance.box
        assert 0 <= y0 < y1 <= record.height, instance.box
        if instance.mask is not None:
            assert decode_mask(instance.mask).shape == (record.height, record.width)
            assert rle_area(instance.mask)
    for expression in record.expressions:
        assert expression.text.strip()
        assert expression.text.encode()
        assert all(0 <= index < len(record.instances) for index in expression.instances)


def draw_images(folder: Path) -> Path:
    """The two images of the documents."""
    (folder / "clip").mkdir(parents=True)
    for number in (7, 8):
        Image.new("RGB", SIZE).save(folder / "clip" / f"{number}.png")
    return folder


def _change(
    document: Any, encode: Callable[[Any, random.Random | None], bytes], source: random.Random, changed: bool = True
) -> bytes:
    """A document as it is or, where it is to be changed, with other values or bytes."""
    if not changed:
        return encode(document, None)
    if source.randrange(3):
        document = change_value(document, source)
        return encode(document, source)
    return change_bytes(encode(document, None), source)


def _change_pickle(refs: list[dict[str, Any]], source: random.Random) -> bytes:
    kind = source.randrange(4)
    if kind == 0:
        return change_opcodes(_choose_opcodes(refs, source), source)
    document = change_value(refs, source) if kind < 3 else refs
    if source.randrange(2):
        data = b"".join(_choose_opcodes(document, source))
    else:
        number = source.choice([int, np.int64])
        for ref in document if isinstance(document, list) else ():
            if isinstance(ref, dict) and type(ref.get("ref_id")) is int and abs(ref["ref_id"]) < 2**31:
                ref["ref_id"] = number(ref["ref_id"])
        data = pickle.dumps(document, source.randrange(6))
    return change_bytes(data, source) if kind == 3 else data


def _choose_opcodes(document: Any, source: random.Random) -> list[bytes]:
    """The opcodes of a pickle as Python 2 wrote them, in text or not, or as Python 3 does."""
    kind = source.randrange(3)
    return encode_text_opcodes(document) if kind == 0 else encode_opcodes(document, python2=kind == 1)


def _make_categories(instances: dict[str, Any]) -> dict[str, Any]:
    separate = [entry | {"iscrowd": entry["id"] % 80 == 1} for entry in instances["annotations"]]
    categories = [{"id": 3, "name": "dog"}, {"id": 4, "name": "wine glass"}]
    return instances | {"annotations": separate, "categories": categories}


def _write_mask(file: Path, source: random.Random | None) -> None:
    mask = np.zeros(SIZE[::-1], dtype=np.uint8)
    mask[5:15, 10:20] = 255
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "PNG")
    file.write_bytes(change_bytes(stream.getvalue(), source) if source else stream.getvalue())


def _to_lines(document: Any, source: random.Random | None) -> bytes:
    lines = document if isinstance(document, list) else [document]
    return b"\n".join(encode_json(line, source) for line in lines)
