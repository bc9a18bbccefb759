"""Commands in processes that are forked from one which has loaded everything: a kill costs the work, not the start.

`python -m tests.support.forked_commands` reads command lines and their environments in JSON from standard input, runs
each in a process group of its own, and prints `started` with its process id, then `ended` with its exit status.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.support.launched_processes import environment


class ForkedCommand:
    """A command that runs; its errors go to a file."""

    def __init__(self, process: int, server: subprocess.Popen[str], errors: Path) -> None:
        self.process, self.errors = process, errors
        self._server = server
        self.status: int | None = None

    def wait(self) -> int:
        """The exit status, negative for a signal; the process group is killed, so that no worker is left."""
        if self.status is None:
            self.status = read_number(self._server, "ended")
        return self.status

    def kill(self) -> bool:
        """Kill the process and its workers; whether it had not ended before."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process, signal.SIGKILL)
        return self.wait() == -signal.SIGKILL


def is_running(process: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def read_number(server: subprocess.Popen[str], word: str) -> int:
    """The number of the next line, which has to begin with the word."""
    assert server.stdout is not None
    line = server.stdout.readline()
    assert line.startswith(f"{word} "), f"expected '{word}', found '{line.strip()}'"
    return int(line.split()[1])


class CommandServer:
    """Runs one command at a time; one that a failed test has left is killed."""

    def __init__(self, folder: Path) -> None:
        self._errors = folder / "errors.txt"
        self._last: ForkedCommand | None = None
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forked_commands"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(),
        )  # fmt: skip

    def start(self, words: Sequence[str], **environment: str) -> ForkedCommand:
        assert self._server.stdin is not None
        if self._last and self._last.status is None:
            self._last.kill()
        self._server.stdin.write(json.dumps([str(self._errors), environment, *words]) + "\n")
        self._server.stdin.flush()
        self._last = ForkedCommand(read_number(self._server, "started"), self._server, self._errors)
        return self._last

    def run(self, words: Sequence[str]) -> None:
        """Run a command to its end, with success."""
        command = self.start(words)
        assert command.wait() == 0, (words, command.errors.read_text())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._server.kill()
        self._server.communicate()


def _load_everything() -> None:
    for package in ("pipelines", "shards", "igvg_cli"):
        for module in pkgutil.walk_packages([importlib.import_module(package).__path__[0]], f"{package}."):
            if not module.name.endswith(("__main__", ".pretraining")) and ".serving" not in module.name:
                with contextlib.suppress(ImportError):
                    importlib.import_module(module.name)


def _run(errors: str, words: list[str]) -> None:
    """Run a command line in this process, which is new, and end it."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    said = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for descriptor, stream in ((null, 0), (null, 1), (said, 2)):
        os.dup2(descriptor, stream)
    sys.argv = ["igvg", *words]
    status = 1
    try:
        from igvg_cli.app import main as run_igvg

        run_igvg()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(status)


def main() -> None:
    """Serve commands until standard input ends."""
    _load_everything()
    for line in sys.stdin:
        errors, changes, *words = json.loads(line)
        child = os.fork()
        if not child:
            os.environ.update(changes)
            _run(errors, words)
        sys.stdout.write(f"started {child}\n")
        sys.stdout.flush()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        sys.stdout.write(f"ended {status}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
