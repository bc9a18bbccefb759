"""Where each of our tensors comes from in a published checkpoint: a table of names, and the few that combine several.

A source is published keys and how they become one tensor of ours; most are one key and a copy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.config.model import IGVGConfig
from pipelines.model.igvg import IGVGModel

BEIT3 = "vis_enc.beit3."
T2I = "head.query_generation.T2I_decoder."
DECODER = "head.decoder_transformer.decoder."
LEVELS = 4

# Present in every published checkpoint, but nothing that the network returns depends on them.
IGNORED = re.compile(
    r"vis_enc\.beit3\.vision_embed\.mask_token|head\.query_embedding\.weight|head\.proj_pixel_level_cons\..+"
    r"|head\.query_generation\.query_embed\.weight|head\.decoder_transformer\.level_embeds"
    r"|head\.detrloss\.criterion\.empty_weight"
    r"|head\.query_generation\.T2I_decoder\.layers\.0\.attentions\.0\.attn\.in_proj_weight"
)
# The same tensor once per decoder layer.
SHARED = re.compile(r"head\.(class_embed|bbox_embed)\.[1-9]\d*\.(.+)")

_EXPERT = {
    "attention_norm": "self_attn_layer_norm.{expert}",
    "mixed_norm": "self_attn.inner_attn_ln.{expert}",
    "out": "self_attn.out_proj.{expert}",
    "ffn_norm": "final_layer_norm.{expert}",
    "expand": "ffn.{expert}.fc1",
    "hidden_norm": "ffn.{expert}.ffn_layernorm",
    "contract": "ffn.{expert}.fc2",
}
_ENCODER = {
    "encoder.patches": BEIT3 + "vision_embed.proj",
    "encoder.words": BEIT3 + "text_embed",
    "encoder.image_norm": BEIT3 + "encoder.layer_norm.A",
    "encoder.text_norm": BEIT3 + "encoder.layer_norm.B",
}
_HEADS = {
    "image_projection": "head.img_embedding",
    "text_projection": "head.lan_embedding",
    "generation.attention_norm": T2I + "layers.0.norms.1",
    "generation.attention.out": T2I + "layers.0.attentions.1.attn.out_proj",
    "generation.ffn.expand": T2I + "layers.0.ffns.0.layers.0.0",
    "generation.ffn.contract": T2I + "layers.0.ffns.0.layers.1",
    "generation.ffn_norm": T2I + "layers.0.norms.2",
    "generation.final_norm": T2I + "post_norm_layer",
    "decoder.positions": "head.query_pos_embedding",
    "decoder.shift": "head.decoder_transformer.reference_points",
    "class_head": "head.class_embed.0",
    "global_head": "head.seg_branch.predict",
    "pyramid.finest.0": "head.neck.fpn1.0",
    "pyramid.finest.1": "head.neck.fpn1.1",
    "pyramid.finest.3": "head.neck.fpn1.3",
    "pyramid.fine": "head.neck.fpn2.0",
}
_MLPS = {
    "box_head": "head.bbox_embed.0",
    "existence_head": "head.nt_embed",
    "generation.pair": "head.query_generation.mlp",
}
_DECODER_LAYER = {
    "attention.out": "attentions.0.attn.out_proj",
    "attention_norm": "norms.0",
    "sampling.offsets": "attentions.1.sampling_offsets",
    "sampling.weights": "attentions.1.attention_weights",
    "sampling.value": "attentions.1.value_proj",
    "sampling.out": "attentions.1.output_proj",
    "sampling_norm": "norms.1",
    "ffn.expand": "ffns.0.layers.0.0",
    "ffn.contract": "ffns.0.layers.1",
    "ffn_norm": "norms.2",
}


@dataclass(frozen=True)
class TensorSource:
    """Where a tensor of ours comes from."""

    keys: tuple[str, ...]
    """Published keys."""
    combine: Callable[..., Tensor] = lambda tensor: tensor
    """Makes our tensor of theirs."""

    def make(self, tensors: Sequence[Tensor], shape: Sequence[int]) -> Tensor | None:
        """Our tensor of the shape given, or None where the published ones do not fit; axes of length 1 may differ."""
        try:
            made = self.combine(*tensors)
        except RuntimeError:
            return None
        fits = [size for size in made.shape if size > 1] == [size for size in shape if size > 1]
        return made.reshape(tuple(shape)) if fits else None


def build_key_mapping(config: IGVGConfig) -> dict[str, TensorSource]:
    """The published source of each of our tensors."""
    sources = _list_combined(config)
    modules = _list_modules(config)
    with torch.device("meta"):
        names = IGVGModel(config).state_dict()
    for name in names:
        module, _, leaf = name.rpartition(".")
        if module in modules:
            sources[name] = TensorSource((f"{modules[module]}.{leaf}",))
    return sources


def _list_modules(config: IGVGConfig) -> dict[str, str]:
    """Our modules whose tensors have the same names and contents in a published module."""
    modules = _ENCODER | _HEADS | _list_pixel_modules()
    for number in range(config.encoder_layers):
        for ours, theirs in (("image", "A"), ("text", "B")):
            modules |= {
                f"encoder.layers.{number}.{ours}.{name}": f"{BEIT3}encoder.layers.{number}.{key.format(expert=theirs)}"
                for name, key in _EXPERT.items()
            }
    for number in range(config.decoder_layers):
        modules |= {
            f"decoder.layers.{number}.{name}": f"{DECODER}layers.{number}.{key}" for name, key in _DECODER_LAYER.items()
        }
    for ours, theirs in _MLPS.items():
        for place, name in enumerate(("first", "second", "last")):
            modules[f"{ours}.{name}"] = f"{theirs}.layers.{place}"
    return modules


def _list_combined(config: IGVGConfig) -> dict[str, TensorSource]:
    """Our tensors that are parts of published ones, or several of them together."""
    positions = BEIT3 + "encoder.embed_positions."
    sources = {
        "encoder.class_token": TensorSource((BEIT3 + "vision_embed.cls_token",)),
        "encoder.image_positions": TensorSource((positions + "A.weight",), lambda table: table[2:].clone()),
        "encoder.text_positions": TensorSource((positions + "B.weight",)),
        "generation.content": _find_content(),
    }
    for number in range(config.encoder_layers):
        for ours, theirs in (("image", "A"), ("text", "B")):
            for leaf in ("weight", "bias"):
                attention = f"{BEIT3}encoder.layers.{number}.self_attn."
                keys = tuple(f"{attention}{part}_proj.{theirs}.{leaf}" for part in "qkv")
                sources[f"encoder.layers.{number}.{ours}.qkv.{leaf}"] = TensorSource(
                    keys, lambda *parts: torch.cat(parts)
                )
    for number in range(config.decoder_layers):
        attention = f"{DECODER}layers.{number}.attentions.0.attn.in_proj_"
        parts = {"query_key": (0, 2), "value": (2, 3)}
        sources |= _split_projection(f"decoder.layers.{number}.attention.", attention, parts)
    attention = T2I + "layers.0.attentions.1.attn.in_proj_"
    parts = {"query": (0, 1), "key": (1, 2), "value": (2, 3)}
    return sources | _split_projection("generation.attention.", attention, parts)


def _split_projection(ours: str, theirs: str, parts: Mapping[str, tuple[int, int]]) -> dict[str, TensorSource]:
    """Thirds, from one up to another, of a projection to queries, keys and values at once."""

    def cut(first: int, last: int) -> Callable[[Tensor], Tensor]:
        return lambda rows: rows[first * len(rows) // 3 : last * len(rows) // 3].clone()

    return {
        f"{ours}{name}.{leaf}": TensorSource((theirs + leaf,), cut(first, last))
        for name, (first, last) in parts.items()
        for leaf in ("weight", "bias")
    }


def _find_content() -> TensorSource:
    """What the published self-attention over zeros returns for every query, after its norm."""
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
        for ours, theirs in (("lateral", "lateral_convs"), ("smooth", "fpn_convs")):
            modules[f"pyramid.{ours}.{level}.0"] = f"head.neck.{theirs}.{level}.conv"
            modules[f"pyramid.{ours}.{level}.1"] = f"head.neck.{theirs}.{level}.norm_layer"
    for stage, depth in enumerate((4, 3, 2)):
        for ours, number in (("merge", 1), ("refine", 2)):
            modules[f"pixel_decoder.stages.{stage}.{ours}"] = f"head.unet_decoder.conv{number}_{depth}"
            modules[f"pixel_decoder.stages.{stage}.{ours}_norm"] = f"head.unet_decoder.bn{number}_{depth}"
    return modules
