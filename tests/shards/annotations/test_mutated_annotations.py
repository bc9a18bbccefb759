"""A slice of the changed annotation files that `tests/support/mutated_annotations.py` makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.mutated_annotations import LAYOUTS, draw_images, read_mutated

COUNT = 40


@pytest.mark.parametrize("layout", LAYOUTS)
def test_changed_annotation_files_are_read_or_refused_in_one_line(layout: str, tmp_path: Path) -> None:
    images, folder = draw_images(tmp_path / "images"), tmp_path / "annotations"
    folder.mkdir()
    found = [read_mutated(folder, images, layout, seed) for seed in range(COUNT)]
    assert found.count("refused") > COUNT // 3
    # Hardly any change of so short a file leaves it whole.
    assert "read" in found or layout == "instance_index.json"
