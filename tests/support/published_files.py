"""Small data sets under their published names, to be changed in one place each."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

from shards.annotations.drafts import DATASETS, ImageDraft, read_dataset
from shards.annotations.error_collector import ErrorCollector

Record = dict[str, Any]
SQUARE = [[10, 5, 20, 5, 20, 15, 10, 15]]
INSTANCES: Record = {
    "images": [{"id": n, "file_name": f"COCO_train2014_{n:012d}.jpg", "width": 40, "height": 30} for n in (7, 8)],
    "annotations": [
        {"id": 70 + n, "image_id": 7, "category_id": 3, "bbox": [10, 5, 10, 10], "segmentation": SQUARE}
        for n in range(3)
    ]
    + [{"id": 80, "image_id": 8, "category_id": 3, "bbox": [10, 5, 10, 10], "segmentation": SQUARE}],
}


def make_ref(ann_id: Any = 70, **changes: Any) -> Record:
    sentences = [{"sent_id": 11, "raw": "The red one!", "sent": "the red one", "tokens": ["the", "red", "one"]}]
    return {"ref_id": 5, "ann_id": ann_id, "image_id": 7, "split": "val", "sentences": sentences, **changes}


def write_files(folder: Path, name: str, refs: Any, instances: Any = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(json.dumps(refs).encode() if name.endswith("json") else pickle.dumps(refs, 2))
    (folder / "instances.json").write_text(json.dumps(instances or INSTANCES))
    return folder


def read(
    folder: Path, refs: Any, dataset: str = "refcoco", splits: tuple[str, ...] = (), instances: Any = None
) -> tuple[list[ImageDraft], ErrorCollector]:
    collector = ErrorCollector()
    name = DATASETS[dataset].files[0]
    return read_dataset(dataset, write_files(folder, name, refs, instances), collector, splits), collector


def read_targets(folder: Path, refs: Any, dataset: str) -> list[tuple[int, ...]]:
    """Annotation numbers of every expression, of refs without an error."""
    drafts, collector = read(folder, refs, dataset)
    collector.raise_if_any()
    return [
        tuple(draft.annotations[position].ann_id for position in expression.instances)
        for draft in drafts
        for expression in draft.expressions
    ]


def change_annotation(**changes: Any) -> Record:
    first, *others = INSTANCES["annotations"]
    return {**INSTANCES, "annotations": [{**first, **changes}, *others]}
