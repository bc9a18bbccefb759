"""Named pipes as inputs: opening one waits until a program opens it for writing, which may never happen."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from shards.errors import DataError

WAIT_SECONDS = 60.0
"""The shell opens a pipe for a program before it starts; a program that opens it itself may load a network first."""


def open_pipe(file: Path, seconds: float | None = None) -> BinaryIO:
    """A pipe opened for reading, as soon as a program opens it for writing.

    Args:
        file: the pipe; one of the shell, as in <(...), is opened at once.
        seconds: to wait at most; None: WAIT_SECONDS.

    Raises:
        DataError: no program opened it in this time.
    """
    seconds = WAIT_SECONDS if seconds is None else seconds
    with ThreadPoolExecutor(1) as executor:
        opening = executor.submit(file.open, "rb")
        try:
            return opening.result(seconds)
        except BaseException as error:
            # A writer ends the wait of the thread.
            if not opening.done():
                os.close(os.open(file, os.O_WRONLY | os.O_NONBLOCK))
                opening.result().close()
            if isinstance(error, TimeoutError):
                what = f"no program wrote into this pipe in {seconds:g} seconds"
                raise DataError(
                    what, file=file, remedy="start the program that writes first, or give a file"
                ) from error
            raise
