"""What `igvg predict` looks for in the user's own images: every text in every image, or given pairs of the two."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from pipelines.data.image_decoding import inspect_image
from pipelines.data.image_folder import clean_line, list_images, name_images
from shards.errors import DataError
from shards.progress import begin_stage, report_progress


@dataclass(frozen=True, kw_only=True)
class ImageQueries:
    """Image files, texts, and which text is looked for in which image."""

    files: tuple[Path, ...]
    """Each image once."""
    texts: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    """Indices of an image and a text, image by image; the index of the text is that of the prediction's id."""
    left_out: tuple[tuple[Path, str], ...] = ()
    """Other files of folders, each with the reason."""
    listed: bool = False
    """Whether the pairs were listed in a file."""
    several: bool = False
    """Whether several images or folders were given."""

    @cached_property
    def names(self) -> list[str]:
        """A unique name for each image."""
        return name_images(self.files)

    def fingerprint_options(self) -> dict[str, Any]:
        """What decides the predictions besides the content of the images."""
        options: dict[str, Any] = {"texts": list(self.texts)}
        if self.listed:
            image_of = {text: image for image, text in self.pairs}
            options["pairs"] = [self.names[image_of[text]] for text in range(len(self.texts))]
        elif self.several:
            options["images"] = self.names
        return options


@dataclass(frozen=True, kw_only=True)
class CheckedImages:
    """The images that can be decoded, and what is looked for in them."""

    files: list[Path]
    names: list[str]
    """A unique name for each file."""
    sizes: list[tuple[int, int]]
    """Height and width of each image in pixels."""
    texts: tuple[str, ...]
    pairs: list[tuple[int, int]]
    """Indices of an image and a text, image by image."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """The error of each image that cannot be decoded, by name."""
    remarks: list[str] = field(default_factory=list)
    """Damage in decoded files that does not affect the pixels; and which file has another name in the results."""

    def name_pair(self, index: int) -> str:
        """The id of the prediction for a pair: NAME/TEXT_INDEX."""
        image, text = self.pairs[index]
        return f"{self.names[image]}/{text}"


def query_images(paths: Sequence[Path], texts: Sequence[str]) -> ImageQueries:
    """Every text in every image of some files and folders; a file that is given twice counts once.

    Raises:
        DataError: a path does not exist, or a folder holds no image.
    """
    files: dict[str, Path] = {}
    left_out: dict[str, tuple[Path, str]] = {}
    for found in map(list_images, paths):
        for file in found.files:
            files.setdefault(os.path.abspath(file), file)  # noqa: PTH100, links stay links
        left_out.update((str(file), (file, reason)) for file, reason in found.left_out)
    return ImageQueries(
        files=tuple(files.values()),
        texts=tuple(texts),
        pairs=tuple(product(range(len(files)), range(len(texts)))),
        left_out=tuple(left_out.values()),
        several=len(paths) > 1,
    )


def check_images(queries: ImageQueries) -> CheckedImages:
    """Decode every image once, so that an unreadable file does not interrupt the prediction later.

    Raises:
        DataError: no file can be decoded.
    """
    files: list[Path] = []
    names: list[str] = []
    sizes: list[tuple[int, int]] = []
    readable: dict[int, int] = {}
    unreadable: dict[str, str] = {}
    remarks: list[str] = []
    first: DataError | None = None
    begin_stage("reading images")
    for index, (name, file) in enumerate(zip(queries.names, queries.files, strict=True)):
        try:
            pixels, remark = inspect_image(file)
        except DataError as error:
            first = first or error
            unreadable[name] = clean_line(str(error))
            continue
        readable[index] = len(files)
        files.append(file)
        names.append(name)
        sizes.append((pixels.shape[0], pixels.shape[1]))
        remarks.extend([clean_line(remark)] if remark else [])
        if name != clean_line(file.name):
            remarks.append(f"{clean_line(str(file))} is named {name} in the results: another image has its name")
        report_progress(index + 1, len(queries.files))
    if first is not None and not files:
        if len(queries.files) == 1:
            raise first
        what = f"none of {len(queries.files)} images can be read; the first, {first.file}, {first.what}"
        raise DataError(what, remedy=first.remedy) from first
    return CheckedImages(
        files=files,
        names=names,
        sizes=sizes,
        texts=queries.texts,
        pairs=[(readable[image], text) for image, text in queries.pairs if image in readable],
        unreadable=unreadable,
        remarks=remarks,
    )
