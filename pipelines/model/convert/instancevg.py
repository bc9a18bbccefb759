"""Published checkpoints: InstanceVG's 697 tensors to igvg's, and BEiT-3's 491 to igvg's encoder.

Files are read without running code from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.config.model import IGVGConfig
from pipelines.config.overrides import from_mapping
from pipelines.config.presets import BASE, LARGE
from pipelines.model.convert.key_mapping import (
    BEIT3,
    DECODER,
    IGNORED,
    LEVELS,
    SHARED,
    T2I,
    TensorSource,
    build_key_mapping,
)
from pipelines.model.convert.torch_file import check_tensor, load_values
from pipelines.model.igvg import IGVGModel
from pipelines.model.serialization import report_mismatch
from shards.errors import CheckpointError, SettingsError

_HEAD_CHANNELS = 64
"""Channels of an attention head, the same in BEiT-3 base and large."""
_DECODER_HEADS = 8
_MAX_TOKENS, _MAX_TOKENS_OF_ONE_QUERY = 50, 20
_EMA = "ema_state_dict"
# A dictionary may contain itself.
_MAX_WRAPPERS = 8


def load_instancevg_checkpoint(file: Path, *, ema: bool = False) -> IGVGModel:
    """The model of a published InstanceVG checkpoint, in evaluation mode, with the published behavior.

    Args:
        file: the checkpoint.
        ema: take the exponential moving average of the weights instead of the weights.

    Raises:
        CheckpointError: the file cannot be read safely, is no such checkpoint, or has no moving average; lists missing
            and unexpected tensors.
    """
    config, state = convert_state(read_tensors(file, ema=ema), str(file))
    return IGVGModel.from_state_dict(config, state, str(file))


def infer_max_tokens(config: IGVGConfig) -> int:
    """The token limit that a published checkpoint was trained with, including <s> and </s>.

    NOTE: no tensor says it. The published configurations with one query (RefCOCO) have 20 tokens, all others 50.
    """
    limit = _MAX_TOKENS_OF_ONE_QUERY if config.num_queries == 1 else _MAX_TOKENS
    return min(limit, config.text_positions - 2)


def load_beit3_encoder(model: IGVGModel, file: Path) -> list[str]:
    """Load the encoder of a published BEiT-3 checkpoint; its image positions are resized to the model's grid.

    Returns:
        Keys of the file that the encoder does not use.

    Raises:
        CheckpointError: the file cannot be read safely, lacks tensors, or is of another size than the model's encoder.
    """
    found = {f"vis_enc.{key}": tensor for key, tensor in read_tensors(file).items()}
    table = BEIT3 + "encoder.embed_positions.A.weight"
    if table in found:
        found[table] = resize_positions(found[table], model.config.grid_size)
    sources = {name: source for name, source in build_key_mapping(model.config).items() if name.startswith("encoder.")}
    state = _combine_sources(found, sources, model.state_dict(), str(file))
    model.load_state_dict(state, strict=False)
    used = {key for source in sources.values() for key in source.keys}
    return sorted(key.removeprefix("vis_enc.") for key in found.keys() - used if not IGNORED.fullmatch(key))


def convert_state(published: Mapping[str, Tensor], origin: str = "checkpoint") -> tuple[IGVGConfig, dict[str, Tensor]]:
    """A published InstanceVG state as a configuration and tensors of ours, which may share memory with it.

    Raises:
        CheckpointError: tensors are missing, unexpected or of the wrong shape; `origin` names the file.
    """
    config = infer_config(published, origin)
    with torch.device("meta"):
        expected = IGVGModel(config).state_dict()
    sources = build_key_mapping(config)
    state = _combine_sources(published, sources, expected, origin)
    used = {key for source in sources.values() for key in source.keys}
    rest = [key for key in published.keys() - used if not IGNORED.fullmatch(key)]
    unexpected = [key for key in rest if not _is_shared(published, key)]
    report_mismatch(origin, (), unexpected, ())
    return config, state


def infer_config(published: Mapping[str, Tensor], origin: str = "checkpoint") -> IGVGConfig:
    """The configuration that fits a published state: its sizes, and the published behavior.

    Raises:
        CheckpointError: a tensor that has one of the sizes is missing, or the sizes do not fit together.
    """

    def size_of(key: str, dim: int = 0) -> int:
        if key not in published or published[key].dim() <= dim:
            raise CheckpointError(f"{origin} is no InstanceVG checkpoint: it has no {key}")
        return published[key].shape[dim]

    layer = DECODER + "layers.0."
    dim, patch = size_of(BEIT3 + "text_embed.weight", 1), size_of(BEIT3 + "vision_embed.proj.weight", 2)
    encoder_layers = _count_layers(published, BEIT3 + "encoder.layers.")
    grid = isqrt(max(0, size_of(BEIT3 + "encoder.embed_positions.A.weight") - 3))
    sizes = {
        "image_size": grid * patch,
        "patch_size": patch,
        "encoder_dim": dim,
        "encoder_layers": encoder_layers,
        "encoder_heads": max(1, dim // _HEAD_CHANNELS),
        "encoder_ffn": size_of(BEIT3 + "encoder.layers.0.ffn.A.fc1.weight"),
        # NOTE: the published large configuration misspells the option: its rate is 0.
        "drop_path": (LARGE if encoder_layers > BASE.encoder_layers else BASE).drop_path,
        "vocab_size": size_of(BEIT3 + "text_embed.weight"),
        "text_positions": size_of(BEIT3 + "encoder.embed_positions.B.weight"),
        "hidden_dim": size_of("head.lan_embedding.weight"),
        "num_queries": size_of("head.query_generation.query_embed.weight"),
        "decoder_layers": _count_layers(published, DECODER + "layers."),
        "decoder_heads": _DECODER_HEADS,
        "decoder_ffn": size_of(layer + "ffns.0.layers.0.0.weight"),
        "generation_ffn": size_of(T2I + "layers.0.ffns.0.layers.0.0.weight"),
        "sampling_points": size_of(layer + "attentions.1.attention_weights.weight") // (_DECODER_HEADS * LEVELS),
        "text_score": "mean",
        "reference": "shifted",
    }
    try:
        return from_mapping(IGVGConfig, sizes, f"{origin} is no InstanceVG checkpoint")
    except SettingsError as error:
        raise CheckpointError(str(error)) from error


def read_tensors(file: Path, *, ema: bool = False) -> dict[str, Tensor]:
    """The tensors of a file that torch.save wrote, without wrapping dictionaries and the prefix of parallel training.

    Args:
        file: the file.
        ema: take the exponential moving average of the weights (`ema_state_dict`) instead of the weights.

    Raises:
        CheckpointError: there is no such file, it is something else, holds more than tensors and plain values, no
            tensors at all, or no moving average.
    """
    wrappers = _unwrap(load_values(file, "download it again"))
    if ema:
        averages = [wrapper[_EMA] for wrapper in wrappers if isinstance(wrapper.get(_EMA), Mapping)]
        if not averages:
            raise CheckpointError(f"{file} holds no moving average of the weights ({_EMA}); import it without --ema")
        wrappers = _unwrap(averages[0])
    state = {
        key.removeprefix("module."): check_tensor(key, value, file).float()
        for key, value in (wrappers[-1].items() if wrappers else ())
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    if not state:
        raise CheckpointError(f"{file} holds no tensors; give a published checkpoint")
    return state


def resize_positions(table: Tensor, side: int) -> Tensor:
    """Image positions (3 + n², E) to (3 + side², E), bicubically; the three rows of no patch are kept."""
    special, patches = table[:3], table[3:]
    old = isqrt(len(patches))
    if old == side or old * old != len(patches):
        return table
    grid = patches.T.reshape(1, -1, old, old)
    resized = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat((special, resized.flatten(2)[0].T))


def _unwrap(content: object) -> list[Mapping[str, object]]:
    """The content of a file, and the dictionaries wrapped in it, from the outermost to the one with the tensors."""
    wrappers: list[Mapping[str, object]] = []
    inner = content
    while isinstance(inner, Mapping) and len(wrappers) <= _MAX_WRAPPERS:
        wrappers.append(inner)
        named = (inner.get(key) for key in ("state_dict", "model", "module"))
        inner = next((value for value in named if isinstance(value, Mapping)), None)
    return wrappers


def _combine_sources(
    found: Mapping[str, Tensor], sources: Mapping[str, TensorSource], expected: Mapping[str, Tensor], origin: str
) -> dict[str, Tensor]:
    """Make our tensors of published ones.

    Raises:
        CheckpointError: a published tensor is missing or of the wrong shape.
    """
    state: dict[str, Tensor] = {}
    missing: set[str] = set()
    mismatched: list[str] = []
    for name, source in sources.items():
        lacking = [key for key in source.keys if key not in found]
        if lacking and name.endswith("num_batches_tracked"):
            state[name] = torch.zeros((), dtype=torch.long)
        elif lacking:
            missing.update(lacking)
        else:
            made = source.make([found[key] for key in source.keys], expected[name].shape)
            if made is None:
                shapes = ", ".join(f"{key} {list(found[key].shape)}" for key in source.keys)
                mismatched.append(f"{shapes} for {name} {list(expected[name].shape)}")
            else:
                state[name] = made.to(expected[name].dtype)
    report_mismatch(origin, missing, (), mismatched)
    return state


def _is_shared(published: Mapping[str, Tensor], key: str) -> bool:
    """Whether a head of a later decoder layer equals the first layer's: igvg has one for all layers."""
    match = SHARED.fullmatch(key)
    first = published.get(f"head.{match[1]}.0.{match[2]}") if match else None
    return first is not None and torch.equal(first, published[key])


def _count_layers(published: Mapping[str, Tensor], prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in published if key.startswith(prefix)})
