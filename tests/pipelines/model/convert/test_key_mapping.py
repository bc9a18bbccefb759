"""Where every tensor of a published checkpoint goes, key by key: the published names are fixed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipelines.model import IGVGModel
from pipelines.model.convert.instancevg import convert_state
from tests.support.published_network import CONFIG, make_published

B, T, D = "vis_enc.beit3.", "head.query_generation.T2I_decoder.layers.0.", "head.decoder_transformer.decoder."
# Modules whose tensors are copied under their own last names; {n} is a layer, {m} our modality, {M} theirs.
MODULES = {
    "encoder.patch_embed": B + "vision_embed.proj",
    "encoder.text_embed": B + "text_embed",
    "encoder.layers.{n}.{m}_expert.attn_norm": B + "encoder.layers.{n}.self_attn_layer_norm.{M}",
    "encoder.layers.{n}.{m}_expert.inner_attn_norm": B + "encoder.layers.{n}.self_attn.inner_attn_ln.{M}",
    "encoder.layers.{n}.{m}_expert.out_proj": B + "encoder.layers.{n}.self_attn.out_proj.{M}",
    "encoder.layers.{n}.{m}_expert.ffn_norm": B + "encoder.layers.{n}.final_layer_norm.{M}",
    "encoder.layers.{n}.{m}_expert.fc1": B + "encoder.layers.{n}.ffn.{M}.fc1",
    "encoder.layers.{n}.{m}_expert.inner_ffn_norm": B + "encoder.layers.{n}.ffn.{M}.ffn_layernorm",
    "encoder.layers.{n}.{m}_expert.fc2": B + "encoder.layers.{n}.ffn.{M}.fc2",
    "encoder.{m}_norm": B + "encoder.layer_norm.{M}",
    "image_projection": "head.img_embedding",
    "text_projection": "head.lan_embedding",
    "query_generation.cross_attn.out_proj": T + "attentions.1.attn.out_proj",
    "query_generation.cross_attn_norm": T + "norms.1",
    "query_generation.ffn.fc1": T + "ffns.0.layers.0.0",
    "query_generation.ffn.fc2": T + "ffns.0.layers.1",
    "query_generation.ffn_norm": T + "norms.2",
    "query_generation.final_norm": "head.query_generation.T2I_decoder.post_norm_layer",
    "query_generation.fusion_mlp.fc1": "head.query_generation.mlp.layers.0",
    "query_generation.fusion_mlp.fc2": "head.query_generation.mlp.layers.1",
    "query_generation.fusion_mlp.fc3": "head.query_generation.mlp.layers.2",
    "feature_pyramid.up4.0": "head.neck.fpn1.0",
    "feature_pyramid.up4.1": "head.neck.fpn1.1",
    "feature_pyramid.up4.3": "head.neck.fpn1.3",
    "feature_pyramid.up2": "head.neck.fpn2.0",
    **{f"feature_pyramid.lateral_convs.{level}.0": f"head.neck.lateral_convs.{level}.conv" for level in range(4)},
    **{f"feature_pyramid.lateral_convs.{level}.1": f"head.neck.lateral_convs.{level}.norm_layer" for level in range(4)},
    **{f"feature_pyramid.fpn_convs.{level}.0": f"head.neck.fpn_convs.{level}.conv" for level in range(4)},
    **{f"feature_pyramid.fpn_convs.{level}.1": f"head.neck.fpn_convs.{level}.norm_layer" for level in range(4)},
    "pixel_decoder.blocks.0.conv1": "head.unet_decoder.conv1_4",
    "pixel_decoder.blocks.0.bn1": "head.unet_decoder.bn1_4",
    "pixel_decoder.blocks.0.conv2": "head.unet_decoder.conv2_4",
    "pixel_decoder.blocks.0.bn2": "head.unet_decoder.bn2_4",
    "pixel_decoder.blocks.1.conv1": "head.unet_decoder.conv1_3",
    "pixel_decoder.blocks.1.bn1": "head.unet_decoder.bn1_3",
    "pixel_decoder.blocks.1.conv2": "head.unet_decoder.conv2_3",
    "pixel_decoder.blocks.1.bn2": "head.unet_decoder.bn2_3",
    "pixel_decoder.blocks.2.conv1": "head.unet_decoder.conv1_2",
    "pixel_decoder.blocks.2.bn1": "head.unet_decoder.bn1_2",
    "pixel_decoder.blocks.2.conv2": "head.unet_decoder.conv2_2",
    "pixel_decoder.blocks.2.bn2": "head.unet_decoder.bn2_2",
    "decoder.query_pos_embed": "head.query_pos_embedding",
    "decoder.reference_offset": "head.decoder_transformer.reference_points",
    "decoder.layers.{n}.self_attn.out_proj": D + "layers.{n}.attentions.0.attn.out_proj",
    "decoder.layers.{n}.self_attn_norm": D + "layers.{n}.norms.0",
    "decoder.layers.{n}.cross_attn.sampling_offsets": D + "layers.{n}.attentions.1.sampling_offsets",
    "decoder.layers.{n}.cross_attn.attention_weights": D + "layers.{n}.attentions.1.attention_weights",
    "decoder.layers.{n}.cross_attn.value_proj": D + "layers.{n}.attentions.1.value_proj",
    "decoder.layers.{n}.cross_attn.output_proj": D + "layers.{n}.attentions.1.output_proj",
    "decoder.layers.{n}.cross_attn_norm": D + "layers.{n}.norms.1",
    "decoder.layers.{n}.ffn.fc1": D + "layers.{n}.ffns.0.layers.0.0",
    "decoder.layers.{n}.ffn.fc2": D + "layers.{n}.ffns.0.layers.1",
    "decoder.layers.{n}.ffn_norm": D + "layers.{n}.norms.2",
    "class_head": "head.class_embed.0",
    "box_head.fc1": "head.bbox_embed.0.layers.0",
    "box_head.fc2": "head.bbox_embed.0.layers.1",
    "box_head.fc3": "head.bbox_embed.0.layers.2",
    "global_mask_head": "head.seg_branch.predict",
    "existence_head.fc1": "head.nt_embed.layers.0",
    "existence_head.fc2": "head.nt_embed.layers.1",
    "existence_head.fc3": "head.nt_embed.layers.2",
}
# Found by `test_self_attention_over_zeros_becomes_the_vector_it_always_returns`.
ELSEWHERE = {"query_generation.content_query"}


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """No two tensors hold the same values."""
    state = make_published()
    for number, key in enumerate(sorted(state)):
        if state[key].is_floating_point() and "_embed.1" not in key:
            state[key] = state[key] + number
    for key in [key for key in state if ".class_embed.1" in key or ".bbox_embed.1" in key]:
        state[key] = state[key.replace("_embed.1", "_embed.0")]
    return state


def expect(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors, put together from theirs as the table says."""
    modules = {
        ours.format(n=n, m=m): theirs.format(n=n, M=M)
        for ours, theirs in MODULES.items()
        for n in range(2)
        for m, M in (("image", "A"), ("text", "B"))
    }
    state = {
        f"{ours}.{key.removeprefix(theirs + '.')}": tensor
        for ours, theirs in modules.items()
        for key, tensor in published.items()
        if key.rpartition(".")[0] == theirs
    }
    channels = CONFIG.hidden_dim
    for leaf in ("weight", "bias"):
        for n in range(2):
            for m, modality in (("image", "A"), ("text", "B")):
                attention = f"{B}encoder.layers.{n}.self_attn."
                parts = [published[f"{attention}{part}_proj.{modality}.{leaf}"] for part in ("q", "k", "v")]
                state[f"encoder.layers.{n}.{m}_expert.qkv.{leaf}"] = torch.cat(parts)
            packed = published[f"{D}layers.{n}.attentions.0.attn.in_proj_{leaf}"]
            state[f"decoder.layers.{n}.self_attn.qk_proj.{leaf}"] = packed[: 2 * channels]
            state[f"decoder.layers.{n}.self_attn.v_proj.{leaf}"] = packed[2 * channels :]
        packed = published[f"{T}attentions.1.attn.in_proj_{leaf}"]
        for part, name in enumerate(("q_proj", "k_proj", "v_proj")):
            state[f"query_generation.cross_attn.{name}.{leaf}"] = packed[part * channels : (part + 1) * channels]
    state["encoder.cls_token"] = published[B + "vision_embed.cls_token"]
    # The first two of 3 + cells rows belong to no token of ours.
    state["encoder.image_pos_embed"] = published[B + "encoder.embed_positions.A.weight"][2:]
    state["encoder.text_pos_embed"] = published[B + "encoder.embed_positions.B.weight"]
    return state


def test_every_tensor_of_ours_is_the_published_one_of_the_table(published: dict[str, Tensor]) -> None:
    expected, (_, state) = expect(published), convert_state(published)
    assert state.keys() - ELSEWHERE == expected.keys() == IGVGModel(CONFIG).state_dict().keys() - ELSEWHERE
    different = [name for name, tensor in expected.items() if not torch.equal(tensor.flatten(), state[name].flatten())]
    assert different == []
