"""What `igvg import` refuses before it writes a file, and what it counts."""

from __future__ import annotations

import json
import string
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch

from pipelines.model import IGVGConfig, IGVGModel
from pipelines.pretrained import open_checkpoint
from pipelines.stages import import_checkpoint
from pipelines.stages.import_checkpoint import ImportOptions
from shards.errors import ArtifactError, CheckpointError, SettingsError
from tests.support.published_network import CONFIG, make_published

REFCOCO = replace(CONFIG, num_queries=1, text_positions=60)


def write_file(folder: Path, config: IGVGConfig = CONFIG) -> Path:
    torch.save(make_published(config), folder / "published.pth")
    return folder / "published.pth"


def read_max_tokens(folder: Path) -> int:
    return json.loads((folder / "preprocessor_config.json").read_text())["max_tokens"]


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
    with pytest.raises(SettingsError, match=r"pieces60\.model has ids up to 6\d, and .*published\.pth room for 40"):
        import_checkpoint.run(write_file(tmp_path), tmp_path / "ours", tokenizer=pieces)
    assert not (tmp_path / "ours").exists()


def test_the_sizes_of_what_was_imported_are_counted(tmp_path: Path) -> None:
    result = import_checkpoint.run(write_file(tmp_path), tmp_path / "ours")
    assert not result.cached
    counts = result.counts
    assert (counts["image_size"], counts["queries"], counts["tokenizer"]) == (32, CONFIG.num_queries, False)
    assert counts["encoder_layers"] == CONFIG.encoder_layers


@pytest.mark.parametrize(("queries", "positions", "expected"), [(1, 60, 20), (3, 60, 50), (1, 15, 13), (3, 20, 18)])
def test_the_token_limit_is_that_of_the_published_training(
    tmp_path: Path, queries: int, positions: int, expected: int
) -> None:
    file = write_file(tmp_path, replace(CONFIG, num_queries=queries, text_positions=positions))
    assert import_checkpoint.run(file, tmp_path / "ours").counts["max_tokens"] == expected
    assert read_max_tokens(tmp_path / "ours") == expected


def test_a_published_file_opens_with_the_limit_that_its_import_would_write(tmp_path: Path) -> None:
    file = write_file(tmp_path, REFCOCO)
    write_pieces(tmp_path, 38).rename(tmp_path / "beit3.spm")
    import_checkpoint.run(file, tmp_path / "ours")
    assert open_checkpoint(file)[2] == open_checkpoint(tmp_path / "ours")[2] == 20


def test_a_limit_of_ones_own_is_written_if_there_are_as_many_text_positions(tmp_path: Path) -> None:
    file = write_file(tmp_path, REFCOCO)
    import_checkpoint.run(file, tmp_path / "ours", ImportOptions(max_tokens=58))
    assert read_max_tokens(tmp_path / "ours") == 58
    assert import_checkpoint.run(file, tmp_path / "ours", ImportOptions(max_tokens=58)).cached
    with pytest.raises(ArtifactError, match="max_tokens 58 → unset"):
        import_checkpoint.run(file, tmp_path / "ours")
    for limit in (2, 59):
        with pytest.raises(SettingsError, match=rf"max_tokens is {limit}, not from 3 to 58, the text positions of"):
            import_checkpoint.run(file, tmp_path / "other", ImportOptions(max_tokens=limit))
    assert not (tmp_path / "other").exists()


def test_an_import_with_the_limit_of_an_earlier_version_is_not_taken_for_finished(tmp_path: Path) -> None:
    file = write_file(tmp_path, REFCOCO)
    import_checkpoint.run(file, tmp_path / "ours")
    record = json.loads((tmp_path / "ours" / "artifact.json").read_text())
    del record["counts"]["max_tokens"]
    (tmp_path / "ours" / "artifact.json").write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match="by an earlier igvg with 50 tokens, but trained with 20; add --force"):
        import_checkpoint.run(file, tmp_path / "ours")
    assert not import_checkpoint.run(file, tmp_path / "ours", force=True).cached


@pytest.mark.parametrize("wrap", [False, True])
def test_the_moving_average_is_imported_on_request(tmp_path: Path, wrap: bool) -> None:
    weights = make_published()
    average = {f"module.{key}": value + 1 if value.is_floating_point() else value for key, value in weights.items()}
    record = {"state_dict": weights, "ema_state_dict": average, "optimizer": {"state": {0: {"step": torch.ones(1)}}}}
    torch.save({"model": record} if wrap else record, tmp_path / "published.pth")
    import_checkpoint.run(tmp_path / "published.pth", tmp_path / "ours")
    import_checkpoint.run(tmp_path / "published.pth", tmp_path / "averaged", ImportOptions(ema=True))
    for folder, expected in (("ours", weights), ("averaged", {k[7:]: value for k, value in average.items()})):
        found = IGVGModel.from_pretrained(tmp_path / folder).state_dict()["encoder.text_embed.weight"]
        assert torch.equal(found, expected["vis_enc.beit3.text_embed.weight"])


@pytest.mark.parametrize("record", [{}, {"ema_state_dict": None}, {"ema_state_dict": {}}])
def test_a_file_without_a_moving_average_is_said_to_have_none(tmp_path: Path, record: dict[str, Any]) -> None:
    file = tmp_path / "published.pth"
    torch.save({"state_dict": make_published(), **record}, file)
    with pytest.raises(CheckpointError, match=r"published\.pth holds no moving average .* import it without --ema"):
        import_checkpoint.run(file, tmp_path / "ours", ImportOptions(ema=True))
    assert not (tmp_path / "ours").exists()
