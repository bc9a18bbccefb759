"""Full and read-only disks, files that may not be read: one line that names the file, and nothing half-written."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from pipelines.config.settings import PostprocessSettings, PredictSettings, ReportSettings, ScoreSettings
from pipelines.data.tokenizer import save_tokenizer, train_tokenizer
from pipelines.model import IGVGModel
from pipelines.prediction.raw_store import RawWriter
from pipelines.pretrained import save_checkpoint
from pipelines.stages import convert, predict, report, score, train
from pipelines.training.state_files import read_state, write_state
from shards.progress import set_sink
from tests.support.pipeline_runs import command, draw_published, only_error, prepare
from tests.support.small_network import CONFIG
from tests.support.small_training import small_settings, write_set


@contextlib.contextmanager
def limit_files(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: a write stops in its middle, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def list_stages(pipeline: Path, out: Path) -> dict[str, Callable[[], object]]:
    """What writes files, each into `out`."""
    settings, scored = PredictSettings(split="val", workers=0), ScoreSettings(split="val", bootstrap=0)
    reported = ReportSettings(split="val", bootstrap=0)
    return {
        "predict": lambda: predict.run(settings, pipeline / "run", pipeline / "shards", out),
        "predict from raw": lambda: predict.run_on_raw(PostprocessSettings(), pipeline / "found" / "raw", out),
        "score": lambda: score.run(pipeline / "found", pipeline / "shards", scored, out=out),
        "convert": lambda: convert.export_predictions(pipeline / "found", pipeline / "shards", "val", out),
        "report": lambda: report.run([pipeline / "found"], pipeline / "shards", reported, out, workers=0),
    }


@pytest.mark.parametrize("size", [100, 1000])
@pytest.mark.parametrize("stage", list_stages(Path(), Path()))
def test_a_stage_that_may_not_write_further_names_the_file_and_goes_on_later(
    pipeline: Path, tmp_path: Path, stage: str, size: int
) -> None:
    out = tmp_path / "out"
    run = list_stages(pipeline, out)[stage]
    with pytest.raises(OSError, match=r"File too large") as caught, limit_files(size):
        run()
    assert caught.value.errno == errno.EFBIG
    assert Path(caught.value.filename).is_relative_to(out)
    assert not Path(caught.value.filename).name.endswith(".tmp")
    assert not [file for file in tmp_path.rglob("*") if file.name.endswith(".tmp")]
    assert not (out / "artifact.json").exists()
    run()
    assert (out / "artifact.json").exists()


def test_weights_and_states_that_may_not_be_written_keep_the_older_ones(tmp_path: Path) -> None:
    model = IGVGModel(CONFIG)
    model.save_pretrained(tmp_path)
    write_state(tmp_path, {"step": 1})
    names = ("model.safetensors", "state.pt")
    before = [(tmp_path / name).read_bytes() for name in names]
    for name, save in zip(names, (lambda: model.save_pretrained(tmp_path), lambda: write_state(tmp_path, {
        "step": 2, "model": {"w": torch.ones(100_000)}})), strict=True):  # fmt: skip
        with pytest.raises(OSError, match=name) as caught, limit_files(4096):
            save()
        assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(tmp_path / name))
    assert [(tmp_path / name).read_bytes() for name in names] == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", *names]


@pytest.mark.parametrize(("size", "name"), [(100, "tokenizer_config.json"), (1000, "tokenizer.json")])
def test_a_tokenizer_that_may_not_be_written_keeps_the_older_one(tmp_path: Path, size: int, name: str) -> None:
    save_tokenizer(train_tokenizer(["red star"] * 3, 40), tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(OSError, match=name) as caught, limit_files(size):
        save_tokenizer(train_tokenizer(["blue moon"] * 3, 400), tmp_path)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(tmp_path / name))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_everything_that_is_written_has_the_permissions_of_the_umask(pipeline: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        for number, run in enumerate(list_stages(pipeline, tmp_path / "out").values()):
            run()
            (tmp_path / "out").rename(tmp_path / str(number))
        save_checkpoint(tmp_path / "run", IGVGModel(CONFIG), train_tokenizer(["red star"] * 3, 40), 9)
        write_state(tmp_path / "run", {"step": 1})
        RawWriter(tmp_path / "raw").finish()
        draw_published(tmp_path / "published", train_images=4, held_out_images=1)
        prepare(tmp_path / "published", tmp_path / "shards")
    finally:
        os.umask(before)
    wrong = [path for path in tmp_path.rglob("*") if path.stat().st_mode & 0o777 != (0o750 if path.is_dir() else 0o640)]
    assert not wrong


def run_on_disk(folder: Path, options: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A command with a small disk of its own at `folder`; skips where mounting is not permitted."""
    mount = f'mount -t tmpfs -o {options} tmpfs "$0" || exit 99; "$@"; code=$?; find "$0" -name "*.tmp"; exit $code'
    words = ["unshare", "--mount", "sh", "-c", mount, str(folder), *command(*arguments)]
    try:
        result = subprocess.run(words, capture_output=True, text=True, timeout=240)
    except FileNotFoundError:
        pytest.skip("there is no unshare to mount a disk with")
    if result.returncode == 99 or "unshare failed" in result.stderr:
        pytest.skip(f"mounting a disk is not permitted: {result.stderr.strip()}")
    return result


FULL = "there is no space left on the disk; free some space there, or choose another folder"


@pytest.mark.parametrize(
    ("options", "file", "words"),
    [
        ("size=4k", "out/annotations.json", FULL),
        ("size=64k,ro", "out", "the file system is read-only; choose another folder"),
    ],
)
def test_converting_onto_a_disk_that_cannot_take_it_ends_in_one_line(
    pipeline: Path, tmp_path: Path, options: str, file: str, words: str
) -> None:
    what = ["convert", pipeline / "found", "--shards", pipeline / "shards", "--split", "val", "--out", tmp_path / "out"]
    result = run_on_disk(tmp_path, options, *what)
    assert only_error(result) == f"Error: {tmp_path / file}: {words}"
    assert result.stdout == ""


def test_preparing_onto_a_full_disk_names_the_shard(pipeline: Path, tmp_path: Path) -> None:
    published = pipeline / "published"
    what = ["prepare", "grefcoco", "--annotations", published / "grefcoco", "--images", published / "images/train2014"]
    result = run_on_disk(tmp_path, "size=32k", *what, "--out", tmp_path / "out", "--workers", "1")
    assert only_error(result) == f"Error: {tmp_path / 'out/train/train-000000.tar'}: {FULL}"
    assert result.stdout == ""


def test_answering_again_onto_a_read_only_disk_names_the_folder_and_no_temporary_file(
    pipeline: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = run_on_disk(tmp_path, "size=64k,ro", "predict", "--from", pipeline / "found", "--out", out)
    assert only_error(result) == f"Error: {out}: the file system is read-only; choose another folder"


def test_a_training_whose_disk_fills_up_keeps_the_state_before_and_goes_on_later(tmp_path: Path) -> None:
    shards, out = write_set(tmp_path), tmp_path / "run"
    settings = small_settings(max_steps=4, epochs=5, checkpoint_minutes=0.0)
    with contextlib.ExitStack() as limits:

        def fill(done: int, total: int, remark: str) -> None:
            if done == 2:
                # The log still fits.
                limits.enter_context(limit_files(10_000))

        with pytest.raises(OSError, match=r"File too large") as caught, set_sink(progress=fill):
            train.run(settings, [shards], out)
    assert caught.value.filename == str(out / "state" / "state.pt")
    assert not list(out.rglob("*.tmp"))
    state = read_state(out / "state")
    assert state is not None
    assert state["step"] == 1
    train.run(settings, [shards], out)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "losses" in line] == [1, 2, 3, 4]


READ_AS_NOBODY = """
import os, sys
from pathlib import Path
from shards.errors import DataError
from shards.files import read_json
file = Path(sys.argv[1])
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    read_json(file, "the index of a split")
except DataError as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not read a file")
def test_a_file_of_somebody_else_is_told_in_words(tmp_path: Path) -> None:
    file = tmp_path / "index.json"
    file.write_text("{}")
    file.chmod(0o600)
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o755)
    result = subprocess.run([sys.executable, "-c", READ_AS_NOBODY, str(file)], capture_output=True, text=True)
    assert result.stdout == f"{file}: permission denied; change its permissions, or use another place\n"
