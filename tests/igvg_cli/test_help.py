"""What igvg says of itself."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
from typing import Any

import pytest
import typer

from igvg_cli.app import build_app
from tests.support.pipeline_runs import igvg

COMMANDS = [
    "prepare",
    "train",
    "predict",
    "score",
    "compare",
    "convert",
    "sweep",
    "ablate",
    "run",
    "demo",
    "import",
    "push",
    "inspect",
    "verify",
    "audit",
]


def test_help_lists_every_command() -> None:
    result = igvg("--help")
    assert result.returncode == 0
    assert all(command in result.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_examples_that_it_takes(command: str) -> None:
    group: Any = typer.main.get_command(build_app())
    described = group.commands[command]
    text = " ".join(inspect.cleandoc(described.help or "").split())
    examples = [example.split(" Example:")[0] for example in text.split("Example: ")[1:]]
    assert examples
    for example in examples:
        words = shlex.split(re.split(r"(?<=[\w\"])\s+(?=[A-Z][a-z]+[ ,])", example)[0])
        assert words[:2] == ["igvg", command]
        # Unknown options, missing arguments and values that cannot be are errors here.
        described.make_context(command, words[2:])


def test_the_version_is_told() -> None:
    assert igvg("--version").stdout.startswith("igvg ")


def test_help_needs_neither_torch_nor_transformers() -> None:
    code = "import sys, igvg_cli.app as a; a.build_app(); print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_completion_is_offered_for_the_shell() -> None:
    result = igvg("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert result.returncode == 0
    assert "_IGVG_COMPLETE" in result.stdout


@pytest.mark.parametrize("arguments", [["guess"], ["score", "--no-such-option"], ["predict", "--image", "a.jpg"]])
def test_wrong_usage_has_a_status_of_its_own(arguments: list[str]) -> None:
    assert igvg(*arguments).returncode == 2
