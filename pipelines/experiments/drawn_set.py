"""The harder level of the embedded data set, drawn and prepared: shards to study a training on.

```
OUT/shapes-hard-…/         the layout of gRefCOCO, as published
OUT/prepare-grefcoco-…/    its shards: splits train, val and testA
```
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from pipelines.config.settings import PrepareSettings
from pipelines.stages import prepare
from pipelines.stages.artifact import KeyedFolder, Stage
from shards.files import replace_folder
from shards.progress import begin_stage, log
from shards.synthetic import writer

DATASET = "grefcoco"
SCORED_SPLIT = "testA"
"""Validation while training takes `val`, and keeps the checkpoint that scores best on it."""


@dataclass(frozen=True, kw_only=True)
class DrawnSet:
    """What is drawn; about eight expressions for each image."""

    level: str = "hard"
    seed: int = 19
    images: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({"train": 360, "val": 30, "testA": 100}))
    """Images of each split: trained on, validated on while training, and scored."""


def draw_shards(out: Path, drawn: DrawnSet, *, workers: int = 1) -> Path:
    """Draw and prepare what is not there yet; returns the folder of shards.

    Raises:
        ArtifactError: `out` holds something else under these names.
    """
    options = {"level": drawn.level, "seed": drawn.seed, "images": dict(drawn.images)}
    stage = Stage(name="shapes", out=KeyedFolder(out, drawn.level), inputs={}, options=options)
    folder = stage.folder
    if not stage.find():
        begin_stage("drawing")
        working = folder.with_name(f".{folder.name}.working")
        with replace_folder(folder, working):
            writer.write_grefcoco(working, level=drawn.level, seed=drawn.seed, images=drawn.images, workers=workers)
            replace(stage, out=working).finish({"images": sum(drawn.images.values())})
        log(f"shapes: {folder} is drawn")
    return prepare.run(
        PrepareSettings(dataset=DATASET), folder / DATASET, [folder / writer.IMAGES_FOLDER], KeyedFolder(out, DATASET)
    ).folder
