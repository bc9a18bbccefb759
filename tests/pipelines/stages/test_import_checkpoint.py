"""What `igvg import` refuses before it writes a file, and what it counts."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
import sentencepiece
import torch

from pipelines.stages import import_checkpoint
from shards.errors import SettingsError
from tests.support.published_network import CONFIG, make_published


def write_file(folder: Path) -> Path:
    torch.save(make_published(), folder / "published.pth")
    return folder / "published.pth"


def write_pieces(folder: Path, size: int) -> Path:
    """A SentencePiece file of so many pieces."""
    texts = [f"{first}{second} {second}{first}{first}" for first in string.ascii_lowercase for second in "aeiou"]
    (folder / "texts.txt").write_text("\n".join(texts))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "texts.txt"), model_prefix=str(folder / f"pieces{size}"), vocab_size=size, minloglevel=2
    )
    return folder / f"pieces{size}.model"


def test_a_tokenizer_with_more_ids_than_the_network_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    pieces = write_pieces(tmp_path, 60)
    with pytest.raises(SettingsError, match=r"pieces60\.model has 6\d ids, and .*published\.pth room for 40"):
        import_checkpoint.run(write_file(tmp_path), tmp_path / "ours", tokenizer=pieces)
    assert not (tmp_path / "ours").exists()


def test_the_sizes_of_what_was_imported_are_counted(tmp_path: Path) -> None:
    result = import_checkpoint.run(write_file(tmp_path), tmp_path / "ours")
    assert not result.cached
    counts = result.counts
    assert (counts["image_size"], counts["queries"], counts["tokenizer"]) == (32, CONFIG.num_queries, False)
    assert counts["encoder_layers"] == CONFIG.encoder_layers
