"""`igvg predict --image` and `--pairs`: a checkpoint and the user's own images in, predictions and their files out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config.overrides import fingerprinted_settings
from pipelines.config.settings import ZeroShotSettings
from pipelines.data.image_decoding import read_image
from pipelines.data.image_folder import digest_images
from pipelines.data.image_queries import CheckedImages, ImageQueries, check_images
from pipelines.data.image_text import FolderImageTexts
from pipelines.networks import resolve_checkpoint
from pipelines.prediction.coco_own_images import write_own_coco
from pipelines.prediction.cutout_export import write_cutouts
from pipelines.prediction.families import find_family
from pipelines.prediction.image_predictions import ImagePredictions, group_own_images
from pipelines.prediction.labelme_export import write_labelme
from pipelines.prediction.png_export import write_png_masks
from pipelines.prediction.prediction import Prediction
from pipelines.prediction.prediction_file import PREDICTIONS
from pipelines.report.image_outputs import ImageOutputs
from pipelines.stages.artifact import KeyedFolder, Stage, StageResult
from pipelines.stages.prediction_work import (
    AnySettings,
    PredictionWork,
    digest_models,
    open_igvg,
    open_zero_shot,
    run_prediction,
)
from shards.errors import SettingsError
from shards.masks import merge_rles
from shards.progress import begin_stage

if TYPE_CHECKING:
    from accelerate import Accelerator

    from pipelines.data.datasets import ImageFolderDataset
    from pipelines.data.processor import Processor

DEFAULT_OUTPUTS = ImageOutputs()


def run_on_images(
    settings: AnySettings,
    checkpoint: Path,
    queries: ImageQueries,
    out: Path,
    *,
    outputs: ImageOutputs = DEFAULT_OUTPUTS,
    masks: Path | None = None,
    force: bool = False,
) -> StageResult[None]:
    """Ground texts in the user's own images, and write overlays or other files of the results.

    Images that cannot be read are left out.

    Args:
        settings: `default_settings(checkpoint)`, changed.
        checkpoint: igvg's own, or of a zero-shot family.
        queries: the images, and what to look for in them.
        out: folder for the predictions.
        outputs: which files are written, and what overlays show.
        masks: a SAM checkpoint that gives masks for the boxes of a zero-shot model.
        force: replace what igvg left in `out`.

    Returns:
        The artifact, whose counts have `unreadable` (the error of each image that was left out, by name) and `notes`
        (lines for the user).

    Raises:
        ArtifactError: `out` holds something else.
        CheckpointError, DataError: the checkpoint, or every image, cannot be used.
        SettingsError: a text has no word, the model gives nothing for the outputs, or as for shards.
    """  # fmt: skip
    _check_texts(queries.texts)
    checkpoint, masks = resolve_checkpoint(checkpoint), resolve_checkpoint(masks) if masks else None
    _check_outputs(outputs, checkpoint, masks)
    stage = describe_images(settings, checkpoint, queries, out, outputs=outputs, masks=masks)

    def open_work(folder: Path, accelerator: Accelerator) -> PredictionWork:
        images = check_images(queries)
        work = _open(settings, checkpoint, masks, images, outputs)(folder, accelerator)
        return replace(work, merge=lambda: {**work.merge(), **write_files(folder, images, outputs)})

    return run_prediction(stage, settings.split, checkpoint, open_work, force=force)


def describe_images(
    settings: AnySettings,
    checkpoint: Path,
    queries: ImageQueries,
    out: Path | KeyedFolder,
    *,
    outputs: ImageOutputs = DEFAULT_OUTPUTS,
    masks: Path | None = None,
) -> Stage:
    """The stage of a prediction on the user's own images."""  # fmt: skip
    inputs = digest_models(settings, checkpoint, masks) | {"images": digest_images(queries.files)}
    options = {**fingerprinted_settings(settings), **queries.fingerprint_options(), **outputs.fingerprint_options()}
    return Stage(name="predict", out=out, inputs=inputs, options=options)


def write_files(out: Path, images: CheckedImages, outputs: ImageOutputs) -> dict[str, Any]:
    """Write masks, cut-outs, JSON and COCO's files from the predictions in `out`, each into a folder of its own.

    Returns:
        The counts of each kind of files; none for overlays, which are drawn with the predictions.
    """
    files = dict(zip(images.names, images.files, strict=True))
    writers: dict[str, Callable[[Path, Iterator[ImagePredictions]], dict[str, int]]] = {
        "masks": write_png_masks,
        "cutouts": partial(write_cutouts, read=lambda name: read_image(files[name])),
        "json": write_labelme,
        "coco": write_own_coco,
    }
    counts: dict[str, Any] = {}
    for kind in (kind for kind in writers if kind in outputs.save):
        begin_stage(f"writing {kind}")
        folder = out / kind
        # What an interrupted run left.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        counts[kind] = writers[kind](folder, _group_images(out / PREDICTIONS, images))
    return {"files": counts} if counts else {}


def _group_images(file: Path, images: CheckedImages) -> Iterator[ImagePredictions]:
    sizes = dict(zip(images.names, images.sizes, strict=True))
    for image in group_own_images(file, images.texts):
        predictions = tuple(map(_drop_mask, image.predictions))
        yield replace(image, size=sizes[image.file_name], predictions=predictions)


def _drop_mask(prediction: Prediction) -> Prediction:
    """The prediction; its mask is emptied if there is no target, as overlays draw none."""
    if prediction.mask is None or not prediction.no_target:
        return prediction
    return replace(prediction, mask=merge_rles([], *prediction.mask["size"]))


def _open(
    settings: AnySettings, checkpoint: Path, masks: Path | None, images: CheckedImages, outputs: ImageOutputs
) -> Callable[[Path, Accelerator], PredictionWork]:
    from pipelines.report.own_images import OverlayArtist

    artist = OverlayArtist(images, outputs.show) if "overlays" in outputs.save else None
    if isinstance(settings, ZeroShotSettings):
        draw_found = artist.draw_detections if artist else None
        return partial(open_zero_shot, settings, checkpoint, masks, lambda: FolderImageTexts(images), draw=draw_found)

    def open_data(processor: Processor) -> ImageFolderDataset:
        from pipelines.data.datasets import ImageFolderDataset

        return ImageFolderDataset(images, processor)

    draw = partial(artist.draw_result, settings=settings.postprocess) if artist else None
    return partial(open_igvg, settings, checkpoint, open_data, draw=draw)


def _check_texts(texts: tuple[str, ...]) -> None:
    from pipelines.data.tokenizer import clean_expression

    if blank := [text for text in texts if not clean_expression(text)]:
        found = f'"{blank[0]}" has no word: punctuation is left out' if blank[0].strip() else "is empty"
        raise SettingsError(f"--text {found}; say what to look for")


def _check_outputs(outputs: ImageOutputs, checkpoint: Path, masks: Path | None) -> None:
    family = find_family(checkpoint)
    if family is None:
        return
    if outputs.need_masks and not family.has_masks and masks is None:
        raise SettingsError(f"{family.name} gives no masks to save; add --masks with a SAM checkpoint")
    if "overlays" in outputs.save and "attention" in outputs.show:
        raise SettingsError(f"--show attention needs igvg's own network; {family.name} gives no attention map")
