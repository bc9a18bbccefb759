"""How long a user waits for help, and for a command that finds its work done."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from shards.synthetic.writer import write_published
from tests.benchmarks.figures import Figure, time_best


def measure() -> list[Figure]:
    """Seconds of whole processes."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write_published(home, seed=1, train_images=20, held_out_images=2)
        prepare = [
            "prepare", "grefcoco", "--annotations", str(home / "grefcoco"),
            "--images", str(home / "images" / "train2014"), "--out", str(home / "shards"),
        ]  # fmt: skip
        return [
            Figure("igvg --help", time_best(lambda: _run("--help"), 5), "s", "< 0.3"),
            Figure("igvg prepare, finished", time_best(lambda: _run(*prepare), 3), "s", "< 2 of work"),
        ]


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "igvg_cli", *arguments], check=True, capture_output=True)
