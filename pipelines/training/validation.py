"""Scores of the validation splits, with the metrics of their benchmarks; all ranks share the predictions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import broadcast, gather_object
from numpy.typing import NDArray

from pipelines.data.datasets import GroundingDataset
from pipelines.data.loader import load_batches
from pipelines.evaluation.evaluator import evaluate_prediction, name_dataset
from pipelines.evaluation.metrics.benchmarks import metric_ratios, primary_name, primary_score
from pipelines.evaluation.metrics.outcomes import Outcome, stack_outcomes, summarize
from pipelines.model import IGVGModel
from pipelines.prediction.postprocess import postprocess
from pipelines.prediction.prediction import Prediction, encode_result
from pipelines.prediction.prediction_file import write_predictions
from pipelines.prediction.predictor import predict_batches
from pipelines.training.setup import Training
from pipelines.training.sharding import is_sharded
from shards.errors import SettingsError
from shards.masks import merge_target_masks
from shards.progress import log

Scores = dict[str, dict[str, float | None]]
Evaluated = tuple[int, Outcome, Prediction | None]
"""An index, the outcome of its prediction, and the prediction if it is kept."""
VALIDATION_FOLDER = "validation"


def validate(training: Training) -> tuple[Scores, float]:
    """Score every validation split at the size of the original images; every rank has to call it.

    Buffers of the scored network become those of rank 0.

    Returns:
        For each shard folder its metrics in percent, and the mean of their primary metrics; nothing and 0 without
        validation splits. All ranks return the same.

    Raises:
        DataError: shards are damaged.
    """
    scores: Scores = {}
    primary: list[float | None] = []
    state = torch.get_rng_state()
    model = training.scored_model
    was_training = model.training
    # Batch norm statistics differ between ranks; the checkpoint will hold those of rank 0.
    for buffer in model.buffers():
        broadcast(buffer)
    for folder, data in training.validation_data.items():
        indices = choose_indices(len(data), training.settings.validation_limit)
        _, first = data.find_expression(int(indices[0]))
        dataset = name_dataset([first.id], folder, training.settings.validation_split)
        # Sorted by index, so that sums do not depend on the world size.
        gathered = sorted(gather_object(evaluate_rank(training, model, data, indices)), key=itemgetter(0))
        assert [index for index, *_ in gathered] == indices.tolist()
        outcomes = stack_outcomes([outcome for _, outcome, _ in gathered])
        if training.settings.keep_validation_predictions and training.accelerator.is_main_process:
            write_validation(training, name_folder(folder, scores), [kept for *_, kept in gathered if kept])
        metrics = summarize(metric_ratios(dataset, outcomes, has_boxes=True, has_masks=True))
        scores[name_folder(folder, scores)] = metrics
        primary.append(choose_score(dataset, metrics, training.settings.best_metric))
    model.train(was_training)
    torch.set_rng_state(state)
    measured = [value for value in primary if value is not None]
    return scores, float(np.mean(measured)) if measured else 0.0


def evaluate_rank(
    training: Training, model: IGVGModel, data: GroundingDataset, indices: NDArray[np.int64]
) -> list[Evaluated]:
    """Predict this rank's part of the indices; returns each index with its outcome."""
    settings, accelerator = training.settings, training.accelerator
    part = indices[accelerator.process_index :: accelerator.num_processes]
    size = max(1, settings.batch_size // accelerator.num_processes)
    # Ranks that split a network compute its outputs together: all of them have as many batches.
    longest = -(-len(indices) // accelerator.num_processes)
    padded = np.append(part, indices[:1])[:longest] if is_sharded(model) else part
    batch_indices = (padded[first : first + size] for first in range(0, len(padded), size))
    outcomes: list[Evaluated] = []
    threshold = settings.postprocess.score_threshold
    with contextlib.closing(load_batches(data, batch_indices, workers=settings.workers)) as batches:
        for outputs in predict_batches(model, batches, training.compute_dtype, threshold):
            for raw in outputs[: len(part) - len(outcomes)]:
                index = int(part[len(outcomes)])
                record, expression = data.find_expression(index)
                prediction = encode_result(postprocess(raw, settings.postprocess))
                kept = prediction if settings.keep_validation_predictions else None
                outcomes.append((index, evaluate_prediction(record, expression, prediction), kept))
    return outcomes


def choose_score(dataset: str, metrics: Mapping[str, float | None], best_metric: str) -> float | None:
    """The value of a set by which checkpoints are compared; None where `best_metric` has nothing to measure.

    Raises:
        SettingsError: its benchmark has no such metric; names those that it has.
    """
    if not best_metric:
        return primary_score(dataset, metrics)
    if best_metric not in metrics:
        raise SettingsError(f"best_metric {best_metric}: {dataset} has {', '.join(metrics)}")
    return metrics[best_metric]


def check_best_metric(training: Training) -> None:
    """Make sure, before the training, that all validation sets have the metric that is set, and one can measure it.

    A line tells which sets have nothing to measure: they do not count.

    Raises:
        SettingsError: one has not, or none has anything to measure; names the metrics that all have.
    """
    best_metric, common = training.settings.best_metric, None
    empty: list[Path] = []
    for folder, data in training.validation_data.items() if best_metric else ():
        _, first = data.find_expression(0)
        dataset = name_dataset([first.id], folder, training.settings.validation_split)
        names = list(metric_ratios(dataset, stack_outcomes([]), has_boxes=True, has_masks=True))
        common = [name for name in names if common is None or name in common]
        if best_metric in names and measure_targets(training, dataset, data)[best_metric] is None:
            empty.append(folder)
    if common is not None and best_metric not in common:
        known = f"there are {', '.join(common)}" if common else "they have none in common"
        raise SettingsError(f"best_metric {best_metric} is no metric of all validation sets; {known}")
    if empty and len(empty) == len(training.validation_data):
        raise SettingsError(
            f"best_metric {best_metric} has nothing to measure in the {training.settings.validation_split} split of "
            f"{', '.join(map(str, empty))}; choose another metric, or other validation sets"
        )
    for folder in empty:
        log(f"best_metric {best_metric} has nothing to measure in {folder}, which does not count in it")


def measure_targets(training: Training, dataset: str, data: GroundingDataset) -> dict[str, float | None]:
    """The metrics of the targets themselves among the expressions that are validated."""
    outcomes = []
    for index in choose_indices(len(data), training.settings.validation_limit):
        record, expression = data.find_expression(int(index))
        boxes = [list(target.box) for target in record.targets(expression)]
        right = Prediction(
            id=expression.id, boxes=boxes, scores=[1.0] * len(boxes), mask=merge_target_masks(record, expression),
            no_target=not boxes,
        )  # fmt: skip
        outcomes.append(evaluate_prediction(record, expression, right))
    return summarize(metric_ratios(dataset, stack_outcomes(outcomes), has_boxes=True, has_masks=True))


def describe_choice(training: Training, scores: Scores, value: float) -> str:
    """Which checkpoint is kept after a validation, and why, in one line."""
    step = f"step {training.step:,}"
    if not scores:
        return f"{step}: without a validation split the last weights are the checkpoint"
    name = training.settings.best_metric or find_primary(training, scores)
    if training.best_step == 0 and training.best < 0:
        return f"{step}: {name} {value:.1f}: kept as the checkpoint, the first one"
    if value > training.best:
        return f"{step}: {name} {value:.1f} > {training.best:.1f}: kept as the checkpoint"
    best = f"step {training.best_step:,}" if training.best_step else "an earlier step"
    return f"{step}: {name} {value:.1f} ≤ {training.best:.1f}: the checkpoint of {best} stays"


def find_primary(training: Training, scores: Scores) -> str:
    """The name of what is compared: the primary metric of all sets, or the mean of several."""
    split = training.settings.validation_split
    names = set()
    for (folder, data), metrics in zip(training.validation_data.items(), scores.values(), strict=True):
        names.add(primary_name(name_dataset([data.find_expression(0)[1].id], folder, split), metrics))
    return names.pop() if len(names) == 1 else f"mean of {' and '.join(sorted(names))}"


def write_validation(training: Training, name: str, predictions: Iterable[Prediction]) -> None:
    """Write the predictions of a validation split as `igvg predict` does, under the step's name."""
    folder = training.out / VALIDATION_FOLDER / f"step-{training.step:08d}"
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(folder / f"{name.strip('/').replace('/', '-')}.jsonl", predictions)


def choose_indices(total: int, limit: int) -> NDArray[np.int64]:
    """`limit` of `total` indices, evenly spaced; all of them if `limit` is 0 or not less."""
    count = min(limit or total, total)
    return np.arange(count, dtype=np.int64) * total // max(1, count)


def name_folder(folder: Path, taken: Scores) -> str:
    """The folder's name, or its path if another folder has that name."""
    return str(folder) if folder.name in taken else folder.name
