"""A small gRefCOCO under its published names, to be corrupted and prepared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from pipelines.config.settings import PrepareSettings
from pipelines.stages import prepare

IMAGE_IDS = (7, 8, 9)


class Published:
    """A gRefCOCO of three images: two of train, one of val."""

    def __init__(self, folder: Path) -> None:
        self.annotations, self.images = folder / "grefcoco", folder / "train2014"
        self.annotations.mkdir()
        self.images.mkdir()
        square = [[10, 5, 20, 5, 20, 15, 10, 15]]
        self.instances: dict[str, Any] = {
            "images": [{"id": n, "file_name": f"COCO_train2014_{n:012d}.jpg", "width": 40, "height": 30}
                       for n in IMAGE_IDS],
            "annotations": [{"id": 10 * n + k, "image_id": n, "category_id": 3, "bbox": [10, 5, 10, 10],
                             "segmentation": square} for n in IMAGE_IDS for k in range(2)],
        }  # fmt: skip
        self.refs = [
            self.make_ref(1, 7, [70], "train"),
            self.make_ref(2, 7, [70, 71], "train"),
            self.make_ref(3, 8, [-1], "train"),
            self.make_ref(4, 9, [90], "val"),
        ]
        for n in IMAGE_IDS:
            Image.new("RGB", (40, 30), (n, 2 * n, 3 * n)).save(self.images / f"COCO_train2014_{n:012d}.jpg")
        self.save()

    @staticmethod
    def make_ref(ref_id: int, image_id: int, ann_id: list[int], split: str) -> dict[str, Any]:
        sentences = [{"sent_id": 10 * ref_id + k, "raw": f"phrase {k}"} for k in range(2)]
        return {"ref_id": ref_id, "image_id": image_id, "ann_id": ann_id, "split": split, "sentences": sentences}

    def save(self) -> None:
        (self.annotations / "grefs(unc).json").write_text(json.dumps(self.refs))
        (self.annotations / "instances.json").write_text(json.dumps(self.instances))

    def image(self, number: int) -> Path:
        return self.images / f"COCO_train2014_{number:012d}.jpg"

    def prepare(self, out: Path, *, force: bool = False, workers: int = 1, **settings: Any) -> tuple[Any, bool]:
        return prepare.run(
            PrepareSettings(dataset="grefcoco", **settings),
            self.annotations,
            [self.images],
            out,
            force=force,
            workers=workers,
        )

    def inspect(self, **settings: Any) -> prepare.Inspection:
        return prepare.inspect(PrepareSettings(dataset="grefcoco", **settings), self.annotations, [self.images])


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def list_siblings(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.iterdir()) if out.parent.is_dir() else []
