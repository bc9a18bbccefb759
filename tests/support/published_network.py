"""A made-up published checkpoint of a small size: the names of the real one, other shapes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pipelines.model import IGVGConfig, IGVGModel
from pipelines.model.convert.key_mapping import build_key_mapping

CONFIG = IGVGConfig(
    image_size=32, patch_size=8, encoder_dim=64, encoder_layers=2, encoder_heads=1, encoder_ffn=16, vocab_size=40,
    text_positions=20, hidden_dim=16, num_queries=3, decoder_layers=2, decoder_heads=8, decoder_ffn=24,
    generation_ffn=12, sampling_points=2, text_score="mean",
)  # fmt: skip
T2I = "head.query_generation.T2I_decoder.layers.0."


def make_published(config: IGVGConfig = CONFIG) -> dict[str, Tensor]:
    """A state with the names and shapes of a published checkpoint of that size, whose images have 4 × 4 patches."""
    channels, shapes, sources = config.hidden_dim, {}, build_key_mapping(config)
    for name, tensor in IGVGModel(config).state_dict().items():
        keys = sources[name].keys
        for key in keys:
            shapes[key] = tuple(tensor.shape)
            if ".in_proj_" in key:
                shapes[key] = (3 * channels, *tensor.shape[1:])
            elif len(keys) == 3:
                shapes[key] = (tensor.shape[0] // 3, *tensor.shape[1:])
    shapes[T2I + "attentions.0.attn.in_proj_weight"] = (3 * channels, channels)
    shapes[T2I + "attentions.0.attn.out_proj.weight"] = (channels, channels)
    shapes["vis_enc.beit3.encoder.embed_positions.A.weight"] = (19, 64)
    shapes["head.query_generation.query_embed.weight"] = (config.num_queries, channels)
    shapes["head.decoder_transformer.level_embeds"] = (4, channels)
    generator = torch.Generator().manual_seed(0)
    state = {key: torch.randn(shape, generator=generator) * 0.1 for key, shape in shapes.items()}
    for key in list(state):
        if ".num_batches_tracked" in key:
            state[key] = torch.tensor(5)
        elif key.endswith("running_var"):
            state[key] = state[key].abs() + 0.5
        elif key.startswith(("head.class_embed.0", "head.bbox_embed.0")):
            state[key.replace("_embed.0", "_embed.1")] = state[key]
    return state


def write_published_tokenizer(folder: Path, texts: list[str]) -> Path:
    """A beit3.spm of fewer ids than the network has, trained on texts; returns the file."""
    import sentencepiece

    (folder / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "texts.txt"), model_prefix=str(folder / "beit3"), vocab_size=38, hard_vocab_limit=False,
        minloglevel=2,
    )  # fmt: skip
    return (folder / "beit3.model").rename(folder / "beit3.spm")
