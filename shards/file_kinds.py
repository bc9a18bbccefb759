"""The kind of a file by its first bytes, for errors about files that are not what their name says.

Many files that seem damaged are something else: a Git LFS pointer, the login page of a download, a packed archive.
"""

from __future__ import annotations

import codecs
import os
import stat
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from shards.errors import DataError, describe_system_error, to_line

_HEAD = 4096
_SHOWN = 40
# Some libraries quote all the bytes that they could not read.
_MAX_REASON_LENGTH = 200


class Content(NamedTuple):
    """The content of a file: its `kind`, `words` that follow "is" in a sentence, and what the user can do."""

    kind: str
    words: str
    remedy: str


_UNPACK = "unpack it and give the file inside"
_NO_REMEDY = ""
"""The remedy of the caller is shown instead."""
_SIGNATURES = (
    (b"\x1f\x8b", Content("gzip", "compressed with gzip", "unpack it with gunzip < FILE > NEW (or tar -xzf)")),
    (b"BZh", Content("bzip2", "compressed with bzip2", "unpack it with bunzip2")),
    (b"\xfd7zXZ\x00", Content("xz", "compressed with xz", "unpack it with unxz")),
    (b"\x28\xb5\x2f\xfd", Content("zstd", "compressed with zstd", "unpack it with unzstd")),
    (b"\x04\x22\x4d\x18", Content("lz4", "compressed with lz4", "unpack it with unlz4")),
    (b"7z\xbc\xaf\x27\x1c", Content("7z", "a 7z archive", _UNPACK)),
    (b"Rar!\x1a\x07", Content("rar", "a RAR archive", _UNPACK)),
    (b"\x89PNG\r\n\x1a\n", Content("PNG", "a PNG image", _NO_REMEDY)),
    (b"\xff\xd8\xff", Content("JPEG", "a JPEG image", _NO_REMEDY)),
    (b"GIF8", Content("GIF", "a GIF image", _NO_REMEDY)),
    (b"%PDF-", Content("PDF", "a PDF document", _NO_REMEDY)),
    (b"\x89HDF\r\n", Content("HDF5", "an HDF5 file", _NO_REMEDY)),
    (b"\x93NUMPY", Content("NumPy", "a NumPy array", _NO_REMEDY)),
    (b"SQLite format 3\x00", Content("SQLite", "an SQLite database", _NO_REMEDY)),
    (b"PAR1", Content("Parquet", "a Parquet table", _NO_REMEDY)),
    (b"GGUF", Content("GGUF", "a GGUF model", _NO_REMEDY)),
    (b"\x7fELF", Content("ELF", "a program", _NO_REMEDY)),
    (b"#!", Content("script", "a script", _NO_REMEDY)),
)
_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
# The magic number of torch.save before it wrote archives.
_TORCH_MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"


def explain_unreadable(
    file: Path,
    expected: str,
    error: Exception | str,
    remedy: str,
    *,
    kinds: Sequence[str] = (),
    record: str = "",
) -> DataError:
    """The error for a file that could not be read as what it should be.

    Args:
        file: the file.
        expected: what it should be, with its article if it has one, e.g. "a pickle of refs".
        error: why reading failed; an OSError is described without looking at the file.
        remedy: what the user can do about a damaged file; a file of another kind has its own remedy.
        kinds: kinds of content that a valid file may have, e.g. "JSON": then the file is damaged.
        record: the record that was being read, e.g. "line 5".
    """
    if isinstance(error, OSError) and error.errno is not None:
        what, _, advice = describe_system_error(error).partition("; ")
        return DataError(what, file=file, record=record or None, remedy=advice or remedy)
    content = describe_content(file)
    if content is not None and content.kind not in kinds:
        return DataError(f"is {content.words}, not {expected}", file=file, remedy=content.remedy or remedy)
    reason = " ".join(str(error).split()) or type(error).__name__
    reason = to_line(reason, _MAX_REASON_LENGTH)
    what = "is damaged or cut short" if content and content.kind != "text" else f"is damaged or not {expected}"
    return DataError(f"{what} ({reason})", file=file, record=record or None, remedy=remedy)


def describe_content(file: Path) -> Content | None:
    """What a file holds, judged by its first bytes; None where they fit no known kind, or nothing can be read.

    The kinds: folder, special, empty, zeros, git-lfs, git-annex, HTML, XML, UTF-16, UTF-32, gzip, bzip2, xz, zstd, lz4,
    7z, rar, zip, cut zip, NumPy archive, TorchScript, torch, old torch, pickle, safetensors, tar, PNG, JPEG, GIF, TIFF,
    WebP, PDF, HDF5, NumPy, SQLite, Parquet, GGUF, ELF, script, SentencePiece, JSON, text.
    """
    try:
        mode = file.stat().st_mode
        if stat.S_ISDIR(mode):
            return Content("folder", "a folder", "give a file in it")
        if not stat.S_ISREG(mode):
            return Content("special", "a device or a pipe", "give a file on the disk")
        with file.open("rb") as stream:
            head = stream.read(_HEAD)
            size = os.fstat(stream.fileno()).st_size
    except OSError:
        return None
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _describe_zip(file)
    if head and not head.strip(b"\x00"):
        return Content("zeros", "full of zero bytes", _NO_REMEDY)
    return describe_bytes(head, size)


def describe_bytes(head: bytes, size: int | None = None) -> Content | None:
    """As `describe_content`, of a file's first bytes and its size in bytes."""
    size = len(head) if size is None else size
    if not head:
        return Content("empty", "an empty file", _NO_REMEDY)
    if text := _describe_markup(head.removeprefix(codecs.BOM_UTF8).lstrip()):
        return text
    for mark, encoding in _ENCODINGS:
        if head.startswith(mark):
            return _describe_encoding(encoding)
    for signature, content in _SIGNATURES:
        if head.startswith(signature):
            return content
    return _describe_binary(head, size) or _describe_text(head)


def _describe_markup(text: bytes) -> Content | None:
    start = text[:512].lower()
    if text.startswith(b"version https://git-lfs.github.com/spec/"):
        remedy = "run `git lfs pull` in the repository that it came with, or download the file itself"
        return Content("git-lfs", "a Git LFS pointer", remedy)
    if text.startswith(b"/annex/objects/"):
        return Content("git-annex", "a git-annex pointer", "run `git annex get` on it in its repository")
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script")) or b"<html" in start:
        remedy = "the download answered with a page, perhaps a login or a warning: download the file itself"
        return Content("HTML", "an HTML page", remedy)
    if start.startswith(b"<?xml") or (start.startswith(b"<error>") and b"<code>" in start):
        return Content("XML", "an XML document", "if it is a server's error message, download the file itself")
    return None


def _describe_encoding(name: str) -> Content:
    return Content(name, f"text in {name}", "save it as UTF-8")


def _describe_binary(head: bytes, size: int) -> Content | None:
    if head[257:262] == b"ustar":
        return Content("tar", "a tar archive", "unpack it with tar -xf")
    if head.startswith((b"II*\x00", b"MM\x00*")):
        return Content("TIFF", "a TIFF image", _NO_REMEDY)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return Content("WebP", "a WebP image", _NO_REMEDY)
    if head[:1] == b"\x80" and head[1:2] <= b"\x05" and len(head) > 1:
        if _TORCH_MAGIC in head[:20]:
            return Content("old torch", "a checkpoint of torch.save", _NO_REMEDY)
        return Content("pickle", "a pickle", _NO_REMEDY)
    if len(head) > 8 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= size:
        return Content("safetensors", "a safetensors file", _NO_REMEDY)
    if head[:1] == b"\x0a" and b"<unk>" in head[:64]:
        return Content("SentencePiece", "a SentencePiece model", _NO_REMEDY)
    for offset in (0, 1):
        if len(head) >= 8 and not head[offset:64:2].strip(b"\x00") and b"\x00" not in head[1 - offset : 64 : 2]:
            return _describe_encoding("UTF-16")
    return None


def _describe_text(head: bytes) -> Content | None:
    """JSON, or the beginning of a text that is none; other bytes are of no known kind."""
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return None
    if any(ord(character) < 32 and character not in "\t\n\r\f" for character in text):
        return None
    text = " ".join(text.split())
    if text.startswith(("{", "[")):
        return Content("JSON", "JSON", _NO_REMEDY)
    return Content("text", f'text that begins "{to_line(text, _SHOWN)}"' if text else "blank text", _NO_REMEDY)


def _describe_zip(file: Path) -> Content:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()[:10_000]
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return Content("cut zip", "the first part of a zip archive", _NO_REMEDY)
    ends = {name.partition("/")[2] or name for name in names}
    if "constants.pkl" in ends or any(end.startswith("code/") for end in ends):
        remedy = "it holds a program, which igvg does not run: ask its authors for a state dict"
        return Content("TorchScript", "a TorchScript archive", remedy)
    if "data.pkl" in ends:
        return Content("torch", "a checkpoint of torch.save", _NO_REMEDY)
    if names and all(name.endswith(".npy") for name in names):
        return Content("NumPy archive", "a NumPy archive", _NO_REMEDY)
    return Content("zip", "a zip archive", "unpack it with unzip and give the file inside")
