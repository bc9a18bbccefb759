"""Report folders of drawn scenes: the page, and data files as `igvg report` writes them."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.report.page import render_page
from shards.masks import encode_mask, rle_to_box
from shards.synthetic.scenes import Scene, render_scene, sample_scene, visible_masks

DETAILS_SIZE = 100
OUTCOMES = ("correct", "missed empty", "false empty", "lost instance", "extra instance", "loose mask", "wrong object")
Drawn = dict[str, Any]


def write_report(
    folder: Path,
    *,
    expressions: int = 24,
    sets: Sequence[str] = ("runs/first-val",),
    texts: Sequence[str] = (),
    images: int = 6,
) -> Path:
    """Write a report about drawn scenes and random predictions, the same for the same arguments.

    Args:
        folder: is made.
        expressions: how many; the ids are grefcoco/0/0, grefcoco/1/1, …
        sets: names of one or two sets of predictions.
        texts: of the first expressions, in place of those drawn.
        images: how many; expressions take them in turn.
    """
    random = np.random.default_rng(3)
    for name in ("data", "images", "thumbnails"):
        (folder / name).mkdir(parents=True)
    scenes = [_write_scene(folder, index, random) for index in range(images)]
    rows, details = [], []
    for index in range(expressions):
        row, detail = _draw_expression(scenes[index % images], len(sets), random)
        rows.append(row | {"image": index % images, "id": f"grefcoco/{index}/{index}"})
        details.append(detail)
    for row, text in zip(rows, texts, strict=False):
        row["text"] = text
    _write_data(folder / "data", scenes, rows, details, sets)
    page = render_page(None, title="grefcoco val", sets=sets)
    (folder / "index.html").write_text(page, encoding="utf-8")
    return folder / "index.html"


def read_index(page: Path) -> Drawn:
    """What data/expressions.js of a report says."""
    text = (page.parent / "data" / "expressions.js").read_text(encoding="ascii")
    index: Drawn = json.loads(text.removeprefix("igvg.loadExpressions(").removesuffix(");\n"))
    return index


def _write_scene(folder: Path, index: int, random: np.random.Generator) -> tuple[Scene, str]:
    scene = sample_scene(random)
    image, file = render_scene(scene, random), f"{index:05d}.jpg"
    image.save(folder / "images" / file, quality=92)
    image.save(folder / "thumbnails" / file)
    return scene, file


def _draw_expression(drawn: tuple[Scene, str], sets: int, random: np.random.Generator) -> tuple[Drawn, Drawn]:
    scene = drawn[0]
    targets = [index for index in range(len(scene.objects)) if random.random() < 0.4]
    masks = [scene.visible[index] for index in targets]
    names = [f"{scene.objects[i].size} {scene.objects[i].color} {scene.objects[i].shape}" for i in targets]
    results = [_draw_result(scene, masks, random) for _ in range(sets)]
    row = {
        "text": " and the ".join(["the " + names[0], *names[1:]]) if names else "the thing that is not there",
        "kind": "none" if not targets else "one" if len(targets) == 1 else "several",
        "results": [result[0] for result in results],
    }
    truth = {"boxes": [_to_box(mask) for mask in masks], "masks": [encode_mask(mask) for mask in masks]}
    return row, {"truth": truth, "results": [result[1] for result in results]}


def _draw_result(scene: Scene, targets: list[NDArray[np.bool_]], random: np.random.Generator) -> tuple[Drawn, Drawn]:
    found = [np.roll(mask, random.integers(-6, 7, 2), (0, 1)) for mask in targets if random.random() < 0.8]
    if random.random() < 0.25:
        found.append(scene.visible[int(random.integers(len(scene.visible)))])
    merged = np.any(found, axis=0) if found else np.zeros_like(scene.visible[0])
    truth = np.any(targets, axis=0) if targets else np.zeros_like(merged)
    union = int((merged | truth).sum())
    iou = 100 * int((merged & truth).sum()) / union if union else 100.0
    boxes, rough = [_to_box(mask) for mask in found], _blur(merged)
    row = {
        "outcome": "correct" if iou > 75 else OUTCOMES[int(random.integers(1, len(OUTCOMES)))],
        "iou": None if random.random() < 0.1 else iou,
        "instances": len(found),
        "existence": round(float(random.random()), 4),
    }
    return row, {
        "boxes": boxes,
        "scores": [round(float(score), 4) for score in random.uniform(0.5, 1, len(found))],
        "mask": encode_mask(merged),
        "instance_masks": [encode_mask(mask) for mask in visible_masks(np.asarray(found))] if found else [],
        "global_mask": encode_mask(rough > 0.4),
        "points": [[(x0 + x1) / 2, (y0 + y1) / 2] for x0, y0, x1, y1 in boxes],
        "all_points": (random.random((12, 2)) * [scene.width, scene.height]).round(1).tolist(),
        "attention": _encode_attention(rough),
        "existence": row["existence"],
    }


def _to_box(mask: NDArray[np.bool_]) -> list[float]:
    return [float(value) for value in rle_to_box(encode_mask(mask))]


def _blur(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(image.resize((12, 12)).resize(image.size, Image.Resampling.BILINEAR), dtype=float) / 255


def _encode_attention(values: NDArray[np.float64]) -> Drawn:
    cells = np.asarray(Image.fromarray((255 * values).astype(np.uint8)).resize((20, 16)))
    return {"size": list(cells.shape), "values": base64.b64encode(cells.tobytes()).decode()}


def _write_data(folder: Path, scenes: list[Any], rows: list[Drawn], details: list[Drawn], sets: Sequence[str]) -> None:
    keys = ("outcome", "iou", "instances", "existence")
    index = {
        "sets": list(sets),
        "details_size": DETAILS_SIZE,
        "images": {
            "file": [file for _, file in scenes],
            "name": [f"scene {file}" for _, file in scenes],
            "width": [scene.width for scene, _ in scenes],
            "height": [scene.height for scene, _ in scenes],
        },
        **{name: [row[name] for row in rows] for name in ("id", "text", "image", "kind")},
        "results": [{key: [row["results"][which][key] for row in rows] for key in keys} for which in range(len(sets))],
    }
    _write_call(folder / "expressions.js", "loadExpressions", index)
    for start in range(0, len(details), DETAILS_SIZE):
        chunk = start // DETAILS_SIZE
        _write_call(folder / f"details-{chunk:04d}.js", "loadDetails", chunk, details[start : start + DETAILS_SIZE])


def _write_call(file: Path, function: str, *arguments: Any) -> None:
    values = ",".join(json.dumps(argument) for argument in arguments)
    file.write_text(f"igvg.{function}({values});\n", encoding="ascii")
