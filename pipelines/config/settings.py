"""The settings of every stage: what they mean, their units and their defaults (the paper's recipe).

One frozen dataclass a stage; `pipelines.config.overrides` fills them from TOML files and `--set KEY=VALUE`.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from pipelines.config.model import IGVGConfig

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
# Strict: true is no fraction, and 1 no choice.
Fraction = Annotated[float, Field(ge=0, le=1, strict=True)]
Choice = Annotated[bool, Field(strict=True)]
Weight = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]
Side = Annotated[int, Field(ge=0, le=8192)]
Precision = Literal["auto", "fp32", "bf16"]
Preset = Literal["tiny", "base", "large"]

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PrepareSettings:
    """`igvg prepare`: which part of a published data set becomes shards."""

    dataset: str
    """One of the names in `shards.annotations.dataset.DATASETS`."""
    splits: tuple[str, ...] = ()
    """Splits to prepare; none means all that the files hold."""
    limit: Count = 0
    """First so many pictures of each split; 0 means all."""
    skip_invalid: bool = False
    """Count and list bad records instead of stopping."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TextSettings:
    """How expressions become token ids."""

    tokenizer: str = ""
    """A SentencePiece file (beit3.spm) or a folder that holds a tokenizer; empty: learnt from the shards."""
    max_tokens: Annotated[int, Field(ge=4)] = 50
    """Tokens of an expression at most, both ends included (paper, section C)."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class MatchingSettings:
    """Weights of the matching costs (paper, equation 4)."""

    class_cost: Weight = 1.0
    """Weight of minus the object probability."""
    box_cost: Weight = 5.0
    """Weight of the L1 distance of boxes, cxcywh in [0, 1]."""
    giou_cost: Weight = 2.0
    """Weight of minus the generalized IoU."""
    point_cost: Weight = 2.0
    """Weight of the L1 distance between a query's point and the target's centre."""


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
    """Weight of the class "no object" in the class term."""
    instance: Weight = 1.0
    """Weight of the instance masks that belong to a target."""
    negative: Weight = 0.2
    """Weight of the instance masks of unmatched queries, which should be empty."""
    whole: Weight = 1.0
    """Weight of the global mask."""
    attention: Weight = 0.1
    """Weight of the attention map of the query generation."""
    existence: Weight = 0.2
    """Weight of the existence branch."""
    existence_balance: tuple[Weight, Weight] = (0.9, 1.1)
    """Weights of "a target exists" and "none does" inside the existence term."""


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
    """Keep the largest second moment seen."""
    warmup_epochs: Weight = 1.0
    """Length of the warm-up in epochs."""
    warmup_factor: Fraction = 0.5
    """Factor on both rates during the warm-up."""
    decay_epochs: tuple[Positive, ...] = (7,)
    """From these epochs on, counted from 1, both rates are multiplied by `decay_factor` once more."""
    decay_factor: Fraction = 0.1
    """Factor of one decay."""
    schedule: Literal["step", "cosine"] = "step"
    """`step`: as above; `cosine`: linear warm-up from 0, then half a cosine down to 0 at the end of training."""
    clip_norm: Weight = 0.15
    """Largest norm of the gradient over all parameters; 0 leaves it alone."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PostprocessSettings:
    """From outputs to the final answer (paper, section D.2)."""

    score_threshold: Fraction = 0.7
    """A query is a target if its score is above."""
    mask_threshold: Fraction = 0.5
    """A pixel belongs to a mask if its probability is at least this."""
    mask_source: Literal["merge", "instance", "global"] = "merge"
    """The mask of the answer: both united, the chosen instances', or the global one."""
    existence_weighting: Choice = True
    """Multiply query scores with the probability that a target exists."""
    nms: Choice = False
    """Suppress boxes that overlap a better one before the threshold."""
    nms_iou: Fraction = 0.7
    """Overlap above which the worse box is suppressed."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TrainSettings:
    """`igvg train`."""

    preset: Preset = "base"
    """The size of network that the defaults belong to."""
    seed: Count = 6666
    """Seed of the weights, the order of the data and dropout."""
    epochs: Positive = 10
    """Passes over all expressions."""
    max_steps: Count = 0
    """Stop after so many optimiser steps; 0: the epochs decide."""
    batch_size: Positive = 16
    """Expressions in one optimiser step, over all processes."""
    micro_batches: Positive = 1
    """Parts into which a process splits its share of a batch, to save memory."""
    precision: Precision = "fp32"
    """Arithmetic of the network: `fp32`; `bf16`, bfloat16 where it is safe; `auto`, `bf16` where the device multiplies
    it natively, else `fp32`."""
    mask_targets: Literal["picture", "decoder"] = "picture"
    """Resolution of the mask losses: the network's picture size, or that of the pixel decoder."""
    splits: tuple[str, ...] = ("train",)
    """The splits that are trained on, of every shard folder that has them."""
    validation_split: str = "val"
    """The split that is scored after each epoch, where the shards hold it."""
    validation_limit: Count = 2000
    """Expressions scored after each epoch; 0: all."""
    validation_epochs: Positive = 1
    """Score after every so many epochs, and after the last."""
    init: str = ""
    """A published BEiT-3 file, or an igvg checkpoint folder, to start from."""
    workers: Count = 2
    """Processes that read and decode pictures, for each training process."""
    checkpoint_minutes: Weight = 10.0
    """Minutes between two checkpoints of the running training."""
    log_steps: Positive = 20
    """Steps between two lines of the log."""
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
    """Arithmetic of the network: `fp32`, `bf16` or `auto`, as in training."""
    workers: Count = 2
    """Processes that read and decode pictures, for each predicting process."""
    postprocess: PostprocessSettings = dataclasses.field(default_factory=PostprocessSettings)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ScoreSettings:
    """`igvg score`."""

    split: str
    """The split of the shards."""
    resolution: Side = 0
    """Scale predictions and ground truth to so many pixels square first; 0: score at the picture's own size."""
    bootstrap: Count = 1000
    """Splits drawn for the 95 % intervals; 0: no intervals."""
    seed: Count = 0
    """Seed of these draws."""


# Settings that change how fast or how safely a stage runs, and no byte of what it makes.
NOT_FINGERPRINTED = frozenset({"workers", "checkpoint_minutes", "log_steps"})
