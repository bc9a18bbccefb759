"""One command at a time in a folder: a lock on a hidden file beside it, which the system releases with the process.

The file `.NAME.lock` holds the id and the host of the process that works there, and is removed when the work ends. A
killed process leaves it, without the lock, which blocks nobody. Where the folder beside cannot be written, the file is
in the folder itself; nobody works while the other one of the two is locked. File systems without locks: the process
that the file names counts while it runs on this host.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from shards.errors import ArtifactError
from shards.files import is_running, name_file

# Workers of a killed process notice its end and go, too. A short command is found finished.
_WAIT_SECONDS = 5.0
_POLL_SECONDS = 0.1
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})
_READ_ONLY = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
# A folder, a link, a socket.
_NO_FILE = frozenset({errno.EISDIR, errno.ELOOP, errno.ENXIO})
_LONGEST_NAME = 200
_OWNER_BYTES = 300


def is_lock(path: Path) -> bool:
    """Whether a file is one that this module, or the build of an image cache, locks."""
    return path.name.startswith(".") and path.name.endswith(".lock")


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Inside, no other command works in a folder, which need not exist.

    Raises:
        ArtifactError: another one does; names its process and host.
    """
    target = folder.resolve()
    made = [parent for parent in target.parents if not parent.exists()]
    file, descriptor = _acquire(folder, target)
    try:
        yield
    finally:
        # Before the lock is released: whoever waits for it then finds that its file is gone.
        with contextlib.suppress(OSError):
            if _is_ours(descriptor):
                file.unlink()
        # Forked workers share the lock.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
        # Work that failed before its first file leaves nothing.
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()


def refuse_locked(folder: Path) -> None:
    """Check that no command works in a subfolder of a locked folder, before everything is removed.

    Raises:
        ArtifactError: one does, or builds an image cache there.
    """
    for file in sorted(set(folder.rglob(".*.lock")) - {inner_lock(folder)}):
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if not _try_lock(descriptor):
                    raise _explain(file.parent, descriptor)
            finally:
                os.close(descriptor)


def _acquire(folder: Path, target: Path) -> tuple[Path, int]:
    """The locked file and its descriptor."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            file, descriptor = _open(folder, target)
        except FileNotFoundError:
            # Another command has just removed the parents that it had made.
            if time.monotonic() > deadline:
                raise
            continue
        locked = _try_lock(descriptor)
        error = _find_other_holder(folder, target, file) if locked else _explain(folder, descriptor)
        if error:
            with contextlib.suppress(OSError):
                if locked and _is_file_of(file, descriptor) and _is_ours(descriptor):
                    file.unlink()
            os.close(descriptor)
            if time.monotonic() > deadline:
                raise error
            time.sleep(_POLL_SECONDS)
        elif _is_file_of(file, descriptor):
            # Only said to others: a full disk is noticed by the work itself.
            with contextlib.suppress(OSError):
                if not _is_ours(descriptor):
                    return file, descriptor
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)
            return file, descriptor
        else:
            os.close(descriptor)


def _find_other_holder(folder: Path, target: Path, file: Path) -> ArtifactError | None:
    """Whether a command works in the folder under the other one of its two lock files.

    A user who may write the folder beside and one who may not lock different files.
    """
    inside = inner_lock(target)
    other = target.parent / inside.name if file == inside else inside
    try:
        descriptor = os.open(other, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return None if _try_lock(descriptor) else _explain(folder, descriptor)
    finally:
        os.close(descriptor)


def inner_lock(folder: Path) -> Path:
    """The file in a folder that is locked where none can be written beside it."""
    name = os.fsencode(folder.resolve().name)
    return folder / f".{hashlib.sha256(name).hexdigest() if len(name) > _LONGEST_NAME else os.fsdecode(name)}.lock"


def _open(folder: Path, target: Path) -> tuple[Path, int]:
    inside = inner_lock(target)
    beside = target.parent / inside.name
    with name_file(folder, beside, inside):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            return beside, _open_file(beside)
        except OSError as error:
            if error.errno not in _READ_ONLY or not target.is_dir():
                raise
        return inside, _open_file(inside)


def _open_file(file: Path) -> int:
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise _refuse_file(file) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _refuse_file(file)
    return descriptor


def _refuse_file(file: Path) -> ArtifactError:
    return ArtifactError(
        f"{file} is no regular file, and igvg locks a file of this name; choose another --out, or move it"
    )


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return not _names_running_process(descriptor)
    return True


def _names_running_process(descriptor: int) -> bool:
    """Whether the file names a process of this host that runs; where there are no locks."""
    words = _read_owner(descriptor).split()
    if len(words) != 4 or words[3] != os.uname().nodename or not words[1].isdecimal():
        return False
    return int(words[1]) != os.getpid() and is_running(int(words[1]))


def _is_file_of(file: Path, descriptor: int) -> bool:
    """Whether a file is still the one that was opened: whoever held the lock has removed it."""
    try:
        return os.path.samestat(file.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _is_ours(descriptor: int) -> bool:
    """Whether a locked file holds what this module writes, or nothing; a user's own file of its name is only locked."""
    owner = _read_owner(descriptor)
    return not owner or owner.startswith("process ")


def _read_owner(descriptor: int) -> str:
    return os.pread(descriptor, _OWNER_BYTES, 0).decode(errors="replace").strip("\0 \n")


def _explain(folder: Path, descriptor: int) -> ArtifactError:
    owner = " ".join(_read_owner(descriptor).split()) or "a process"
    return ArtifactError(
        f"another igvg command works in {folder} ({owner}); wait until it ends, then run the same command again"
    )
