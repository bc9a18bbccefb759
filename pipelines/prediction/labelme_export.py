"""Predictions as JSON files of labelme, one for each image: masks as polygons, boxes as rectangles.

A shape's label is its expression's text; shapes of the same expression have the same group id. The files also hold the
ids of the expressions, which labelme keeps, so that they can be read back after editing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pipelines.prediction.image_predictions import FileNames, ImagePredictions
from pipelines.prediction.mask_polygons import mask_to_polygons
from pipelines.prediction.prediction import Prediction
from shards.files import dump_json, name_file
from shards.masks import decode_mask, rle_area

VERSION = "5.5.0"
"""The version of labelme whose format the files have."""


def write_labelme(folder: Path, images: Iterable[ImagePredictions]) -> dict[str, int]:
    """Write one file for each image, named like it; returns the number of images, expressions, polygons and boxes."""
    counts = {"images": 0, "expressions": 0, "polygons": 0, "boxes": 0}
    names = FileNames("json")
    for image in images:
        document = describe_image(image)
        file = folder / names.choose(PurePosixPath(image.file_name).stem)
        with name_file(file):
            file.write_bytes(dump_json(document))
        kinds = [shape["shape_type"] for shape in document["shapes"]]
        counts["images"] += 1
        counts["expressions"] += len(image.predictions)
        counts["polygons"] += kinds.count("polygon")
        counts["boxes"] += kinds.count("rectangle")
    return counts


def describe_image(image: ImagePredictions) -> dict[str, Any]:
    """The labelme document of an image's predictions."""
    shapes = [
        shape
        for group, (text, prediction) in enumerate(zip(image.texts, image.predictions, strict=True))
        for shape in _list_shapes(group, text, prediction)
    ]
    expressions = [
        _describe_expression(group, text, prediction)
        for group, (text, prediction) in enumerate(zip(image.texts, image.predictions, strict=True))
    ]
    height, width = image.size or (None, None)
    return {
        "version": VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": PurePosixPath(image.file_name).name,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
        "expressions": expressions,
    }


def _describe_expression(group: int, text: str, prediction: Prediction) -> dict[str, Any]:
    """What shapes alone do not say: the id, which kinds are predicted, and `no_target` where it contradicts them."""
    kinds = {"boxes": prediction.boxes, "mask": prediction.mask}
    entry = {
        "group_id": group,
        "id": prediction.id,
        "text": text,
        "predicted": [kind for kind, value in kinds.items() if value is not None],
    }
    empty = not prediction.boxes and not (prediction.mask and rle_area(prediction.mask))
    return entry if prediction.no_target == empty else entry | {"no_target": prediction.no_target}


def _list_shapes(group: int, text: str, prediction: Prediction) -> Iterator[dict[str, Any]]:
    common = {"label": text, "group_id": group, "description": "", "flags": {}}
    if prediction.mask is not None:
        for points in mask_to_polygons(decode_mask(prediction.mask)):
            yield common | {"shape_type": "polygon", "points": points.tolist()}
    boxes = prediction.boxes or []
    scores = [{}] * len(boxes) if prediction.scores is None else [{"score": score} for score in prediction.scores]
    for box, score in zip(boxes, scores, strict=True):
        yield common | {"shape_type": "rectangle", "points": [box[:2], box[2:]]} | score
