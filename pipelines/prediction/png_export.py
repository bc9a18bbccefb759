"""Predicted masks as PNG files, one for each expression: 255 inside the mask, 0 outside.

index.json says which expression a file is for.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.prediction.image_predictions import FileNames, ImagePredictions
from shards.errors import DataError
from shards.files import dump_json, name_file
from shards.masks import decode_mask

INDEX = "index.json"


def write_png_masks(folder: Path, images: Iterable[ImagePredictions]) -> dict[str, int]:
    """Write the masks at the size of the images, named by expression, and index.json, a list with one entry for each.

    Returns:
        The number of images and masks.

    Raises:
        DataError: the predictions have no masks.
    """
    counts = {"images": 0, "masks": 0}
    names, separator = FileNames("png"), b"[\n"
    with (folder / INDEX).open("wb") as index, name_file(folder / INDEX):
        for image in images:
            counts["images"] += 1
            for text, prediction in zip(image.texts, image.predictions, strict=True):
                if prediction.mask is None:
                    raise DataError(
                        "the predictions have no masks", remedy="write boxes --to labelme, or predict with --masks"
                    )
                file = folder / names.choose(prediction.id)
                with name_file(file):
                    Image.fromarray(decode_mask(prediction.mask).astype(np.uint8) * 255).save(file)
                entry = prediction.to_json() | {"image": image.file_name, "text": text, "file": file.name}
                del entry["mask"]
                index.write(separator + dump_json(entry))
                separator = b",\n"
                counts["masks"] += 1
        index.write(b"\n]\n" if counts["masks"] else b"[]\n")
    return counts
