"""Kept raw outputs under some settings: as the API's documents, and as PNG masks. Only NumPy, no network."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.config.settings import PostprocessSettings
from pipelines.prediction.postprocess import (
    existence_probability,
    logits_to_mask,
    postprocess,
    postprocess_instance_masks,
)
from pipelines.prediction.raw_output import RawOutput
from pipelines.serving.documents import Answer, Attention, ExpressionAnswer, Mask, describe_settings
from pipelines.serving.results import KeptResult
from pipelines.serving.uploads import scale_size
from shards.masks import encode_mask, resize_nearest


def build_answer(
    result_id: str, result: KeptResult, settings: PostprocessSettings, max_side: int = 0, *, check: Callable[[], None]
) -> Answer:
    """The answer of a kept result.

    Args:
        result_id: its id.
        result: its raw outputs.
        settings: of post-processing.
        max_side: the longer side of the answer in pixels at most; 0: that of the image.
        check: is called before each mask, and ends the work by what it raises.
    """
    image_height, image_width = result.raw[0].original_size
    height, width = scale_size(image_height, image_width, max_side)
    return Answer(
        id=result_id,
        width=width,
        height=height,
        image_width=image_width,
        image_height=image_height,
        settings=describe_settings(settings),
        results=[
            _answer_expression(replace(raw, original_size=(height, width)), text, settings, check)
            for raw, text in zip(result.raw, result.texts, strict=True)
        ],
    )


def write_masks(result: KeptResult, settings: PostprocessSettings, *, check: Callable[[], None]) -> bytes:
    """A ZIP file of PNG masks at the size of the image: 255 inside, 0 outside.

    `1.png` is the first expression's mask, `1-2.png` that of its second instance; `index.json` lists them all.
    `check` is that of `build_answer`.
    """
    stream = io.BytesIO()
    index = []
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for number, (raw, text) in enumerate(zip(result.raw, result.texts, strict=True), start=1):
            check()
            found = postprocess(raw, settings)
            archive.writestr(f"{number}.png", write_png(found.mask))
            instances = []
            for row, query in enumerate(found.queries):
                name = f"{number}-{row + 1}.png"
                check()
                archive.writestr(name, write_png(_instance_mask(raw, query, settings)))
                score, box = float(found.scores[row]), found.boxes[row].tolist()
                instances.append({"file": name, "score": score, "box": box})
            entry = {"text": text, "file": f"{number}.png", "no_target": found.no_target, "instances": instances}
            index.append(entry)
        archive.writestr("index.json", json.dumps(index, ensure_ascii=False, indent=1) + "\n")
    return stream.getvalue()


def write_mask(result: KeptResult, number: int, settings: PostprocessSettings) -> bytes:
    """A PNG file of one expression's mask at the size of the image; expressions count from 1."""
    return write_png(postprocess(result.raw[number - 1], settings).mask)


def write_png(mask: NDArray[np.bool_]) -> bytes:
    """A mask (H, W) as a PNG file: 255 inside, 0 outside."""
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, format="png")
    return stream.getvalue()


def _answer_expression(
    raw: RawOutput, text: str, settings: PostprocessSettings, check: Callable[[], None]
) -> ExpressionAnswer:
    height, width = raw.original_size

    def encode_instance(query: np.int64) -> Mask:
        check()
        return _to_mask(_instance_mask(raw, query, settings))

    check()
    found = postprocess(raw, settings)
    global_square = logits_to_mask(raw.global_mask_logits, raw.image_size, settings.mask_threshold)
    return ExpressionAnswer(
        text=text,
        no_target=found.no_target,
        existence=existence_probability(raw),
        boxes=[tuple(box) for box in found.boxes.tolist()],
        scores=found.scores.tolist(),
        mask=_to_mask(found.mask),
        # One after the other: all masks of a large image at once would take much memory.
        instance_masks=[encode_instance(query) for query in found.queries],
        global_mask=_to_mask(resize_nearest(global_square, height, width)),
        points=[tuple(point) for point in found.points.tolist()],
        all_points=[tuple(point) for point in (raw.points.astype(np.float64) * (width, height)).tolist()],
        attention=_describe_attention(raw.attention_map),
    )


def _instance_mask(raw: RawOutput, query: np.int64, settings: PostprocessSettings) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = postprocess_instance_masks(raw, np.array([query], dtype=np.int64), settings)[0]
    return mask


def _to_mask(mask: NDArray[np.bool_]) -> Mask:
    rle: dict[str, Any] = dict(encode_mask(mask))
    return Mask(size=tuple(rle["size"]), counts=rle["counts"])


def _describe_attention(attention_map: NDArray[np.uint8] | None) -> Attention | None:
    if attention_map is None:
        return None
    height, width = attention_map.shape
    values = base64.b64encode(np.ascontiguousarray(attention_map).tobytes()).decode("ascii")
    return Attention(size=(height, width), values=values)
