"""Scores of the validation splits, with the metrics of their benchmarks; all ranks share the predictions."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import broadcast, gather_object
from numpy.typing import NDArray

from pipelines.data.datasets import GroundingDataset
from pipelines.data.loader import load_batches
from pipelines.evaluation.evaluator import evaluate_prediction, name_dataset
from pipelines.evaluation.metrics.benchmarks import metric_ratios, primary_score
from pipelines.evaluation.metrics.outcomes import Outcome, stack_outcomes, summarize
from pipelines.prediction.postprocess import postprocess
from pipelines.prediction.prediction import encode_result
from pipelines.prediction.predictor import predict_batches
from pipelines.training.setup import Training

Scores = dict[str, dict[str, float | None]]


def validate(training: Training) -> tuple[Scores, float]:
    """Score every validation split at the size of the original images.

    Returns:
        For each shard folder its metrics in percent, and the mean of their primary metrics; nothing and 0 without
        validation splits. All ranks return the same.

    Raises:
        DataError: shards are damaged.
    """
    scores: Scores = {}
    primary: list[float] = []
    was_training, state = training.scored_model.training, torch.get_rng_state()
    # Batch norm statistics differ between ranks; the checkpoint will hold those of rank 0.
    for buffer in training.scored_model.buffers():
        broadcast(buffer)
    for folder, data in training.validation_data.items():
        indices = choose_indices(len(data), training.settings.validation_limit)
        _, first = data.find_expression(int(indices[0]))
        dataset = name_dataset([first.id], folder, training.settings.validation_split)
        # Sorted by index, so that sums do not depend on the world size.
        gathered = sorted(gather_object(evaluate_rank(training, data, indices)))
        assert [index for index, _ in gathered] == indices.tolist()
        outcomes = stack_outcomes([outcome for _, outcome in gathered])
        metrics = summarize(metric_ratios(dataset, outcomes, has_boxes=True, has_masks=True))
        scores[name_folder(folder, scores)] = metrics
        primary.append(primary_score(dataset, metrics))
    training.scored_model.train(was_training)
    torch.set_rng_state(state)
    return scores, float(np.mean(primary)) if primary else 0.0


def evaluate_rank(training: Training, data: GroundingDataset, indices: NDArray[np.int64]) -> list[tuple[int, Outcome]]:
    """Predict this rank's part of the indices; returns each index with its outcome."""
    settings, accelerator = training.settings, training.accelerator
    part = indices[accelerator.process_index :: accelerator.num_processes]
    size = max(1, settings.batch_size // accelerator.num_processes)
    batch_indices = (part[first : first + size] for first in range(0, len(part), size))
    outcomes: list[tuple[int, Outcome]] = []
    threshold = settings.postprocess.score_threshold
    with contextlib.closing(load_batches(data, batch_indices, workers=settings.workers)) as batches:
        for outputs in predict_batches(training.scored_model, batches, training.compute_dtype, threshold):
            for raw in outputs:
                index = int(part[len(outcomes)])
                record, expression = data.find_expression(index)
                prediction = encode_result(postprocess(raw, settings.postprocess))
                outcomes.append((index, evaluate_prediction(record, expression, prediction)))
    return outcomes


def choose_indices(total: int, limit: int) -> NDArray[np.int64]:
    """`limit` of `total` indices, evenly spaced; all of them if `limit` is 0 or not less."""
    count = min(limit or total, total)
    return np.arange(count, dtype=np.int64) * total // max(1, count)


def name_folder(folder: Path, taken: Scores) -> str:
    """The folder's name, or its path if another folder has that name."""
    return str(folder) if folder.name in taken else folder.name
