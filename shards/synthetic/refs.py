"""The refs of one scene in the form in which each data set publishes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from shards.annotations.file_names import coco_name
from shards.synthetic.expressions import sample_empty_query, sample_query
from shards.synthetic.queries import Query, find_targets
from shards.synthetic.scenes import Scene

Document = dict[str, Any]

_MAX_EXPRESSIONS = 8
_EMPTY_SHARE = 0.25
# Per image of R-RefCOCO: objects, and for each the sentences that refer to it, and those that refer to nothing.
_NUM_POSITIVES, _NUM_NEGATIVES, _NUM_OBJECTS = 2, 2, 2
_MAX_OBJECTS = 10


@dataclass(frozen=True, slots=True)
class ImageTask:
    """One image to draw."""

    dataset: str
    split: str
    image_id: int
    seed: int
    level: str = "standard"
    """One of `LEVELS`."""

    @property
    def file_name(self) -> str:
        """The name of the image file."""
        return coco_name(self.image_id)


def make_refs(task: ImageTask, scene: Scene, random: np.random.Generator) -> list[Document]:
    """The refs of a scene in the form of the task's data set."""
    make = {"rrefcoco": _make_robust_refs, "refcoco": _make_single_refs}.get(task.dataset, _make_group_refs)
    return make(task, scene, random)


def _make_group_refs(task: ImageTask, scene: Scene, random: np.random.Generator) -> list[Document]:
    """Refs of one sentence each, with none, one or several objects (gRefCOCO and Ref-ZOM)."""
    queries: dict[str, Query] = {}
    for _ in range(_MAX_EXPRESSIONS):
        query = (sample_empty_query if random.random() < _EMPTY_SHARE else sample_query)(scene, random)
        if query is not None:
            queries.setdefault(query.text(), query)
    refs = []
    for index, (text, query) in enumerate(queries.items()):
        targets = find_targets(query, scene) or ()
        sentence = _make_sentence(task.image_id * _MAX_EXPRESSIONS + index, text)
        ref = _make_ref(task, task.image_id * _MAX_EXPRESSIONS + index, [sentence])
        ref["ann_id"] = [ann_id(task, obj) for obj in targets]
        ref["category_id"] = [category_id(scene, obj) for obj in targets]
        if task.dataset == "ref-zom":
            ref["source"] = ("zero", "one", "many")[min(len(targets), 2)]
        elif not targets:
            ref["ann_id"], ref["category_id"] = [-1], [-1]
        refs.append(ref)
    return refs


def _make_robust_refs(task: ImageTask, scene: Scene, random: np.random.Generator) -> list[Document]:
    """Refs of one object each, with sentences about it and sentences about nothing in the image (R-RefCOCO)."""
    refs = []
    for index, obj in enumerate(random.permutation(len(scene.objects))[:_NUM_OBJECTS].tolist()):
        ref_id = task.image_id * _NUM_OBJECTS + index
        texts: dict[str, bool] = {}
        for sample, exist, count in ((sample_query, True, _NUM_POSITIVES), (sample_empty_query, False, _NUM_NEGATIVES)):
            for _ in range(count):
                query = sample(scene, random, obj)
                if query is not None:
                    texts.setdefault(query.text(), exist)
        if set(texts.values()) != {True, False}:
            # The metrics of R-RefCOCO average over both kinds.
            continue
        sentences = [
            _make_sentence(ref_id * (_NUM_POSITIVES + _NUM_NEGATIVES) + sentence_index, text) | {"exist": exist}
            for sentence_index, (text, exist) in enumerate(texts.items())
        ]
        ids = {"ann_id": ann_id(task, obj), "category_id": category_id(scene, obj)}
        refs.append(_make_ref(task, ref_id, sentences) | ids)
    return refs


def _make_single_refs(task: ImageTask, scene: Scene, random: np.random.Generator) -> list[Document]:
    """Refs of one object each, for all objects of the scene, with sentences about that object alone (RefCOCO)."""
    refs = []
    for index in range(len(scene.objects)):
        ref_id = task.image_id * _MAX_OBJECTS + index
        queries = [sample_query(scene, random, index) for _ in range(_NUM_POSITIVES)]
        texts = dict.fromkeys(query.text() for query in queries if query is not None)
        if not texts:
            continue
        sentences = [_make_sentence(ref_id * _NUM_POSITIVES + n, text) for n, text in enumerate(texts)]
        ids = {"ann_id": ann_id(task, index), "category_id": category_id(scene, index)}
        refs.append(_make_ref(task, ref_id, sentences) | ids)
    return refs


def _make_sentence(sent_id: int, text: str) -> Document:
    return {"sent_id": sent_id, "sent": text, "raw": text, "tokens": text.split()}


def _make_ref(task: ImageTask, ref_id: int, sentences: list[Document]) -> Document:
    return {
        "ref_id": ref_id,
        "image_id": task.image_id,
        "file_name": task.file_name,
        "split": task.split,
        "sent_ids": [sentence["sent_id"] for sentence in sentences],
        "sentences": sentences,
    }


def ann_id(task: ImageTask, index: int) -> int:
    """The annotation id of an object of the image, by its index in the scene."""
    return task.image_id * _MAX_OBJECTS + index


def category_id(scene: Scene, index: int) -> int:
    """The category id of an object, which is its shape's."""
    return scene.level.shapes.index(scene.objects[index].shape) + 1
