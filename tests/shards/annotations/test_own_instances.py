"""PNG masks of one's own data are measured before they are decoded."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.annotations.own_instances import read_png_mask
from shards.errors import DataError
from tests.support.bombs import make_png


def test_a_mask_of_another_size_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    # Of as many pixels as Pillow decodes; it breaks off, so that decoding it fails in another way.
    (tmp_path / "large.png").write_bytes(make_png(13_000, 13_000, bits=8)[:45])
    with pytest.raises(DataError, match=r"mask large.png has 13000 × 13000 pixels, its image 40 × 30; give masks of"):
        read_png_mask(tmp_path / "large.png", 30, 40)
