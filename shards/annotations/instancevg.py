"""The merged layout of InstanceVG's data release: one JSON file with every split, the geometry inside its records.

Its top level maps a set's name to samples. A sample holds one image, its expressions and the annotations that all of
them refer to. R-RefCOCO's samples are grouped: a group of the training set holds the sentences of one ref, and
`instance_index.json` lists which groups of the other sets belong to one ref. The files hold no ref ids; samples are
numbered in the order of the file, whichever splits are read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise, takewhile
from operator import sub
from pathlib import Path
from typing import Any, NamedTuple

from shards.annotations.coco import (
    INSTANCES_FILE,
    Annotation,
    CocoImage,
    CocoInstances,
    link_same_names,
    load_json,
    read_bbox,
)
from shards.annotations.duplicates import UniqueEntries
from shards.annotations.error_collector import ErrorCollector
from shards.annotations.fields import read_integer, read_text, read_value
from shards.annotations.file_names import coco_name
from shards.annotations.refer import Ref, Sentence
from shards.datasets import DatasetName
from shards.errors import DataError
from shards.record import MAX_PIXELS

# The release, its documentation and its configurations use different names; the last is also COCO's.
FILES = ("instance.json", "instances_withid.json", "instances_nogoogle_withid.json", INSTANCES_FILE)
INDEX_FILE = "instance_index.json"
GROUPED = frozenset(name.value for name in DatasetName if name.family == "rrefcoco")
# Each data set's splits and the sets that they may be in; related data sets share their training set.
SETS: dict[str, dict[str, tuple[str, ...]]] = {
    "grefcoco": {split: (split,) for split in ("train", "val", "testA", "testB")},
    "ref-zom": {split: (split,) for split in ("train", "val", "test")},
    **{name: {"train": ("train",), "val": (f"val_{name}",)} for name in sorted(GROUPED)},
    **{
        name: {"train": ("train",), **{split: (f"{split}_{published}",) for split in ("val", "testA", "testB")}}
        for name, published in (("refcoco", "refcoco_unc"), ("refcoco+", "refcocoplus_unc"))
    },
    "refcocog": {
        "train": ("train",),
        "val": ("val_refcocog_umd", "val_refcocog_google"),
        "test": ("test_refcocog_umd",),
    },
}
_FIRST_KEY = re.compile(rb'\s*\{\s*"(train|val|test)')


class _Sample(NamedTuple):
    """The image of a sample or group as each of its entries describes it, its annotations, and its sentences."""

    images: list[CocoImage]
    annotations: list[Annotation]
    sentences: list[Sentence]

    @property
    def image(self) -> CocoImage:
        return self.images[0]


def find_instancevg_files(dataset: str, folder: Path) -> tuple[Path, ...]:
    """The files of a data set in the merged layout, `instance_index.json` last and whether it is there or not.

    Nothing if the folder holds no file of that layout.
    """
    for file in (folder / name for name in FILES):
        if file.is_file() and (file.name != INSTANCES_FILE or _begins_with_set_name(file)):
            return (file, folder / INDEX_FILE) if dataset in GROUPED else (file,)
    return ()


def read_instancevg(
    dataset: str, files: Sequence[Path], collector: ErrorCollector, splits: Sequence[str] = ()
) -> tuple[list[Ref], CocoInstances]:
    """Read a data set in the merged layout.

    Args:
        dataset: a name in `SETS`.
        files: what `find_instancevg_files` found.
        collector: collects samples that cannot be used; they are left out.
        splits: names of the splits; none means all.

    Returns:
        The refs in the order of the file, and their images and annotations. An image whose size is not published is
        0 × 0; an annotation without an id gets a digest of its geometry.

    Raises:
        DataError: a file cannot be read or is of another kind, or a split does not exist.
    """
    document = load_json(files[0])
    if not isinstance(document, dict):
        raise DataError(f"holds a {type(document).__name__}, not a dictionary of sets", file=files[0])
    present = _find_sets(dataset, document, files[0], splits)
    refs: list[Ref] = []
    reader = _SampleReader(files[0], collector)
    first_id = 1
    for split, name in present.items():
        samples = document[name]
        if not isinstance(samples, list):
            raise DataError(f"{name} is no list of samples", file=files[0])
        indexed = len(files) > 1 and split != "train"
        ends = _read_group_ends(files[1], name, len(samples)) if indexed else range(1, len(samples) + 1)
        if not splits or split in splits:
            for start, end in pairwise([0, *ends]):
                image_id, sentences = reader.read_samples(name, samples, range(start, end))
                if image_id is not None:
                    refs.append(Ref(first_id + start, image_id, split, sentences))
        first_id += len(samples)
    return refs, reader.collect_instances()


def _find_sets(dataset: str, document: Mapping[str, Any], file: Path, splits: Sequence[str]) -> dict[str, str]:
    """The name of the set of each split that the file holds.

    Raises:
        DataError: one of `splits`, or any split of the data set, is missing.
    """
    present = {
        split: name
        for split, names in SETS[dataset].items()
        if (name := next((name for name in names if name in document), None))
    }
    for split in splits or ([] if present else SETS[dataset]):
        if split not in present:
            what = f"has no split {split!r} of {dataset}; there are {', '.join(present) or 'none'}"
            raise DataError(what, file=file)
    return present


class _SampleReader:
    """Reads samples of a file, and keeps their images and annotations."""

    def __init__(self, file: Path, collector: ErrorCollector) -> None:
        self._file, self._collector = file, collector
        self._images, self._annotations = UniqueEntries[CocoImage](), UniqueEntries[Annotation]()

    def read_samples(
        self, name: str, samples: Sequence[Any], indices: range
    ) -> tuple[int | None, tuple[Sentence, ...]]:
        """The image id and the sentences of one ref, whose samples of set `name` have these indices."""
        image_id: int | None = None
        sentences: list[Sentence] = []
        for index in indices:
            record = f"{name}[{index}]"
            try:
                sample = _read_sample(samples[index], image_id, len(sentences))
            except DataError as error:
                self._collector.add(DataError(error.what, file=self._file, record=record))
                continue
            image_id = sample.image.image_id
            sentences += sample.sentences
            self._add(sample, record)
        return image_id, tuple(sentences)

    def collect_instances(self) -> CocoInstances:
        """All images and annotations read; entries of one id that differ are refused."""
        refused = (
            self._images.drop_differing(self._collector, self._file, "image"),
            self._annotations.drop_differing(self._collector, self._file, "annotation"),
        )
        link_same_names(self._images.entries)
        return CocoInstances(self._images.entries, self._annotations.entries, *refused)

    def _add(self, sample: _Sample, location: str) -> None:
        for image in sample.images:
            known = self._images.entries.get(image.image_id)
            # A sample without the image's size does not differ from one with it.
            if known and known.file_name == image.file_name and not (known.width and image.width):
                self._images.entries[image.image_id] = known if known.width else image
            else:
                self._images.add(image.image_id, image, location)
        for annotation in sample.annotations:
            self._annotations.add(annotation.ann_id, annotation, location)


def _begins_with_set_name(file: Path) -> bool:
    with file.open("rb") as stream:
        return bool(_FIRST_KEY.match(stream.read(1024)))


def _read_group_ends(file: Path, name: str, samples: int) -> list[int]:
    """Where the samples of each ref end: the index lists them as ranges [start, end) without a gap."""
    index, remedy = load_json(file), "use the file that came with the annotations"
    try:
        ranges = [(int(start), int(end)) for start, end in read_value(index, name)]
    except (DataError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"has no list {name} of [start, end)", file=file, remedy=remedy) from error
    ends = [end for _, end in ranges]
    starts = [0, *ends[:-1]]
    if ends[-1:] != [samples] or ranges != list(zip(starts, ends, strict=True)) or min(map(sub, ends, starts)) < 1:
        raise DataError(f"the ranges of {name} do not divide its {samples} samples", file=file, remedy=remedy)
    return ends


def _read_sample(sample: Any, image_id: int | None, sent_id: int) -> _Sample:
    """The image, annotations and sentences of a sample, or of all samples of a group.

    `image_id` is that of the ref's earlier samples, `sent_id` the id of the first sentence.
    """
    group = sample if isinstance(sample, list) else [sample]
    if not group:
        raise DataError("is an empty group")
    images = [_read_image(entry) for entry in group]
    image_id = images[0].image_id if image_id is None else image_id
    if any(image.image_id != image_id for image in images):
        raise DataError("belongs to a reference about several images")
    sentences: list[Sentence] = []
    annotations: list[Annotation] = []
    for entry in group:
        for text, targets in _read_sentences(entry):
            found = [_read_annotation(target, image_id) for target in targets]
            annotations += found
            sentences.append(Sentence(sent_id + len(sentences), text, tuple(annotation.ann_id for annotation in found)))
    return _Sample(images, annotations, sentences)


def _read_image(entry: Any) -> CocoImage:
    image_id = read_integer(entry, "image_id")
    if image_id < 0:
        raise DataError(f"is about an image with the number {image_id}")
    name = read_text(entry, "file_name") if "file_name" in entry else coco_name(image_id)
    sized = entry.get("width") is not None and entry.get("height") is not None
    width, height = (read_integer(entry, "width"), read_integer(entry, "height")) if sized else (0, 0)
    if width < 0 or height < 0:
        raise DataError(f"has an image of {width} × {height} pixels")
    if width * height > MAX_PIXELS:
        raise DataError(f"has an image of {width} × {height} pixels; at most {MAX_PIXELS:,} are read")
    return CocoImage(image_id=image_id, file_name=name, width=width, height=height)


def _read_annotation(entry: Mapping[str, Any], image_id: int) -> Annotation:
    category = 0 if entry.get("category_id") is None else read_integer(entry, "category_id")
    crowd = entry.get("iscrowd") in (1, True)
    geometry = [image_id, entry.get("bbox"), entry["segmentation"], *((category, crowd) if category or crowd else ())]
    digest = int.from_bytes(hashlib.blake2b(json.dumps(geometry).encode(), digest_size=6).digest())
    return Annotation(
        ann_id=digest if entry.get("id") is None else read_integer(entry, "id"),
        image_id=image_id,
        category_id=category,
        bbox=read_bbox(entry.get("bbox")),
        segmentation=entry["segmentation"],
        iscrowd=crowd,
    )


def _read_sentences(entry: Mapping[str, Any]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Every sentence of a sample, with the annotations that it refers to, none for an empty target."""
    texts = read_value(entry, "expressions")
    texts = read_value(texts, "raw") if isinstance(texts, Mapping) else texts
    texts = texts if isinstance(texts, list) else [texts]
    if not texts or not all(read_text({"expression": text}, "expression").strip() for text in texts):
        raise DataError("has no expression, or a blank one")
    if "annotations" in entry:
        targets = entry["annotations"]
    else:
        # The classic sets have one object, in the sample itself.
        targets = [{"bbox": read_value(entry, "bbox"), "segmentation": read_value(entry, "mask")}]
    if not isinstance(targets, list):
        raise DataError("annotations are no list")
    # Files made for boxes alone list them for each expression.
    nested = bool(targets) and all(isinstance(some, list) for some in targets)
    if nested and len(targets) != len(texts):
        raise DataError(f"has {len(texts)} expressions and {len(targets)} lists of annotations")
    each = targets if nested else [targets] * len(texts)
    if not all(isinstance(target, Mapping) for some in each for target in some):
        raise DataError("has an annotation that is no record")
    # The published reader stops at the first annotation without a mask, and so marks empty targets.
    return [
        (text, list(takewhile(lambda target: bool(target.get("segmentation")), some)))
        for text, some in zip(texts, each, strict=True)
    ]
