"""No input ends in a traceback: files of other people with bytes changed, as in `tests.support.fuzz_inputs`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.support.fuzz_inputs import try_exif, try_labelme, try_predictions


def test_images_with_corrupted_exif_blocks_keep_their_pixels(tmp_path: Path) -> None:
    results = Counter(try_exif(seed, tmp_path) for seed in range(150))
    # Some marks are still read beside what is damaged, and some are not.
    assert {"turned", "turned, noted", "not turned, noted"} <= set(results)


def test_corrupted_prediction_files_are_read_or_named(tmp_path: Path) -> None:
    results = Counter(try_predictions(seed, tmp_path) for seed in range(300))
    assert min(results["read"], results["refused"]) > 20


def test_corrupted_files_of_labelme_are_read_or_named(tmp_path: Path) -> None:
    results = Counter(try_labelme(seed, tmp_path) for seed in range(300))
    assert min(results["read"], results["refused"]) > 20
