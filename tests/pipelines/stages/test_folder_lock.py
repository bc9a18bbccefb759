"""One command at a time in a folder: the lock itself, and every command that writes a folder."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.stages import folder_lock
from pipelines.stages.artifact import Stage, read_artifact
from pipelines.stages.folder_lock import lock_folder
from shards.errors import ArtifactError
from tests.support.launched_processes import environment, torchrun
from tests.support.pipeline_runs import list_stages

HOLD = """
import sys, time
from pathlib import Path
from pipelines.stages.folder_lock import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("works", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_lock, "_WAIT_SECONDS", 0.2)


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Starts another process that works in a folder."""
    processes = []

    def start(folder: Path) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", HOLD, str(folder)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment())
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "works\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def make_stage(folder: Path, **options: object) -> Stage:
    return Stage(name="score", out=folder, inputs={}, options=options)


def finish(folder: Path, **options: object) -> Stage:
    stage = make_stage(folder, **options)
    stage.start(force=True)
    stage.finish({})
    return stage


def test_the_error_names_the_folder_and_the_process_that_works_there(
    tmp_path: Path, hold: Callable[[Path], subprocess.Popen[str]]
) -> None:
    out = tmp_path / "runs" / "out"
    process = hold(out)
    owner = rf"process {process.pid} on {os.uname().nodename}"
    with (
        pytest.raises(ArtifactError, match=rf"works in {out} \({owner}\); wait until it ends"),
        make_stage(out).claim(),
    ):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    # The file of the killed process blocks nobody, and goes with the next one's.
    assert (tmp_path / "runs" / ".out.lock").is_file()
    with make_stage(out).claim() as cached:
        assert cached is None
    assert not (tmp_path / "runs" / ".out.lock").exists()


def test_work_that_fails_before_its_first_file_leaves_no_folder(tmp_path: Path) -> None:
    with lock_folder(tmp_path / "a" / "b" / "out"):
        assert (tmp_path / "a" / "b" / ".out.lock").is_file()
    assert not list(tmp_path.iterdir())


def test_many_processes_work_one_after_the_other(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from pipelines.stages import folder_lock
folder_lock._WAIT_SECONDS, folder_lock._POLL_SECONDS = 60, 0
count = Path(sys.argv[1], "count")
for _ in range(50):
    with folder_lock.lock_folder(Path(sys.argv[1], "parent", "out")):
        count.write_text(str(int(count.read_text()) + 1))
"""
    (tmp_path / "count").write_text("0")
    words = [sys.executable, "-c", program, str(tmp_path)]
    processes = [subprocess.Popen(words, env=environment()) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert (tmp_path / "count").read_text() == "200"
    assert not list(tmp_path.rglob(".*.lock"))


def test_a_folder_whose_parent_cannot_be_written_is_locked_from_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, opened = tmp_path / "out", os.open
    out.mkdir()

    def refuse_beside(path: Path, *arguments: int, **options: int) -> int:
        if Path(path) == tmp_path / ".out.lock":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse_beside)
    stage = make_stage(out)
    with stage.claim() as cached:
        assert cached is None
        assert (out / ".out.lock").is_file()
        with pytest.raises(ArtifactError, match="another igvg command works in"), make_stage(out).claim():
            pass
        stage.start()
        finished = stage.finish({})
    assert finished.artifact is not None
    assert not finished.artifact.files
    assert [file.name for file in out.iterdir()] == ["artifact.json"]
    with make_stage(out, seed=2).claim(force=True):
        assert not make_stage(out, seed=2).start(force=True)
        assert (out / ".out.lock").is_file()


@pytest.mark.parametrize("first", ["beside", "inside"])
def test_users_who_lock_different_files_of_a_folder_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    out, opened, refused = tmp_path / "out", os.open, set[str]()
    out.mkdir()

    def refuse_some(path: Path, flags: int, *arguments: int, **options: int) -> int:
        # May be read, and not written.
        if Path(path) == tmp_path / ".out.lock" and flags & os.O_RDWR and refused:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse_some)
    refused |= {"beside"} if first == "inside" else set()
    with make_stage(out).claim():
        assert (out if first == "inside" else tmp_path).joinpath(".out.lock").is_file()
        refused ^= {"beside"}
        with pytest.raises(ArtifactError, match="another igvg command works in"), make_stage(out).claim():
            pass
        assert len(list(tmp_path.rglob(".*.lock"))) == 1


def test_without_locks_of_the_file_system_the_process_that_is_named_counts_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    file, host = tmp_path / ".out.lock", os.uname().nodename
    with subprocess.Popen(["sleep", "60"]) as other:
        file.write_text(f"process {other.pid} on {host}\n")
        with pytest.raises(ArtifactError, match=f"process {other.pid} on {host}"), lock_folder(tmp_path / "out"):
            pass
        other.kill()
    for left in (f"process {other.pid} on {host}", "process 1 on elsewhere.invalid", "", "\0\0"):
        file.write_text(left)
        with lock_folder(tmp_path / "out"):
            assert file.read_text() == f"process {os.getpid()} on {host}\n"
        assert not file.exists()


def test_a_file_of_the_user_that_has_the_name_of_a_lock_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / ".out.lock"
    file.write_text("written by another program\n")
    with lock_folder(tmp_path / "out"):
        with pytest.raises(ArtifactError, match="another igvg command works in"), lock_folder(tmp_path / "out"):
            pass
        assert file.read_text() == "written by another program\n"
    assert file.read_text() == "written by another program\n"


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda file: file.symlink_to("elsewhere")])
def test_what_has_the_name_of_a_lock_and_is_no_file_is_named_and_stays(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / ".out.lock")
    with (
        pytest.raises(ArtifactError, match=rf"{tmp_path}/\.out\.lock is no regular file"),
        lock_folder(tmp_path / "out"),
    ):
        pass
    assert os.listdir(tmp_path) == [".out.lock"]  # noqa: PTH208, a link that leads nowhere, too


@pytest.mark.parametrize("inner", ["score", "cache"])
def test_force_removes_no_folder_in_which_another_command_works(
    inner: str, tmp_path: Path, hold: Callable[[Path], subprocess.Popen[str]]
) -> None:
    finish(tmp_path / "out", seed=1)
    (tmp_path / "out" / inner).mkdir()
    (tmp_path / "out" / inner / "file").write_text("kept")
    stage = make_stage(tmp_path / "out", seed=2)
    for folder in (tmp_path / "out", tmp_path / "out" / inner):
        process = hold(folder)
        with pytest.raises(ArtifactError, match="another igvg command works in"), stage.claim(force=True):
            pass
        assert (tmp_path / "out" / inner / "file").read_text() == "kept"
        process.kill()
        process.wait()
    with stage.claim(force=True):
        assert not stage.start(force=True)
        stage.finish({})
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["artifact.json"]


def test_a_removal_that_is_killed_can_be_forced_again_and_is_not_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_stage(tmp_path / "out", seed=1), make_stage(tmp_path / "out", seed=2)
    for finished in (False, True):
        first.start(force=True)
        for name in ("state", "table"):
            (tmp_path / "out" / name).write_text("first")
        if finished:
            first.finish({})
        with monkeypatch.context() as patched:
            removed = iter([1])
            unlink = Path.unlink

            def unlink_once(
                path: Path, missing_ok: bool = False, left: Iterator[int] = removed, unlink: object = unlink
            ) -> None:
                if next(left, None) is None:
                    raise KeyboardInterrupt
                unlink(path, missing_ok)  # type: ignore[operator]

            patched.setattr(Path, "unlink", unlink_once)
            with pytest.raises(KeyboardInterrupt):
                second.start(force=True)
        for stage in (first, second):
            with pytest.raises(ArtifactError, match="--force"):
                stage.find() or stage.start()
        assert second.find(force=True) is None
        assert not second.start(force=True)
        assert [file.name for file in (tmp_path / "out").iterdir()] == ["unfinished.json"]
        second.finish({})
        assert read_artifact(tmp_path / "out").options == {"seed": 2}


def test_every_command_says_that_another_one_works_in_its_folder(
    pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_lock, "_WAIT_SECONDS", 0.0)
    from typer.testing import CliRunner

    from igvg_cli.app import build_app

    split = ["--shards", str(pipeline / "shards"), "--split", "val"]
    found, image = str(pipeline / "found"), next((pipeline / "published" / "images").rglob("*.jpg"))
    out = tmp_path / "out"
    commands = list_stages(pipeline)
    for words in commands:
        words[words.index("--out") + 1] = str(out)
    commands += [
        ["prepare", "webdataset", "--annotations", str(pipeline / "shards"), "--out", str(out)],
        ["predict", "--checkpoint", str(pipeline / "run"), "--image", str(image), "--text", "a", "--out", str(out)],
        ["predict", "--from", found, "--out", str(out)],
        ["report", found, *split, "--out", str(out)],
        ["convert", found, *split, "--out", str(out)],
        ["import", str(pipeline / "run" / "model.safetensors"), "--out", str(out)],
    ]
    with lock_folder(out):
        for words in commands:
            result = CliRunner().invoke(build_app(), words)
            assert result.exit_code == 1, (words, result.output)
            assert f"Error: another igvg command works in {out} (process {os.getpid()} on" in result.output, words
            assert not out.exists(), words


def test_of_two_processes_that_work_together_only_the_main_one_says_so(
    pipeline: Path, tmp_path: Path, hold: Callable[[Path], subprocess.Popen[str]]
) -> None:
    split = ("--shards", pipeline / "shards", "--split", "val")
    out = tmp_path / "out"
    words = ("-m", "igvg_cli", "predict", "--checkpoint", pipeline / "run", *split, "--set", "workers=0", "--out", out)
    hold(out)
    result = torchrun(*words, processes=2)
    assert result.returncode
    lines = [line for line in result.stderr.splitlines() if "Error: another igvg command works in" in line]
    assert len(lines) == 1, result.stderr
    assert not out.exists()
