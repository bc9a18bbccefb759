"""Scenes and phrases as published files: grefs(unc).json, refs(final).p, refs(unc).p, instances.json and images.

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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shards.files import name_file, write_bytes
from shards.progress import report_progress
from shards.synthetic.expressions import Query, answer_query, ask_false, ask_true
from shards.synthetic.polygons import trace_outlines
from shards.synthetic.scenes import SHAPES, Scene, compose_scene, paint_scene
from shards.workers import check_parent, map_ordered

Document = dict[str, Any]

IMAGES_FOLDER = "images/train2014"
HELD_OUT_SPLITS = {"grefcoco": "val", "ref-zom": "test", "rrefcoco": "val", "refcoco": "val"}
# Shares of the training images.
_SHARES = {"grefcoco": 0.5, "ref-zom": 0.25, "rrefcoco": 0.25}
_PHRASES = 8
_EMPTY = 0.25
# Per object of R-RefCOCO: sentences that fit it, and sentences that fit nothing.
_POSITIVES, _NEGATIVES, _OBJECTS = 2, 2, 2
_MOST_THINGS = 10
_FIRST_REFCOCO_ID = 500_000
_BLOCK = 50
_REMEDY = "close other programs and run the same command again"


@dataclass(frozen=True, slots=True)
class _Task:
    """One image to draw and to talk about."""

    dataset: str
    split: str
    image_id: int
    seed: int

    @property
    def file_name(self) -> str:
        return f"COCO_train2014_{self.image_id:012d}.jpg"


@dataclass(frozen=True, slots=True)
class _Page:
    """What the published files say about one image."""

    image: Document
    annotations: list[Document]
    refs: list[Document]


def write_published(folder: Path, *, seed: int, train_images: int, held_out_images: int, workers: int = 1) -> None:
    """Write the three data sets; the same arguments give the same files, whatever the number of workers.

    No image belongs to two splits or two data sets.

    Args:
        folder: where they are written; files of an earlier call are replaced.
        seed: of everything drawn and said.
        train_images: images to train on, shared among the data sets.
        held_out_images: images of val or test in each data set.
        workers: processes.
    """
    tasks = _plan_images(seed, _SHARES, train_images, held_out_images)
    _write_layouts(folder, tasks, workers)


def write_refcoco(folder: Path, *, seed: int, train_images: int, held_out_images: int, workers: int = 1) -> None:
    """Write the layout of RefCOCO, in which every expression has exactly one target.

    Image ids begin at 500,000, so that no image has an id of `write_published`; with another seed no image is drawn
    twice either.

    Args:
        folder: where it is written; files of an earlier call are replaced.
        seed: of everything drawn and said.
        train_images: images of split train.
        held_out_images: images of split val.
        workers: processes.
    """
    tasks = _plan_images(seed, {"refcoco": 1.0}, train_images, held_out_images, first_id=_FIRST_REFCOCO_ID)
    _write_layouts(folder, tasks, workers)


def _write_layouts(folder: Path, tasks: list[_Task], workers: int) -> None:
    images = folder / IMAGES_FOLDER
    images.mkdir(parents=True, exist_ok=True)
    blocks = [tasks[first : first + _BLOCK] for first in range(0, len(tasks), _BLOCK)]
    pages: list[_Page] = []
    draw = functools.partial(_draw_block, images)
    processes = workers if workers > 1 else 0
    with contextlib.closing(map_ordered(draw, blocks, workers=processes, method="spawn", remedy=_REMEDY)) as drawn:
        for block in drawn:
            pages += block
            report_progress(len(pages), len(tasks), "drawing")
    for dataset in dict.fromkeys(task.dataset for task in tasks):
        chosen = [page for task, page in zip(tasks, pages, strict=True) if task.dataset == dataset]
        _write_dataset(folder / dataset, dataset, chosen)


def _plan_images(
    seed: int, shares: Mapping[str, float], train_images: int, held_out_images: int, *, first_id: int = 1
) -> list[_Task]:
    tasks: list[_Task] = []
    for dataset, share in shares.items():
        for split, count in (("train", round(share * train_images)), (HELD_OUT_SPLITS[dataset], held_out_images)):
            tasks += [_Task(dataset, split, first_id + len(tasks) + number, seed) for number in range(count)]
    return tasks


def _draw_block(images: Path, tasks: list[_Task]) -> list[_Page]:
    return [_draw_page(images, task) for task in tasks]


def _draw_page(images: Path, task: _Task) -> _Page:
    check_parent()
    random = np.random.default_rng((task.seed, task.image_id))
    while True:
        scene = compose_scene(random)
        try:
            outlines = [trace_outlines(visible) for visible in scene.visible]
        except ValueError:
            # One thing inside another leaves a hole: draw another scene.
            continue
        break
    file = images / task.file_name
    # Into memory: Pillow's own writing to a file hides what the system says of a full disk.
    drawn = io.BytesIO()
    paint_scene(scene, random).save(drawn, format="jpeg", quality=92)
    with name_file(file):
        file.write_bytes(drawn.getvalue())
    image = {"id": task.image_id, "file_name": task.file_name, "width": scene.width, "height": scene.height}
    annotations = [_annotate(task, scene, number, outline) for number, outline in enumerate(outlines)]
    refer = {"rrefcoco": _refer_to_objects, "refcoco": _refer_to_single_objects}.get(task.dataset, _refer_to_groups)
    return _Page(image, annotations, refer(task, scene, random))


def _annotate(task: _Task, scene: Scene, number: int, outline: list[list[float]]) -> Document:
    rows, columns = np.nonzero(scene.visible[number])
    x, y = int(columns.min()), int(rows.min())
    return {
        "id": _identify(task, number),
        "image_id": task.image_id,
        "category_id": _categorise(scene, number),
        "bbox": [float(x), float(y), float(columns.max() + 1 - x), float(rows.max() + 1 - y)],
        "area": float(len(rows)),
        "iscrowd": 0,
        "segmentation": outline,
    }


def _refer_to_groups(task: _Task, scene: Scene, random: np.random.Generator) -> list[Document]:
    """Refs of one sentence each, about none, one or several things (gRefCOCO and Ref-ZOM)."""
    queries: dict[str, Query] = {}
    for _ in range(_PHRASES):
        query = (ask_false if random.random() < _EMPTY else ask_true)(scene, random)
        if query is not None:
            queries.setdefault(query.say(), query)
    refs = []
    for number, (phrase, query) in enumerate(queries.items()):
        answer = answer_query(query, scene) or ()
        sentence = _write_sentence(task.image_id * _PHRASES + number, phrase)
        ref = _write_ref(task, task.image_id * _PHRASES + number, [sentence])
        ref["ann_id"] = [_identify(task, thing) for thing in answer]
        ref["category_id"] = [_categorise(scene, thing) for thing in answer]
        if task.dataset == "ref-zom":
            ref["source"] = ("zero", "one", "many")[min(len(answer), 2)]
        elif not answer:
            ref["ann_id"], ref["category_id"] = [-1], [-1]
        refs.append(ref)
    return refs


def _refer_to_objects(task: _Task, scene: Scene, random: np.random.Generator) -> list[Document]:
    """Refs of one object each, with sentences that fit it and sentences that fit nothing (R-RefCOCO)."""
    refs = []
    for number, thing in enumerate(random.permutation(len(scene.things))[:_OBJECTS].tolist()):
        ref_id = task.image_id * _OBJECTS + number
        phrases: dict[str, bool] = {}
        for ask, exist, count in ((ask_true, True, _POSITIVES), (ask_false, False, _NEGATIVES)):
            for _ in range(count):
                query = ask(scene, random, thing)
                if query is not None:
                    phrases.setdefault(query.say(), exist)
        if set(phrases.values()) != {True, False}:
            # Its averages need both kinds.
            continue
        sentences = [
            _write_sentence(ref_id * (_POSITIVES + _NEGATIVES) + position, phrase) | {"exist": exist}
            for position, (phrase, exist) in enumerate(phrases.items())
        ]
        ids = {"ann_id": _identify(task, thing), "category_id": _categorise(scene, thing)}
        refs.append(_write_ref(task, ref_id, sentences) | ids)
    return refs


def _refer_to_single_objects(task: _Task, scene: Scene, random: np.random.Generator) -> list[Document]:
    """Refs of one object each, for all objects of the scene, with sentences that fit that object alone (RefCOCO)."""
    refs = []
    for index in range(len(scene.things)):
        ref_id = task.image_id * _MOST_THINGS + index
        queries = [ask_true(scene, random, index) for _ in range(_POSITIVES)]
        phrases = dict.fromkeys(query.say() for query in queries if query is not None)
        if not phrases:
            continue
        sentences = [_write_sentence(ref_id * _POSITIVES + n, phrase) for n, phrase in enumerate(phrases)]
        ids = {"ann_id": _identify(task, index), "category_id": _categorise(scene, index)}
        refs.append(_write_ref(task, ref_id, sentences) | ids)
    return refs


def _write_sentence(sent_id: int, phrase: str) -> Document:
    return {"sent_id": sent_id, "sent": phrase, "raw": phrase, "tokens": phrase.split()}


def _write_ref(task: _Task, ref_id: int, sentences: list[Document]) -> Document:
    return {
        "ref_id": ref_id,
        "image_id": task.image_id,
        "file_name": task.file_name,
        "split": task.split,
        "sent_ids": [sentence["sent_id"] for sentence in sentences],
        "sentences": sentences,
    }


def _identify(task: _Task, thing: int) -> int:
    return task.image_id * _MOST_THINGS + thing


def _categorise(scene: Scene, thing: int) -> int:
    return SHAPES.index(scene.things[thing].shape) + 1


def _write_dataset(folder: Path, dataset: str, pages: list[_Page]) -> None:
    folder.mkdir(exist_ok=True)
    refs = [ref for page in pages for ref in page.refs]
    instances = {
        "info": {"description": "coloured shapes, drawn by igvg"},
        "licenses": [],
        "images": [page.image for page in pages],
        "annotations": [annotation for page in pages for annotation in page.annotations],
        "categories": [{"id": number, "name": shape} for number, shape in enumerate(SHAPES, start=1)],
    }
    write_bytes(folder / "instances.json", json.dumps(instances).encode())
    if dataset == "grefcoco":
        write_bytes(folder / "grefs(unc).json", json.dumps(refs).encode())
    else:
        name = "refs(final).p" if dataset == "ref-zom" else "refs(unc).p"
        # Pickle writes an object once and refers back to it: a copy shares none, whichever process drew it.
        write_bytes(folder / name, pickle.dumps(json.loads(json.dumps(refs)), protocol=2))
