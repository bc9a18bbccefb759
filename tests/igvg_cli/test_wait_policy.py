"""Threads that wait for each other sleep, so that igvg keeps its speed beside other programs."""

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
    print(os.environ["OMP_WAIT_POLICY"], "torch" in sys.modules)
"""


@pytest.mark.parametrize(("given", "used"), [(None, "passive"), ("active", "active")])
def test_the_policy_is_set_before_torch_is_loaded_and_a_user_s_own_stays(given: str | None, used: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": given} if given else {}
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=environment, check=True)
    assert result.stdout.splitlines()[-1] == f"{used} False"
