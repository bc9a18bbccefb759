"""Slices of the changed files that `tests/support/mutated_readers.py` makes; all kinds, 2,500 of each, are slow."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fuzzing import fuzz
from tests.support.mutated_annotations import LAYOUTS
from tests.support.mutated_readers import KINDS, read_changed, write_whole

COUNT = 40


@pytest.mark.parametrize("kind", KINDS)
def test_changed_files_are_read_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    write_whole(whole := tmp_path / "whole")
    found = [read_changed(kind, whole, tmp_path / "changed", seed) for seed in range(COUNT)]
    assert found.count("refused") > COUNT // 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*LAYOUTS, *KINDS])
def test_thousands_of_changed_files_are_read_or_refused_in_one_line(kind: str) -> None:
    assert ", 0 failed, " in fuzz(kind, range(2500))
