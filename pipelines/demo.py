"""`igvg demo`: the whole pipeline on the embedded data set, beside answers that need no learning.

```
OUT/published/        the embedded data set, in the published layouts
OUT/experiment.toml   what igvg run repeats
OUT/runs/             every stage's artifact
OUT/baselines/        predictions of the network before training, and of answers that need no learning
OUT/examples/         what the trained network finds in a held-out image, drawn
```

Training starts from the shipped network `shapes`, which knows single targets only, so that the scores show what
training on the generalized layouts adds. From scratch everything lies in OUT/from-scratch/.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipelines import predict, score
from pipelines.artifact import begin_work, find_finished, finish_work
from pipelines.experiment import Progress, read_experiment, run_stages
from pipelines.overrides import select_material
from pipelines.predictions import Prediction, write_predictions
from pipelines.pretrained import resolve_checkpoint
from pipelines.settings import PredictSettings, ScoreSettings
from pipelines.sources import describe_sources, digest_shards
from shards import masks, shapes
from shards.files import replace_file, replace_folder
from shards.reader import ShardReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pipelines.experiment import Experiment, Note
    from shards.record import ImageRecord

SEED = 7
HELD_OUT_PICTURES = 120
EXPERIMENT = """\
# Written by igvg demo; igvg run on this file repeats its stages.
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
{training}
[predict]
splits = ["grefcoco/val", "ref-zom/test", "rrefcoco/val"]
batch_size = 64

# A network that has learned for minutes is less sure than one that has learned for hours, and finds some things twice.
[predict.postprocess]
score_threshold = 0.45
nms = true
nms_iou = 0.5

[score]
"""
EXAMPLES = ("every red shape", "all the circles", "the leftmost star", "two squares", "the large blue triangle")


@dataclass(frozen=True, kw_only=True)
class DemoPlan:
    """How a demo trains, and how much is drawn for it; small ones are for tests."""

    train_pictures: int
    """Images to draw for training."""
    training: str
    """Lines of the experiment's table [train], beside the preset."""
    from_scratch: bool = False
    held_out_pictures: int = HELD_OUT_PICTURES
    max_steps: int = 0
    """Optimizer steps at most; 0: the settings decide."""


SHORT = DemoPlan(train_pictures=400, training='init = "shapes"\nepochs = 1\nbatch_size = 16\n')
"""From the shipped network, in a few minutes."""
FROM_SCRATCH = DemoPlan(train_pictures=6000, training="", from_scratch=True)
"""Without a start, four times as long or longer."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The scores of one data set: what answered → its score document."""

    title: str
    scores: dict[str, dict[str, Any]]


def run(
    out: Path, plan: DemoPlan, *, note: Note, progress: Progress, workers: int = 2
) -> tuple[list[Comparison], Path]:
    """Draw the data, run every stage, and score answers that need no learning beside them.

    Args:
        out: folder of the demo; what it holds already is not made again.
        plan: of the data and the training.
        note: called with one line per stage.
        progress: called with (done, total, remark) inside a stage.
        workers: processes that draw.

    Returns:
        One comparison for each benchmark, and the folder of drawn examples.

    Raises:
        ArtifactError: `out` holds something else.
    """
    if plan.from_scratch:
        out = out / "from-scratch"
    draw_data(out / "published", plan, note, progress, workers)
    experiment = read_experiment(write_experiment(out, plan))
    stages = run_stages(experiment, note=note, progress=progress)
    start = resolve_checkpoint(experiment.train.init) if experiment.train.init else None
    start = start or save_untrained(experiment, list(stages.shards.values()), out / "baselines" / "untrained")
    comparisons = []
    for (name, split), document in zip(experiment.predict_on, stages.scores, strict=True):
        shards = stages.shards[name]
        folder = out / "baselines" / f"{name}-{split}"
        settings = replace(experiment.predict, split=split)
        predict.run(settings, start, shards, folder / "start", progress=progress)
        scores = {"start": _score(folder / "start", shards, split), "after training": document}
        for title, answer in BASELINES.items():
            made = write_baseline(folder / title.replace(" ", "-"), shards, split, title, answer)
            scores[title] = _score(made, shards, split)
        comparisons.append(Comparison(title=f"{name}/{split}", scores=scores))
    return comparisons, draw_examples(
        out / "examples", experiment.predict, stages.checkpoint, stages.shards["grefcoco"], progress
    )


def draw_data(folder: Path, plan: DemoPlan, note: Note, progress: Progress, workers: int) -> None:
    """Draw the embedded data set, once.

    Raises:
        ArtifactError: the folder holds something else.
    """
    options = {"seed": SEED, "train_pictures": plan.train_pictures, "held_out_pictures": plan.held_out_pictures}
    if find_finished(folder, "shapes", {}, options):
        note(f"shapes: {folder} is up to date")
        return
    working = folder.with_name(f".{folder.name}.working")
    progress(0, 0, "drawing")
    with replace_folder(folder, working):
        shapes.write_published(
            working, **options, workers=workers, on_progress=lambda done, total: progress(done, total, "drawing")
        )
        finish_work(working, "shapes", {}, options, {"pictures": plan.train_pictures + 3 * plan.held_out_pictures})
    note(f"shapes: {folder} is drawn")


def write_experiment(out: Path, plan: DemoPlan) -> Path:
    """The experiment file of the demo."""
    file = out / "experiment.toml"
    steps = f"max_steps = {plan.max_steps}\n" if plan.max_steps else ""
    text = EXPERIMENT.format(training=plan.training + steps)
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        with replace_file(file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return file


def save_untrained(experiment: Experiment, shards: list[Path], folder: Path) -> Path:
    """The network as training starts it, as a checkpoint."""
    inputs = describe_sources(shards, experiment.train.init, experiment.train.text.tokenizer)
    options = select_material(experiment.train)
    if find_finished(folder, "untrained", inputs, options):
        return folder
    import torch

    from pipelines.checkpoint import save_checkpoint
    from pipelines.initialization import build_model

    torch.manual_seed(experiment.train.seed)
    begin_work(folder, "untrained", inputs, options)
    parts = [(folder, "train") for folder in shards]
    model, tokenizer = build_model(experiment.train, parts)
    save_checkpoint(folder, model, tokenizer, experiment.train.text.max_tokens)
    finish_work(folder, "untrained", inputs, options, {})
    return folder


def answer_nothing(record: ImageRecord) -> Prediction:
    """There never is a target."""
    mask = masks.unite_masks([], record.height, record.width)
    return Prediction(id="", boxes=[], scores=[], mask=mask, no_target=True)


def answer_everything(record: ImageRecord) -> Prediction:
    """Every annotated object of the picture is a target."""
    mask = masks.unite_masks([instance.mask for instance in record.instances], record.height, record.width)
    boxes = [list(instance.box) for instance in record.instances]
    return Prediction(id="", boxes=boxes, scores=[1.0] * len(boxes), mask=mask, no_target=not boxes)


BASELINES: dict[str, Callable[[ImageRecord], Prediction]] = {
    "always empty": answer_nothing,
    "everything": answer_everything,
}


def write_baseline(
    folder: Path, shards: Path, split: str, title: str, answer: Callable[[ImageRecord], Prediction]
) -> Path:
    """The same answer for every expression about a picture, as an artifact."""
    inputs, options = {"shards": digest_shards(shards)}, {"split": split, "answer": title}
    if find_finished(folder, "baseline", inputs, options):
        return folder
    begin_work(folder, "baseline", inputs, options)
    with ShardReader(shards, split) as reader:
        write_predictions(folder / "predictions.jsonl", _repeat_answers(reader, answer))
    finish_work(folder, "baseline", inputs, options, {})
    return folder


def draw_examples(folder: Path, settings: PredictSettings, checkpoint: Path, shards: Path, progress: Progress) -> Path:
    """What the network finds in the held-out picture with the most instances, drawn."""
    pictures = folder / "pictures"
    with ShardReader(shards, "val") as reader:
        number = max(range(len(reader)), key=lambda number: len(reader.record(number).instances))
        file = pictures / reader.record(number).file_name
        if not file.is_file():
            pictures.mkdir(parents=True, exist_ok=True)
            with replace_file(file) as temporary:
                temporary.write_bytes(reader.picture(number))
    predict.run_on_pictures(settings, checkpoint, file, EXAMPLES, folder / "found", progress=progress)
    return folder / "found" / "overlays"


def _repeat_answers(reader: ShardReader, answer: Callable[[ImageRecord], Prediction]) -> Iterator[Prediction]:
    for record in reader.records():
        repeated = answer(record)
        for expression, prediction in zip(record.expressions, itertools.repeat(repeated), strict=False):
            yield replace(prediction, id=expression.id)


def _score(predictions: Path, shards: Path, split: str) -> dict[str, Any]:
    result = score.run(predictions, shards, ScoreSettings(split=split), out=predictions / "score")
    return result.document
