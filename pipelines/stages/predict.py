"""`igvg predict`: a checkpoint and pictures in, predictions.jsonl and raw outputs out."""

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
from pipelines.stages.artifact import Artifact, begin_work, find_finished, finish_work, read_artifact
from pipelines.stages.inputs import digest_checkpoint, digest_shards
from shards.errors import SettingsError
from shards.files import name_file, remove_drafts, temporary_path
from shards.progress import begin_stage, report_progress

if TYPE_CHECKING:
    from pipelines.data.datasets import ExampleDataset, ImageFolderDataset
    from pipelines.data.processor import Processor
    from pipelines.prediction.chunked import DrawOverlay


def run(
    settings: PredictSettings, checkpoint: Path, shards: Path, out: Path, *, force: bool = False
) -> tuple[Artifact, bool]:
    """Predict every expression of `settings.split` of a prepared folder.

    Returns:
        The artifact, and whether it was already there.

    Raises:
        ArtifactError: `out` holds something else, or an input is missing or damaged.
        CheckpointError, DataError: the checkpoint or the shards cannot be used.
    """

    def open_data(processor: Processor) -> ExampleDataset:
        from pipelines.data.datasets import GroundingDataset

        return GroundingDataset([(shards, settings.split)], processor, mask_size=0)

    inputs, options = describe(settings, checkpoint, shards)
    return _predict(settings, checkpoint, open_data, out, (inputs, options), force=force)


def run_on_images(
    settings: PredictSettings, checkpoint: Path, pictures: Path, texts: Sequence[str], out: Path, *, force: bool = False
) -> tuple[Artifact, bool]:
    """Look for every text in a picture, or in every picture of a folder; also draws an overlay of each answer.

    Pictures that cannot be read are left out.

    Returns:
        The artifact, whose counts have `unreadable` (the error of each picture that was left out, by name) and `notes`
        (lines for the user); and whether it was already there.

    Raises:
        ArtifactError: `out` holds something else.
        CheckpointError, DataError: the checkpoint, or every picture, cannot be used.
        SettingsError: a text has no word.
    """
    from pipelines.data.tokenizer import clean_expression

    files = list_images(pictures).files
    if blank := [text for text in texts if not clean_expression(text)]:
        found = f'"{blank[0]}" has no word: punctuation is left out' if blank[0].strip() else "is empty"
        raise SettingsError(f"--text {found}; say what to look for")

    def open_data(processor: Processor) -> ExampleDataset:
        from pipelines.data.datasets import ImageFolderDataset

        return ImageFolderDataset(check_images(files), texts, processor)

    def draw(data: ImageFolderDataset, number: int, raw: RawOutput, answer: GroundingResult) -> tuple[str, Image.Image]:
        from pipelines.report.overlay import draw_answer

        return draw_answer(data, number, raw, answer, settings=settings.postprocess)

    description = describe_images(settings, checkpoint, files, texts)
    return _predict(settings, checkpoint, open_data, out, description, force=force, draw=draw)


def run_on_raw(settings: PostprocessSettings, raw: Path, out: Path, *, force: bool = False) -> tuple[Artifact, bool]:
    """Answer again from the raw outputs of a finished prediction, without the network: `predictions.jsonl` alone.

    Args:
        settings: of post-processing.
        raw: folder of raw outputs.
        out: folder for the predictions.
        force: replace what igvg left in `out`.

    Returns:
        The artifact, and whether it was already there.

    Raises:
        ArtifactError: `out` holds something else.
        DataError: the raw outputs are damaged.
        LaunchError: several processes were started.
        SettingsError: the score threshold may choose queries whose masks were not kept, or `out` holds `raw`.
    """
    from pipelines.prediction.postprocess import postprocess
    from pipelines.prediction.prediction import encode_result
    from pipelines.prediction.prediction_file import PREDICTIONS, write_predictions
    from pipelines.prediction.raw_store import RawReader, check_mask_floor
    from pipelines.stages.inputs import digest_raw

    require_one_process("predict --from", os.environ)
    refuse_nesting(out, raw)
    inputs, options = {"raw": digest_raw(raw)}, {"postprocess": to_mapping(settings)}
    if finished := find_finished(out, "predict", inputs, options, force=force):
        return finished, True
    reader = RawReader(raw)
    check_mask_floor([settings], reader.mask_floor)
    empty = 0

    def answer_all() -> Iterator[Prediction]:
        nonlocal empty
        for number, output in enumerate(reader, start=1):
            answer = postprocess(output, settings)
            empty += answer.no_target
            report_progress(number, len(reader))
            yield encode_result(answer)

    # Beside `out`, so that what it holds stays until all answers are there.
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    remove_drafts(out.absolute())
    with temporary_path(out.absolute()) as draft:
        with name_file(out / PREDICTIONS, draft):
            expressions = write_predictions(draft, answer_all())
        begin_work(out, "predict", inputs, options, force=force)
        draft.replace(out / PREDICTIONS)
    return finish_work(out, "predict", inputs, options, {"expressions": expressions, "no_target": empty}), False


def refuse_nesting(out: Path, raw: Path) -> None:
    """Refuse a folder for results that holds the raw outputs they are made from, or lies among them.

    Raises:
        SettingsError: it does.
    """
    for place, source in ((out.resolve(), raw.resolve()), (out.absolute(), raw.absolute())):
        if source.is_relative_to(place) or place.is_relative_to(source):
            raise SettingsError(f"--out {out} holds the raw outputs that are read, or lies among them; choose another")


def describe(settings: PredictSettings, checkpoint: Path, shards: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and options that make up the fingerprint of predicted shards."""
    inputs = {"checkpoint": digest_checkpoint(checkpoint), "shards": digest_shards(shards)}
    return inputs, fingerprinted_settings(settings)


def describe_images(
    settings: PredictSettings, checkpoint: Path, files: Sequence[Path], texts: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and options that make up the fingerprint of predicted images."""
    inputs = {"checkpoint": digest_checkpoint(checkpoint), "images": digest_images(files)}
    return inputs, {**fingerprinted_settings(settings), "texts": list(texts)}


def _predict(
    settings: PredictSettings,
    checkpoint: Path,
    open_data: Callable[[Processor], ExampleDataset],
    out: Path,
    description: tuple[dict[str, Any], dict[str, Any]],
    *,
    force: bool,
    draw: DrawOverlay | None = None,
) -> tuple[Artifact, bool]:
    begin_stage(f"predicting {settings.split}".rstrip())
    inputs, options = description
    if finished := find_finished(out, "predict", inputs, options, force=force):
        return finished, True
    # Only work that is to be done is worth the seconds that torch takes to load.
    from pipelines.prediction.chunked import PARTS_FOLDER, merge_chunks, predict_chunks, setup_prediction

    accelerator = start_accelerator()
    with explain_lost_process(accelerator):
        prediction = setup_prediction(settings, checkpoint, open_data, out, accelerator, draw)
        # Every process has looked before the first one writes.
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            begin_work(out, "predict", inputs, options, force=force)
        accelerator.wait_for_everyone()
        predict_chunks(prediction)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            counts: dict[str, Any] = dict(merge_chunks(prediction))
            counts |= {"processes": accelerator.num_processes, "precision": prediction.compute_dtype}
            # Nothing is left to save.
            with GracefulStop():
                finish_work(out, "predict", inputs, options, counts, scratch=(PARTS_FOLDER,))
        accelerator.wait_for_everyone()
    return read_artifact(out, "predict"), False
