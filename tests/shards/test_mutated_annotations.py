"""A slice of the changed annotation files that `tests/mutated_annotations.py` makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from mutated_annotations import LAYOUTS, draw_images, read_mutated

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 60


@pytest.mark.parametrize("layout", LAYOUTS)
def test_changed_annotation_files_are_read_or_refused_in_one_line(layout: str, tmp_path: Path) -> None:
    images, folder = draw_images(tmp_path / "images"), tmp_path / "annotations"
    folder.mkdir()
    found = [read_mutated(folder, images, layout, seed) for seed in range(COUNT)]
    assert COUNT // 3 < found.count("refused") < COUNT
