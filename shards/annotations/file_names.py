"""File names of images in published annotations."""

from __future__ import annotations

from pathlib import PurePosixPath

COCO_PREFIXES = ("COCO_train2014_", "COCO_val2014_", "")
"""What precedes the image id in COCO's releases of 2014 and of 2017."""


def coco_name(image_id: int, prefix: str = COCO_PREFIXES[0]) -> str:
    """The name of an image file in COCO's releases."""
    return f"{prefix}{image_id:012d}.jpg"


def full_name(file_name: str) -> str:
    """A published name with its folders, as a path that stays inside a folder; else the name alone."""
    if "/" not in file_name and "\\" not in file_name:
        return file_name
    path = PurePosixPath(file_name.replace("\\", "/"))
    return base_name(file_name) if path.is_absolute() or ".." in path.parts else str(path)


def base_name(file_name: str) -> str:
    """A published name without folders."""
    if "/" not in file_name and "\\" not in file_name:
        return file_name
    return PurePosixPath(file_name.replace("\\", "/")).name
