"""A network that is built in no time."""

from __future__ import annotations

from pathlib import Path

from pipelines.data.tokenizer import train_tokenizer
from pipelines.model import IGVGConfig, IGVGModel
from pipelines.pretrained import save_checkpoint

CONFIG = IGVGConfig(
    image_size=32, patch_size=8, encoder_dim=16, encoder_layers=1, encoder_heads=2, encoder_ffn=16, vocab_size=40,
    text_positions=12, hidden_dim=16, num_queries=3, decoder_layers=1, decoder_heads=2, decoder_ffn=16,
    generation_ffn=16,
)  # fmt: skip


def save_small_network(folder: Path) -> Path:
    """A checkpoint folder of a network that was not trained."""
    save_checkpoint(folder, IGVGModel(CONFIG), train_tokenizer(["red star", "blue star"] * 3, 40), 9)
    return folder
