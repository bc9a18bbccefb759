"""`igvg demo`: the whole pipeline on the embedded data set, compared with baselines that need no training.

```
OUT/shapes-…/         the embedded data set, in the published layouts
OUT/experiment.toml   what igvg run repeats
OUT/runs/             every stage's artifact
OUT/baselines/        predictions of the network before training, and of baselines that need no training
OUT/examples/         predictions of the trained network for a held-out image, drawn
OUT/report-…/         a page to look at: the network at the start and after training, on the held-out gRefCOCO layout
```

Every folder's name carries the key of what it is made from, as those of `igvg run` do: a demo of another size, or of
another version of igvg, works beside the one before.

Training starts from the shipped network `shapes`, which knows single targets only, so that the scores show what
training on the generalized layouts adds. From scratch everything lies in OUT/from-scratch/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.config.settings import ReportSettings, ScoreSettings
from pipelines.data.image_queries import query_images
from pipelines.evaluation.score_report import ScoreReport
from pipelines.experiments.experiment import Experiment, Stages, predict_split, read_experiment, run_stages
from pipelines.prediction.prediction import Prediction
from pipelines.prediction.prediction_file import PREDICTIONS, write_predictions
from pipelines.stages import predict, predict_images, report, score, train
from pipelines.stages.artifact import KeyedFolder, Stage
from pipelines.stages.inputs import digest_shards
from pipelines.stages.prediction_work import AnySettings
from pipelines.stages.whole_folder import continue_folder
from shards import masks
from shards.errors import ArtifactError
from shards.files import write_bytes
from shards.progress import begin_stage, log
from shards.reader import ShardReader
from shards.record import ImageRecord, leaves_crowds_out
from shards.synthetic import writer as shapes

SEED = 7
# What the tables and the report call the two networks.
START, AFTER_TRAINING = "start", "after training"
HELD_OUT_IMAGES = 120
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

# After minutes of training scores are lower than after hours, and some objects are found twice.
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

    train_images: int
    """Images to draw for training."""
    training: str
    """Lines of the experiment's table [train], beside the preset."""
    from_scratch: bool = False
    held_out_images: int = HELD_OUT_IMAGES
    max_steps: int = 0
    """Optimizer steps at most; 0: the settings decide."""


SHORT = DemoPlan(train_images=400, training='init = "shapes"\nepochs = 1\nbatch_size = 16\n')
"""From the shipped network, in a few minutes."""
FROM_SCRATCH = DemoPlan(train_images=6000, training="", from_scratch=True)
"""Without a start, four times as long or longer."""


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """The scores of a demo."""

    scores: dict[str, dict[str, ScoreReport]]
    """By split, e.g. `grefcoco/val`, and by what predicted: the network at the start, after training, each baseline."""
    overlays: Path
    """The folder of drawn examples."""
    page: Path
    """The page of the report: the network at the start and after training on one of the splits."""

    def to_json(self) -> dict[str, Any]:
        """What `igvg demo --format json` prints."""
        return {
            split: {name: report.to_json() for name, report in reports.items()}
            for split, reports in self.scores.items()
        }


def run(out: Path, plan: DemoPlan, *, workers: int = 2) -> DemoReport:
    """Draw the data with `workers` processes, run every stage, and score the baselines; finished work is kept.

    Raises:
        ArtifactError: `out` holds an experiment file that no demo wrote.
    """
    if plan.from_scratch:
        out = out / "from-scratch"
    data = describe_data(out, plan)
    file = write_experiment(out, plan, data.folder.name)
    draw_data(data, plan, workers)
    experiment = read_experiment(file)
    stages = run_stages(experiment, "demo")
    baselines = out / "baselines"
    start = Path(experiment.train.init) if experiment.train.init else None
    start = start or save_untrained(baselines, experiment, list(stages.shards.values()))
    reports: dict[str, dict[str, ScoreReport]] = {}
    starts: dict[str, Path] = {}
    for (name, split), trained in zip(experiment.predict_on, stages.scores, strict=True):
        shards = stages.shards[name]
        settings = replace(experiment.predict, split=split)
        starts[name] = predict_split(baselines, settings, start, shards, f"start-{name}")
        scores = {START: _score(starts[name], shards, split), AFTER_TRAINING: trained}
        for title in BASELINES:
            scores[title] = _score(write_baseline(baselines, name, shards, split, title), shards, split)
        reports[f"{name}/{split}"] = scores
    shards = stages.shards["grefcoco"]
    overlays = draw_examples(out / "examples", experiment.predict, stages.checkpoint, shards)
    page = write_report(out, experiment, stages, starts["grefcoco"], workers)
    return DemoReport(scores=reports, overlays=overlays, page=page)


def describe_data(out: Path, plan: DemoPlan) -> Stage:
    """The stage that draws the embedded data set."""
    sizes = {"train_pictures": plan.train_images, "held_out_pictures": plan.held_out_images}
    folder = KeyedFolder(out, f"{plan.train_images}-{plan.held_out_images}")
    return Stage(name="shapes", out=folder, inputs={}, options={"seed": SEED, **sizes})


def draw_data(stage: Stage, plan: DemoPlan, workers: int) -> None:
    """Draw the embedded data set, once.

    Raises:
        ArtifactError: the folder holds something else.
    """
    folder = stage.folder
    if stage.find():
        log(f"shapes: {folder} is up to date")
        return
    begin_stage("drawing")
    sizes = {"train_images": plan.train_images, "held_out_images": plan.held_out_images}

    def draw(working: Path) -> dict[str, int]:
        shapes.write_published(working, seed=SEED, **sizes, workers=workers)
        return {"pictures": plan.train_images + 3 * plan.held_out_images}

    with stage.claim() as cached:
        if not cached:
            continue_folder(stage, draw)
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
    described = train.describe(experiment.train, shards, KeyedFolder(home, experiment.train.preset))
    stage = replace(described, name="untrained")
    if stage.find():
        return stage.folder
    import torch

    from pipelines.pretrained import save_checkpoint
    from pipelines.training.initialization import build_model

    with stage.claim() as cached:
        if cached:
            return stage.folder
        torch.manual_seed(experiment.train.seed)
        stage.start()
        parts = [(folder, "train") for folder in shards]
        model, tokenizer = build_model(experiment.train, parts)
        save_checkpoint(stage.folder, model, tokenizer, experiment.train.text.max_tokens)
        stage.finish({})
    return stage.folder


def predict_nothing(record: ImageRecord) -> Prediction:
    """No target for any expression."""
    mask = masks.merge_rles([], record.height, record.width)
    return Prediction(id="", boxes=[], scores=[], mask=mask, no_target=True)


def predict_everything(record: ImageRecord) -> Prediction:
    """Every annotated instance of the image; crowd regions only add to the mask where they are part of the target's."""
    without_crowds = any(leaves_crowds_out(expression.id) for expression in record.expressions)
    drawn = [instance.mask for instance in record.instances if not (instance.crowd and without_crowds)]
    known = [mask for mask in drawn if mask is not None]
    mask = masks.merge_rles(known, record.height, record.width)
    boxes = [list(instance.box) for instance in record.instances]
    return Prediction(id="", boxes=boxes, scores=[1.0] * len(boxes), mask=mask, no_target=not boxes)


BASELINES: dict[str, Callable[[ImageRecord], Prediction]] = {
    "always empty": predict_nothing,
    "everything": predict_everything,
}


def write_baseline(home: Path, name: str, shards: Path, split: str, title: str) -> Path:
    """Write the predictions of baseline `title`, the same for all expressions about an image; returns their folder."""
    inputs, options = {"shards": digest_shards(shards)}, {"split": split, "answer": title}
    folder = KeyedFolder(home, f"{title.replace(' ', '-')}-{name}-{split}")
    stage = Stage(name="baseline", out=folder, inputs=inputs, options=options)
    if stage.find():
        return stage.folder
    with stage.claim() as cached, ShardReader(shards, split) as reader:
        if not cached:
            stage.start()
            write_predictions(stage.folder / PREDICTIONS, _repeat_predictions(reader, BASELINES[title]))
            stage.finish({})
    return stage.folder


def draw_examples(folder: Path, settings: AnySettings, checkpoint: Path, shards: Path) -> Path:
    """Draw what the network finds in the held-out image with the most instances; returns the folder of overlays."""
    with ShardReader(shards, "val") as reader:
        index = max(range(len(reader)), key=lambda index: len(reader.record(index).instances))
        file, image = folder / "images" / reader.record(index).file_name, reader.image(index)
    # Demos of other sizes have other images of the same name.
    if not file.is_file() or file.read_bytes() != image:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, image)
    queries = query_images([file], EXAMPLES)
    stage = predict_images.describe_images(settings, checkpoint, queries, KeyedFolder(folder, file.stem))
    found = replace(stage, name="found").folder
    predict_images.run_on_images(settings, checkpoint, queries, found)
    return found / "overlays"


def write_report(out: Path, experiment: Experiment, stages: Stages, start: Path, workers: int) -> Path:
    """Report the held-out gRefCOCO layout: predictions `start` beside those after training; returns the page."""
    shards, settings = stages.shards["grefcoco"], replace(experiment.predict, split="val")
    # Finished by the experiment.
    trained = predict.run(settings, stages.checkpoint, shards, KeyedFolder(experiment.out, "grefcoco-val")).folder
    begin_stage("reporting")
    result = report.run(
        [start, trained, stages.checkpoint], shards, ReportSettings(split="val"), KeyedFolder(out, "grefcoco-val"),
        names=(START, AFTER_TRAINING), workers=workers,
    )  # fmt: skip
    return result.folder / report.PAGE


def _repeat_predictions(
    reader: ShardReader, predict_image: Callable[[ImageRecord], Prediction]
) -> Iterator[Prediction]:
    for record in reader.records():
        prediction = predict_image(record)
        for expression in record.expressions:
            yield replace(prediction, id=expression.id)


def _score(predictions: Path, shards: Path, split: str) -> ScoreReport:
    return score.run(predictions, shards, ScoreSettings(split=split), out=predictions / "score").report
