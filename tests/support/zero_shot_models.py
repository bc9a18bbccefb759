"""A very small random model of every zero-shot family, saved with a tokenizer that is made here."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from pipelines.prediction.families import FAMILIES
from pipelines.prediction.transformers_model import quiet

TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
WIDTH = 32
SIDE = 64
VERSION = int(transformers.__version__.partition(".")[0])


def need_torchvision(family: str) -> Any:
    """A family as a parameter of a test: skipped without torchvision, or where transformers lacks the model."""
    absent = importlib.util.find_spec("torchvision") is None or not hasattr(transformers, FAMILIES[family].model_class)
    reason = f"the processor of {family} needs torchvision, and that of SAM 3 transformers 5"
    return pytest.param(family, marks=pytest.mark.skipif(absent, reason=reason))


def save_model(family: str, folder: Path) -> Path:
    """A random model of a family, its processor and its tokenizer in a folder."""
    torch.manual_seed(7)
    model, processor = BUILDERS[family](folder)
    with torch.no_grad():
        for parameter in model.parameters():
            # Otherwise all queries of a fresh network give nearly the same.
            parameter.add_(torch.randn_like(parameter) * 0.05)
    with quiet():
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder


def image_processor(name: str, **settings: Any) -> Any:
    """An image processor that works with Pillow, which transformers 4 and 5 call differently."""
    kind = getattr(transformers, f"{name}Pil" if VERSION >= 5 else name)
    return kind(**settings)


def make_bert_tokenizer(folder: Path) -> Any:
    """A BERT tokenizer that knows characters; letters inside a word continue it."""
    folder.mkdir(parents=True, exist_ok=True)
    characters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    # GroundingDINO looks for the ids of [CLS], [SEP], "." and "?".
    special = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}
    words = [f"[unused{index}]" for index in range(1030)]
    for index, word in special.items():
        words[index] = word
    rest = [c for c in characters if c not in ".?"]
    for index, word in enumerate([*rest, *(f"##{c}" for c in characters)], start=200):
        words[index] = word
    file = folder / "vocab.txt"
    file.write_text("\n".join(words) + "\n", encoding="utf-8")
    return transformers.BertTokenizerFast(str(file), model_max_length=512)


def make_clip_tokenizer(folder: Path, length: int) -> Any:
    """A CLIP tokenizer that knows bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    names = ("vocab", "merges") if VERSION >= 5 else ("vocab_file", "merges_file")
    files = dict(zip(names, map(str, (folder / "vocab.json", folder / "merges.txt")), strict=True))
    return transformers.CLIPTokenizerFast(**files, model_max_length=length)


def swin() -> Any:
    return transformers.SwinConfig(
        image_size=SIDE, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
        out_indices=[2, 3, 4],
    )  # fmt: skip


def build_grounding_dino(folder: Path, prefix: str = "GroundingDino") -> tuple[Any, Any]:
    tokenizer = make_bert_tokenizer(folder)
    bert = transformers.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=512, **TEXT)
    config = getattr(transformers, f"{prefix}Config")(
        backbone_config=swin(), text_config=bert, d_model=WIDTH, num_queries=9, encoder_layers=1, decoder_layers=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_n_points=2, decoder_n_points=2,
    )  # fmt: skip
    images = image_processor("GroundingDinoImageProcessor", size={"shortest_edge": SIDE, "longest_edge": 2 * SIDE})
    processor = transformers.GroundingDinoProcessor(images, tokenizer)
    return getattr(transformers, f"{prefix}ForObjectDetection")(config), processor


def build_owl(folder: Path, prefix: str = "OwlViT") -> tuple[Any, Any]:
    tokenizer = make_clip_tokenizer(folder, 16)
    text = clip_text(tokenizer, 16)
    vision = {**TEXT, "image_size": SIDE, "patch_size": 16}
    config = getattr(transformers, f"{prefix}Config")(text_config=text, vision_config=vision, projection_dim=16)
    size = {"height": SIDE, "width": SIDE}
    images = image_processor(f"{prefix}ImageProcessor", size=size)
    processor = getattr(transformers, f"{prefix}Processor")(images, tokenizer)
    return getattr(transformers, f"{prefix}ForObjectDetection")(config), processor


def build_omdet_turbo(folder: Path) -> tuple[Any, Any]:
    tokenizer = make_clip_tokenizer(folder, 77)
    text = clip_text(tokenizer, 77)
    config = transformers.OmDetTurboConfig(
        backbone_config=swin(), text_config=transformers.CLIPTextConfig(**text, projection_dim=16), image_size=SIDE,
        encoder_in_channels=[16, 32, 64], vision_features_channels=[32, 32, 32], encoder_hidden_dim=32,
        decoder_hidden_dim=32, encoder_attention_heads=2, decoder_num_heads=2, decoder_num_layers=2,
        encoder_dim_feedforward=32, decoder_dim_feedforward=32, decoder_num_points=2, num_queries=9,
        class_embed_dim=16, task_encoder_hidden_dim=16, text_projection_in_dim=16, text_projection_out_dim=16,
        apply_layernorm_after_vision_backbone=False,
    )  # fmt: skip
    images = image_processor("DetrImageProcessor", size={"height": SIDE, "width": SIDE}, do_pad=False)
    return transformers.OmDetTurboForObjectDetection(config), transformers.OmDetTurboProcessor(images, tokenizer)


def build_sam3(folder: Path) -> tuple[Any, Any]:
    tokenizer = make_clip_tokenizer(folder, 32)
    side = 56
    backbone = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                "image_size": side, "patch_size": 14, "window_size": 2, "pretrain_image_size": 28,
                "global_attn_indexes": [1]}  # fmt: skip
    layers = {"hidden_size": 16, "num_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.Sam3Config(
        vision_config={"backbone_config": {"model_type": "sam3_vit_model", **backbone}, "fpn_hidden_size": 16,
                       "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]},
        text_config={"model_type": "clip_text_model", **clip_text(tokenizer, 32), "projection_dim": 16},
        geometry_encoder_config=layers, detr_encoder_config=layers, detr_decoder_config={**layers, "num_queries": 5},
        mask_decoder_config={"hidden_size": 16, "num_attention_heads": 2},
    )  # fmt: skip
    images = transformers.Sam3ImageProcessor(size={"height": side, "width": side})
    return transformers.Sam3Model(config), transformers.Sam3Processor(images, tokenizer)


def build_sam(folder: Path) -> tuple[Any, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"image_size": SIDE, "patch_size": 16}
    config = transformers.SamConfig(
        vision_config={"hidden_size": 16, "output_channels": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
                       "window_size": 2, "global_attn_indexes": [1], "num_pos_feats": 8, "mlp_dim": 32, **sizes},
        prompt_encoder_config={"hidden_size": 16, "image_embedding_size": SIDE // 16, **sizes},
        mask_decoder_config={"hidden_size": 16, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
    )  # fmt: skip
    size, mask_size = {"longest_edge": SIDE}, {"longest_edge": SIDE // 4}
    images = image_processor(
        "SamImageProcessor", size=size, mask_size=mask_size, pad_size={"height": SIDE, "width": SIDE},
        mask_pad_size={"height": SIDE // 4, "width": SIDE // 4},
    )  # fmt: skip
    return transformers.SamModel(config), transformers.SamProcessor(images)


def configure_sam2() -> Any:
    backbone = {"model_type": "sam2_hiera_det_model", "hidden_size": 8, "image_size": [SIDE, SIDE],
                "blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64],
                "num_attention_heads_per_stage": [1, 1, 2, 2], "window_size_per_stage": [4, 4, 4, 2],
                "global_attention_blocks": [3]}  # fmt: skip
    vision = {"backbone_config": backbone, "backbone_channel_list": [64, 32, 16, 8], "fpn_hidden_size": 32,
              "backbone_feature_sizes": [[SIDE // 4] * 2, [SIDE // 8] * 2, [SIDE // 16] * 2]}  # fmt: skip
    return transformers.Sam2Config(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 32, "image_size": SIDE, "patch_size": 16},
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
    )


def build_sam2(folder: Path) -> tuple[Any, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    size, mask_size = {"height": SIDE, "width": SIDE}, {"height": SIDE // 4, "width": SIDE // 4}
    images = transformers.Sam2ImageProcessor(size=size, mask_size=mask_size)
    return transformers.Sam2Model(configure_sam2()), transformers.Sam2Processor(images)


def clip_text(tokenizer: Any, length: int) -> dict[str, int]:
    end = len(tokenizer) - 1
    return {**TEXT, "vocab_size": len(tokenizer), "max_position_embeddings": length, "bos_token_id": end - 1,
            "eos_token_id": end, "pad_token_id": end}  # fmt: skip


BUILDERS: dict[str, Callable[[Path], tuple[Any, Any]]] = {
    "grounding-dino": build_grounding_dino,
    "mm-grounding-dino": lambda folder: build_grounding_dino(folder, "MMGroundingDino"),
    "owlvit": build_owl,
    "owlv2": lambda folder: build_owl(folder, "Owlv2"),
    "omdet-turbo": build_omdet_turbo,
    "sam3": build_sam3,
    "sam": build_sam,
    "sam2": build_sam2,
}
