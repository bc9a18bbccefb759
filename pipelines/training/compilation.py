"""The network compiled by torch.compile, and errors of the compiler in one line."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from pipelines.model import IGVGModel
from shards.errors import SettingsError, first_line

_REMEDY = "or set compile=false (igvg train: with --continue-with, if the training has begun)"
_PROGRAM = "#include <cmath>\nint main() { return 0; }\n"
_SECONDS = 120


def compile_model(
    model: IGVGModel, device: torch.device, *, backend: str | Callable[..., Any] = "inductor"
) -> nn.Module:
    """The network, compiled at its first step, with the same parameters.

    It is compiled once for inputs of one shape.

    Raises:
        SettingsError: there is no compiler for the device, or it does not work.
    """
    if backend == "inductor":
        require_compiler(device)
    return cast("nn.Module", torch.compile(model, backend=backend))


def require_compiler(device: torch.device) -> None:
    """Make sure that torch.compile finds the program that compiles for a device, and that a C++ compiler works.

    Raises:
        SettingsError: it is missing, or it does not.
    """
    if device.type == "cpu":
        compiler = os.environ.get("CXX") or "g++"
        if shutil.which(compiler) is None:
            raise SettingsError(
                f"compile=true needs a C++ compiler, and there is no {compiler}; install it, name another one in the "
                f"environment variable CXX, {_REMEDY}"
            )
        if reason := _try_compiler(compiler):
            raise SettingsError(
                f"compile=true needs a C++ compiler, and {compiler} cannot compile a program of two lines ({reason}); "
                f"name another one in the environment variable CXX, {_REMEDY}"
            )
    elif importlib.util.find_spec("triton") is None:
        raise SettingsError(
            f"compile=true needs Triton on a {device.type}, which is not installed; install it, {_REMEDY}"
        )


@contextlib.contextmanager
def explain_failed_compilation() -> Iterator[None]:
    """Replace an error of torch.compile, whose message has many lines, by one line.

    Raises:
        SettingsError: the network cannot be compiled.
    """
    try:
        yield
    except RuntimeError as error:
        # Errors of the compiler are no public classes of torch.
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = first_line(getattr(error, "inner_exception", error))
        raise SettingsError(
            f"compile=true: the network cannot be compiled ({reason}); repair that (--debug shows more), {_REMEDY}"
        ) from error


def _try_compiler(compiler: str) -> str:
    """Why a compiler makes no program, a clause; empty if it does."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program"
        words = [compiler, "-x", "c++", "-", "-o", str(program)]
        try:
            # What CXX names, torch.compile runs, too.
            result = subprocess.run(  # noqa: S603
                words, input=_PROGRAM, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False
            )
        except (OSError, subprocess.SubprocessError) as error:
            return first_line(error)
        if program.exists():
            return ""
        said = result.stderr.strip().splitlines()
        return said[0] if said else f"it ended with status {result.returncode}"
