"""`igvg demo`: the whole pipeline on the embedded data set, beside answers that need no learning.

```
OUT/shapes-…/         the embedded data set, in the published layouts
OUT/experiment.toml   what igvg run repeats
OUT/runs/             every stage's artifact
OUT/baselines/        predictions of the network before training, and of answers that need no learning
OUT/examples/         what the trained network finds in a held-out image, drawn
```

Every folder's name carries the key of what it is made from, as those of `igvg run` do: a demo of another size, or of
another version of igvg, works beside the one before.

Training starts from the shipped network `shapes`, which knows single targets only, so that the scores show what
training on the generalized layouts adds. From scratch everything lies in OUT/from-scratch/.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.config.settings import PredictSettings, ScoreSettings
from pipelines.experiments.experiment import (
    Experiment,
    name_folder,
    predict_split,
    read_experiment,
    run_stages,
)
from pipelines.prediction.prediction import Prediction
from pipelines.prediction.prediction_file import write_predictions
from pipelines.stages import predict, score, train
from pipelines.stages.artifact import begin_work, find_finished, finish_work
from pipelines.stages.inputs import digest_shards
from shards import masks
from shards.errors import ArtifactError
from shards.files import replace_folder, write_bytes
from shards.progress import begin_stage, log
from shards.reader import ShardReader
from shards.record import ImageRecord, leaves_crowds_out
from shards.synthetic import writer as shapes

SEED = 7
HELD_OUT_PICTURES = 120
WRITTEN = "# Written by igvg demo;"
EXPERIMENT = (
    WRITTEN
    + """ igvg run on this file repeats its stages.
out = "runs"

[prepare.grefcoco]
annotations = "{data}/grefcoco"
images = ["{data}/images/train2014"]

[prepare.ref-zom]
annotations = "{data}/ref-zom"
images = ["{data}/images/train2014"]

[prepare.rrefcoco]
annotations = "{data}/rrefcoco"
images = ["{data}/images/train2014"]

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
)
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


def run(out: Path, plan: DemoPlan, *, workers: int = 2) -> tuple[list[Comparison], Path]:
    """Draw the data, run every stage, and score answers that need no learning beside them.

    Args:
        out: folder of the demo; what it holds already is not made again.
        plan: of the data and the training.
        workers: processes that draw.

    Returns:
        One comparison for each benchmark, and the folder of drawn examples.

    Raises:
        ArtifactError: `out` holds an experiment file that no demo wrote.
    """
    if plan.from_scratch:
        out = out / "from-scratch"
    data = name_data(out, plan)
    file = write_experiment(out, plan, data.name)
    draw_data(data, plan, workers)
    experiment = read_experiment(file)
    stages = run_stages(experiment)
    baselines = out / "baselines"
    start = Path(experiment.train.init) if experiment.train.init else None
    start = start or save_untrained(baselines, experiment, list(stages.shards.values()))
    comparisons = []
    for (name, split), document in zip(experiment.predict_on, stages.scores, strict=True):
        shards = stages.shards[name]
        settings = replace(experiment.predict, split=split)
        found = predict_split(baselines, settings, start, shards, f"start-{name}")
        scores = {"start": _score(found, shards, split), "after training": document}
        for title in BASELINES:
            scores[title] = _score(write_baseline(baselines, name, shards, split, title), shards, split)
        comparisons.append(Comparison(title=f"{name}/{split}", scores=scores))
    return comparisons, draw_examples(
        out / "examples", experiment.predict, stages.checkpoint, stages.shards["grefcoco"]
    )


def name_data(out: Path, plan: DemoPlan) -> Path:
    """The folder of the embedded data set."""
    return name_folder(out, "shapes", {}, _size(plan), f"{plan.train_pictures}-{plan.held_out_pictures}")


def draw_data(folder: Path, plan: DemoPlan, workers: int) -> None:
    """Draw the embedded data set, once.

    Raises:
        ArtifactError: the folder holds something else.
    """
    options = _size(plan)
    if find_finished(folder, "shapes", {}, options):
        log(f"shapes: {folder} is up to date")
        return
    working = folder.with_name(f".{folder.name}.working")
    begin_stage("drawing")
    with replace_folder(folder, working):
        shapes.write_published(
            working,
            seed=SEED,
            train_images=plan.train_pictures,
            held_out_images=plan.held_out_pictures,
            workers=workers,
        )
        finish_work(working, "shapes", {}, options, {"pictures": plan.train_pictures + 3 * plan.held_out_pictures})
    log(f"shapes: {folder} is drawn")


def write_experiment(out: Path, plan: DemoPlan, data: str) -> Path:
    """The experiment file of the demo, about the data set in the folder `data` beside it.

    Raises:
        ArtifactError: there is a file of that name that no demo wrote.
    """
    file = out / "experiment.toml"
    steps = f"max_steps = {plan.max_steps}\n" if plan.max_steps else ""
    text = EXPERIMENT.format(training=plan.training + steps, data=data).encode()
    found = file.read_bytes() if file.is_file() else b""
    if found and not found.startswith(WRITTEN.encode()):
        raise ArtifactError(
            f"{file} was not written by igvg demo, which writes a file of that name; choose another --out"
        )
    if found != text:
        out.mkdir(parents=True, exist_ok=True)
        write_bytes(file, text)
    return file


def save_untrained(home: Path, experiment: Experiment, shards: list[Path]) -> Path:
    """The network as training starts it, as a checkpoint in a folder of `home`."""
    inputs, options = train.describe(experiment.train, shards)
    folder = name_folder(home, "untrained", inputs, options, experiment.train.preset)
    if find_finished(folder, "untrained", inputs, options):
        return folder
    import torch

    from pipelines.pretrained import save_checkpoint
    from pipelines.training.initialization import build_model

    torch.manual_seed(experiment.train.seed)
    begin_work(folder, "untrained", inputs, options)
    parts = [(folder, "train") for folder in shards]
    model, tokenizer = build_model(experiment.train, parts)
    save_checkpoint(folder, model, tokenizer, experiment.train.text.max_tokens)
    finish_work(folder, "untrained", inputs, options, {})
    return folder


def answer_nothing(record: ImageRecord) -> Prediction:
    """There never is a target."""
    mask = masks.merge_rles([], record.height, record.width)
    return Prediction(id="", boxes=[], scores=[], mask=mask, no_target=True)


def answer_everything(record: ImageRecord) -> Prediction:
    """Every annotated object of the picture is a target; crowd regions give a mask only where they are mask truth."""
    without_crowds = any(leaves_crowds_out(expression.id) for expression in record.expressions)
    drawn = [instance.mask for instance in record.instances if not (instance.crowd and without_crowds)]
    mask = masks.merge_rles(drawn, record.height, record.width)
    boxes = [list(instance.box) for instance in record.instances]
    return Prediction(id="", boxes=boxes, scores=[1.0] * len(boxes), mask=mask, no_target=not boxes)


BASELINES: dict[str, Callable[[ImageRecord], Prediction]] = {
    "always empty": answer_nothing,
    "everything": answer_everything,
}


def write_baseline(home: Path, name: str, shards: Path, split: str, title: str) -> Path:
    """The same answer for every expression about an image, as an artifact in a folder of `home`.

    Args:
        home: where the folder lies.
        name: of the shards, for the folder's name.
        shards: folder that `igvg prepare` made.
        split: of the shards.
        title: of the answer, one of `BASELINES`.
    """
    inputs, options = {"shards": digest_shards(shards)}, {"split": split, "answer": title}
    folder = name_folder(home, "baseline", inputs, options, f"{title.replace(' ', '-')}-{name}-{split}")
    if find_finished(folder, "baseline", inputs, options):
        return folder
    begin_work(folder, "baseline", inputs, options)
    with ShardReader(shards, split) as reader:
        write_predictions(folder / "predictions.jsonl", _repeat_answers(reader, BASELINES[title]))
    finish_work(folder, "baseline", inputs, options, {})
    return folder


def draw_examples(folder: Path, settings: PredictSettings, checkpoint: Path, shards: Path) -> Path:
    """What the network finds in the held-out image with the most instances, drawn."""
    with ShardReader(shards, "val") as reader:
        number = max(range(len(reader)), key=lambda number: len(reader.record(number).instances))
        file, image = folder / "images" / reader.record(number).file_name, reader.image(number)
    # Demos of other sizes have other images of the same name.
    if not file.is_file() or file.read_bytes() != image:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, image)
    inputs, options = predict.describe_images(settings, checkpoint, [file], EXAMPLES)
    found = name_folder(folder, "found", inputs, options, file.stem)
    predict.run_on_images(settings, checkpoint, file, EXAMPLES, found)
    return found / "overlays"


def _size(plan: DemoPlan) -> dict[str, int]:
    return {"seed": SEED, "train_pictures": plan.train_pictures, "held_out_pictures": plan.held_out_pictures}


def _repeat_answers(reader: ShardReader, answer: Callable[[ImageRecord], Prediction]) -> Iterator[Prediction]:
    for record in reader.records():
        repeated = answer(record)
        for expression, prediction in zip(record.expressions, itertools.repeat(repeated), strict=False):
            yield replace(prediction, id=expression.id)


def _score(predictions: Path, shards: Path, split: str) -> dict[str, Any]:
    result = score.run(predictions, shards, ScoreSettings(split=split), out=predictions / "score")
    return result.document
