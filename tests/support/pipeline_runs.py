"""igvg as a user runs it: real processes on a small embedded data set and a very small network."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from shards.synthetic.writer import write_published

# Small enough that starting Python takes longer than the work.
SMALL_NETWORK = (
    "model.image_size=32", "model.patch_size=8", "model.encoder_dim=16", "model.encoder_layers=1",
    "model.encoder_heads=2", "model.encoder_ffn=32", "model.hidden_dim=16", "model.decoder_layers=2",
    "model.decoder_heads=2",
    "model.decoder_ffn=16", "model.generation_ffn=16", "model.num_queries=4", "batch_size=4", "workers=0",
    "validation_limit=6",
)  # fmt: skip


def draw_published(folder: Path, *, train_images: int = 16, held_out_images: int = 2) -> Path:
    """A small embedded data set in the published layouts."""
    write_published(folder, seed=3, train_images=train_images, held_out_images=held_out_images)
    return folder


def igvg(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command line to its end."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, env=os.environ | environment, timeout=240
    )


def run_here(*arguments: str | Path) -> None:
    """Run a command line in this process, with success: a small one takes longer to start than to work."""
    from igvg_cli.app import build_app

    status = build_app()([str(word) for word in arguments], prog_name="igvg", standalone_mode=False)
    assert not status, arguments


def igvg_here(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command line to its end in this process, where what it imports is loaded already."""
    from igvg_cli import render
    from igvg_cli.app import build_app
    from shards.progress import set_sink

    words, out, err = [str(word) for word in arguments], io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), set_sink(log=render.note):
        status = build_app()(words, prog_name="igvg", standalone_mode=False)
    return subprocess.CompletedProcess(words, status or 0, out.getvalue(), err.getvalue())


def start(*arguments: str | Path, ignoring_sigint: bool = False, **environment: str) -> subprocess.Popen[str]:
    """Start a command line as a process group of its own, with SIGINT as in a terminal even if it is ignored here."""
    handling = signal.SIG_IGN if ignoring_sigint else signal.SIG_DFL
    return subprocess.Popen(
        command(*arguments, "--quiet"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | environment, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, handling),  # noqa: PLW1509, no other thread runs
    )  # fmt: skip


def end(process: subprocess.Popen[str], seconds: float = 60) -> str:
    """What a process and all of its children said on standard error, when the last of them has ended."""
    try:
        return process.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 90) -> None:
    """Wait for something that a process does, or fail with what it said."""
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(process.communicate())
        time.sleep(0.02)


def list_children(process: int) -> list[int]:
    """The processes that a process has started and that have not ended."""
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def command(*arguments: str | Path) -> list[str]:
    """The words of a command line."""
    return [sys.executable, "-m", "igvg_cli", *map(str, arguments)]


def prepare(published: Path, out: Path, dataset: str = "grefcoco") -> Path:
    """Prepared shards, or a failed test."""
    result = igvg(
        "prepare", dataset, "--annotations", published / dataset, "--images", published / "images" / "train2014",
        "--out", out, "--workers", "1",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return out


def train_arguments(shards: Path, out: Path, *settings: str) -> list[str]:
    """The words of a training of the small network."""
    sets = [word for setting in (*SMALL_NETWORK, *settings) for word in ("--set", setting)]
    return ["train", "--shards", str(shards), "--out", str(out), "--preset", "tiny", *sets]


def snapshot(folder: Path) -> dict[str, tuple[str, int]]:
    """Digest and time of change of every file."""
    return {
        str(file.relative_to(folder)): (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def only_error(result: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error, or a failed test."""
    assert result.returncode == 1, (result.returncode, result.stderr)
    assert "Traceback" not in result.stderr, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error:")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def list_stages(home: Path) -> list[list[str]]:
    """The command lines of the four stages in one folder, from `published` to `scores`."""
    published, shards = home / "published", str(home / "shards")
    split = ["--shards", shards, "--split", "val"]
    return [
        ["prepare", "grefcoco", "--annotations", str(published / "grefcoco"),
         "--images", str(published / "images" / "train2014"), "--out", shards],
        train_arguments(home / "shards", home / "run", "max_steps=6"),
        ["predict", "--checkpoint", str(home / "run"), *split, "--out", str(home / "found"), "--set", "workers=0"],
        ["score", str(home / "found"), *split, "--out", str(home / "scores")],
    ]  # fmt: skip


def run_pipeline(home: Path) -> None:
    """Draw a data set, and run the four stages on it."""
    draw_published(home / "published")
    for words in list_stages(home):
        result = igvg(*words)
        assert result.returncode == 0, result.stderr
