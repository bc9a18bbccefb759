"""The live table of a training."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from igvg_cli.live import LiveTable
from tests.support.small_training import write_set
from tests.support.terminals import run_in_terminal, strip_escapes

SMALL = (
    'splits=["val"]', "batch_size=4", "max_steps=6", "epochs=9", "log_steps=1", "workers=0", "precision=fp32",
    "model.encoder_dim=48", "model.encoder_layers=1", "model.image_size=72",
)  # fmt: skip


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("live"))


def train_command(shards: Path, out: Path) -> list[str]:
    settings = [word for setting in SMALL for word in ("--set", setting)]
    command = [sys.executable, "-m", "igvg_cli", "train", "--shards", str(shards), "--out", str(out)]
    return [*command, "--preset", "tiny", *settings, "--live"]


def test_the_table_holds_the_last_value_of_each_name_and_the_one_before() -> None:
    table = LiveTable()
    table.update({"losses/total": 5.25, "learning_rates/head": 5e-4, "data_wait": 0.031, "losses/boxes_layer1": 1.0})
    table.update({"losses/total": 4.5, "learning_rates/head": 5e-4, "data_wait": 0.002})
    table.update({"validation/grefcoco/gIoU": 41.25, "epoch": 1.0})
    assert table.rows() == [
        ("validation grefcoco gIoU", "41.25", ""),
        ("loss total", "4.5", "5.25"),
        ("learning rate head", "5.00e-04", "5.00e-04"),
        ("waiting for data, %", "0.2", "3.1"),
        ("epoch", "1", ""),
    ]


def test_large_and_small_values_are_shown_in_few_characters() -> None:
    table = LiveTable()
    table.update({"peak_memory_mb": 61234.5, "gradient_norm": 0.0123456})
    assert table.rows() == [("gradient norm", "0.01235", ""), ("peak memory, MB", "61,234.5", "")]


def test_on_a_terminal_the_table_is_drawn_above_the_bar_and_gone_at_the_end(shards: Path, tmp_path: Path) -> None:
    status, written = run_in_terminal(train_command(shards, tmp_path / "run"), 100)
    shown = strip_escapes(written)
    assert status == 0
    assert "loss total" in shown
    assert "gradient norm" in shown
    assert "validation shards gIoU" in shown
    assert "trained 6 steps" in " ".join(shown.split()[-9:])


def test_without_a_terminal_there_is_no_table(shards: Path, tmp_path: Path) -> None:
    done = subprocess.run(train_command(shards, tmp_path / "run"), capture_output=True, text=True)
    assert done.returncode == 0
    assert "loss total" not in done.stdout + done.stderr
    assert "\x1b" not in done.stderr
