"""Files of torch.save whose errors say why they could not be written, and whose checksums are compared."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from shards.errors import CheckpointError, first_line


def save_values(values: Any, file: Path) -> None:
    """Write tensors and plain values with torch.save.

    Raises:
        OSError: the file cannot be written.
    """
    with file.open("wb") as stream:
        recorder = _ErrorRecorder(stream)
        try:
            torch.save(values, cast("BinaryIO", recorder))
        except RuntimeError as error:
            # torch's own error does not say why the file could not be written.
            raise recorder.error or error from error


def require_intact(file: Path, remedy: str) -> None:
    """Compare the checksums of a file of torch.save, which torch reads without a word if its bytes have changed.

    Raises:
        CheckpointError: they differ, or the file is damaged in another way.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError):
        # No zip file: whoever reads it says what it is.
        return
    except Exception as error:  # zipfile raises many kinds on damaged files
        raise CheckpointError(f"{file} is damaged ({first_line(error)}); {remedy}") from error
    if broken:
        raise CheckpointError(f"{file} is damaged: {broken} in it has changed; {remedy}")


class _ErrorRecorder(io.RawIOBase):
    """A stream that keeps the error with which the system refused to write."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self.stream = stream
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.stream.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.stream.flush()
