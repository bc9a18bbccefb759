"""Checkpoints described: folders, weights in safetensors, and files of torch.save."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipelines.config.model import IGVGConfig
from pipelines.config.overrides import from_mapping
from pipelines.config.presets import BASE, find_preset, train_preset
from pipelines.inspection.description import Cell, Description, Setting, Table, measure_file, measure_folder
from pipelines.inspection.settings_used import compare_settings
from pipelines.inspection.weights import read_header
from pipelines.prediction.families import FAMILIES, MASK_CLASSES
from shards.errors import DataError, IGVGError, SettingsError
from shards.files import read_json

CONFIG_FILE = "config.json"
_PREPROCESSOR = "preprocessor_config.json"
# Tensors are counted by the first parts of their names, so many at most.
_PARTS = 40
_INSTANCEVG = "head.query_generation.query_embed.weight"
_BEIT3 = "beit3.text_embed.weight"

Tensor = tuple[str, str, tuple[int, ...]]
"""Name, type and shape."""


def describe_checkpoint(folder: Path) -> Description:
    """A checkpoint folder in the layout of Hugging Face, igvg's own or of a transformers model."""
    facts, settings, notes = read_config(folder)
    tensors: list[Tensor] = []
    for file in sorted(folder.glob("*.safetensors")):
        try:
            tensors += _list_tensors(file)
        except IGVGError as error:
            notes.append(str(error))
    weights = summarize_tensors(tensors)
    what = str(facts.pop("what"))
    return Description(
        path=str(folder),
        kind="checkpoint",
        what=what,
        **measure_folder(folder),
        facts={**facts, **weights, **_read_preprocessing(folder)},
        settings=settings,
        tables=(tabulate_parts(tensors),),
        notes=tuple(notes),
    )


def read_config(folder: Path) -> tuple[dict[str, Cell], tuple[Setting, ...], list[str]]:
    """Facts (with `what`), settings and notes from the config.json of a checkpoint."""
    try:
        config = read_json(folder / CONFIG_FILE, "a model's configuration in JSON")
    except DataError as error:
        return {"what": "a checkpoint"}, (), [str(error)]
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if model_type == "igvg":
        return _read_own_config(config, folder)
    if model_type in FAMILIES:
        what = f"a checkpoint of {FAMILIES[model_type].name}, which igvg predict takes without training"
        return {"what": what, "model_type": model_type}, (), []
    if model_type in MASK_CLASSES:
        return {"what": "a checkpoint that igvg predict --masks takes", "model_type": model_type}, (), []
    return {"what": "a checkpoint that igvg does not use", "model_type": model_type}, (), []


def _read_own_config(config: Mapping[str, Any], folder: Path) -> tuple[dict[str, Cell], tuple[Setting, ...], list[str]]:
    known = IGVGConfig.__dataclass_fields__
    facts: dict[str, Cell] = {"what": "a checkpoint of igvg"}
    try:
        model = from_mapping(IGVGConfig, {key: value for key, value in config.items() if key in known})
    except SettingsError as error:
        return facts, (), [f"{folder / CONFIG_FILE}: {error}"]
    preset = find_preset(model)
    defaults = train_preset(preset).model if preset else BASE
    return {**facts, "network": preset or "another size than the presets"}, compare_settings(model, defaults), []


def _read_preprocessing(folder: Path) -> dict[str, Cell]:
    """Image size, token limit and tokenizer."""
    facts: dict[str, Cell] = {}
    try:
        values = read_json(folder / _PREPROCESSOR, "a processor's settings in JSON")
        if isinstance(values, dict) and "max_tokens" in values:
            facts["tokens at most"] = values["max_tokens"]
    except DataError:
        pass
    names = sorted(file.name for pattern in ("tokenizer*", "*.spm", "*.model") for file in folder.glob(pattern))
    return facts | {"tokenizer": ", ".join(names) or "none"}


def describe_weights(file: Path) -> Description:
    """A file of safetensors."""
    tensors = _list_tensors(file)
    metadata = read_header(file)[1]
    facts: dict[str, Cell] = {**summarize_tensors(tensors), **metadata}
    return Description(
        path=str(file),
        kind="weights",
        what="weights in safetensors",
        **measure_file(file),
        facts=facts,
        tables=(tabulate_parts(tensors),),
    )


def describe_torch_file(file: Path) -> Description:
    """A file of torch.save: a published checkpoint, or the state of a training. No code of it is run.

    Raises:
        CheckpointError: it is damaged, or holds more than tensors and plain values.
    """
    from pipelines.model.convert.torch_file import load_values

    content = load_values(file, "copy it again")
    tensors: list[Tensor] = []
    values: dict[str, Cell] = {}
    _walk(content, "", tensors, values)
    names = {name.rpartition("state_dict.")[2] for name, _, _ in tensors}
    what, kind = "a file of torch.save", "torch file"
    if isinstance(content, dict) and {"step", "optimizer", "model"} <= content.keys():
        what, kind = "the state of an unfinished training, from which igvg train goes on", "training state"
    elif any(name.endswith(_INSTANCEVG) for name in names):
        what, kind = "a published checkpoint of InstanceVG, which igvg import takes", "published checkpoint"
    elif any(name.endswith(_BEIT3) for name in names):
        what, kind = "a published checkpoint with a BEiT-3 encoder, which --init takes", "published checkpoint"
    return Description(
        path=str(file),
        kind=kind,
        what=what,
        **measure_file(file),
        facts={**summarize_tensors(tensors), **values},
        tables=(tabulate_parts(tensors),),
    )


def _walk(content: Any, prefix: str, tensors: list[Tensor], values: dict[str, Cell], depth: int = 0) -> None:
    """Collect tensors and, of the outer levels, plain values with their dotted names."""
    import torch

    if isinstance(content, torch.Tensor):
        tensors.append((prefix, str(content.dtype).removeprefix("torch."), tuple(content.shape)))
    elif isinstance(content, Mapping) and depth < 8:
        for key, value in content.items():
            _walk(value, f"{prefix}.{key}" if prefix else str(key), tensors, values, depth + 1)
    elif isinstance(content, (str, int, float, bool)) and depth <= 2:
        values[prefix] = content if not isinstance(content, str) else " ".join(content.split())[:80]


def _list_tensors(file: Path) -> list[Tensor]:
    return [(entry.name, entry.dtype, entry.shape) for entry in read_header(file)[0]]


def summarize_tensors(tensors: Iterable[Tensor]) -> dict[str, Cell]:
    """Number of tensors and values, and their types."""
    tensors = list(tensors)
    types = ", ".join(dict.fromkeys(dtype for _, dtype, _ in sorted(tensors, key=lambda one: one[1])))
    return {"tensors": len(tensors), "values": sum(math.prod(shape) for *_, shape in tensors), "types": types or None}


def tabulate_parts(tensors: Iterable[Tensor]) -> Table:
    """Tensors and values by the part of the network that their names begin with."""
    tensors = list(tensors)
    depth = next((n for n in (3, 2, 1) if len({_part(name, n) for name, *_ in tensors}) <= _PARTS), 1)
    parts: dict[str, tuple[int, int]] = {}
    for name, _, shape in tensors:
        count, values = parts.get(_part(name, depth), (0, 0))
        parts[_part(name, depth)] = count + 1, values + math.prod(shape)
    rows = tuple((part, count, values) for part, (count, values) in sorted(parts.items())[:_PARTS])
    return Table(title="tensors", columns=("part", "tensors", "values"), rows=rows)


def _part(name: str, depth: int) -> str:
    return ".".join(name.split(".")[:depth])
