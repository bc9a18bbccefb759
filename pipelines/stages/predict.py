"""`igvg predict`: a checkpoint and prepared shards in, predictions.jsonl and raw outputs out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.config.overrides import fingerprinted_settings, to_mapping
from pipelines.config.settings import PostprocessSettings, ZeroShotSettings
from pipelines.data.image_text import ImageTextDataset, ShardImageTexts
from pipelines.networks import resolve_checkpoint
from pipelines.prediction.prediction import Prediction
from pipelines.runtime.launch import require_one_process
from pipelines.stages.artifact import KeyedFolder, Stage, StageResult
from pipelines.stages.inputs import digest_shards
from pipelines.stages.prediction_work import AnySettings, digest_models, open_igvg, open_zero_shot, run_prediction
from shards.errors import SettingsError
from shards.files import name_file, remove_drafts, temporary_path
from shards.progress import report_progress
from shards.reader import ShardReader

if TYPE_CHECKING:
    from pipelines.data.datasets import ExampleDataset
    from pipelines.data.processor import Processor


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

        open_work = partial(open_zero_shot, settings, checkpoint, masks, open_texts)
        return run_prediction(stage, settings.split, checkpoint, open_work, force=force)

    def open_data(processor: Processor) -> ExampleDataset:
        from pipelines.data.datasets import GroundingDataset

        return GroundingDataset([(shards, settings.split)], processor, mask_size=0)

    open_work = partial(open_igvg, settings, checkpoint, open_data)
    return run_prediction(stage, settings.split, checkpoint, open_work, force=force)


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

    with stage.claim(force=force) as cached:
        if cached:
            return cached
        # Beside `out`, which keeps its content until all predictions are written.
        remove_drafts(out.absolute(), locked=True)
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
    inputs = digest_models(settings, checkpoint, masks) | {"shards": digest_shards(shards)}
    return Stage(name="predict", out=out, inputs=inputs, options=fingerprinted_settings(settings))
