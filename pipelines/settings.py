"""The settings of every stage: what they mean, their units, their defaults (the paper's recipe), and how they are read.

One frozen dataclass a stage. Values come from the defaults, then a preset, then a TOML file, then `--set KEY=VALUE`;
a key that does not exist is an error that names the nearest one that does.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from pipelines.model.config import IGVGConfig, large_config, tiny_config

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]
Precision = Literal["fp32", "bf16"]
Preset = Literal["tiny", "base", "large"]

_STRICT = ConfigDict(extra="forbid")
SettingsT = TypeVar("SettingsT")


class SettingsError(Exception):
    """A setting that does not exist or has a value that cannot be: says which, and what would do."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PrepareSettings:
    """`igvg prepare`: which part of a published data set becomes shards."""

    dataset: str
    """One of the names in `shards.published.DATASETS`."""
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
    """A SentencePiece file (beit3.spm) or a folder that holds a tokenizer; empty: a vocabulary learnt from the shards."""
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
    existence_weighting: bool = True
    """Multiply query scores with the probability that a target exists."""
    nms: bool = False
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
    max_minutes: Weight = 0.0
    """Fit the schedule into so many minutes of training, measured after the first steps; 0: the epochs decide."""
    batch_size: Positive = 16
    """Expressions in one optimiser step, over all processes."""
    micro_batches: Positive = 1
    """Parts into which a process splits its share of a batch, to save memory."""
    precision: Precision = "fp32"
    """Arithmetic of the network: float32, or bfloat16 where it is safe."""
    mask_targets: Literal["picture", "decoder"] = "picture"
    """Resolution of the mask losses: the network's picture size, or that of the pixel decoder."""
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
    """Arithmetic of the network."""
    workers: Count = 2
    """Processes that read and decode pictures, for each predicting process."""
    postprocess: PostprocessSettings = dataclasses.field(default_factory=PostprocessSettings)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ScoreSettings:
    """`igvg score`."""

    split: str
    """The split of the shards."""
    resolution: Count = 0
    """Scale predictions and ground truth to so many pixels square first; 0: score at the picture's own size."""


# Settings that change how fast or how safely a stage runs, and no byte of what it makes.
IMMATERIAL = frozenset({"workers", "checkpoint_minutes", "log_steps"})

_TRAIN_PRESETS: dict[str, TrainSettings] = {
    "base": TrainSettings(preset="base"),
    "large": TrainSettings(preset="large", model=large_config()),
    "tiny": TrainSettings(
        preset="tiny",
        batch_size=32,
        mask_targets="decoder",
        model=tiny_config(),
        optimizer=OptimizerSettings(
            encoder_lr=1e-3, head_lr=1e-3, eps=1e-8, amsgrad=False, schedule="cosine", warmup_epochs=0.3, clip_norm=1.0
        ),
    ),
}


def train_preset(name: Preset) -> TrainSettings:
    """The settings of `--preset NAME`.

    Raises:
        SettingsError: there is no such preset.
    """
    if name not in _TRAIN_PRESETS:
        raise SettingsError(f"no preset {name!r}; there are {', '.join(_TRAIN_PRESETS)}")
    return _TRAIN_PRESETS[name]


def read_settings(base: SettingsT, file: Path | None = None, overrides: Sequence[str] = ()) -> SettingsT:
    """`base`, changed by a TOML file, then by `KEY=VALUE` texts with dotted keys.

    Raises:
        SettingsError: an unreadable file, an unknown key (names the nearest), or a value that cannot be.
    """
    values = to_mapping(base)
    if file is not None:
        _merge(values, read_toml(file), source=str(file))
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise SettingsError(f"--set {text}: write it as KEY=VALUE")
        nested: Any = _parse_value(value.strip())
        for part in reversed(key.strip().split(".")):
            nested = {part: nested}
        _merge(values, nested, source=f"--set {text}")
    return from_mapping(type(base), values)


def read_toml(file: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        SettingsError: it cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{file}: cannot be read as TOML: {error}") from error


def from_mapping(kind: type[SettingsT], values: Mapping[str, Any], source: str = "settings") -> SettingsT:
    """Settings of `kind` from plain values.

    Raises:
        SettingsError: a key is unknown or a value cannot be; says which and why.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"])
        if fault["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            raise SettingsError(f"{source}: {_unknown_key(key, _list_keys(kind))}") from error
        if fault["type"] in ("missing", "missing_argument"):
            raise SettingsError(f"{source}: {key} is missing") from error
        raise SettingsError(f"{source}: {key} = {fault['input']!r}: {fault['msg']}") from error


def to_mapping(settings: Any) -> dict[str, Any]:
    """Settings as plain values that JSON and TOML can hold."""
    plain: dict[str, Any] = TypeAdapter(type(settings)).dump_python(settings, mode="json")
    return plain


def select_material(settings: Any) -> dict[str, Any]:
    """The settings that decide what a stage makes, as plain values."""
    return {key: value for key, value in to_mapping(settings).items() if key not in IMMATERIAL}


def describe_differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What changed between two nested mappings, e.g. `optimizer.head_lr 0.0005 → 0.001`."""
    changes: list[str] = []
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changes += describe_differences(before, after, f"{prefix}{key}.")
        elif before != after:
            changes.append(f"{prefix}{key} {_show(before)} → {_show(after)}")
    return changes


def _show(value: Any) -> str:
    return "unset" if value is None else str(value)


def _parse_value(text: str) -> Any:
    """A TOML value where the text is one, else the text itself, so that names need no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _merge(values: dict[str, Any], changes: Mapping[str, Any], source: str, prefix: str = "") -> None:
    for key, value in changes.items():
        if key not in values:
            raise SettingsError(f"{source}: {_unknown_key(prefix + key, _flatten(values, prefix))}")
        if isinstance(values[key], dict):
            if not isinstance(value, Mapping):
                raise SettingsError(f"{source}: {prefix}{key} is a group; set one of its keys, e.g. "
                                    f"{prefix}{key}.{next(iter(values[key]))}")  # fmt: skip
            _merge(values[key], value, source, f"{prefix}{key}.")
        else:
            values[key] = value


def _unknown_key(key: str, known: Sequence[str]) -> str:
    # A key typed without its group is as likely a slip as a misspelt one: compare last parts too.
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6) or [
        name for last in difflib.get_close_matches(key.split(".")[-1], [k.split(".")[-1] for k in known], n=1)
        for name in known if name.split(".")[-1] == last
    ]  # fmt: skip
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    return f"no setting {key}; {hint}"


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key, value in values.items():
        keys += _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [f"{prefix}{key}"]
    return keys


def _list_keys(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]
