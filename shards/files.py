"""Atomic writes of files and folders, and reading as UTF-8.

A file or folder is made under a temporary name in the same folder, flushed to the disk and renamed, so that neither an
interruption nor a loss of power leaves half of it under its own name. Errors of the system name the final file, never
the temporary one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shards.errors import DataError
from shards.file_kinds import explain_unreadable

TEMPORARY = ".*.tmp"
"""Pattern of the names under which files are written before they are renamed."""
_TEMPORARY_NAME = re.compile(r"\..+\.(?P<pid>\d+)\.(?:tmp|old)")
# The temporary names of safetensors.
_LIBRARY_NAME = re.compile(r"\.tmp\w{6}")
# Errors of file systems that cannot flush a folder.
_NO_FLUSH = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES})


def digest_file(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    with file.open("rb") as stream, name_file(file):
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_range(descriptor: int, offset: int, size: int) -> bytes:
    """`size` bytes of an open file from `offset` on, or those that it has: a damaged index may ask for any number."""
    end = os.fstat(descriptor).st_size
    return os.pread(descriptor, min(size, max(0, end - offset)), min(offset, end))


def read_input(file: Path) -> bytes:
    """The bytes of a file, or of a pipe of the shell; a device may never end, and a named pipe never begin.

    Raises:
        OSError: it cannot be read, or is a device or a named pipe.
    """
    mode = file.stat().st_mode
    # A pipe of the shell has a name in /proc alone.
    named_pipe = stat.S_ISFIFO(mode) and os.path.exists(os.path.realpath(file))  # noqa: PTH110
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or named_pipe:
        raise OSError("is no file on the disk")
    return file.read_bytes()


def read_json(file: Path, expected: str = "JSON", remedy: str = "make it again", **hooks: Any) -> Any:
    """The value of a JSON file; a byte-order mark is passed over.

    Args:
        file: the file.
        expected: what it should be, for errors, e.g. "the index of a split".
        remedy: what the user can do about a damaged file.
        hooks: `parse_constant` and `object_pairs_hook` of `json.loads`.

    Raises:
        DataError: the file cannot be read or is no JSON; says what it is.
    """
    try:
        return json.loads(decode_text(read_input(file)), **hooks)
    except (OSError, ValueError, RecursionError) as error:
        raise explain_unreadable(file, expected, error, remedy, kinds=("JSON",)) from error


def read_text(file: Path, expected: str = "text", remedy: str = "save it as UTF-8") -> str:
    """The text of a file in UTF-8; a byte-order mark is passed over.

    Raises:
        DataError: the file cannot be read or is in another encoding; says what it is.
    """
    try:
        return decode_text(read_input(file))
    except (OSError, ValueError) as error:
        raise explain_unreadable(file, expected, error, remedy) from error


def decode_text(data: bytes) -> str:
    """UTF-8 as text without a byte-order mark.

    Raises:
        UnicodeDecodeError: it is no UTF-8.
    """
    return data.decode("utf-8-sig")


def write_json(file: Path, document: Any, *, compact: bool = False) -> None:
    """Write a JSON file atomically; indented by one space, or `compact` on one line."""
    style: dict[str, Any] = {"separators": (",", ":")} if compact else {"indent": 1}
    write_bytes(file, dump_json(document, **style) + b"\n")


def dump_json(document: Any, **style: Any) -> bytes:
    """JSON as UTF-8; surrogates, Python's form of bytes that are no UTF-8, as escapes."""
    try:
        return json.dumps(document, ensure_ascii=False, **style).encode()
    except UnicodeEncodeError:
        return json.dumps(document, **style).encode()


def write_bytes(file: Path, content: bytes) -> None:
    """Write a file atomically."""
    with replace_file(file) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def replace_file(file: Path) -> Iterator[Path]:
    """A temporary path beside `file`, flushed and renamed to it at the end, removed if the block fails.

    The file gets the permissions that the umask gives, also where a library writes it. A link stays a link: its
    target is replaced.

    Raises:
        OSError: it cannot be written; names `file`.
        DataError: `file` is a device, a pipe or a folder.
    """
    target = file.resolve() if file.is_symlink() else file
    _refuse_special(target)
    with temporary_path(target) as temporary, name_file(file, temporary):
        temporary.touch()
        mode = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        if stat.S_IMODE(temporary.stat().st_mode) != mode:
            temporary.chmod(mode)
        flush(temporary)
        temporary.replace(target)
        flush(target.parent)


@contextlib.contextmanager
def temporary_path(path: Path) -> Iterator[Path]:
    """A hidden path beside `path`, for what will be renamed to it; removed at the end if it is still there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
    finally:
        _remove(temporary)


@contextlib.contextmanager
def replace_folder(folder: Path, working: Path) -> Iterator[Path]:
    """Build in `working`, then put it in the place of `folder`; on failure `working` stays, so that work continues.

    Everything in it is flushed to the disk before.

    Raises:
        OSError: a file cannot be written; names it as a file of `folder`.
    """
    try:
        working.mkdir(parents=True, exist_ok=True)
        yield working
        flush_tree(working)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            retired = folder.with_name(f".{folder.name}.{os.getpid()}.old")
            folder.rename(retired)
            working.rename(folder)
            shutil.rmtree(retired)
        else:
            working.rename(folder)
        flush(folder.parent)
    except OSError as error:
        if error.errno is None or not error.filename or not (file := Path(error.filename)).is_relative_to(working):
            raise
        raise OSError(error.errno, error.strerror, str(folder / file.relative_to(working))) from error


@contextlib.contextmanager
def name_file(file: Path, *stand_ins: Path) -> Iterator[None]:
    """Errors of the system that name no file, or one of `stand_ins`, name `file` instead.

    Raises:
        OSError: the same error, with the file's name.
    """
    try:
        yield
    except OSError as error:
        unnamed = error.filename is None or os.fspath(error.filename) in [os.fspath(other) for other in stand_ins]
        if error.errno is None or not unnamed:
            raise
        raise OSError(error.errno, error.strerror, str(file)) from error


def flush(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not path.is_dir() or error.errno not in _NO_FLUSH:
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)


def flush_tree(folder: Path) -> None:
    """Flush a folder and everything in it to the disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            flush(Path(parent, name))
        flush(Path(parent))


def remove_stale(
    folder: Path, matches: Callable[[str], bool] = lambda _: True, *, deep: bool = False, running: bool = False
) -> None:
    """Remove temporary files and folders that ended processes left.

    Args:
        folder: where they lie.
        matches: whether a file name is considered.
        deep: also search subfolders, and remove what running processes write; only for a folder that no other uses.
        running: also remove what has the id of a running process.
    """
    running = running or deep
    with contextlib.suppress(OSError):
        for path in folder.rglob(".*") if deep else folder.glob(".*"):
            found = _TEMPORARY_NAME.fullmatch(path.name)
            ours = found is not None or (deep and _LIBRARY_NAME.fullmatch(path.name) is not None)
            if not ours or not matches(path.name) or (found and not running and is_running(int(found["pid"]))):
                continue
            _remove(path)


def remove_drafts(file: Path, *, locked: bool = False) -> None:
    """Remove the temporary files and folders of ended processes that were to become `file`.

    In another container, or after a restart, a process may have had the id of one that runs now: with `locked`, which
    says that no other process writes `file`, the id does not count.
    """
    prefix = f".{file.name}."
    remove_stale(file.parent, lambda name: name.startswith(prefix), running=locked)


def _remove(path: Path) -> None:
    """Remove a file or folder if the file system allows it."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def is_running(process: int) -> bool:
    """Whether this host has a process with an id."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _refuse_special(file: Path) -> None:
    """Raise DataError for a folder, device or pipe, which a renamed file would replace."""
    if file.is_dir():
        raise DataError("is a folder, where a file is to be written", file=file, remedy="give the name of a file")
    if file.exists() and not file.is_file():
        what = "is a device or a pipe, which cannot be replaced by a file"
        raise DataError(what, file=file, remedy="give the name of a file")
