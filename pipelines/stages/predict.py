"""`igvg predict`: a checkpoint and images in, predictions.jsonl and raw outputs out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from pipelines.config.overrides import fingerprinted_settings, to_mapping
from pipelines.config.settings import PostprocessSettings, PredictSettings
from pipelines.data.image_folder import check_images, digest_images, list_images
from pipelines.prediction.postprocess import GroundingResult
from pipelines.prediction.prediction import Prediction
from pipelines.prediction.raw_output import RawOutput
from pipelines.runtime.distributed import explain_lost_process, start_accelerator
from pipelines.runtime.launch import require_one_process
from pipelines.runtime.signals import GracefulStop
from pipelines.stages.artifact import KeyedFolder, Stage, StageResult
from pipelines.stages.inputs import digest_checkpoint, digest_shards
from shards.errors import SettingsError
from shards.files import name_file, remove_drafts, temporary_path
from shards.progress import begin_stage, report_progress

if TYPE_CHECKING:
    from pipelines.data.datasets import ExampleDataset, ImageFolderDataset
    from pipelines.data.processor import Processor
    from pipelines.prediction.chunked import DrawOverlay


def run(
    settings: PredictSettings, checkpoint: Path, shards: Path, out: Path | KeyedFolder, *, force: bool = False
) -> StageResult[None]:
    """Predict every expression of `settings.split` of a prepared folder.

    Raises:
        ArtifactError: `out` holds something else, or an input is missing or damaged.
        CheckpointError, DataError: the checkpoint or the shards cannot be used.
    """

    def open_data(processor: Processor) -> ExampleDataset:
        from pipelines.data.datasets import GroundingDataset

        return GroundingDataset([(shards, settings.split)], processor, mask_size=0)

    stage = describe(settings, checkpoint, shards, out)
    return _predict(stage, settings, checkpoint, open_data, force=force)


def run_on_images(
    settings: PredictSettings, checkpoint: Path, images: Path, texts: Sequence[str], out: Path, *, force: bool = False
) -> StageResult[None]:
    """Ground every text in an image, or in every image of a folder, and draw an overlay of each result.

    Images that cannot be read are left out.

    Returns:
        The artifact, whose counts have `unreadable` (the error of each image that was left out, by name) and `notes`
        (lines for the user).

    Raises:
        ArtifactError: `out` holds something else.
        CheckpointError, DataError: the checkpoint, or every image, cannot be used.
        SettingsError: a text has no word.
    """
    from pipelines.data.tokenizer import clean_expression

    files = list_images(images).files
    if blank := [text for text in texts if not clean_expression(text)]:
        found = f'"{blank[0]}" has no word: punctuation is left out' if blank[0].strip() else "is empty"
        raise SettingsError(f"--text {found}; say what to look for")

    def open_data(processor: Processor) -> ExampleDataset:
        from pipelines.data.datasets import ImageFolderDataset

        return ImageFolderDataset(check_images(files), texts, processor)

    def draw(data: ImageFolderDataset, index: int, raw: RawOutput, result: GroundingResult) -> tuple[str, Image.Image]:
        from pipelines.report.overlay import draw_result

        return draw_result(data, index, raw, result, settings=settings.postprocess)

    stage = describe_images(settings, checkpoint, files, texts, out)
    return _predict(stage, settings, checkpoint, open_data, force=force, draw=draw)


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


def describe(settings: PredictSettings, checkpoint: Path, shards: Path, out: Path | KeyedFolder) -> Stage:
    """The stage of a prediction on shards."""
    inputs = {"checkpoint": digest_checkpoint(checkpoint), "shards": digest_shards(shards)}
    return Stage(name="predict", out=out, inputs=inputs, options=fingerprinted_settings(settings))


def describe_images(
    settings: PredictSettings, checkpoint: Path, files: Sequence[Path], texts: Sequence[str], out: Path | KeyedFolder
) -> Stage:
    """The stage of a prediction on the user's own images."""
    inputs = {"checkpoint": digest_checkpoint(checkpoint), "images": digest_images(files)}
    options = {**fingerprinted_settings(settings), "texts": list(texts)}
    return Stage(name="predict", out=out, inputs=inputs, options=options)


def _predict(
    stage: Stage,
    settings: PredictSettings,
    checkpoint: Path,
    open_data: Callable[[Processor], ExampleDataset],
    *,
    force: bool,
    draw: DrawOverlay | None = None,
) -> StageResult[None]:
    begin_stage(f"predicting {settings.split}".rstrip())
    if cached := stage.find(force=force):
        return cached
    # Torch takes seconds to load: only when there is work to do.
    from pipelines.prediction.chunked import PARTS_FOLDER, merge_chunks, predict_chunks, setup_prediction

    accelerator = start_accelerator()
    with explain_lost_process(accelerator):
        prediction = setup_prediction(settings, checkpoint, open_data, stage.folder, accelerator, draw)
        # Every process has checked the folder before the first one writes.
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            stage.start(force=force)
        accelerator.wait_for_everyone()
        predict_chunks(prediction)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            counts: dict[str, Any] = dict(merge_chunks(prediction))
            counts |= {"processes": accelerator.num_processes, "precision": prediction.compute_dtype}
            # A signal no longer interrupts: there is nothing left to save.
            with GracefulStop():
                stage.finish(counts, scratch=(PARTS_FOLDER,))
        accelerator.wait_for_everyone()
    return stage.read()
