"""Threads spin only shortly while they wait for each other, so that igvg keeps its speed beside other programs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import os, sys
sys.argv = ["igvg", "--version"]
from igvg_cli.app import main
assert "torch" not in sys.modules
try:
    main()
except SystemExit:
    print(os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules)
"""


@pytest.mark.parametrize(
    ("given", "used"),
    [({}, "20000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "active"}, "None")],
    ids=["nothing", "a count", "a policy"],
)
def test_the_count_is_set_before_torch_is_loaded_and_a_user_s_own_choice_stays(
    given: dict[str, str], used: str
) -> None:
    environment = {
        name: value for name, value in os.environ.items() if "WAIT_POLICY" not in name and "GOMP" not in name
    }
    result = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, env=environment | given, check=True
    )
    assert result.stdout.splitlines()[-1] == f"{used} False"
