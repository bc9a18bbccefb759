"""Command lines run as forks of one process that has imported everything: their own time and memory are measured.

A command line that is started anew spends seconds and hundreds of megabytes on imports alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.support.paths import ROOT

_MODULES = ("torch", "PIL.Image", "igvg_cli.app", "pipelines.stages.predict", "pipelines.stages.import_checkpoint",
            "pipelines.stages.convert", "pipelines.stages.prepare", "pipelines.stages.prepare_webdataset",
            "pipelines.evaluation.evaluator", "pipelines.pretrained", "pipelines.model.convert.instancevg")  # fmt: skip
_HANGING = 10


@dataclass(frozen=True, kw_only=True)
class MeasuredRun:
    """What came of a command line: its exit status, -SIGNAL if a signal ended it."""

    status: int
    stderr: str
    seconds: float
    """Of CPU time."""
    megabytes: float
    """By which the peak of its memory exceeds what it began with."""


class Runner:
    """Runs command lines one after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, *arguments: str | Path) -> MeasuredRun:
        """Run `igvg ARGUMENTS` to its end; one that waits for something is ended after ten seconds."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps([str(each) for each in arguments]) + "\n")
        stdin.flush()
        return MeasuredRun(**json.loads(stdout.readline()))


@contextlib.contextmanager
def start_runner() -> Iterator[Runner]:
    """A process that runs command lines; it ends with the block."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.measured_runs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environment, cwd=ROOT,
    ) as process:  # fmt: skip
        yield Runner(process)
        assert process.stdin is not None
        process.stdin.close()


def _run_forked(arguments: list[str], errors: IO[str]) -> MeasuredRun:
    errors.seek(0)
    errors.truncate()
    pid = os.fork()
    if not pid:
        _run(arguments, errors)
    _, code, usage = os.wait4(pid, 0)
    errors.seek(0)
    begun, _, text = errors.read().partition("\n")
    return MeasuredRun(
        status=os.waitstatus_to_exitcode(code),
        stderr=text,
        seconds=usage.ru_utime + usage.ru_stime,
        megabytes=(usage.ru_maxrss >> 10) - int(begun),
    )


def _run(arguments: list[str], errors: IO[str]) -> None:
    """The fork, which ends here."""
    os.dup2(errors.fileno(), 2)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    os.write(2, b"%d\n" % (pages * resource.getpagesize() >> 20))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    signal.alarm(_HANGING)
    resource.setrlimit(resource.RLIMIT_CPU, (_HANGING, _HANGING))
    # Errors of this process itself are seen in the status.
    status = 99
    try:
        from igvg_cli.app import main

        sys.argv = ["igvg", *arguments]
        main()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    finally:
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    """Run the command lines that standard input holds as JSON, and write what came of each."""
    for name in _MODULES:
        __import__(name)
    with open(os.memfd_create("errors"), "w+", encoding="utf-8") as errors:  # noqa: PTH123
        for line in sys.stdin:
            run = _run_forked(json.loads(line), errors)
            sys.stdout.write(json.dumps(run.__dict__) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
