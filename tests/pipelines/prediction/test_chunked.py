"""Prediction in chunks: finished chunks are kept, and progress counts those of all processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate import Accelerator

from pipelines.config.settings import PredictSettings, TextSettings
from pipelines.data.datasets import GroundingDataset
from pipelines.prediction import chunked as chunks
from pipelines.pretrained import save_checkpoint
from shards.progress import set_sink
from tests.support.small_training import open_small, write_set


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> chunks.PredictionJob:
    """Twelve expressions in three chunks."""
    monkeypatch.setattr(chunks, "CHUNK_SIZE", 4)
    shards = write_set(tmp_path)
    training = open_small(shards, tmp_path / "run", text=TextSettings(max_tokens=8))
    save_checkpoint(tmp_path / "run", training.model, training.data.processor.tokenizer, 8)
    (tmp_path / "out").mkdir()
    return chunks.setup_prediction(
        PredictSettings(split="val", workers=0, batch_size=3),
        tmp_path / "run",
        lambda processor: GroundingDataset([(shards, "val")], processor, mask_size=0),
        tmp_path / "out",
        Accelerator(cpu=True),
    )


def test_an_interrupted_prediction_goes_on_after_the_chunks_that_are_finished(job: chunks.PredictionJob) -> None:
    def interrupt(done: int, total: int, remark: str) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), set_sink(progress=interrupt):
        chunks.predict_chunks(job)
    first = job.out / "raw" / "chunk-000000.npz"
    written_at = first.stat().st_mtime_ns
    reports: list[tuple[int, int]] = []
    with set_sink(progress=lambda done, total, remark: reports.append((done, total))):
        chunks.predict_chunks(job)
    assert reports == [(4, 12), (8, 12), (12, 12)]
    assert first.stat().st_mtime_ns == written_at
    assert chunks.merge_chunks(job)["expressions"] == 12


def test_progress_counts_what_the_other_processes_have_finished(job: chunks.PredictionJob) -> None:
    reports: list[tuple[int, int]] = []

    def report(done: int, total: int, remark: str) -> None:
        reports.append((done, total))
        # The second process's turn is the second chunk.
        (job.out / "raw" / "chunk-000001.npz").touch()

    first: Any = SimpleNamespace(process_index=0, num_processes=2)
    with set_sink(progress=report):
        chunks.predict_chunks(replace(job, accelerator=first))
    assert reports == [(0, 12), (8, 12), (12, 12)]
