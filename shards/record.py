"""The label schema of all data sets: an image, its instances, and the expressions that refer to any number of them.

Every published data set becomes `ImageRecord`s, and all that follows `igvg prepare` reads these alone.

NOTE: crowd regions (COCO's `iscrowd`) are instances like others, but in gRefCOCO the ground-truth mask excludes them:
ReLA's loader (gres_model/data/datasets/grefcoco.py) skips annotations with iscrowd 1. The ground-truth boxes include
them: gRefCOCO's converter for GREC (mdetr/scripts/fine-tuning/grefexp_coco_format.py) keeps all annotations. The
loaders of Ref-ZOM, R-RefCOCO and RefCOCO ignore iscrowd.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

from shards.errors import DataError, to_line

LONGEST_SIDE = (1 << 15) - 1
"""Pixels of an image's longer side."""
MAX_PIXELS = 178_956_970
"""Pixels of an image; Pillow decodes none with more."""

Box = tuple[float, float, float, float]

# The data sets whose ground-truth masks exclude crowd regions.
_DATASETS_WITHOUT_CROWDS = frozenset({"grefcoco"})


class Rle(TypedDict):
    """A mask as COCO's compressed run lengths: `size` is [height, width], `counts` the ASCII string."""

    size: list[int]
    counts: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One annotated object: `box` is x0, y0, x1, y1 in pixels of the original image.

    `mask` is None where only the box is known; `crowd` says that the annotation is a region of many objects (COCO's
    `iscrowd`), not a single one.
    """

    ann_id: int
    category_id: int
    box: Box
    mask: Rle | None
    crowd: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """One expression; `instances` are indices into the record's instances, empty for an empty target.

    `id` is DATASET/REF_ID/SENT_ID; `ref_id` groups the sentences that R-RefCOCO's metrics average over.
    """

    id: str
    text: str
    instances: tuple[int, ...]
    ref_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """One image of one split with its instances and expressions.

    Raises:
        DataError: a size, box, mask or index contradicts the rest of the record.
    """

    image_id: int
    file_name: str
    width: int
    height: int
    instances: tuple[Instance, ...]
    expressions: tuple[Expression, ...]

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise self._error(f"an image of {self.width} × {self.height} pixels")
        for instance in self.instances:
            if instance.mask is not None and instance.mask["size"] != [self.height, self.width]:
                raise self._error(
                    f"annotation {instance.ann_id} has a mask of {instance.mask['size']} in an image of "
                    f"[{self.height}, {self.width}]"
                )
            x0, y0, x1, y1 = instance.box
            if not (0 <= x0 <= x1 <= self.width and 0 <= y0 <= y1 <= self.height):
                raise self._error(f"annotation {instance.ann_id} has box {list(instance.box)} outside the image")
        for expression in self.expressions:
            if any(not 0 <= index < len(self.instances) for index in expression.instances):
                raise self._error(
                    f"expression {expression.id} points to instances {list(expression.instances)} of "
                    f"{len(self.instances)}"
                )

    def _error(self, what: str) -> DataError:
        return DataError(what, record=f"image {self.image_id}")

    def targets(self, expression: Expression) -> tuple[Instance, ...]:
        """The instances that an expression refers to, as often as it names them: the ground-truth boxes."""
        return tuple(self.instances[index] for index in expression.instances)

    def mask_targets(self, expression: Expression) -> tuple[Instance, ...]:
        """The `targets` whose union is the ground-truth mask: in gRefCOCO all but crowd regions, else all.

        Of an expression with targets there may be none: its ground-truth mask is empty, but it has a target.
        """
        targets = self.targets(expression)
        if not leaves_crowds_out(expression.id):
            return targets
        return tuple(instance for instance in targets if not instance.crowd)

    def to_json(self) -> dict[str, Any]:
        """The record as the JSON document of a shard, keys in a fixed order."""
        return {
            "image_id": self.image_id,
            "file_name": self.file_name,
            "width": self.width,
            "height": self.height,
            "instances": [
                {
                    "ann_id": instance.ann_id,
                    "category_id": instance.category_id,
                    "box": list(instance.box),
                    **_dump_mask(instance.mask),
                    **({"crowd": True} if instance.crowd else {}),
                }
                for instance in self.instances
            ],
            "expressions": [
                {
                    "id": expression.id,
                    "text": expression.text,
                    "instances": list(expression.instances),
                    "ref_id": expression.ref_id,
                }
                for expression in self.expressions
            ],
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ImageRecord:
        """Read what `to_json` wrote.

        Raises:
            DataError: a key is missing or of the wrong type, or the record contradicts itself.
        """
        try:
            return cls(
                image_id=int(document["image_id"]),
                file_name=_read_text(document, "file_name"),
                width=int(document["width"]),
                height=int(document["height"]),
                instances=tuple(
                    Instance(
                        ann_id=int(item["ann_id"]),
                        category_id=int(item["category_id"]),
                        box=_read_box(item["box"]),
                        mask=_read_mask(item),
                        crowd=_read_crowd(item),
                    )
                    for item in document["instances"]
                ),
                expressions=tuple(
                    Expression(
                        id=_read_text(item, "id"),
                        text=_read_text(item, "text"),
                        instances=tuple(int(index) for index in item["instances"]),
                        ref_id=int(item["ref_id"]),
                    )
                    for item in document["expressions"]
                ),
            )
        except KeyError as error:
            raise DataError(f"not an image record: it lacks {to_line(str(error))}") from error
        except (TypeError, ValueError) as error:
            raise DataError(f"not an image record: {type(error).__name__}: {to_line(str(error))}") from error


def leaves_crowds_out(expression_id: str) -> bool:
    """Whether the ground-truth mask of an expression excludes crowd regions, by the data set in its id."""
    return expression_id.partition("/")[0] in _DATASETS_WITHOUT_CROWDS


def _read_text(item: dict[str, Any], key: str) -> str:
    if not isinstance(item[key], str):
        raise TypeError(f"{key} is no text")
    text: str = item[key]
    return text


def _read_box(values: list[float]) -> Box:
    x0, y0, x1, y1 = (float(value) for value in values)
    return x0, y0, x1, y1


def _dump_mask(mask: Rle | None) -> dict[str, Any]:
    return {} if mask is None else {"mask": {"size": list(mask["size"]), "counts": mask["counts"]}}


def _read_mask(item: dict[str, Any]) -> Rle | None:
    """The mask of an instance; one of which only the box is known has no such key."""
    if "mask" not in item:
        return None
    return {"size": [int(side) for side in item["mask"]["size"]], "counts": item["mask"]["counts"]}


def _read_crowd(item: dict[str, Any]) -> bool:
    """Whether an instance is a crowd region; shards written before crowd regions were marked have no such key."""
    crowd = item.get("crowd", False)
    if not isinstance(crowd, bool):
        raise TypeError(f"crowd is {crowd!r}, neither true nor false")
    return crowd
