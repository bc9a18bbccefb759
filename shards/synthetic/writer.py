"""Scenes and expressions as published files: grefs(unc).json, refs(final).p, refs(unc).p, instances.json and images.

```
FOLDER/images/train2014/COCO_train2014_############.jpg
FOLDER/grefcoco/    grefs(unc).json  instances.json     splits train, val
FOLDER/ref-zom/     refs(final).p    instances.json     splits train, test
FOLDER/rrefcoco/    refs(unc).p      instances.json     splits train, val
FOLDER/refcoco/     refs(unc).p      instances.json     splits train, val     (written on its own)
```
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.files import name_file, write_bytes
from shards.progress import report_progress
from shards.synthetic.levels import LEVELS
from shards.synthetic.polygons import mask_to_polygons
from shards.synthetic.refs import Document, ImageTask, ann_id, category_id, make_refs
from shards.synthetic.scenes import Scene, render_scene, sample_scene
from shards.workers import check_parent, map_ordered

IMAGES_FOLDER = "images/train2014"
HELD_OUT_SPLITS = {"grefcoco": "val", "ref-zom": "test", "rrefcoco": "val", "refcoco": "val"}
# Shares of the training images by data set.
_TRAIN_SHARES = {"grefcoco": 0.5, "ref-zom": 0.25, "rrefcoco": 0.25}
_FIRST_REFCOCO_ID = 500_000
_FIRST_GREFCOCO_ID = 700_000
_BLOCK = 50
_REMEDY = "close other programs and run the same command again"


@dataclass(frozen=True, slots=True)
class _ImageDocuments:
    """The entries of one image in the published files."""

    image: Document
    annotations: list[Document]
    refs: list[Document]


def write_published(folder: Path, *, seed: int, train_images: int, held_out_images: int, workers: int = 1) -> None:
    """Write the three data sets; the same arguments give the same files for any number of workers.

    No image belongs to two splits or two data sets.

    Args:
        folder: where they are written; files of an earlier call are replaced.
        seed: of all images and expressions.
        train_images: images to train on, shared among the data sets.
        held_out_images: images of val or test in each data set.
        workers: processes.
    """
    tasks = _plan_images(seed, _TRAIN_SHARES, train_images, held_out_images)
    _write_layouts(folder, tasks, workers)


def write_refcoco(folder: Path, *, seed: int, train_images: int, held_out_images: int, workers: int = 1) -> None:
    """Write the layout of RefCOCO, in which every expression has exactly one target.

    Image ids begin at 500,000, so that no image has an id of `write_published`; with another seed no image is drawn
    twice either. Arguments as of `write_published`.
    """
    tasks = _plan_images(seed, {"refcoco": 1.0}, train_images, held_out_images, first_id=_FIRST_REFCOCO_ID)
    _write_layouts(folder, tasks, workers)


def write_grefcoco(folder: Path, *, level: str, seed: int, images: Mapping[str, int], workers: int = 1) -> None:
    """Write the layout of gRefCOCO alone, at one of the `LEVELS`.

    Args:
        folder: as of `write_published`.
        level: "standard", or "hard": more shapes, colors and sizes, small objects, counts and relations of groups.
        seed: of all images and expressions.
        images: the number of images of each split, of "train", "val", "testA" and "testB"; ids follow this order.
        workers: processes.
    """
    splits = [split for split, count in images.items() for _ in range(count)]
    tasks = [ImageTask("grefcoco", split, _FIRST_GREFCOCO_ID + n, seed, level) for n, split in enumerate(splits)]
    _write_layouts(folder, tasks, workers)


def _write_layouts(folder: Path, tasks: list[ImageTask], workers: int) -> None:
    images = folder / IMAGES_FOLDER
    images.mkdir(parents=True, exist_ok=True)
    blocks = [tasks[first : first + _BLOCK] for first in range(0, len(tasks), _BLOCK)]
    documents: list[_ImageDocuments] = []
    draw = functools.partial(_draw_images, images)
    processes = workers if workers > 1 else 0
    with contextlib.closing(map_ordered(draw, blocks, workers=processes, method="spawn", remedy=_REMEDY)) as drawn:
        for block in drawn:
            documents += block
            report_progress(len(documents), len(tasks), "drawing")
    for dataset in dict.fromkeys(task.dataset for task in tasks):
        chosen = [document for task, document in zip(tasks, documents, strict=True) if task.dataset == dataset]
        _write_dataset(folder / dataset, dataset, chosen, LEVELS[tasks[0].level].shapes)


def _plan_images(
    seed: int, shares: Mapping[str, float], train_images: int, held_out_images: int, *, first_id: int = 1
) -> list[ImageTask]:
    tasks: list[ImageTask] = []
    for dataset, share in shares.items():
        for split, count in (("train", round(share * train_images)), (HELD_OUT_SPLITS[dataset], held_out_images)):
            tasks += [ImageTask(dataset, split, first_id + len(tasks) + number, seed) for number in range(count)]
    return tasks


def _draw_images(images: Path, tasks: list[ImageTask]) -> list[_ImageDocuments]:
    return [_draw_image(images, task) for task in tasks]


def _draw_image(images: Path, task: ImageTask) -> _ImageDocuments:
    check_parent()
    random = np.random.default_rng((task.seed, task.image_id))
    while True:
        scene = sample_scene(random, LEVELS[task.level])
        try:
            polygons = [mask_to_polygons(visible) for visible in scene.visible]
        except ValueError:
            # An object inside another leaves a hole in its mask: sample another scene.
            continue
        break
    file = images / task.file_name
    # Into memory: Pillow's own writing to a file hides the system's error on a full disk.
    buffer = io.BytesIO()
    render_scene(scene, random).save(buffer, format="jpeg", quality=92)
    with name_file(file):
        file.write_bytes(buffer.getvalue())
    image = {"id": task.image_id, "file_name": task.file_name, "width": scene.width, "height": scene.height}
    annotations = [_make_annotation(task, scene, index, each) for index, each in enumerate(polygons)]
    return _ImageDocuments(image, annotations, make_refs(task, scene, random))


def _make_annotation(task: ImageTask, scene: Scene, index: int, polygons: list[list[float]]) -> Document:
    rows, columns = np.nonzero(scene.visible[index])
    x, y = int(columns.min()), int(rows.min())
    return {
        "id": ann_id(task, index),
        "image_id": task.image_id,
        "category_id": category_id(scene, index),
        "bbox": [float(x), float(y), float(columns.max() + 1 - x), float(rows.max() + 1 - y)],
        "area": float(len(rows)),
        "iscrowd": 0,
        "segmentation": polygons,
    }


def _write_dataset(folder: Path, dataset: str, documents: list[_ImageDocuments], shapes: Sequence[str]) -> None:
    folder.mkdir(exist_ok=True)
    refs = [ref for document in documents for ref in document.refs]
    instances = {
        "info": {"description": "coloured shapes, drawn by igvg"},
        "licenses": [],
        "images": [document.image for document in documents],
        "annotations": [annotation for document in documents for annotation in document.annotations],
        "categories": [{"id": number, "name": shape} for number, shape in enumerate(shapes, start=1)],
    }
    write_bytes(folder / "instances.json", json.dumps(instances).encode())
    if dataset == "grefcoco":
        write_bytes(folder / "grefs(unc).json", json.dumps(refs).encode())
    else:
        name = "refs(final).p" if dataset == "ref-zom" else "refs(unc).p"
        # Pickle writes an object once and refers back to it; a copy shares no objects, whichever process made it.
        write_bytes(folder / name, pickle.dumps(json.loads(json.dumps(refs)), protocol=2))
