"""What files often hold instead of what their name says."""

from __future__ import annotations

import gzip
import io
import zipfile

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 71234\n"


def list_foreign_contents(whole: bytes) -> dict[str, tuple[bytes, str]]:
    """Contents in place of a whole file's, by kind, and words that an error must have; `half` is the first half."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("inside", whole)
    return {
        "pointer": (POINTER, "is a Git LFS pointer"),
        "page": (b"<!DOCTYPE html><html><body>Sign in</body></html>", "is an HTML page"),
        "empty": (b"", "is an empty file"),
        "half": (whole[: len(whole) // 2], "damaged or"),
        "gzip": (gzip.compress(whole, mtime=0), "is compressed with gzip"),
        "zip": (packed.getvalue(), "is a zip archive"),
        "utf-16": ("version".encode("utf-16"), "is text in UTF-16"),
        "zeros": (bytes(len(whole)), "is full of zero bytes"),
    }
