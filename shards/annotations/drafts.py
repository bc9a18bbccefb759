"""Drafts of image records, one per image and split, read from the published files of a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shards.annotations import grefcoco, instancevg, refcoco, refzom
from shards.annotations.coco import INSTANCES_FILE, Annotation, CocoImage, CocoInstances, ImageKey, read_instances
from shards.annotations.error_collector import ErrorCollector
from shards.annotations.instances import build_instance
from shards.annotations.own_instances import OwnAnnotation, build_own_instance
from shards.annotations.refer import Ref, read_refs
from shards.datasets import DatasetName
from shards.errors import DataError
from shards.record import Expression, ImageRecord, Instance, leaves_crowds_out

_FAMILY_FORMATS = {
    "grefcoco": grefcoco.REF_FORMAT,
    "ref-zom": refzom.REF_FORMAT,
    "rrefcoco": refcoco.SPLIT_BY_UNC,
    "refcoco": refcoco.ANY_SPLIT_BY,
}
DATASETS = {name.value: _FAMILY_FORMATS[name.family] for name in DatasetName} | {"rrefcocog": refcoco.ANY_SPLIT_BY}
"""The published form of each data set, by its name."""

UNUSABLE = "unusable annotation"
"""The kind under which annotations without a usable mask are counted."""
REFUSED = "refers to a refused entry"
"""The kind under which refs are counted whose image or annotation was refused before."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ImageDraft:
    """What a split says about one image, before masks are made: all that its record depends on.

    `annotations` are those that some expression refers to, in the order of first use; the expressions' `instances` are
    indices into them.
    """

    split: str
    image: CocoImage
    annotations: tuple[Annotation, ...]
    expressions: tuple[Expression, ...]
    instances: tuple[Instance, ...] = ()
    """The annotations as instances, once `drop_unusable_annotations` has made them."""
    file: Path | None = None
    """The annotation file, where there are several."""

    def __repr__(self) -> str:
        # `source` in index.json is a digest of this text: if it changed, finished shards would be written again.
        values = {"split": self.split, "picture": self.image, "annotations": self.annotations}
        values |= {"expressions": self.expressions, "instances": self.instances}
        return f"ImageDraft({', '.join(f'{name}={value!r}' for name, value in values.items())})"


def expect_files(dataset: str, folder: Path) -> list[tuple[str, ...]]:
    """The files that `read_dataset` needs: for each the names that it may have, the preferred one first.

    InstanceVG's merged layout is expected in a folder with a file of that layout and no file of refs.
    """
    if merged_files := _find_instancevg_files(dataset, folder):
        return [(file.name,) for file in merged_files]
    return [DATASETS[dataset].files, (INSTANCES_FILE,)]


def list_files(dataset: str, folder: Path) -> list[Path]:
    """The published files that `read_dataset` reads.

    Raises:
        DataError: one is missing; names those expected.
    """
    expected = expect_files(dataset, folder)
    found = [next((folder / name for name in names if (folder / name).is_file()), None) for names in expected]
    for file, names in zip(found, expected, strict=True):
        if file is None:
            expected_names = " and ".join(" or ".join(names) for names in expected)
            other = (
                "" if _find_instancevg_files(dataset, folder) else f", or with the {instancevg.FILES[0]} of InstanceVG"
            )
            remedy = f"give the folder with {expected_names}{other}"
            raise DataError(f"holds no {' or '.join(names)}", file=folder, remedy=remedy)
    return [file for file in found if file]


def locate_instances(dataset: str, folder: Path) -> Path:
    """The file of `list_files` that holds the annotations."""
    files = list_files(dataset, folder)
    return files[0] if _find_instancevg_files(dataset, folder) else files[1]


def read_dataset(dataset: str, folder: Path, collector: ErrorCollector, splits: Sequence[str] = ()) -> list[ImageDraft]:
    """Read the published files of a data set.

    Args:
        dataset: a name in `DATASETS`.
        folder: holds the files under their published names.
        collector: collects records that cannot be used or contradict others; they are left out.
        splits: names of the splits; none means all.

    Returns:
        One draft per image and split, sorted by the name of the split and the image id. An image whose size the
        files do not say is 0 × 0.

    Raises:
        DataError: a file is missing, cannot be read or is of another kind; or a split does not exist.
    """
    files = list_files(dataset, folder)
    if _find_instancevg_files(dataset, folder):
        refs, instances = instancevg.read_instancevg(dataset, files, collector, splits)
    else:
        refs = read_refs(DATASETS[dataset], files[0], collector, splits)
        # What `igvg convert --to grefcoco` writes of objects without a mask.
        instances = read_instances(files[1], collector, boxes_suffice=dataset == DatasetName.grefcoco)
    grouped: dict[tuple[str, int], list[Ref]] = {}
    for ref in refs:
        if contradiction := _find_contradiction(ref, instances):
            kind, what = contradiction
            collector.add(DataError(what, file=files[0], record=f"ref {ref.ref_id}"), kind)
        else:
            grouped.setdefault((ref.split, ref.image_id), []).append(ref)
    return [
        _draft_image(dataset, split, instances.images[image_id], grouped[split, image_id], instances)
        for split, image_id in sorted(grouped)
    ]


def drop_unusable_annotations(drafts: Sequence[ImageDraft], file: Path, collector: ErrorCollector) -> list[ImageDraft]:
    """Drafts whose annotations all have masks; an expression that needs another annotation is left out.

    The drafts returned hold instances in place of segmentations. The annotations of `file`, or of the draft's own file,
    without a usable mask are collected, each once. The sizes of all images must be known.
    """
    usable: list[ImageDraft] = []
    errors: dict[tuple[Path, int, ImageKey], DataError] = {}
    lost: dict[tuple[Path, int, ImageKey], list[str]] = {}
    for draft in drafts:
        kept: dict[int, Instance] = {}
        for index, annotation in enumerate(draft.annotations):
            try:
                kept[index] = _build_instance(annotation, draft.image)
            except DataError as error:
                key = draft.file or file, annotation.ann_id, draft.image.key
                errors.setdefault(key, error)
                needing = [expression.id for expression in draft.expressions if index in expression.instances]
                lost.setdefault(key, []).extend(needing)
        expressions = [each for each in draft.expressions if kept.keys() >= set(each.instances)]
        if expressions:
            usable.append(_select_expressions(draft, kept, expressions))
    for key, found in errors.items():
        what = f"{found.what}; expressions that need it: {len(lost[key])}, the first {lost[key][0]}"
        collector.add(DataError(what, file=key[0], record=found.record), UNUSABLE)
    return usable


def _select_expressions(draft: ImageDraft, kept: dict[int, Instance], expressions: Sequence[Expression]) -> ImageDraft:
    """The draft with some of its expressions, and the annotations that they refer to, in their order."""
    used = sorted({index for expression in expressions for index in expression.instances})
    new_indices = {index: new_index for new_index, index in enumerate(used)}
    return replace(
        draft,
        annotations=tuple(replace(draft.annotations[index], segmentation=None) for index in used),
        instances=tuple(kept[index] for index in used),
        expressions=tuple(
            replace(expression, instances=tuple(new_indices[index] for index in expression.instances))
            for expression in expressions
        ),
    )


def find_crowd_only(draft: ImageDraft) -> list[Expression]:
    """The expressions that refer to crowd regions alone, where these are no part of the ground-truth mask."""
    return [
        expression
        for expression in draft.expressions
        if expression.instances
        and leaves_crowds_out(expression.id)
        and all(draft.annotations[index].iscrowd for index in expression.instances)
    ]


def build_record(draft: ImageDraft) -> ImageRecord:
    """Make a draft's masks and boxes.

    Raises:
        DataError: a segmentation is malformed or covers no pixel.
    """
    return ImageRecord(
        image_id=draft.image.image_id,
        file_name=draft.image.file_name,
        width=draft.image.width,
        height=draft.image.height,
        instances=draft.instances or tuple(_build_instance(each, draft.image) for each in draft.annotations),
        expressions=draft.expressions,
    )


def _build_instance(annotation: Annotation, image: CocoImage) -> Instance:
    build: Callable[..., Instance] = build_own_instance if isinstance(annotation, OwnAnnotation) else build_instance
    return build(annotation, image)


def _find_instancevg_files(dataset: str, folder: Path) -> tuple[Path, ...]:
    referenced = any((folder / name).is_file() for name in DATASETS[dataset].files)
    return () if referenced else instancevg.find_instancevg_files(dataset, folder)


def _find_contradiction(ref: Ref, instances: CocoInstances) -> tuple[str, str] | None:
    """The kind of contradiction with `instances.json`, and what it is."""
    if ref.image_id in instances.refused_images:
        return REFUSED, f"image {ref.image_id} cannot be used: its entry was refused"
    if ref.image_id not in instances.images:
        return "unknown picture", f"{INSTANCES_FILE} has no image {ref.image_id}"
    for ann_id in dict.fromkeys(ann_id for sentence in ref.sentences for ann_id in sentence.ann_ids):
        annotation = instances.annotations.get(ann_id)
        if ann_id in instances.refused_annotations:
            return REFUSED, f"annotation {ann_id} cannot be used: its entry was refused"
        if annotation is None:
            return "unknown annotation", f"{INSTANCES_FILE} has no annotation {ann_id}"
        if annotation.image_id != ref.image_id:
            what = f"annotation {ann_id} belongs to image {annotation.image_id}, the ref to {ref.image_id}"
            return "annotation of another picture", what
    return None


def _draft_image(
    dataset: str, split: str, image: CocoImage, refs: Sequence[Ref], instances: CocoInstances
) -> ImageDraft:
    indices: dict[int, int] = {}
    expressions = [
        Expression(
            id=f"{dataset}/{ref.ref_id}/{sentence.sent_id}",
            text=sentence.text,
            # A duplicate stays one: the published evaluations count it twice.
            instances=tuple(indices.setdefault(ann_id, len(indices)) for ann_id in sentence.ann_ids),
            ref_id=ref.ref_id,
        )
        for ref in refs
        for sentence in ref.sentences
    ]
    return ImageDraft(
        split=split,
        image=image,
        annotations=tuple(instances.annotations[ann_id] for ann_id in indices),
        expressions=tuple(expressions),
    )
