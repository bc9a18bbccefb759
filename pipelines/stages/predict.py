"""`igvg predict`: a checkpoint and images in, predictions.jsonl and raw outputs out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from pipelines.config.overrides import fingerprinted_settings, to_mapping
from pipelines.config.settings import PostprocessSettings, PredictSettings, ZeroShotSettings
from pipelines.data.image_folder import check_images, digest_images, list_images
from pipelines.data.image_text import FolderImageTexts, ImageTextDataset, ShardImageTexts
from pipelines.hub.names import find_commit
from pipelines.networks import resolve_checkpoint
from pipelines.prediction.chunks import PARTS_FOLDER
from pipelines.prediction.detections import Detections
from pipelines.prediction.families import check_masks, check_thresholds, find_family
from pipelines.prediction.postprocess import GroundingResult
from pipelines.prediction.prediction import Prediction
from pipelines.prediction.raw_output import RawOutput
from pipelines.runtime.distributed import explain_lost_process, start_accelerator
from pipelines.runtime.launch import require_one_process
from pipelines.runtime.signals import GracefulStop
from pipelines.stages.artifact import KeyedFolder, Stage, StageResult
from pipelines.stages.inputs import digest_checkpoint, digest_shards, digest_transformers_model
from shards.errors import SettingsError
from shards.files import name_file, remove_drafts, temporary_path
from shards.progress import begin_stage, report_progress
from shards.reader import ShardReader

if TYPE_CHECKING:
    from accelerate import Accelerator

    from pipelines.data.datasets import ExampleDataset, ImageFolderDataset
    from pipelines.data.processor import Processor
    from pipelines.prediction.chunked import DrawOverlay
    from pipelines.prediction.zero_shot_chunks import DrawDetections

AnySettings = PredictSettings | ZeroShotSettings
"""Settings for igvg's own network, or for a zero-shot model: `default_settings` of the checkpoint."""


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What every process does, and what one of them does at the end."""

    predict: Callable[[], None]
    merge: Callable[[], dict[str, Any]]
    compute_dtype: str


def run(
    settings: AnySettings,
    checkpoint: Path,
    shards: Path,
    out: Path | KeyedFolder,
    *,
    masks: Path | None = None,
    force: bool = False,
) -> StageResult[None]:
    """Predict every expression of `settings.split` of a prepared folder.

    Args:
        settings: `default_settings(checkpoint)`, changed.
        checkpoint: igvg's own, or of a zero-shot family.
        shards: the prepared folder.
        out: folder for the predictions.
        masks: a SAM checkpoint that gives masks for the boxes of a zero-shot model.
        force: replace what igvg left in `out`.

    Raises:
        ArtifactError: `out` holds something else, or an input is missing or damaged.
        CheckpointError, DataError: the checkpoint or the shards cannot be used.
        SettingsError: the model has no such threshold, or gives masks itself.
    """  # fmt: skip
    checkpoint, masks = resolve_checkpoint(checkpoint), resolve_checkpoint(masks) if masks else None
    stage = describe(settings, checkpoint, shards, out, masks=masks)
    if isinstance(settings, ZeroShotSettings):

        def open_texts() -> ImageTextDataset:
            return ShardImageTexts(ShardReader(shards, settings.split))

        open_work = partial(_open_zero_shot, settings, checkpoint, masks, open_texts)
        return _predict(stage, settings.split, checkpoint, open_work, force=force)

    def open_data(processor: Processor) -> ExampleDataset:
        from pipelines.data.datasets import GroundingDataset

        return GroundingDataset([(shards, settings.split)], processor, mask_size=0)

    open_igvg = partial(_open_igvg, settings, checkpoint, open_data)
    return _predict(stage, settings.split, checkpoint, open_igvg, force=force)


def run_on_images(
    settings: AnySettings,
    checkpoint: Path,
    images: Path,
    texts: Sequence[str],
    out: Path,
    *,
    masks: Path | None = None,
    force: bool = False,
) -> StageResult[None]:
    """Ground every text in an image, or in every image of a folder, and draw an overlay of each result.

    Images that cannot be read are left out. `masks` is as for `run`.

    Returns:
        The artifact, whose counts have `unreadable` (the error of each image that was left out, by name) and `notes`
        (lines for the user).

    Raises:
        ArtifactError: `out` holds something else.
        CheckpointError, DataError: the checkpoint, or every image, cannot be used.
        SettingsError: a text has no word, or as `run`.
    """  # fmt: skip
    from pipelines.data.tokenizer import clean_expression

    files = list_images(images).files
    if blank := [text for text in texts if not clean_expression(text)]:
        found = f'"{blank[0]}" has no word: punctuation is left out' if blank[0].strip() else "is empty"
        raise SettingsError(f"--text {found}; say what to look for")
    checkpoint, masks = resolve_checkpoint(checkpoint), resolve_checkpoint(masks) if masks else None
    stage = describe_images(settings, checkpoint, files, texts, out, masks=masks)
    if isinstance(settings, ZeroShotSettings):

        def open_texts() -> ImageTextDataset:
            return FolderImageTexts(check_images(files), texts)

        open_work = partial(_open_zero_shot, settings, checkpoint, masks, open_texts, draw=_draw_detections)
        return _predict(stage, settings.split, checkpoint, open_work, force=force)

    def open_data(processor: Processor) -> ExampleDataset:
        from pipelines.data.datasets import ImageFolderDataset

        return ImageFolderDataset(check_images(files), texts, processor)

    def draw(data: ImageFolderDataset, index: int, raw: RawOutput, result: GroundingResult) -> tuple[str, Image.Image]:
        from pipelines.report.own_images import draw_result

        return draw_result(data, index, raw, result, settings=settings.postprocess)

    open_igvg = partial(_open_igvg, settings, checkpoint, open_data, draw=draw)
    return _predict(stage, settings.split, checkpoint, open_igvg, force=force)


def run_on_raw(settings: PostprocessSettings, raw: Path, out: Path, *, force: bool = False) -> StageResult[None]:
    """Post-process the raw outputs of a finished prediction again, without the network: `predictions.jsonl` alone.

    Raises:
        ArtifactError: `out` holds something else.
        DataError: the raw outputs are damaged.
        LaunchError: several processes were started.
        SettingsError: the score threshold may select queries whose masks were not kept, or `out` holds `raw`.
    """
    from pipelines.prediction.postprocess import postprocess
    from pipelines.prediction.prediction import encode_result
    from pipelines.prediction.prediction_file import PREDICTIONS, write_predictions
    from pipelines.prediction.raw_store import RawReader, check_mask_floor
    from pipelines.stages.inputs import digest_raw

    require_one_process("predict --from", os.environ)
    refuse_nesting(out, raw)
    options = {"postprocess": to_mapping(settings)}
    stage = Stage(name="predict", out=out, inputs={"raw": digest_raw(raw)}, options=options)
    if cached := stage.find(force=force):
        return cached
    reader = RawReader(raw)
    check_mask_floor([settings], reader.mask_floor)
    empty = 0

    def postprocess_all() -> Iterator[Prediction]:
        nonlocal empty
        for done, output in enumerate(reader, start=1):
            result = postprocess(output, settings)
            empty += result.no_target
            report_progress(done, len(reader))
            yield encode_result(result)

    # Beside `out`, which keeps its content until all predictions are written.
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    remove_drafts(out.absolute())
    with temporary_path(out.absolute()) as draft:
        with name_file(out / PREDICTIONS, draft):
            expressions = write_predictions(draft, postprocess_all())
        stage.start(force=force)
        draft.replace(out / PREDICTIONS)
    return stage.finish({"expressions": expressions, "no_target": empty})


def refuse_nesting(out: Path, raw: Path) -> None:
    """Refuse a folder for results that holds the raw outputs they are made from, or lies among them.

    Raises:
        SettingsError: it does.
    """
    for target, source in ((out.resolve(), raw.resolve()), (out.absolute(), raw.absolute())):
        if source.is_relative_to(target) or target.is_relative_to(source):
            raise SettingsError(f"--out {out} holds the raw outputs that are read, or lies among them; choose another")


def describe(
    settings: AnySettings, checkpoint: Path, shards: Path, out: Path | KeyedFolder, *, masks: Path | None = None
) -> Stage:
    """The stage of a prediction on shards."""
    inputs = _digest_models(settings, checkpoint, masks) | {"shards": digest_shards(shards)}
    return Stage(name="predict", out=out, inputs=inputs, options=fingerprinted_settings(settings))


def describe_images(
    settings: AnySettings,
    checkpoint: Path,
    files: Sequence[Path],
    texts: Sequence[str],
    out: Path | KeyedFolder,
    *,
    masks: Path | None = None,
) -> Stage:
    """The stage of a prediction on the user's own images."""  # fmt: skip
    inputs = _digest_models(settings, checkpoint, masks) | {"images": digest_images(files)}
    options = {**fingerprinted_settings(settings), "texts": list(texts)}
    return Stage(name="predict", out=out, inputs=inputs, options=options)


def _digest_models(settings: AnySettings, checkpoint: Path, masks: Path | None) -> dict[str, Any]:
    """Digests of the checkpoint and of the one for masks.

    Raises:
        ArtifactError: one is missing.
        CheckpointError, SettingsError: the settings, or the one for masks, do not fit the checkpoint.
    """
    family = find_family(checkpoint)
    if family is not None and isinstance(settings, PredictSettings):
        raise SettingsError(f"{checkpoint} is a {family.name} model, not igvg's own network; use igvg predict with it")
    check_masks(family, masks)
    if family is None or isinstance(settings, PredictSettings):
        return {"checkpoint": digest_checkpoint(checkpoint)}
    check_thresholds(settings, family)
    digests = {"checkpoint": digest_transformers_model(checkpoint)}
    if masks is None:
        return digests
    return digests | {"masks": digest_transformers_model(masks)}


def _open_igvg(
    settings: PredictSettings,
    checkpoint: Path,
    open_data: Callable[[Processor], ExampleDataset],
    out: Path,
    accelerator: Accelerator,
    draw: DrawOverlay | None = None,
) -> _Work:
    from pipelines.prediction.chunked import merge_chunks, predict_chunks, setup_prediction

    job = setup_prediction(settings, checkpoint, open_data, out, accelerator, draw)
    return _Work(
        predict=partial(predict_chunks, job), merge=partial(merge_chunks, job), compute_dtype=job.compute_dtype
    )


def _open_zero_shot(
    settings: ZeroShotSettings,
    checkpoint: Path,
    masks: Path | None,
    open_texts: Callable[[], ImageTextDataset],
    out: Path,
    accelerator: Accelerator,
    draw: DrawDetections | None = None,
) -> _Work:
    from pipelines.prediction.zero_shot_chunks import ZeroShotJob, load_detector, merge_chunks, predict_chunks

    detector = load_detector(settings, checkpoint, masks, accelerator)
    job = ZeroShotJob(accelerator=accelerator, detector=detector, dataset=open_texts(), out=out, draw=draw)
    return _Work(
        predict=partial(predict_chunks, job), merge=partial(merge_chunks, job), compute_dtype=detector.compute_dtype
    )


def _draw_detections(data: FolderImageTexts, index: int, found: Detections) -> tuple[str, Image.Image]:
    from pipelines.report.own_images import draw_detections

    return draw_detections(data, index, found)


def _predict(
    stage: Stage, split: str, checkpoint: Path, open_work: Callable[[Path, Accelerator], _Work], *, force: bool
) -> StageResult[None]:
    begin_stage(f"predicting {split}".rstrip())
    if cached := stage.find(force=force):
        return cached
    # Torch takes seconds to load: only when there is work to do.
    accelerator = start_accelerator()
    with explain_lost_process(accelerator):
        work = open_work(stage.folder, accelerator)
        # Every process has checked the folder before the first one writes.
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            stage.start(force=force)
        accelerator.wait_for_everyone()
        work.predict()
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            counts: dict[str, Any] = dict(work.merge())
            counts |= {"processes": accelerator.num_processes, "precision": work.compute_dtype}
            if commit := find_commit(checkpoint):
                counts["hub"] = commit
            # A signal no longer interrupts: there is nothing left to save.
            with GracefulStop():
                stage.finish(counts, scratch=(PARTS_FOLDER,))
        accelerator.wait_for_everyone()
    return stage.read()
