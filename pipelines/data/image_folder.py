"""Image files: those of a folder, their names and digests."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.errors import DataError
from shards.file_kinds import describe_content, explain_unreadable
from shards.files import digest_file
from shards.index import IMAGE_EXTENSIONS, is_image_name

_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """The image files at a path, by name, and the files that were left out."""

    files: tuple[Path, ...]
    left_out: tuple[tuple[Path, str], ...] = ()
    """Other files, each with the reason."""


def list_images(path: Path) -> ImageFiles:
    """A file itself, or the files of a folder that have an extension of an image, as `igvg prepare` takes.

    Hidden files, folders and broken links are skipped.

    Raises:
        DataError: the path does not exist, or the folder holds no image; names the files that were left out.
    """
    if path.is_file():
        return ImageFiles(files=(path,))
    try:
        names = sorted(entry.name for entry in os.scandir(path))
    except OSError as error:
        raise explain_unreadable(path, "a folder of images", error, "give an image, or a folder of them") from error
    files, left_out = [], []
    for file in (path / name for name in names if not name.startswith(".")):
        if file.is_dir() or not file.exists():
            continue
        if not file.is_file():
            left_out.append((file, "is a device or a pipe"))
        elif not is_image_name(file.name):
            left_out.append((file, _explain_name(file)))
        else:
            files.append(file)
    if not files:
        extensions = ", ".join(f".{extension}" for extension in sorted(IMAGE_EXTENSIONS))
        others = f" ({describe_left_out(left_out)[0]})" if left_out else ""
        raise DataError(
            f"holds no image{others}", file=path, remedy=f"give an image, or a folder with {extensions} files"
        )
    return ImageFiles(files=tuple(files), left_out=tuple(left_out))


def describe_left_out(left_out: Sequence[tuple[Path, str]]) -> list[str]:
    """A line for each of the first ten files that were left out, with the reason, and one for the others."""
    lines = [f"{show_name(file)} is left out: it {reason}" for file, reason in left_out[:_SHOWN]]
    more = len(left_out) - _SHOWN
    return [*lines, f"{more} more files are left out: they have no ending of an image"] if more > 0 else lines


def show_name(file: Path) -> str:
    r"""A file's name as one printable line; other characters and invalid UTF-8 are escaped as \xNN."""
    return clean_line(file.name)


def name_images(files: Sequence[Path]) -> list[str]:
    """A unique name for each file, also on file systems that ignore case or normalize accents."""
    names: list[str] = []
    taken: set[str] = set()
    for file in files:
        name, copies = show_name(file), 1
        while _fold(name) in taken:
            copies += 1
            name = f"{show_name(file)}~{copies}"
        taken.add(_fold(name))
        names.append(name)
    return names


def digest_images(files: Sequence[Path]) -> dict[str, str]:
    """The digest of each image file by name, or "unreadable"."""
    digests = {}
    for name, file in zip(name_images(files), files, strict=True):
        try:
            digests[name] = digest_file(file)
        except OSError:
            digests[name] = "unreadable"
    return digests


def clean_line(text: str) -> str:
    r"""A text as one printable line; other characters and invalid UTF-8 are escaped as \xNN."""
    text = os.fsencode(text).decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _explain_name(file: Path) -> str:
    content = describe_content(file)
    found = f" (it holds {content.words})" if content is not None and content.words.endswith(" image") else ""
    return f"has no ending of an image{found}"


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
