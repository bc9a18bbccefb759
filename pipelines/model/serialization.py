"""Checkpoint folders in the Hugging Face layout: config.json and model.safetensors."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NoReturn

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipelines.config.model import ADDED_KEYS, IGVGConfig
from pipelines.config.overrides import from_mapping
from shards.errors import CheckpointError, DataError, SettingsError, find_system_error, join_first
from shards.file_kinds import explain_unreadable
from shards.files import read_json, replace_file, write_bytes

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
_LABELS = {"architectures": ["IGVGModel"], "model_type": "igvg"}
TRANSFORMERS_KEYS = frozenset({
    *_LABELS, "_attn_implementation", "_attn_implementation_autoset", "_name_or_path", "attn_implementation",
    "auto_map", "chunk_size_feed_forward", "dtype", "id2label", "is_encoder_decoder", "label2id", "output_attentions",
    "output_hidden_states", "problem_type", "return_dict", "torch_dtype", "torchscript", "transformers_version",
    "use_bfloat16", "use_cache",
})  # fmt: skip
"""Keys that transformers adds to every configuration that it writes."""
FORMER_KEYS = frozenset({"auxiliary_boxes"})
"""An option of the loss that checkpoints of earlier versions hold."""
# The configuration's sizes: a tensor and its dimension that have this size.
_SIZES = {
    "encoder_dim": ("encoder.text_embed.weight", 1),
    "vocab_size": ("encoder.text_embed.weight", 0),
    "text_positions": ("encoder.text_pos_embed", 0),
    "patch_size": ("encoder.patch_embed.weight", 2),
    "encoder_ffn": ("encoder.layers.0.image_expert.fc1.weight", 0),
    "hidden_dim": ("image_projection.weight", 0),
    "decoder_ffn": ("decoder.layers.0.ffn.fc1.weight", 0),
    "generation_ffn": ("query_generation.ffn.fc1.weight", 0),
}
# A tensor's name in checkpoints that igvg wrote before its modules had the names of the field.
FORMER_NAME = "encoder.words.weight"
_REMEDY = "copy it again, or make the checkpoint again with igvg train or igvg import"


def write_checkpoint(folder: Path, config: IGVGConfig, state: Mapping[str, Tensor]) -> None:
    """Write both files; each replaces an older one only when it is complete.

    Raises:
        OSError: a file cannot be written; names it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with replace_file(folder / WEIGHTS_FILE) as temporary:
        _save_tensors({name: tensor.contiguous() for name, tensor in state.items()}, temporary)
    text = json.dumps(_LABELS | describe_config(config), indent=2) + "\n"
    write_bytes(folder / CONFIG_FILE, text.encode())


def describe_config(config: IGVGConfig) -> dict[str, object]:
    """The settings of a network as config.json holds them: those of later versions only where they change it."""
    values = dataclasses.asdict(config)
    return {key: value for key, value in values.items() if key not in ADDED_KEYS or value != ADDED_KEYS[key]}


def _save_tensors(state: dict[str, Tensor], file: Path) -> None:
    """Save with safetensors; an error of the system is raised as such.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        save_file(state, file, metadata={"format": "pt"})
    except SafetensorError as error:
        raise find_system_error(error, file) or error from error


def read_checkpoint(folder: Path) -> tuple[IGVGConfig, dict[str, Tensor]]:
    """Configuration and tensors of a checkpoint folder.

    Raises:
        CheckpointError: a file is missing, damaged or of an earlier igvg, the configuration has an unknown key or an
            impossible value, or the tensors have other sizes than it says.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} is no checkpoint folder: it has no {name}; "
                                  "give one that igvg train or igvg import made")  # fmt: skip
    config = _read_config(folder / CONFIG_FILE)
    file = folder / WEIGHTS_FILE
    try:
        state = load_file(file)
    except Exception as error:  # the parser raises errors of many kinds
        raise CheckpointError(
            str(explain_unreadable(file, "weights in safetensors", error, _REMEDY, kinds=("safetensors",)))
        ) from error
    if FORMER_NAME in state:
        raise CheckpointError(
            f"{file} was written by an earlier igvg, whose tensors have other names; "
            "make it again with igvg train or igvg import"
        )
    _check_sizes(config, state, folder)
    return config, state


def check_state_dict(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], origin: str) -> None:
    """Check that tensors have the names and shapes that a network expects; `origin` names them in errors.

    Raises:
        CheckpointError: lists the first of those missing, unexpected or of the wrong shape.
    """
    mismatched = [
        f"{name} is {list(found[name].shape)}, not {list(expected[name].shape)}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    mismatched += [
        f"{name} holds {found[name].dtype}, not {expected[name].dtype}"
        for name in expected
        if name in found and found[name].is_floating_point() != expected[name].is_floating_point()
    ]
    report_mismatch(origin, expected.keys() - found.keys(), found.keys() - expected.keys(), mismatched)


def report_mismatch(
    origin: str, missing: Collection[str], unexpected: Collection[str], mismatched: Collection[str]
) -> None:
    """Raise a CheckpointError that lists the first tensors of each kind, if there are any."""
    kinds = (("missing", missing), ("unexpected", unexpected), ("of the wrong shape", mismatched))
    errors = [f"{len(names)} {kind}: {join_first(sorted(names), 5)}" for kind, names in kinds if names]
    if errors:
        raise CheckpointError(f"{origin}: the tensors do not fit the network; {'; '.join(errors)}")


def refuse_missing_settings(values: Mapping[str, object], origin: str) -> None:
    """Refuse a configuration that lacks settings: their defaults are those of another network.

    One that also has unknown settings is left to the check of these, which names the nearest.

    Raises:
        CheckpointError: lists the first of those missing; begins with `origin`.
    """
    names = [field.name for field in dataclasses.fields(IGVGConfig)]
    missing = [name for name in names if name not in values and name not in ADDED_KEYS]
    if missing and values.keys() <= {*names, *TRANSFORMERS_KEYS, *FORMER_KEYS}:
        what = f"{len(missing)} settings are missing" if len(missing) > 1 else "a setting is missing"
        raise CheckpointError(f"{origin}: {what}: {join_first(missing, 5)}; {_REMEDY}")


def _read_config(file: Path) -> IGVGConfig:
    try:
        values = read_json(file, "a model's configuration in JSON", _REMEDY)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(values, dict) or values.get("model_type") != _LABELS["model_type"]:
        raise CheckpointError(
            f"{file} does not describe an igvg model; give a folder that igvg train or igvg import made"
        )
    try:
        own = {name: value for name, value in values.items() if name not in TRANSFORMERS_KEYS | FORMER_KEYS}
        refuse_missing_settings(own, str(file))
        return from_mapping(IGVGConfig, own, str(file))
    except SettingsError as error:
        raise CheckpointError(str(error)) from error


def _check_sizes(config: IGVGConfig, state: Mapping[str, Tensor], folder: Path) -> None:
    """Compare sizes before a network is built: a damaged configuration may ask for more memory than there is."""
    sizes = {"grid of patches": (config.grid_size**2 + 1, "encoder.image_pos_embed", 0)}
    sizes |= {setting: (getattr(config, setting), name, dim) for setting, (name, dim) in _SIZES.items()}
    for setting, (size, name, dim) in sizes.items():
        found = state[name].shape[dim] if name in state and state[name].dim() > dim else 0
        if found != size:
            _report_sizes(folder, f"{setting} {size}", f"{name} of size {found}" if found else f"no {name}")
    for setting, prefix in (("encoder_layers", "encoder.layers."), ("decoder_layers", "decoder.layers.")):
        layers = {name[len(prefix) :].partition(".")[0] for name in state if name.startswith(prefix)}
        if len(layers) != getattr(config, setting):
            _report_sizes(folder, f"{setting} {getattr(config, setting)}", f"{len(layers)} layers {prefix}*")


def _report_sizes(folder: Path, expected: str, found: str) -> NoReturn:
    raise CheckpointError(
        f"{folder / WEIGHTS_FILE} holds {found}, but {CONFIG_FILE} beside it says {expected}: "
        "copy both from the same checkpoint"
    )
