"""Folders as `igvg predict` leaves them, with drawn outputs in place of a network's."""

from __future__ import annotations

from pathlib import Path

from pipelines.config.overrides import to_mapping
from pipelines.config.settings import PostprocessSettings
from pipelines.prediction.postprocess import postprocess
from pipelines.prediction.prediction import encode_result
from pipelines.prediction.prediction_file import PREDICTIONS, write_predictions
from pipelines.prediction.raw_store import RAW_FOLDER
from pipelines.stages.artifact import Stage
from shards.reader import ShardReader
from tests.support.drawn_outputs import draw_outputs, write_outputs

SETTINGS = PostprocessSettings(score_threshold=0.4)


def write_predicted(
    folder: Path, shards: Path, split: str = "val", settings: PostprocessSettings = SETTINGS, **sizes: int
) -> Path:
    """A finished prediction of drawn outputs for a split; `sizes` are those of `draw_output`."""
    with ShardReader(shards, split) as reader:
        outputs = draw_outputs(list(reader.records()), **sizes)
    stage = Stage(name="predict", out=folder, inputs={}, options={"postprocess": to_mapping(settings), "split": split})
    stage.start()
    write_outputs(folder / RAW_FOLDER, outputs)
    write_predictions(folder / PREDICTIONS, (encode_result(postprocess(output, settings)) for output in outputs))
    stage.finish({"expressions": len(outputs)})
    return folder
