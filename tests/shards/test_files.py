"""Files are written all at once, flushed before they take their name, with the permissions that the umask gives."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shards.errors import DataError, describe_system_error
from shards.files import (
    digest_file,
    name_file,
    read_json,
    read_text,
    remove_drafts,
    remove_stale,
    replace_file,
    replace_folder,
    temporary_path,
    write_bytes,
    write_json,
)


def dead_process() -> int:
    """The id of a process that has ended."""
    return int(subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True).stdout)


def test_a_failed_write_leaves_the_old_file_and_no_scrap(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("old")

    def break_off(error: BaseException) -> None:
        with replace_file(file) as temporary:
            temporary.write_text("half")
            raise error

    for error in (RuntimeError("broken off"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")):
        with pytest.raises(type(error)):
            break_off(error)
        assert file.read_text() == "old"
        assert list(tmp_path.iterdir()) == [file]


def test_an_error_of_the_system_names_the_file_and_not_its_temporary_name(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"a\.json") as caught, replace_file(tmp_path / "a.json"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError) as missing:
        write_bytes(tmp_path / "nowhere" / "b", b"")
    assert missing.value.filename == str(tmp_path / "nowhere" / "b")


def test_an_error_that_names_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, replace_file(tmp_path / "a.json"):
        (tmp_path / "image.jpg").read_bytes()
    assert caught.value.filename == str(tmp_path / "image.jpg")


def test_words_of_a_library_that_are_no_system_error_are_left_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"^broken data stream$"), name_file(tmp_path):
        raise OSError("broken data stream")


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_file_has_the_permissions_of_the_umask_even_if_a_library_writes_others(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with replace_file(tmp_path / "a") as temporary:
            secret = tmp_path / "secret"
            secret.write_text("as safetensors writes")
            secret.chmod(0o600)
            secret.replace(temporary)
        write_bytes(tmp_path / "b", b"")
    finally:
        os.umask(before)
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"} == {0o666 & ~umask}


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is flushed and renamed from now on, in order."""
    events: list[tuple[str, str]] = []
    fsync = os.fsync

    def note_flush(descriptor: int) -> None:
        events.append(("flush", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        fsync(descriptor)

    def note_renames(rename: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
        def note(old: Path, new: Path) -> None:
            events.append(("rename", new.name))
            rename(old, new)

        return note

    monkeypatch.setattr(os, "fsync", note_flush)
    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, note_renames(getattr(os, name)))
    return events


def test_a_file_is_on_the_disk_before_it_takes_its_name_and_its_folder_after(
    tmp_path: Path, events: list[tuple[str, str]]
) -> None:
    write_bytes(tmp_path / "a", b"content")
    temporary = f".a.{os.getpid()}.tmp"
    assert events == [("flush", temporary), ("rename", "a"), ("flush", tmp_path.name)]


def test_all_of_a_folder_is_on_the_disk_before_it_takes_its_name(tmp_path: Path, events: list[tuple[str, str]]) -> None:
    with replace_folder(tmp_path / "out", tmp_path / "working") as working:
        (working / "val").mkdir()
        (working / "val" / "a.tar").write_bytes(b"content")
    assert sorted(events[:3]) == [("flush", "a.tar"), ("flush", "val"), ("flush", "working")]
    assert events[3:] == [("rename", "out"), ("flush", tmp_path.name)]


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    target, link = tmp_path / "disk" / "a", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    write_bytes(link, b"new")
    assert (link.is_symlink(), target.read_text()) == (True, "new")


def test_a_device_a_pipe_and_a_folder_are_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, word in (("pipe", "device or a pipe"), ("folder", "is a folder")):
        with pytest.raises(DataError, match=word):
            write_bytes(tmp_path / name, b"")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_folder_appears_all_at_once_and_what_failed_stays_to_continue(tmp_path: Path) -> None:
    out, working = tmp_path / "out", tmp_path / "working"
    for content in "12":
        with replace_folder(out, working) as folder:
            (folder / content).write_text(content)
            assert not (out / content).exists()
        assert [file.name for file in out.iterdir()] == [content]
    with pytest.raises(RuntimeError), replace_folder(out, working):
        raise RuntimeError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "working"]


def test_a_folder_below_the_current_one_is_built_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with replace_folder(Path("here/out"), Path("here/.out.working")) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text("content")
    assert (tmp_path / "here" / "out" / "inner" / "file").read_text() == "content"


def test_what_ended_processes_left_is_removed_and_what_running_ones_write_is_not(tmp_path: Path) -> None:
    stale, alive = f".out.{dead_process()}.tmp", f".out.{os.getpid()}.tmp"
    for name in (stale, alive, ".other.tmp", ".out.working", "out"):
        (tmp_path / name).mkdir()
    remove_drafts(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([alive, ".other.tmp", ".out.working", "out"])


def test_a_folder_of_ones_own_is_cleared_of_all_temporary_files(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    for name in ("raw/.chunk-000000.npz.1.tmp", ".tmpAb12Cd", ".hidden", "raw/chunk-000000.npz"):
        (tmp_path / name).touch()
    remove_stale(tmp_path, deep=True)
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert left == [".hidden", "raw", "raw/chunk-000000.npz"]


def test_digests_are_of_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert digest_file(tmp_path / "a").startswith("ba7816bf")


def test_json_is_written_with_an_end_of_line_and_read_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"ä": [1, 2]}, compact=True)
    assert file.read_bytes() == '{"ä":[1,2]}\n'.encode()
    assert read_json(file) == {"ä": [1, 2]}
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert read_json(file) == {"ä": [1, 2]}
    assert read_text(file) == '{"ä":[1,2]}\n'


def test_json_that_cannot_be_read_says_what_the_file_is(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"a": [1,')
    with pytest.raises(DataError, match=r"a\.json: is damaged or cut short \(Expecting value.*\); make it again$"):
        read_json(file)
    file.write_bytes('{"a": 1}'.encode("utf-16"))
    with pytest.raises(DataError, match=r"a\.json: is text in UTF-16, not JSON; save it as UTF-8$"):
        read_json(file)
    with pytest.raises(DataError, match=r"b\.json: no such file or folder; check the path$"):
        read_json(tmp_path / "b.json")


def test_an_error_of_the_system_is_told_in_words_with_a_remedy() -> None:
    full = describe_system_error(OSError(errno.ENOSPC, "No space left on device", "x"))
    assert full == "there is no space left on the disk; free some space there, or choose another folder"
    assert describe_system_error(OSError(errno.EXDEV, "Invalid cross-device link")) == "invalid cross-device link"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_left_at_a_temporary_path_is_removed(tmp_path: Path, kind: str) -> None:
    with contextlib.suppress(ZeroDivisionError), temporary_path(tmp_path / "out") as temporary:
        (temporary if kind == "folder" else tmp_path).mkdir(exist_ok=True)
        (temporary / "part" if kind == "folder" else temporary).write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
