"""`igvg demo`: the whole pipeline on the embedded data set, beside answers that need no learning."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines import experiment, predict, score
from pipelines.artifact import begin_work, digest_file, find_finished, finish_work, replace_file
from pipelines.predictions import Prediction, write_predictions
from shards import masks, shapes
from shards.reader import ShardReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from shards.record import ImageRecord

    Progress = Callable[[int, int, str], None]
    Note = Callable[[str], None]

SEED = 7
TRAIN_PICTURES = 6000
HELD_OUT_PICTURES = 120
EXPERIMENT = """\
# Written by igvg demo; igvg run on this file does the same.
out = "runs"

[prepare.grefcoco]
annotations = "published/grefcoco"
images = ["published/images/train2014"]

[prepare.ref-zom]
annotations = "published/ref-zom"
images = ["published/images/train2014"]

[prepare.rrefcoco]
annotations = "published/rrefcoco"
images = ["published/images/train2014"]

[train]
preset = "tiny"

[predict]
splits = ["grefcoco/val", "ref-zom/test", "rrefcoco/val"]
"""
