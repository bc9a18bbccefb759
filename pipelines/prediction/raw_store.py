"""The model's outputs before post-processing, on disk, so that thresholds can be swept without the model.

The folder holds `chunk-000000.npz`, … and, when all are there, `index.json`. A chunk is a whole, self-describing file
of consecutive expressions, renamed into place when finished, so an interrupted run continues after its chunks and the
parts of several processes merge by lying in one folder. `pipelines.prediction.raw_format` says what a chunk holds.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pipelines.config.settings import PostprocessSettings
from pipelines.prediction.json_values import shorten
from pipelines.prediction.raw_format import count_expressions, join_bytes, pack_arrays, read_arrays
from pipelines.prediction.raw_output import FLOAT_FIELDS, MASK_FLOOR, RawOutput
from shards.errors import DataError, SettingsError
from shards.files import read_json, replace_file, write_json

RAW_FOLDER = "raw"

FORMAT = 2
INDEX = "index.json"

# Level 6 makes files 5 % smaller and takes three times as long.
_COMPRESSION = 1


def check_mask_floor(settings: Sequence[PostprocessSettings], mask_floor: float) -> None:
    """Refuse score thresholds below the object probability up to which raw outputs keep no masks.

    Raises:
        SettingsError: one is, and its masks are asked for.
    """
    lowest = min((setting.score_threshold for setting in settings if setting.mask_source != "global"), default=1.0)
    if lowest < mask_floor:
        raise SettingsError(
            f"score_threshold {lowest:g}: the raw outputs keep the masks of queries whose object probability is above "
            f"{mask_floor:g}; set it to {mask_floor:g} or more, or predict with that lower threshold first"
        )


class RawWriter:
    """Writes chunks into a folder; several processes may write into one, each its own chunks.

    `mask_floor` is that of the outputs; the index tells it to who reads them.
    """

    def __init__(self, folder: Path, mask_floor: float = MASK_FLOOR) -> None:
        self.folder, self.mask_floor = folder, mask_floor
        folder.mkdir(parents=True, exist_ok=True)

    def find_finished(self) -> set[int]:
        """The numbers of the chunks that are there: each is whole."""
        return {int(file.stem.removeprefix("chunk-")) for file in self.folder.glob("chunk-*.npz")}

    def write_chunk(self, number: int, outputs: Sequence[RawOutput]) -> Path:
        """Write one chunk, all at once.

        Args:
            number: place of the chunk in the order of the shards, from 0.
            outputs: at least one; all of one network.
        """
        file = locate_chunk(self.folder, number)
        with replace_file(file) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name, array in pack_arrays(outputs).items():
                content = io.BytesIO()
                np.lib.format.write_array(content, np.asarray(array, order="C"), allow_pickle=False)
                # A ZipInfo has a fixed date: the same outputs give the same bytes.
                archive.writestr(
                    zipfile.ZipInfo(f"{name}.npy"), content.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION
                )
        return file

    def finish(self) -> None:
        """Write the index over all chunks in the folder; one process does so after all have written theirs.

        Raises:
            DataError: a chunk is missing between others, or damaged.
        """
        numbers = sorted(self.find_finished())
        if numbers != list(range(len(numbers))):
            missing = min(set(range(len(numbers))) - set(numbers))
            raise DataError(f"chunk {missing} is missing", file=self.folder, remedy="run igvg predict again")
        counts = [count_expressions(locate_chunk(self.folder, number)) for number in numbers]
        write_json(self.folder / INDEX, {
            "format": FORMAT, "expressions": sum(counts), "mask_floor": self.mask_floor, "chunks": counts,
        })  # fmt: skip


class RawReader:
    """Reads the outputs of a finished folder, in the order of the shards.

    Raises:
        DataError: there is no index, or it is of another format.
    """

    def __init__(self, folder: Path) -> None:
        file, remedy = folder / INDEX, "run igvg predict again with --force"
        self.folder = folder
        if not file.exists():
            raise DataError("no raw outputs, or unfinished ones", file=file, remedy="run igvg predict")
        index = read_json(file, "the index of raw outputs", remedy)
        try:
            if index["format"] != FORMAT:
                what = f"format {shorten(index['format'])} of raw outputs; this igvg reads {FORMAT}"
                raise DataError(what, file=file, remedy=remedy)
            self.chunks, self.mask_floor = list(index["chunks"]), index["mask_floor"]
            if not all(type(count) is int and count > 0 for count in self.chunks):
                raise ValueError("chunks are not whole numbers above 0")
            if sum(self.chunks) != index["expressions"]:
                raise ValueError(f"chunks hold {sum(self.chunks)} expressions, not {shorten(index['expressions'])}")
            if type(self.mask_floor) not in (int, float) or not 0 <= self.mask_floor <= 1:
                raise ValueError("mask_floor is no number from 0 to 1")
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"damaged ({error})", file=file, remedy=remedy) from error

    def __len__(self) -> int:
        """Number of expressions."""
        return sum(self.chunks)

    def __iter__(self) -> Iterator[RawOutput]:
        """All outputs, one chunk in memory at a time.

        Raises:
            DataError: a chunk is missing or damaged, or holds another number of expressions than the index says.
        """
        for number, count in enumerate(self.chunks):
            file = locate_chunk(self.folder, number)
            outputs = read_chunk(file)
            if len(outputs) != count:
                raise DataError(
                    f"{len(outputs)} expressions instead of {count}", file=file, remedy="run igvg predict again"
                )
            yield from outputs


def locate_chunk(folder: Path, number: int) -> Path:
    """The file of a chunk."""
    return folder / f"chunk-{number:06d}.npz"


def read_chunk(file: Path) -> list[RawOutput]:
    """The outputs of one chunk.

    Raises:
        DataError: the file is missing, damaged, or no chunk.
    """
    arrays = read_arrays(file)
    whole, parts = join_bytes(arrays["global_mask_logits"]), join_bytes(arrays["instance_mask_logits"])
    owners = arrays["mask_owners"]
    # Owners ascend, so an expression's masks lie between two places.
    ends = np.searchsorted(owners[:, 0], np.arange(len(whole) + 1))
    return [
        RawOutput(
            id=str(id_),
            original_size=(int(arrays["original_sizes"][row, 0]), int(arrays["original_sizes"][row, 1])),
            image_size=int(arrays["picture_size"]),
            **{name: arrays[name][row] for name in FLOAT_FIELDS},
            global_mask_logits=whole[row],
            instance_mask_logits=parts[ends[row] : ends[row + 1]],
            mask_queries=owners[ends[row] : ends[row + 1], 1],
        )
        for row, id_ in enumerate(arrays["ids"])
    ]
