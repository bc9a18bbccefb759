"""Between epochs: the held-out splits, predicted by all processes together and scored with the benchmark's metrics."""

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
from pipelines.evaluation.metrics.benchmarks import METRICS, PRIMARY_METRIC
from pipelines.evaluation.metrics.outcomes import Outcome, stack_outcomes, summarize
from pipelines.prediction.postprocess import postprocess
from pipelines.prediction.prediction import encode_result
from pipelines.prediction.predictor import predict_batches
from pipelines.training.setup import Training

Scores = dict[str, dict[str, float | None]]


def validate_held_out(training: Training) -> tuple[Scores, float]:
    """Score every held-out split at the original pictures' size.

    Returns:
        For each data set its metrics in percent, and the mean of their headline metrics; nothing and 0 if no shards
        hold a validation split. All processes return the same.

    Raises:
        DataError: shards are damaged.
    """
    scores: Scores = {}
    headlines: list[float] = []
    was_training, state = training.model.training, torch.get_rng_state()
    # Each process's batch norms have seen its own share; the checkpoint will hold those of the first.
    for buffer in training.model.buffers():
        broadcast(buffer)
    for folder, data in training.validation_data.items():
        numbers = choose_numbers(len(data), training.settings.validation_limit)
        dataset = name_dataset(
            [data.find_expression(int(numbers[0]))[1].id], folder, training.settings.validation_split
        )
        # Ordered by number, so that sums do not hang on how many processes there are.
        split_outcomes = sorted(gather_object(evaluate_share(training, data, numbers)))
        assert [number for number, _ in split_outcomes] == numbers.tolist()
        outcomes = [outcome for _, outcome in split_outcomes]
        metrics = summarize(METRICS[dataset](stack_outcomes(outcomes)))
        scores[name_folder(folder, scores)] = metrics
        headlines.append(metrics[PRIMARY_METRIC[dataset]] or 0.0)
    training.model.train(was_training)
    torch.set_rng_state(state)
    return scores, float(np.mean(headlines)) if headlines else 0.0


def evaluate_share(training: Training, data: GroundingDataset, numbers: NDArray[np.int64]) -> list[tuple[int, Outcome]]:
    """Predict this process's share of the numbers; for each the outcome."""
    settings, accelerator = training.settings, training.accelerator
    share = numbers[accelerator.process_index :: accelerator.num_processes]
    size = max(1, settings.batch_size // accelerator.num_processes)
    shares = (share[first : first + size] for first in range(0, len(share), size))
    outcomes: list[tuple[int, Outcome]] = []
    threshold = settings.postprocess.score_threshold
    with contextlib.closing(load_batches(data, shares, workers=settings.workers)) as batches:
        for outputs in predict_batches(training.model, batches, training.compute_dtype, threshold):
            for raw in outputs:
                number = int(share[len(outcomes)])
                record, expression = data.find_expression(number)
                prediction = encode_result(postprocess(raw, settings.postprocess))
                outcomes.append((number, evaluate_prediction(record, expression, prediction)))
    return outcomes


def choose_numbers(total: int, limit: int) -> NDArray[np.int64]:
    """`limit` of `total` example numbers, spread evenly; all of them if `limit` is 0 or not less."""
    count = min(limit or total, total)
    return np.arange(count, dtype=np.int64) * total // max(1, count)


def name_folder(folder: Path, taken: Scores) -> str:
    """The folder's own name, or all of its path if another has that name."""
    return str(folder) if folder.name in taken else folder.name
