"""Published InstanceVG checkpoints: their 697 tensors to igvg's, and igvg's configuration from their shapes."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from pathlib import Path

import torch
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
    build_key_mapping,
    combine_sources,
)
from pipelines.model.convert.torch_file import read_tensors
from pipelines.model.igvg import IGVGModel
from pipelines.model.serialization import report_mismatch
from shards.errors import CheckpointError, SettingsError

_HEAD_CHANNELS = 64
"""Channels of an attention head, the same in BEiT-3 base and large."""
_DECODER_HEADS = 8
_MAX_TOKENS, _MAX_TOKENS_OF_ONE_QUERY = 50, 20


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


def convert_state(published: Mapping[str, Tensor], origin: str = "checkpoint") -> tuple[IGVGConfig, dict[str, Tensor]]:
    """A published InstanceVG state as a configuration and tensors of ours, which may share memory with it.

    Raises:
        CheckpointError: tensors are missing, unexpected or of the wrong shape; `origin` names the file.
    """
    config = infer_config(published, origin)
    with torch.device("meta"):
        expected = IGVGModel(config).state_dict()
    sources = build_key_mapping(config)
    state = combine_sources(published, sources, expected, origin)
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


def _is_shared(published: Mapping[str, Tensor], key: str) -> bool:
    """Whether a head of a later decoder layer equals the first layer's: igvg has one for all layers."""
    match = SHARED.fullmatch(key)
    first = published.get(f"head.{match[1]}.0.{match[2]}") if match else None
    return first is not None and torch.equal(first, published[key])


def _count_layers(published: Mapping[str, Tensor], prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in published if key.startswith(prefix)})
