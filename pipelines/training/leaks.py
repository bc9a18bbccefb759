"""Training images that are also in a held-out split of one of the sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.errors import join_first
from shards.image_identity import held_out_splits, label_images, read_images
from shards.index import list_splits

_SHOWN = 6


@dataclass(frozen=True, kw_only=True, eq=False)
class Leaks:
    """What the training splits share with held-out splits."""

    records: tuple[NDArray[np.bool_], ...]
    """For each training split, which of its records show an image of a held-out split, (N,)."""
    images: int
    """Distinct images."""
    expressions: int
    """Training expressions about these images."""
    splits: dict[str, int]
    """The held-out splits by FOLDER/SPLIT, and how many of these images each of them holds."""
    compared: int
    """Number of held-out splits."""

    def describe(self, *, excluded: bool) -> str:
        """One line for the log."""
        if not self.images:
            return f"No training image is in one of the {self.compared} held-out splits"
        count = f"{self.images:,} training images ({self.expressions:,} expressions)"
        where = join_first([f"{name} ({shared:,})" for name, shared in self.splits.items()], _SHOWN)
        if excluded:
            return f"{count} are left out: they are also in held-out splits: {where}"
        return (
            f"Warning: {count} are also in held-out splits: {where}; scores there are too high. igvg audit says more; "
            "--set exclude_held_out=true leaves them out"
        )

    def to_json(self, *, excluded: bool) -> dict[str, Any]:
        """For the counts of the artifact."""
        return {
            "images": self.images,
            "expressions": self.expressions,
            "excluded": excluded,
            "splits": self.splits,
        }


def find_leaks(shards: Sequence[Path], parts: Sequence[tuple[Path, str]], splits: Sequence[str]) -> Leaks:
    """What the training splits share with the held-out splits of all folders; only indexes are read.

    Args:
        shards: the folders, those that are not trained on included.
        parts: the training splits.
        splits: names of training splits; no split of these names is held out.

    Raises:
        DataError: an index is damaged.
    """
    held_out = [
        (folder, split) for folder in dict.fromkeys(shards) for split in held_out_splits(list_splits(folder), splits)
    ]
    images = read_images([*parts, *held_out])
    training, others = images[: len(parts)], images[len(parts) :]
    labels = label_images(images).by_id_or_bytes
    empty = np.zeros(0, dtype=np.int64)
    trained, kept_out = (np.concatenate([empty, *each]) for each in (labels[: len(parts)], labels[len(parts) :]))
    records = tuple(np.isin(each, kept_out) for each in labels[: len(parts)])
    shared = [len(np.intersect1d(trained, each)) for each in labels[len(parts) :]]
    return Leaks(
        records=records,
        images=len(np.intersect1d(trained, kept_out)),
        expressions=sum(
            int(each.index.expressions[leaked].sum()) for each, leaked in zip(training, records, strict=True)
        ),
        splits={each.name: count for each, count in zip(others, shared, strict=True) if count},
        compared=len(others),
    )
