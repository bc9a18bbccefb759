"""The settings of every stage, with their units and defaults (the paper's recipe).

One frozen dataclass per stage; `pipelines.config.overrides` fills them from TOML files and `--set KEY=VALUE`.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from pipelines.config.model import IGVGConfig

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
# Strict: `true` is not read as 1, and 1 not as `true`.
Fraction = Annotated[float, Field(ge=0, le=1, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Weight = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]
MAX_RATIO = 1_000_000
Side = Annotated[int, Field(ge=0, le=8192)]
Precision = Literal["auto", "fp32", "tf32", "bf16", "fp16"]
Preset = Literal["tiny", "base", "large"]
Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio"]

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PrepareSettings:
    """`igvg prepare`."""

    dataset: str
    """A published data set, or `jsonl` or `coco` for one's own."""
    splits: tuple[str, ...] = ()
    """Splits to prepare; none: all splits of the annotation files."""
    limit: Count = 0
    """Images of each split at most, the first ones; 0: all."""
    skip_invalid: bool = False
    """Leave invalid records out, count and list them; otherwise they are an error."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class JsonLinesSettings(PrepareSettings):
    """`igvg prepare jsonl`."""

    name: str = ""
    """Of the data set, the first part of its expressions' ids; empty: `jsonl` or `coco`."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class CocoSettings(JsonLinesSettings):
    """`igvg prepare coco`."""

    phrases: tuple[str, ...] = ("all {categories}",)
    """Texts of expressions with {category} or its plural {categories}; one is drawn for each."""
    empty: Count = 1
    """Expressions of an image about categories that it does not show."""
    seed: Count = 0
    """Of what is drawn."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TextSettings:
    """How expressions become token ids."""

    tokenizer: str = ""
    """A SentencePiece file (beit3.spm) or a folder with a tokenizer; empty: trained on the shards' expressions."""
    max_tokens: Annotated[int, Field(ge=4)] = 50
    """Tokens of an expression at most, including <s> and </s> (paper, section C)."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class MatchingSettings:
    """Weights of the matching costs (paper, equation 4)."""

    class_cost: Weight = 1.0
    """Weight of the negative target probability."""
    box_cost: Weight = 5.0
    """Weight of the L1 distance of boxes, cxcywh in [0, 1]."""
    giou_cost: Weight = 2.0
    """Weight of the negative generalized IoU."""
    point_cost: Weight = 2.0
    """Weight of the L1 distance between a query's point and the center of the target box."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class LossSettings:
    """Weights of the objective (paper, equation 6)."""

    detection: Weight = 0.1
    """Weight of the class, box and generalized-IoU terms together."""
    classes: Weight = 1.0
    """Weight of the class term inside the detection term."""
    boxes: Weight = 5.0
    """Weight of the box L1 term inside the detection term."""
    giou: Weight = 2.0
    """Weight of the generalized-IoU term inside the detection term."""
    no_object: Weight = 0.1
    """Weight of the class "no object" in the cross-entropy."""
    instance: Weight = 1.0
    """Weight of the masks of matched queries."""
    negative: Weight = 0.2
    """Weight of the masks of unmatched queries, whose target is the empty mask."""
    global_mask: Weight = 1.0
    """Weight of the global mask."""
    attention: Weight = 0.1
    """Weight of the attention map of the query generation."""
    existence: Weight = 0.2
    """Weight of the existence branch."""
    existence_balance: tuple[Weight, Weight] = (0.9, 1.1)
    """Weights of "a target exists" and "none does" inside the existence term."""
    auxiliary_boxes: Literal["paper", "published"] = "paper"
    """Weights of the box terms of earlier decoder layers: those of the last layer, or 1 as published."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class OptimizerSettings:
    """Adam with two learning rates and a step schedule (paper, section C)."""

    encoder_lr: Rate = 5e-5
    """Learning rate of the multi-modality encoder."""
    head_lr: Rate = 5e-4
    """Learning rate of everything else."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.98)
    """Decay rates of Adam's two moments."""
    eps: Rate = 1e-9
    """Adam's epsilon."""
    amsgrad: bool = True
    """Divide by the largest second moment so far (AMSGrad)."""
    warmup_epochs: Weight = 1.0
    """Length of the warmup in epochs."""
    warmup_factor: Fraction = 0.5
    """Factor on both learning rates during the warmup."""
    decay_epochs: tuple[Positive, ...] = (7,)
    """At the start of each of these epochs, counted from 1, both learning rates are multiplied by `decay_factor`."""
    decay_factor: Fraction = 0.1
    """Factor of each decay."""
    schedule: Literal["step", "cosine"] = "step"
    """`step`: as above; `cosine`: linear warmup from 0, then half a cosine down to 0 at the end of training."""
    clip_norm: Weight = 0.15
    """Largest norm of the gradient over all parameters; 0: no clipping."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PostprocessSettings:
    """From the network's outputs to the prediction (paper, section D.2)."""

    score_threshold: Fraction = 0.7
    """Queries with a score above this are selected."""
    mask_threshold: Fraction = 0.5
    """A pixel belongs to a mask if its probability is at least this."""
    mask_source: Literal["merge", "instance", "global"] = "merge"
    """The predicted mask: the union of the selected instance masks and the global mask, or only one of the two."""
    existence_weighting: Flag = True
    """Multiply query scores with the probability that a target exists."""
    nms: Flag = False
    """Apply non-maximum suppression to the boxes."""
    nms_iou: Fraction = 0.7
    """IoU above which the box with the lower score is suppressed."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TrainSettings:
    """`igvg train`."""

    preset: Preset = "base"
    """The preset that the settings start from."""
    seed: Count = 6666
    """Seed of the initial weights, the order of the data and dropout."""
    epochs: Positive = 10
    """Passes over all expressions."""
    max_steps: Count = 0
    """Optimizer steps at most; 0: no limit besides `epochs`."""
    batch_size: Positive = 16
    """Expressions in one optimizer step, over all processes."""
    micro_batches: Positive = 1
    """Micro-batches into which a process splits its part of a batch, to save memory."""
    activation_checkpointing: Flag = False
    """Keep only the inputs of encoder layers for the backward pass, which computes them again: slower, less memory."""
    compile: Flag = False
    """Compile the network with torch.compile at the first step; needs a C++ compiler on a CPU, Triton on a GPU."""
    ema_decay: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.0
    """Decay by step of the exponential moving average of the weights that is validated and kept; 0: no average."""
    frozen_encoder_layers: Count = 0
    """First layers of the encoder that are not trained, nor are its embeddings; 0: everything is trained."""
    sync_batchnorm: Flag = False
    """Batch norms take their statistics from the parts of all processes; otherwise, as published, from their own."""
    frozen_batchnorm: Flag = False
    """Batch norms use the statistics that they start with, as in evaluation; their weights are trained."""
    precision: Precision = "fp32"
    """`fp32`; `tf32`: on a GPU the factors of products are rounded to TF32; `bf16`, `fp16`: autocast to bfloat16, or to
    float16 with scaled gradients; `auto`: `bf16` where the device supports it natively, else `fp32`."""
    mask_targets: Literal["image", "decoder"] = "image"
    """Resolution of the mask losses: that of the network's image, or that of the pixel decoder."""
    splits: tuple[str, ...] = ("train",)
    """Splits to train on, of every shard folder that has them."""
    ratios: tuple[Annotated[Rate, Field(le=MAX_RATIO)], ...] = ()
    """In which ratios examples come from the shard folders, a number each; none: each expression once an epoch."""
    shuffle_block_shards: Count = 0
    """Shards whose expressions are shuffled together, for sets larger than the disk; 0: all expressions are."""
    exclude_held_out: Flag = False
    """Leave out training images that are also in a held-out split of one of the sets."""
    held_out: tuple[str, ...] = ()
    """Prepared folders, or addresses of them, whose held-out splits count as those of the sets; none is trained on."""
    validation_split: str = "val"
    """The split to validate on, of every shard folder that has it."""
    validation_limit: Count = 2000
    """Expressions of each validation split at most; 0: all."""
    validation_epochs: Positive = 1
    """Epochs between two validations; the last epoch is always validated."""
    best_metric: str = ""
    """The metric by which the best checkpoint is chosen, e.g. `N-acc`; empty: each benchmark's primary one."""
    keep_validation_predictions: Flag = False
    """Write the predictions of every validation into `validation`."""
    init: str = ""
    """A published BEiT-3 file or an igvg checkpoint to start from."""
    init_part: Literal["network", "encoder"] = "network"
    """What is taken from an igvg checkpoint: all of it, or its encoder and tokenizer; a BEiT-3 file has no more."""
    workers: Count = 2
    """Worker processes that read and decode images, for each training process."""
    cache: Flag = False
    """Keep the resized images of training and validation splits in files beside the shards, built at the first use."""
    cache_limit: Weight = 50.0
    """Gigabytes of all such files at most; images that do not fit are decoded at every use."""
    checkpoint_minutes: Weight = 10.0
    """Minutes between two saved training states."""
    keep_states: Positive = 2
    """Saved states that are kept, the last ones; the training continues from the last one that is not damaged."""
    keep_last_state: Flag = False
    """Keep the last state when the training has finished: `--continue-with` can then add epochs to it."""
    max_skipped_steps: Positive = 5
    """A step with a loss or gradient that is not finite is skipped; after so many in a row the training stops."""
    log_steps: Positive = 20
    """Optimizer steps between two lines of the log."""
    log_with: tuple[Tracker, ...] = ()
    """Experiment trackers that get what the log gets."""
    profile_steps: Count = 0
    """Steps of which a trace is recorded, after the first ones; 0: none."""
    model: IGVGConfig = dataclasses.field(default_factory=IGVGConfig)
    """The network's sizes and choices."""
    text: TextSettings = dataclasses.field(default_factory=TextSettings)
    matching: MatchingSettings = dataclasses.field(default_factory=MatchingSettings)
    loss: LossSettings = dataclasses.field(default_factory=LossSettings)
    optimizer: OptimizerSettings = dataclasses.field(default_factory=OptimizerSettings)
    postprocess: PostprocessSettings = dataclasses.field(default_factory=PostprocessSettings)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PredictSettings:
    """`igvg predict`."""

    split: str = ""
    """The split of the shards."""
    batch_size: Positive = 16
    """Expressions in one forward pass of a process."""
    precision: Precision = "fp32"
    """As in training."""
    workers: Count = 2
    """Worker processes that read and decode images, for each predicting process."""
    postprocess: PostprocessSettings = dataclasses.field(default_factory=PostprocessSettings)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ServeSettings:
    """`igvg serve`."""

    batch_size: Positive = 16
    """Expressions in one forward pass; those of requests that wait together share one."""
    precision: Precision = "fp32"
    """As in training."""
    timeout_seconds: Rate = 60.0
    """A request that is not answered after this time is refused, and its expressions leave the queue."""
    max_waiting: Positive = 64
    """Requests that wait or are worked on at most; further ones are refused and told to come again."""
    max_upload_mebibytes: Positive = 32
    """Size of a request at most."""
    max_megapixels: Positive = 50
    """Pixels of an image at most, in millions; larger ones are refused before they are decoded."""
    max_expressions: Positive = 16
    """Expressions of one request at most."""
    kept_results: Positive = 64
    """Results whose raw outputs are kept at most, for post-processing again; the oldest are dropped first."""
    kept_mebibytes: Positive = 256
    """Memory of the kept raw outputs at most."""
    kept_minutes: Rate = 60.0
    """How long raw outputs are kept after they were last used."""
    postprocess: PostprocessSettings = dataclasses.field(default_factory=PostprocessSettings)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ZeroShotSettings:
    """`igvg predict` with a zero-shot model of transformers; a threshold is None where the model's family has none."""

    split: str = ""
    """The split of the shards."""
    batch_size: Positive = 4
    """Expressions in one forward pass of a process."""
    precision: Precision = "fp32"
    """As in training."""
    workers: Count = 2
    """Worker processes that read and prepare images, for each predicting process."""
    threshold: Fraction | None = None
    """Boxes, or instances, with a score above this are predicted."""
    text_threshold: Fraction | None = None
    """Grounding DINO: tokens that score above this label a box, on overlays; boxes do not depend on it."""
    nms_threshold: Fraction | None = None
    """OmDet-Turbo: IoU above which the box with the lower score is suppressed."""
    mask_threshold: Fraction | None = None
    """SAM 3: a pixel belongs to an instance if its probability is above this."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ScoreSettings:
    """`igvg score`."""

    split: str
    """The split of the shards."""
    resolution: Side = 0
    """Side in pixels to which masks are resized before scoring; 0: the size of the original image."""
    partial: Flag = False
    """Score the expressions that have predictions alone; otherwise one without a prediction is an error."""
    bootstrap: Count = 1000
    """Bootstrap samples for the 95 % intervals; 0: no intervals."""
    seed: Count = 0
    """Seed of the bootstrap samples."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ReportSettings:
    """`igvg report`."""

    split: str = ""
    """The split of the shards; empty: a report of a training run alone."""
    resolution: Side = 0
    """As in scoring."""
    bootstrap: Count = 1000
    """As in scoring."""
    seed: Count = 0
    """As in scoring."""
    limit: Count = 0
    """Expressions in the gallery at most, the first ones; 0: all. Scores are those of all."""
