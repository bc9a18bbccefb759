"""What expressions refer to, cut out of their images: one PNG with alpha for each expression.

A cut-out has the image's colors inside the mask, is transparent outside, and is cropped to the mask's bounds. The file
index.json says which expression a cut-out is for, and where it lay in the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.prediction.image_predictions import FileNames, ImagePredictions
from pipelines.prediction.prediction import Prediction
from shards.files import name_file, write_json
from shards.masks import decode_mask, rle_area, rle_to_box

INDEX = "index.json"


def write_cutouts(
    folder: Path, images: Iterable[ImagePredictions], read: Callable[[str], NDArray[np.uint8]]
) -> dict[str, int]:
    """Write the cut-outs, named by expression, and index.json, a list with one entry for each expression.

    Expressions without a target have none: their `file` and `crop` are null.

    Args:
        folder: where to write.
        images: the predictions, with masks.
        read: gives the pixels (H, W, 3) of an image by its name.

    Returns:
        The number of cut-outs.
    """
    names, entries = FileNames("png"), []
    count = 0
    for image in images:
        pixels: NDArray[np.uint8] | None = None
        for text, prediction in zip(image.texts, image.predictions, strict=True):
            entry: dict[str, Any] = {"id": prediction.id, "image": image.file_name, "text": text}
            crop = _find_crop(prediction)
            entries.append(entry | {"file": None, "crop": None})
            if crop is None or prediction.mask is None:
                continue
            pixels = read(image.file_name) if pixels is None else pixels
            file = folder / names.choose(prediction.id)
            with name_file(file):
                cut_out(pixels, decode_mask(prediction.mask), crop).save(file, compress_level=3)
            entries[-1] |= {"file": file.name, "crop": list(crop)}
            count += 1
    write_json(folder / INDEX, entries)
    return {"cutouts": count}


def cut_out(pixels: NDArray[np.uint8], mask: NDArray[np.bool_], crop: tuple[int, int, int, int]) -> Image.Image:
    """The crop x0, y0, x1, y1 of an image (H, W, 3) with a mask (H, W) as alpha; transparent pixels are black."""
    x0, y0, x1, y1 = crop
    inside = mask[y0:y1, x0:x1].astype(bool)
    cut = np.zeros((y1 - y0, x1 - x0, 4), dtype=np.uint8)
    np.copyto(cut[..., :3], pixels[y0:y1, x0:x1], where=inside[..., None])
    cut[..., 3] = inside
    cut[..., 3] *= 255
    return Image.fromarray(cut)


def _find_crop(prediction: Prediction) -> tuple[int, int, int, int] | None:
    """The bounds x0, y0, x1, y1 of the mask in pixels; None: there is no target, or no pixel."""
    if prediction.no_target or prediction.mask is None or not rle_area(prediction.mask):
        return None
    x0, y0, x1, y1 = (round(value) for value in rle_to_box(prediction.mask))
    return x0, y0, x1, y1
