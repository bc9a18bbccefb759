"""What a file is that is not what its name says."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.file_kinds import describe_content, explain_unreadable

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 71234\n"
JSON = json.dumps({"images": list(range(100))})


def draw(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (3, 2)).save(stream, kind)
    return stream.getvalue()


def pack_zip(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, "x" * 50)
    return stream.getvalue()


def pack_tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.json"))
    return stream.getvalue()


def save_array() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


CONTENTS = {
    "empty": b"",
    "zeros": bytes(3000),
    "git-lfs": POINTER,
    "git-annex": b"/annex/objects/SHA256E-s31390--f50d7ac4.json\n",
    "HTML": b"\n <!DOCTYPE html>\n<html><title>Google Drive - Virus scan warning</title></html>",
    "XML": b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code></Error>',
    "UTF-16": JSON.encode("utf-16"),
    "UTF-32": JSON.encode("utf-32"),
    "gzip": gzip.compress(JSON.encode(), mtime=0),
    "bzip2": bz2.compress(JSON.encode()),
    "xz": lzma.compress(JSON.encode()),
    "zstd": b"\x28\xb5\x2f\xfd\x04\x00",
    "zip": pack_zip("refs(unc).p"),
    "cut zip": pack_zip("refs(unc).p")[:60],
    "NumPy archive": pack_zip("ids.npy", "boxes.npy"),
    "TorchScript": pack_zip("model/constants.pkl", "model/data.pkl", "model/code/__torch__.py", "model/version"),
    "torch": pack_zip("archive/data.pkl", "archive/version", "archive/data/0"),
    "tar": pack_tar(),
    "PNG": draw("png"),
    "JPEG": draw("jpeg"),
    "TIFF": draw("tiff"),
    "WebP": draw("webp"),
    "PDF": b"%PDF-1.7\n",
    "NumPy": save_array(),
    "pickle": pickle.dumps([1], protocol=2),
    "old torch": pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2),
    "safetensors": (16).to_bytes(8, "little") + b'{"a":{}}        ',
    "SentencePiece": b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02",
    "JSON": JSON.encode(),
    "text": b"404: Not Found",
    "script": b"#!/bin/sh\n",
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_a_file_is_told_by_its_content_whatever_its_name_says(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "instances.json"
    file.write_bytes(CONTENTS[kind])
    content = describe_content(file)
    assert content is not None
    assert content.kind == kind


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_known_without_its_mark(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a").write_bytes(JSON.encode(encoding))
    content = describe_content(tmp_path / "a")
    assert content is not None
    assert content.kind == "UTF-16"


def test_a_byte_order_mark_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbf" + CONTENTS["HTML"])
    content = describe_content(tmp_path / "a")
    assert content is not None
    assert content.kind == "HTML"


def test_a_pipe_is_not_opened_and_a_folder_is_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "special"), (tmp_path, "folder")):
        content = describe_content(path)
        assert content is not None
        assert content.kind == kind


def test_unknown_bytes_and_missing_files_are_of_no_kind(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(128, 256)))
    assert describe_content(tmp_path / "a") is None
    assert describe_content(tmp_path / "b") is None


def test_an_error_says_what_the_file_is_instead_of_what_the_reader_stumbled_over(tmp_path: Path) -> None:
    file = tmp_path / "refs(unc).p"
    file.write_bytes(POINTER)
    error = explain_unreadable(file, "a pickle of refs", ValueError("invalid load key, 'v'."), "download it again")
    assert str(error) == (
        f"{file}: is a Git LFS pointer, not a pickle of refs; run `git lfs pull` in the repository that it came with, "
        "or download the file itself"
    )


def test_text_is_shown_as_far_as_it_helps(tmp_path: Path) -> None:
    file = tmp_path / "a.pth"
    file.write_text("Quota exceeded.\nThe owner of this file has downloaded too much of it.")
    error = explain_unreadable(file, "a checkpoint", "no pickle", "download it again")
    assert 'is text that begins "Quota exceeded. The owner of this file h…", not a checkpoint' in str(error)


def test_a_file_of_the_right_kind_is_damaged_for_the_reason_that_the_reader_gave(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"a":')
    error = explain_unreadable(file, "JSON", ValueError("Expecting\nvalue"), "make it again", kinds=("JSON",))
    assert str(error) == f"{file}: is damaged or cut short (Expecting value); make it again"


def test_a_file_that_may_not_be_read_is_told_in_words(tmp_path: Path) -> None:
    error = explain_unreadable(tmp_path / "a", "JSON", PermissionError(13, "Permission denied"), "make it again")
    assert str(error) == f"{tmp_path / 'a'}: permission denied; change its permissions, or use another place"


def test_a_reason_that_quotes_the_file_is_cut(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    error = explain_unreadable(tmp_path / "a.json", "JSON", ValueError("x" * 9000), "make it again", kinds=("JSON",))
    assert f"({'x' * 200}…); make it again" in str(error)
