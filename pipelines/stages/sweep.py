"""`igvg sweep`: post-processing again under many settings, without the network."""

from __future__ import annotations

from pathlib import Path

from pipelines.evaluation.sweep import SweepReport, evaluate_grid
from pipelines.evaluation.sweep_grid import Grid
from pipelines.stages.artifact import StageResult


def run(raw: Path, shards: Path, split: str, grid: Grid, *, resolution: int = 0) -> StageResult[SweepReport]:
    """Score a split under every setting of a grid, from a folder of its raw outputs.

    Raises:
        DataError: the raw outputs are damaged, or not of just the split's expressions.
        SettingsError: a score threshold below what the raw outputs hold masks for.
    """
    return StageResult(report=evaluate_grid(raw, shards, split, grid, resolution=resolution))
