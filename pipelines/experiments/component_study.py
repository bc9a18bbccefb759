"""`igvg ablate components`: trains and scores a network with and without each idea of the paper, with several seeds.

Every variant differs from the full network in the settings of one `Component`. Those that differ in post-processing
alone are made from the full network's raw outputs. Every training and prediction has a folder whose name carries the
key of its inputs and settings: an interrupted study continues, and finished work is found again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.config.settings import PostprocessSettings, PredictSettings, TrainSettings
from pipelines.evaluation.evaluator import evaluate_split
from pipelines.experiments.ablation import find_scored
from pipelines.experiments.component_charts import write_charts
from pipelines.experiments.component_scores import ComponentsReport, ScoredVariant, compare_variants
from pipelines.experiments.components import FULL, Component, list_components
from pipelines.experiments.experiment import predict_split, train_network
from pipelines.prediction.raw_store import RAW_FOLDER
from pipelines.stages import predict
from shards.progress import log

NUM_SEEDS = 3


def run(
    settings: TrainSettings, shards: Sequence[Path], split: str, out: Path, *, num_seeds: int = NUM_SEEDS
) -> ComponentsReport:
    """Train, predict and score every variant that is not finished yet.

    Args:
        settings: of the full network's training; its seed is the first.
        shards: folders to train on together; those that hold `split` are scored.
        split: the split that is predicted and scored.
        out: folder for every artifact.
        num_seeds: number of trainings of each variant, with seeds that follow each other.

    Raises:
        ArtifactError, CheckpointError, DataError: as the stages raise.
        SettingsError: no folder holds the split, a folder is given twice, or a variant is not possible.
    """
    scored = find_scored(settings, shards, split)
    components = list_components(settings)
    # All variants are resolved before the first training, so that an impossible one costs nothing.
    resolved = {component.key: component.resolve(settings) for component in components}
    seeds = [settings.seed + index for index in range(num_seeds)]
    found: dict[Path, dict[str, list[ScoredVariant]]] = {folder: {} for folder in scored}
    # Seed by seed, so that an interrupted study has all variants of the first seeds.
    for seed in seeds:
        for component in components:
            log(f"{describe_variant(component)}, seed {seed}")
            training = replace(resolved[component.key if component.trained else FULL], seed=seed)
            name = f"{component.key if component.trained else FULL}-{seed}"
            checkpoint = train_network(out, training, shards, name, "ablate")
            for folder in scored:
                predicting = PredictSettings(
                    split=split, precision=training.precision, postprocess=training.postprocess
                )
                predictions = predict_split(out, predicting, checkpoint, folder, f"{name}-{folder.name}")
                if not component.trained:
                    predictions = postprocess_again(component, resolved[component.key].postprocess, predictions)
                outcomes = evaluate_split(predictions, folder, split)
                variant = ScoredVariant(seed=seed, checkpoint=checkpoint, predictions=predictions, outcomes=outcomes)
                found[folder].setdefault(component.key, []).append(variant)
    datasets = [compare_variants(folder, split, components, found[folder]) for folder in scored]
    report = ComponentsReport(seeds=seeds, datasets=datasets)
    for file in write_charts(out, report):
        log(f"chart: {file}")
    return report


def describe_variant(component: Component) -> str:
    """E.g. `without point cost: matched by class and box alone`."""
    return f"without {component.title}: {component.instead}" if component.instead else component.title


def postprocess_again(component: Component, settings: PostprocessSettings, predictions: Path) -> Path:
    """The predictions of a variant that differs in post-processing alone, in a folder within those of the network."""
    folder = predictions / component.key
    predict.run_on_raw(settings, predictions / RAW_FOLDER, folder)
    return folder
