"""Prediction files that hold something else, and prediction files that are no files."""

from __future__ import annotations

import json
import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipelines.prediction import named_pipe
from pipelines.prediction.prediction_file import read_predictions
from shards.errors import DataError
from tests.support.foreign_contents import list_foreign_contents

LINE = {"id": "refcoco/1/2", "boxes": [[0, 0, 1, 2]], "mask": {"size": [3, 4], "counts": "02:"}}


@pytest.mark.parametrize("kind", [kind for kind in list_foreign_contents(b"") if kind != "half"])
def test_a_file_that_is_something_else_is_named_by_its_content(tmp_path: Path, kind: str) -> None:
    content, words = list_foreign_contents(json.dumps(LINE).encode())[kind]
    (tmp_path / "p.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=rf"p\.jsonl: {words}, not a prediction file; "):
        list(read_predictions(tmp_path / "p.jsonl"))


def _save_program(file: Path) -> None:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        torch.jit.save(torch.jit.script(torch.nn.Identity()), file)


@pytest.mark.parametrize(
    ("save", "words"),
    [
        (lambda file: torch.save(torch.nn.Identity(), file), "is a checkpoint of torch.save"),
        (_save_program, "is a TorchScript archive"),
    ],
)
def test_a_model_instead_of_predictions_is_named(tmp_path: Path, save: Callable[[Path], None], words: str) -> None:
    save(tmp_path / "p.jsonl")
    with pytest.raises(DataError, match=rf"p\.jsonl: {words}, not a prediction file; "):
        list(read_predictions(tmp_path / "p.jsonl"))


def test_a_pipe_is_read_as_a_file_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.jsonl")
    writer = threading.Thread(target=(tmp_path / "p.jsonl").write_bytes, args=(json.dumps(LINE).encode(),))
    writer.start()
    assert [prediction.id for prediction in read_predictions(tmp_path / "p.jsonl")] == ["refcoco/1/2"]
    writer.join()


def test_a_pipe_that_nothing_writes_into_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(named_pipe, "WAIT_SECONDS", 0.1)
    os.mkfifo(tmp_path / "p.jsonl")
    with pytest.raises(DataError, match=r"p\.jsonl.*no program wrote into this pipe in 0\.1 seconds"):
        list(read_predictions(tmp_path / "p.jsonl"))
