"""Raw outputs on disk, so that post-processing can be repeated without the network.

The folder holds `chunk-000000.npz`, … and, once all are written, `index.json`. A chunk is a self-contained file of
consecutive expressions (`pipelines.prediction.raw_format`), renamed into place when it is complete: interrupted work
continues after the chunks that exist, and several processes write into one folder, each its own chunks.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pipelines.config.settings import PostprocessSettings
from pipelines.prediction.json_values import shorten
from pipelines.prediction.raw_format import count_expressions, pack_arrays, read_arrays, unpack_arrays
from pipelines.prediction.raw_output import MASK_FLOOR, RawOutput
from shards.errors import DataError, SettingsError
from shards.files import read_json, replace_file, write_json

RAW_FOLDER = "raw"
FORMAT = 2
INDEX = "index.json"
# Level 6 makes files 5 % smaller and takes three times as long.
_COMPRESSION_LEVEL = 1


def check_mask_floor(settings: Sequence[PostprocessSettings], mask_floor: float) -> None:
    """Refuse score thresholds that select queries whose masks the raw outputs do not hold.

    Raises:
        SettingsError: a threshold is below the mask floor, and instance masks are used.
    """
    lowest = min((setting.score_threshold for setting in settings if setting.mask_source != "global"), default=1.0)
    if lowest < mask_floor:
        raise SettingsError(
            f"score_threshold {lowest:g}: the raw outputs keep the masks of queries whose object probability is above "
            f"{mask_floor:g}; set it to {mask_floor:g} or more, or predict with that lower threshold first"
        )


class RawWriter:
    """Writes chunks into a folder.

    Args:
        folder: made if it does not exist.
        mask_floor: that of the outputs, as stored in the index.
    """

    def __init__(self, folder: Path, mask_floor: float = MASK_FLOOR) -> None:
        self.folder, self.mask_floor = folder, mask_floor
        folder.mkdir(parents=True, exist_ok=True)

    def finished_chunks(self) -> set[int]:
        """The indices of the chunks that exist; each is complete."""
        return {int(file.stem.removeprefix("chunk-")) for file in self.folder.glob("chunk-*.npz")}

    def write_chunk(self, index: int, outputs: Sequence[RawOutput]) -> Path:
        """Write chunk `index`, counted from 0, atomically; it has at least one output, all of one network."""
        file = locate_chunk(self.folder, index)
        with replace_file(file) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name, array in pack_arrays(outputs).items():
                content = io.BytesIO()
                np.lib.format.write_array(content, np.asarray(array, order="C"), allow_pickle=False)
                # A ZipInfo has a fixed date: the same outputs give the same bytes.
                member = zipfile.ZipInfo(f"{name}.npy")
                archive.writestr(member, content.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION_LEVEL)
        return file

    def finish(self) -> None:
        """Write the index of all chunks in the folder; one process does so after all chunks are written.

        Raises:
            DataError: a chunk is missing between others, or damaged.
        """
        indices = sorted(self.finished_chunks())
        if indices != list(range(len(indices))):
            missing = min(set(range(len(indices))) - set(indices))
            raise DataError(f"chunk {missing} is missing", file=self.folder, remedy="run igvg predict again")
        counts = [count_expressions(locate_chunk(self.folder, index)) for index in indices]
        write_json(self.folder / INDEX, {
            "format": FORMAT, "expressions": sum(counts), "mask_floor": self.mask_floor, "chunks": counts,
        })  # fmt: skip


class RawReader:
    """Reads the outputs of a finished folder, in the order of the shards.

    Raises:
        DataError: there is no index, or it is damaged or of another format.
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
                raise ValueError("mask_floor is not a number from 0 to 1")
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"damaged ({error})", file=file, remedy=remedy) from error

    def __len__(self) -> int:
        """Number of expressions."""
        return sum(self.chunks)

    def __iter__(self) -> Iterator[RawOutput]:
        """All outputs, one chunk in memory at a time.

        Raises:
            DataError: a chunk is missing or damaged, or does not hold as many expressions as the index says.
        """
        for index, count in enumerate(self.chunks):
            file = locate_chunk(self.folder, index)
            outputs = read_chunk(file)
            if len(outputs) != count:
                what = f"{len(outputs)} expressions instead of {count}"
                raise DataError(what, file=file, remedy="run igvg predict again")
            yield from outputs


def locate_chunk(folder: Path, index: int) -> Path:
    """The file of a chunk."""
    return folder / f"chunk-{index:06d}.npz"


def read_chunk(file: Path) -> list[RawOutput]:
    """The outputs of one chunk.

    Raises:
        DataError: the file is missing, damaged, or no chunk.
    """
    return unpack_arrays(read_arrays(file))
