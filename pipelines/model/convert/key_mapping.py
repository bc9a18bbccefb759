"""Which tensors of a published checkpoint each tensor of igvg is made of: most are copies of one under another name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.config.model import IGVGConfig
from pipelines.model.igvg import IGVGModel
from pipelines.model.serialization import report_mismatch

BEIT3 = "vis_enc.beit3."
T2I = "head.query_generation.T2I_decoder."
DECODER = "head.decoder_transformer.decoder."
LEVELS = 4

# Tensors of every published checkpoint that the network's output does not depend on.
IGNORED = re.compile(
    r"vis_enc\.beit3\.vision_embed\.mask_token|head\.query_embedding\.weight|head\.proj_pixel_level_cons\..+"
    r"|head\.query_generation\.query_embed\.weight|head\.decoder_transformer\.level_embeds"
    r"|head\.detrloss\.criterion\.empty_weight"
    r"|head\.query_generation\.T2I_decoder\.layers\.0\.attentions\.0\.attn\.in_proj_weight"
)
# The same tensor once per decoder layer.
SHARED = re.compile(r"head\.(class_embed|bbox_embed)\.[1-9]\d*\.(.+)")

_EXPERT = {
    "attn_norm": "self_attn_layer_norm.{expert}",
    "inner_attn_norm": "self_attn.inner_attn_ln.{expert}",
    "out_proj": "self_attn.out_proj.{expert}",
    "ffn_norm": "final_layer_norm.{expert}",
    "fc1": "ffn.{expert}.fc1",
    "inner_ffn_norm": "ffn.{expert}.ffn_layernorm",
    "fc2": "ffn.{expert}.fc2",
}
_ENCODER = {
    "encoder.patch_embed": BEIT3 + "vision_embed.proj",
    "encoder.text_embed": BEIT3 + "text_embed",
    "encoder.image_norm": BEIT3 + "encoder.layer_norm.A",
    "encoder.text_norm": BEIT3 + "encoder.layer_norm.B",
}
_HEADS = {
    "image_projection": "head.img_embedding",
    "text_projection": "head.lan_embedding",
    "query_generation.cross_attn_norm": T2I + "layers.0.norms.1",
    "query_generation.cross_attn.out_proj": T2I + "layers.0.attentions.1.attn.out_proj",
    "query_generation.ffn.fc1": T2I + "layers.0.ffns.0.layers.0.0",
    "query_generation.ffn.fc2": T2I + "layers.0.ffns.0.layers.1",
    "query_generation.ffn_norm": T2I + "layers.0.norms.2",
    "query_generation.final_norm": T2I + "post_norm_layer",
    "decoder.query_pos_embed": "head.query_pos_embedding",
    "decoder.reference_offset": "head.decoder_transformer.reference_points",
    "class_head": "head.class_embed.0",
    "global_mask_head": "head.seg_branch.predict",
    "feature_pyramid.up4.0": "head.neck.fpn1.0",
    "feature_pyramid.up4.1": "head.neck.fpn1.1",
    "feature_pyramid.up4.3": "head.neck.fpn1.3",
    "feature_pyramid.up2": "head.neck.fpn2.0",
}
_MLPS = {
    "box_head": "head.bbox_embed.0",
    "existence_head": "head.nt_embed",
    "query_generation.fusion_mlp": "head.query_generation.mlp",
}
_DECODER_LAYER = {
    "self_attn.out_proj": "attentions.0.attn.out_proj",
    "self_attn_norm": "norms.0",
    "cross_attn.sampling_offsets": "attentions.1.sampling_offsets",
    "cross_attn.attention_weights": "attentions.1.attention_weights",
    "cross_attn.value_proj": "attentions.1.value_proj",
    "cross_attn.output_proj": "attentions.1.output_proj",
    "cross_attn_norm": "norms.1",
    "ffn.fc1": "ffns.0.layers.0.0",
    "ffn.fc2": "ffns.0.layers.1",
    "ffn_norm": "norms.2",
}


@dataclass(frozen=True)
class TensorSource:
    """The published tensors that one tensor of igvg is made of."""

    keys: tuple[str, ...]
    """Published keys."""
    combine: Callable[..., Tensor] = lambda tensor: tensor
    """Published tensors to ours."""

    def make(self, tensors: Sequence[Tensor], shape: Sequence[int]) -> Tensor | None:
        """Our tensor of the shape given, or None if the published ones do not fit; axes of length 1 may differ."""
        try:
            made = self.combine(*tensors)
        except RuntimeError:
            return None
        fits = [size for size in made.shape if size > 1] == [size for size in shape if size > 1]
        return made.reshape(tuple(shape)) if fits else None


def build_key_mapping(config: IGVGConfig) -> dict[str, TensorSource]:
    """The source of every tensor of igvg, by its name."""
    sources = _list_combined(config)
    modules = _list_modules(config)
    with torch.device("meta"):
        names = IGVGModel(config).state_dict()
    for name in names:
        module, _, leaf = name.rpartition(".")
        if module in modules:
            sources[name] = TensorSource((f"{modules[module]}.{leaf}",))
    return sources


def combine_sources(
    found: Mapping[str, Tensor], sources: Mapping[str, TensorSource], expected: Mapping[str, Tensor], origin: str
) -> dict[str, Tensor]:
    """Our tensors, made of published ones.

    Args:
        found: published tensors.
        sources: the source of each of our tensors.
        expected: tensors of the shapes that ours must have.
        origin: names the file in errors.

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


def _list_modules(config: IGVGConfig) -> dict[str, str]:
    """Our modules, and the published modules whose tensors have the same last names and values."""
    modules = _ENCODER | _HEADS | _list_pixel_modules()
    for layer in range(config.encoder_layers):
        for ours, theirs in (("image", "A"), ("text", "B")):
            prefix = f"encoder.layers.{layer}."
            modules |= {
                f"{prefix}{ours}_expert.{name}": BEIT3 + prefix + key.format(expert=theirs)
                for name, key in _EXPERT.items()
            }
    for layer in range(config.decoder_layers):
        modules |= {
            f"decoder.layers.{layer}.{name}": f"{DECODER}layers.{layer}.{key}" for name, key in _DECODER_LAYER.items()
        }
    for ours, theirs in _MLPS.items():
        modules |= {f"{ours}.fc{layer + 1}": f"{theirs}.layers.{layer}" for layer in range(3)}
    return modules


def _list_combined(config: IGVGConfig) -> dict[str, TensorSource]:
    """Our tensors that are parts of published ones, or made of several."""
    positions = BEIT3 + "encoder.embed_positions."
    sources = {
        "encoder.cls_token": TensorSource((BEIT3 + "vision_embed.cls_token",)),
        "encoder.image_pos_embed": TensorSource((positions + "A.weight",), lambda table: table[2:].clone()),
        "encoder.text_pos_embed": TensorSource((positions + "B.weight",)),
        "query_generation.content_query": _content_query_source(),
    }
    for layer in range(config.encoder_layers):
        for ours, theirs in (("image", "A"), ("text", "B")):
            for leaf in ("weight", "bias"):
                attention = f"{BEIT3}encoder.layers.{layer}.self_attn."
                keys = tuple(f"{attention}{part}_proj.{theirs}.{leaf}" for part in "qkv")
                sources[f"encoder.layers.{layer}.{ours}_expert.qkv.{leaf}"] = TensorSource(
                    keys, lambda *parts: torch.cat(parts)
                )
    for layer in range(config.decoder_layers):
        attention = f"{DECODER}layers.{layer}.attentions.0.attn.in_proj_"
        parts = {"qk_proj": (0, 2), "v_proj": (2, 3)}
        sources |= _split_projection(f"decoder.layers.{layer}.self_attn.", attention, parts)
    attention = T2I + "layers.0.attentions.1.attn.in_proj_"
    parts = {"q_proj": (0, 1), "k_proj": (1, 2), "v_proj": (2, 3)}
    return sources | _split_projection("query_generation.cross_attn.", attention, parts)


def _split_projection(ours: str, theirs: str, parts: Mapping[str, tuple[int, int]]) -> dict[str, TensorSource]:
    """Sources of our projections in a packed one: each takes the thirds (queries, keys, values) from first to last."""

    def cut(first: int, last: int) -> Callable[[Tensor], Tensor]:
        return lambda rows: rows[first * len(rows) // 3 : last * len(rows) // 3].clone()

    return {
        f"{ours}{name}.{leaf}": TensorSource((theirs + leaf,), cut(first, last))
        for name, (first, last) in parts.items()
        for leaf in ("weight", "bias")
    }


def _content_query_source() -> TensorSource:
    """The vector that the published self-attention over zeros returns for every query, after its norm."""
    layer = T2I + "layers.0."
    attention = layer + "attentions.0.attn."

    def combine(inputs: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        constant = weight @ inputs[-len(bias) :] + bias
        return F.layer_norm(constant, constant.shape, scale, shift)

    keys = (attention + "in_proj_bias", attention + "out_proj.weight", attention + "out_proj.bias")
    return TensorSource((*keys, layer + "norms.0.weight", layer + "norms.0.bias"), combine)


def _list_pixel_modules() -> dict[str, str]:
    modules = {}
    for level in range(LEVELS):
        for name in ("lateral_convs", "fpn_convs"):
            modules[f"feature_pyramid.{name}.{level}.0"] = f"head.neck.{name}.{level}.conv"
            modules[f"feature_pyramid.{name}.{level}.1"] = f"head.neck.{name}.{level}.norm_layer"
    for block, depth in enumerate((4, 3, 2)):
        for name in ("conv1", "bn1", "conv2", "bn2"):
            modules[f"pixel_decoder.blocks.{block}.{name}"] = f"head.unet_decoder.{name}_{depth}"
    return modules
