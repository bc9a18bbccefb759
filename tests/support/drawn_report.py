"""Report folders of drawn scenes and random predictions: the page, and the files of its gallery."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.evaluation.outcome_kinds import OutcomeKind
from pipelines.report.gallery import (
    DETAILS_SIZE,
    GalleryDetail,
    GalleryIndex,
    NetworkLayers,
    ResultLayers,
    ShownExpression,
    ShownImage,
    ShownResult,
    dump_argument,
)
from pipelines.report.gallery_writer import write_script
from pipelines.report.page import render_page
from pipelines.report.summary import Summary
from shards.masks import encode_mask, rle_to_box
from shards.synthetic.scenes import Scene, render_scene, sample_scene, visible_masks

MISTAKES = list(OutcomeKind)[1:]
# Expressions beyond these repeat them.
DISTINCT = 300


def write_report(
    folder: Path,
    *,
    expressions: int = 24,
    sets: Sequence[str] = ("runs/first-val",),
    texts: Sequence[str] = (),
    images: int = 6,
    scale: int = 1,
) -> Path:
    """Write a report, the same for the same arguments, and return its page.

    Args:
        folder: is made.
        expressions: how many; the ids are grefcoco/0/0, grefcoco/1/1, …
        sets: names of one or two sets of predictions.
        texts: of the first expressions, in place of those drawn.
        images: how many; expressions take them in turn.
        scale: scenes are 128 to 176 pixels on each side, images as many times that.
    """
    random = np.random.default_rng(3)
    for name in ("data", "images", "thumbnails"):
        (folder / name).mkdir(parents=True)
    scenes = [sample_scene(random) for _ in range(images)]
    shown = [_write_scene(folder, f"{index:05d}.jpg", scene, scale, random) for index, scene in enumerate(scenes)]
    drawn = [
        _draw_expression(scenes[index % images], len(sets), scale, random)
        for index in range(min(expressions, DISTINCT))
    ]
    rows, details = [], []
    for index in range(expressions):
        text, results, detail = drawn[index % DISTINCT]
        rows.append(
            ShownExpression(
                id=f"grefcoco/{index}/{index}",
                text=texts[index] if index < len(texts) else text,
                image=index % DISTINCT % images,
                num_targets=len(detail.target_boxes),
                results=results,
            )
        )
        details.append(detail.to_json())
    gallery = GalleryIndex(sets=tuple(sets), images=shown, expressions=rows)
    write_script(folder / "data" / "expressions.js", "loadExpressions", dump_argument(gallery.to_json()))
    for chunk, start in enumerate(range(0, expressions, DETAILS_SIZE)):
        block = dump_argument(details[start : start + DETAILS_SIZE])
        write_script(folder / "data" / f"details-{chunk:04d}.js", "loadDetails", str(chunk), block)
    page = folder / "index.html"
    page.write_text(
        render_page(Summary(sets=tuple(zip("AB", sets, strict=False))), title="grefcoco val", sets=sets),
        encoding="utf-8",
    )
    return page


def _write_scene(folder: Path, file: str, scene: Scene, scale: int, random: np.random.Generator) -> ShownImage:
    image = render_scene(scene, random)
    image.save(folder / "thumbnails" / file)
    image = image.resize((scale * scene.width, scale * scene.height))
    image.save(folder / "images" / file, quality=92)
    return ShownImage(file=file, name=f"scene {file}", width=image.width, height=image.height)


def _draw_expression(
    scene: Scene, sets: int, scale: int, random: np.random.Generator
) -> tuple[str, tuple[ShownResult, ...], GalleryDetail]:
    targets = [index for index in range(len(scene.objects)) if random.random() < 0.4]
    masks = [_enlarge(scene.visible[index], scale) for index in targets]
    names = [f"the {scene.objects[i].size} {scene.objects[i].color} {scene.objects[i].shape}" for i in targets]
    others = [_enlarge(mask, scale) for mask in scene.visible]
    results = [_draw_result(others, masks, random) for _ in range(sets)]
    detail = GalleryDetail(
        target_boxes=[_to_box(mask) for mask in masks],
        target_masks=[encode_mask(mask) for mask in masks],
        results=tuple(layers for _, layers in results),
    )
    return " and ".join(names) or "what is not there", tuple(shown for shown, _ in results), detail


def _draw_result(
    others: list[NDArray[np.bool_]], targets: list[NDArray[np.bool_]], random: np.random.Generator
) -> tuple[ShownResult, ResultLayers]:
    found = [np.roll(mask, random.integers(-6, 7, 2), (0, 1)) for mask in targets if random.random() < 0.8]
    if random.random() < 0.25:
        found.append(others[int(random.integers(len(others)))])
    merged = np.any(found, axis=0) if found else np.zeros_like(others[0])
    target = np.any(targets, axis=0) if targets else np.zeros_like(merged)
    union = int((merged | target).sum())
    iou = 100 * int((merged & target).sum()) / union if union else 100.0
    mistake = MISTAKES[int(random.integers(len(MISTAKES)))]
    layers = _draw_layers(found, merged, random)
    existence = layers.network.existence if layers.network else None
    outcome = OutcomeKind.CORRECT if iou > 75 else mistake
    return ShownResult(outcome=outcome, iou=iou, instances=len(found), existence=existence), layers


def _draw_layers(
    found: list[NDArray[np.bool_]], merged: NDArray[np.bool_], random: np.random.Generator
) -> ResultLayers:
    height, width = merged.shape
    boxes = [_to_box(mask) for mask in found]
    cells = Image.fromarray(merged.astype(np.uint8) * 255).resize((20, 16))
    rough = np.asarray(cells.resize((width, height), Image.Resampling.BILINEAR))
    network = NetworkLayers(
        instance_masks=[encode_mask(mask) for mask in visible_masks(np.asarray(found))] if found else [],
        global_mask=encode_mask(rough > 100),
        points=[[(x0 + x1) / 2, (y0 + y1) / 2] for x0, y0, x1, y1 in boxes],
        all_points=(random.random((12, 2)) * [width, height]).round(1).tolist(),
        attention_map=np.asarray(cells),
        existence=float(random.random()),
    )
    scores = [round(float(score), 4) for score in random.uniform(0.5, 1, len(found))]
    return ResultLayers(boxes=boxes, scores=scores, mask=encode_mask(merged), network=network)


def _enlarge(mask: NDArray[np.bool_], scale: int) -> NDArray[np.bool_]:
    return np.repeat(np.repeat(mask, scale, axis=0), scale, axis=1)


def _to_box(mask: NDArray[np.bool_]) -> list[float]:
    return [float(value) for value in rle_to_box(encode_mask(mask))]
