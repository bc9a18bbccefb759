"""What a stage reads is known by its content."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pipelines.stages.inputs import (
    digest_checkpoint,
    digest_input,
    digest_shards,
    digest_tokenizer,
    digest_training_inputs,
)
from shards.errors import ArtifactError
from shards.files import digest_file
from tests.support.drawn_shards import write_shards
from tests.support.opened_files import record_opened


def test_shards_that_somebody_else_made_are_known_by_their_indexes(tmp_path: Path) -> None:
    few, many = write_shards(tmp_path / "few"), write_shards(tmp_path / "many", images=4)
    assert digest_shards(few) != digest_shards(many)
    assert digest_shards(few) == digest_shards(write_shards(tmp_path / "again"))


def test_a_checkpoint_is_known_by_its_weights_and_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    digest = digest_checkpoint(tmp_path)
    (tmp_path / "log.jsonl").write_text("{}")
    assert digest_checkpoint(tmp_path) == digest
    (tmp_path / "model.safetensors").write_bytes(b"others")
    assert digest_checkpoint(tmp_path) != digest
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert digest_checkpoint(tmp_path) == digest
    (tmp_path / "config.json").write_text("{} ")
    assert digest_checkpoint(tmp_path) != digest


def test_the_same_file_elsewhere_is_the_same_checkpoint(tmp_path: Path) -> None:
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).write_bytes(b"weights")
    assert digest_checkpoint(tmp_path / "a.pth") == digest_checkpoint(tmp_path / "b.pth")


@pytest.mark.parametrize("digest", [digest_shards, digest_checkpoint, digest_tokenizer])
def test_a_folder_that_holds_nothing_of_the_kind_is_an_error_with_a_remedy(tmp_path: Path, digest) -> None:
    with pytest.raises(ArtifactError, match="give"):
        digest(tmp_path)


def test_a_training_starts_from_its_shards_its_init_and_its_tokenizer(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "set")
    (tmp_path / "beit3.zip").write_bytes(b"weights")
    (tmp_path / "beit3.spm").write_bytes(b"pieces")
    inputs = digest_training_inputs([shards, shards], str(tmp_path / "beit3.zip"), str(tmp_path / "beit3.spm"))
    assert list(inputs) == ["shards 1", "shards 2", "init", "tokenizer"]
    assert list(digest_training_inputs([shards], "", "")) == ["shards 1"]


def test_an_unchanged_file_is_read_once_for_all_stages_and_a_changed_one_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    written = time.time()
    # Both files have long been written.
    monkeypatch.setattr(time, "time", lambda: written + 60)
    with record_opened() as opened:
        digest = digest_checkpoint(tmp_path)
        assert digest_checkpoint(tmp_path) == digest
    assert len(opened) == 2
    (tmp_path / "model.safetensors").write_bytes(b"trained")
    os.utime(tmp_path / "model.safetensors", (written + 10, written + 10))
    assert digest_checkpoint(tmp_path) != digest


def test_a_file_that_has_just_been_written_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "predictions.jsonl"
    file.write_bytes(b"one")
    with record_opened() as opened:
        assert digest_input(file) == digest_input(file) == digest_file(file)
    assert len(opened) == 3
