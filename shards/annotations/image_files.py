"""Finds the image file of a published entry: under its own name with folders, without, then under COCO's names.

An image is refused if several files have its name, or if several images have the same file.
"""

from __future__ import annotations

import filecmp
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from shards.annotations.coco import CocoImage, ImageKey
from shards.annotations.file_names import COCO_PREFIXES, base_name, coco_name, full_name
from shards.errors import DataError
from shards.file_kinds import explain_unreadable
from shards.index import is_image_name

AMBIGUOUS = "ambiguous image file"
"""The kind under which images are counted whose file is not certain."""
_SHOWN = 3

Files = dict[str, tuple[Path, ...]]


def index_folders(folders: Sequence[Path]) -> Files:
    """Image files by their paths below each folder, with slashes; several where several folders hold the same path.

    Hidden files and folders are skipped, and so are subfolders that cannot be listed.

    Raises:
        DataError: one of `folders` cannot be listed.
    """
    files: dict[str, list[Path]] = defaultdict(list)
    for folder in dict.fromkeys(folders):
        try:
            for name in _walk(folder, "", set()):
                files[name].append(folder / name)
        except OSError as error:
            raise explain_unreadable(Path(error.filename or folder), "a folder of images", error, "") from error
    return {name: tuple(paths) for name, paths in files.items()}


def _walk(folder: Path, prefix: str, seen: set[tuple[int, int]]) -> Iterator[str]:
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    inner = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                inner.append(entry.name)
            elif is_image_name(entry.name) and entry.is_file():
                yield prefix + entry.name
    for name in sorted(inner):
        try:
            yield from list(_walk(folder / name, f"{prefix}{name}/", seen))
        except OSError:
            continue


def candidate_names(image: CocoImage) -> list[str]:
    """Names under which an image may be found: its own with folders, its own without, and those of COCO's releases."""
    names = [full_name(image.file_name), base_name(image.file_name)]
    names += [coco_name(image.image_id, prefix) for prefix in COCO_PREFIXES]
    return list(dict.fromkeys(names))


def locate_image(
    image: CocoImage,
    files: Mapping[str, Sequence[Path]],
    list_names: Callable[[CocoImage], Sequence[str]] = candidate_names,
) -> Path | None:
    """The image file among those of `index_folders`, under the first of its names that is there; None if none is.

    Raises:
        DataError: the name is also another image's, or stands in several folders for files that differ.
    """
    record = image.origin or f"image {image.image_id}"
    full = full_name(image.file_name)
    for name in list_names(image):
        if not (found := files.get(name)):
            continue
        others = image.same_name if name == full else image.same_base_name
        if others and name in (full, base_name(image.file_name)):
            advice = "keep the folders in file_name, and give the folder above them as --images"
            what = f"{name} is the name of image {', '.join(map(str, others))} too; {advice}"
            raise DataError(what, file=found[0], record=record)
        if len(found) > 1 and (other := _first_differing(found)):
            what = f"{other} has the same name and other content; give only the folder that belongs to the data"
            raise DataError(what, file=found[0], record=record)
        return found[0]
    return None


def find_shared_files(located: Mapping[ImageKey, Path]) -> dict[ImageKey, DataError]:
    """Images whose file was found for images of other ids too."""
    owners: dict[Path, list[int]] = defaultdict(list)
    for (image_id, _), file in located.items():
        owners[file].append(image_id)
    shared = {}
    for key, file in located.items():
        if others := [other for other in owners[file] if other != key[0]]:
            what = f"is the file found for image {others[0]} too; correct file_name"
            shared[key] = DataError(what, file=file, record=f"image {key[0]}")
    return shared


def _first_differing(files: Sequence[Path]) -> Path | None:
    """The first file that differs from the first of all; copies of COCO's images in two folders do not."""
    first = files[0]
    for other in files[1:]:
        try:
            if not first.samefile(other) and not filecmp.cmp(first, other, shallow=False):
                return other
        except OSError as error:
            raise explain_unreadable(Path(error.filename or other), "an image", error, "") from error
    return None
