"""Predictions on one's own images as COCO's files: annotations.json, boxes.json and segmentations.json.

As for a split, every expression becomes an "image" of its own, with ids from 1 in the order of the predictions. There
is no ground truth: annotations.json lists images alone.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

from pipelines.prediction.coco_export import (
    ANNOTATIONS,
    BOXES,
    CATEGORY,
    SEGMENTATIONS,
    box_entries,
    segmentation_entry,
    write_list,
)
from pipelines.prediction.image_predictions import ImagePredictions
from shards.files import name_file

INFO = "own images: every expression is an image; evaluate with useCats = 0"


def write_own_coco(folder: Path, images: Iterable[ImagePredictions]) -> dict[str, int]:
    """Write the three files; without masks there is no segmentations.json.

    Images have the expression's text as `caption`, the id of its prediction as `expression_id`, and as `original_id`
    the index of the image file from 1.

    Returns:
        The number of boxes and segmentations.
    """
    counts, has_masks = {"boxes": 0, "segmentations": 0}, False
    image_id = 0
    files = [folder / name for name in (ANNOTATIONS, BOXES, SEGMENTATIONS)]
    with contextlib.ExitStack() as stack:
        for file in files:
            stack.enter_context(name_file(file))
        annotations, *results = (stack.enter_context(file.open("w", encoding="utf-8")) for file in files)
        annotations.write(f'{{"info": {json.dumps({"description": INFO})},\n"images": ')
        append_image, append_box, append_segmentation = (
            stack.enter_context(write_list(stream)) for stream in (annotations, *results)
        )
        for original_id, image in enumerate(images, start=1):
            height, width = image.size or (None, None)
            for text, prediction in zip(image.texts, image.predictions, strict=True):
                image_id += 1
                append_image({
                    "id": image_id, "file_name": image.file_name, "width": width, "height": height, "caption": text,
                    "expression_id": prediction.id, "original_id": original_id,
                })  # fmt: skip
                for box in box_entries(image_id, prediction):
                    append_box(box)
                    counts["boxes"] += 1
                has_masks = has_masks or prediction.mask is not None
                if segmentation := segmentation_entry(image_id, prediction):
                    append_segmentation(segmentation)
                    counts["segmentations"] += 1
    with files[0].open("a", encoding="utf-8") as stream:
        stream.write(f',\n"annotations": [],\n"categories": {json.dumps([{"id": CATEGORY, "name": "expression"}])}}}\n')
    if not has_masks:
        files[2].unlink()
    return counts
