"""A trial: can the tiny network learn a few real pictures by heart?

```
python -m tests.benchmarks.overfit REAL_FOLDER [--out DIR] [--steps N]
```

REAL_FOLDER holds data sets in published layout (refcoco/, refcoco+/, refcocog/, grefcoco/) and train2014/. Every split
of every data set is trained on, then predicted and scored; gIoU is that of all expressions together.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from igvg_cli.render import show_progress
from igvg_cli.tables import print_table
from pipelines.config.presets import train_preset
from pipelines.config.settings import PredictSettings, PrepareSettings
from pipelines.evaluation.evaluator import evaluate_prediction
from pipelines.evaluation.metrics.grefcoco import grefcoco_ratios
from pipelines.evaluation.metrics.outcomes import Outcome, stack_outcomes, summarize
from pipelines.prediction.alignment import align_predictions
from pipelines.stages import predict, prepare, train
from shards.index import list_splits
from shards.reader import ShardReader

DATASETS = ("refcoco", "refcoco+", "refcocog", "grefcoco")
SPLITS = ("train", "val", "test", "testA", "testB")


def main() -> None:
    """Prepare, train, predict and score."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.overfit", description=__doc__.splitlines()[0])
    parser.add_argument("real", type=Path)
    parser.add_argument("--out", type=Path, default=Path("overfit"))
    parser.add_argument("--steps", type=int, default=3000)
    arguments = parser.parse_args()
    real, out = arguments.real, arguments.out
    settings = train_preset("tiny")
    settings = replace(settings, splits=SPLITS, epochs=100_000, max_steps=arguments.steps, validation_split="none",
                       optimizer=replace(settings.optimizer, warmup_epochs=10.0))  # fmt: skip
    with show_progress("overfitting"):
        shards = []
        for dataset in DATASETS:
            folder = out / "shards" / dataset
            prepare.run(PrepareSettings(dataset=dataset), real / dataset, [real / "train2014"], folder)
            shards.append(folder)
        train.run(settings, shards, out / "run")
        rows: list[Outcome] = []
        pictures: set[int] = set()
        for folder in shards:
            for split in list_splits(folder):
                found = out / f"found-{folder.name}-{split}"
                chosen = PredictSettings(split=split, postprocess=settings.postprocess)
                predict.run(chosen, out / "run", folder, found)
                rows += judge(found / "predictions.jsonl", folder, split, pictures)
    metrics = summarize(grefcoco_ratios(stack_outcomes(rows)))
    values = [[name, "–" if value is None else f"{value:.2f}"] for name, value in metrics.items()]
    print_table(f"{len(rows)} expressions about {len(pictures)} pictures, by heart", ["metric", "percent"], values)


def judge(predictions: Path, shards: Path, split: str, pictures: set[int]) -> list[Outcome]:
    """Outcomes of one split; the pictures it shows are added to `pictures`."""
    with ShardReader(shards, split) as reader:
        pairs = align_predictions(predictions, reader)
        pictures |= set(reader.index.image_ids.tolist())
        return [evaluate_prediction(*pair) for pair in pairs]


if __name__ == "__main__":
    main()
