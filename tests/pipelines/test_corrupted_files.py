"""Files of checkpoints and raw outputs with a few bytes changed: one line or a valid reading, never anything else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.corrupted_files import KINDS, read_corrupted, write_whole


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files before they are corrupted."""
    folder = tmp_path_factory.mktemp("whole")
    write_whole(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_corrupted_files_are_read_or_refused_in_one_line(whole: Path, kind: str) -> None:
    assert read_corrupted(kind, whole, range(25)) > 5
