"""Shards that others wrote, with our record schema and without an index: what they may hold, checked before it is read.

They are read by our own reader of tars, and not by `webdataset.WebDataset`: the index needs the byte offset of each
member, which a stream does not tell, and importing webdataset loads torch. What is taken gives every reader of
WebDataset the same keys, fields and bytes; tests compare both, with `enforce_security` on. What such a reader takes
otherwise is refused: members of a record that are not neighbors, and names that it skips.

Nothing is ever unpacked. Names that other programs would unpack elsewhere, links, devices and members that are larger
than an image or a record can be are refused all the same, from the headers alone.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from shards.errors import DataError, to_line
from shards.file_kinds import describe_content
from shards.files import name_file, read_range
from shards.image_validation import check_image
from shards.index import ShardContents, parse_record
from shards.indexing import list_members
from shards.masks import validate_rle
from shards.record import ImageRecord

MAX_MEMBERS = 100_000
"""Of one tar, headers for long names included."""
MAX_JSON_BYTES = 16 << 20
MAX_MEMBER_BYTES = 256 << 20
MAX_PIXELS = 100_000_000
_MAX_NAME_BYTES = 1 << 20
_NAME_HEADERS = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)
_FILES = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE})
_KINDS = {tarfile.LNKTYPE: "a link", tarfile.SYMTYPE: "a link", tarfile.GNUTYPE_SPARSE: "a sparse file"}
# Keywords of extended headers that change where the next member lies.
_REDEFINED = re.compile(rb"\d+ (?:size|GNU\.sparse\.\w+(?:\.\w+)?)=")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# SPLIT-000000, and 000000 alone.
_NUMBERED = re.compile(r"(?:(?P<split>.+)-)?[0-9]+")
# webdataset.tariterators: `base_plus_ext`, and `skip_meta` of `tar_file_iterator`.
_KEYED = re.compile(r"(?:.*/)?[^./][^./]*\.[^/]*")
_META = re.compile(r"__[^/]*__(?:$|/)")
# What makes a plain .tar of a file: by the end of its name, and by its content with the end that the program expects.
_COMPRESSED = {
    ".bz2": "bunzip2", ".gz": "gunzip", ".lz4": "unlz4", ".lzma": "unlzma", ".taz": "gunzip", ".tbz": "bunzip2",
    ".tbz2": "bunzip2", ".tgz": "gunzip", ".tlz": "unlzma", ".txz": "unxz", ".tzst": "unzstd", ".xz": "unxz",
    ".z": "gunzip", ".zst": "unzstd",
}  # fmt: skip
_COMPRESSED_KINDS = {"bzip2": ".bz2", "gzip": ".gz", "lz4": ".lz4", "xz": ".xz", "zstd": ".zst"}
_REMEDY = "write the shards again without it"


def find_tars(folder: Path) -> dict[str, list[Path]]:
    """The tars of each split: those of FOLDER/SPLIT or, where FOLDER holds them itself, SPLIT.tar and SPLIT-NUMBER.tar.

    Raises:
        DataError: there is no such folder, it holds no tars or does not tell their splits, or one is no file.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such folder"
        raise DataError(what, file=folder, remedy="give the folder that holds the tars, no file and no pattern")
    remedy = "name them SPLIT-000000.tar, or put each split into a folder of its own"
    own, nested = (sorted(folder.glob(pattern)) for pattern in ("*.tar", "*/*.tar"))
    nested = [file for file in nested if not file.parent.name.startswith(".")]
    _refuse_passed_over(folder)
    if own and nested:
        what = f"holds tars and folders of tars, {own[0].name} and {nested[0].parent.name}"
        raise DataError(what, file=folder, remedy="give the folder of one of the two")
    splits: dict[str, list[Path]] = {}
    for file in own or nested:
        if not file.is_file():
            raise DataError("is not a regular file", file=file, remedy="remove it, or copy the shard itself there")
        found = _NUMBERED.fullmatch(file.stem) if own else None
        if found and not found["split"]:
            raise DataError("its name does not tell its split", file=file, remedy=remedy)
        split = file.parent.name if nested else found["split"] if found else file.stem
        splits.setdefault(split, []).append(file)
    splits = {split: files for split, files in splits.items() if not split.startswith(".")}
    if not splits:
        raise DataError("holds no .tar files", file=folder, remedy=remedy)
    for split, files in splits.items():
        # The prepared folder holds artifact.json beside its splits.
        if _CONTROL.search(split) or split.lower().endswith(".json"):
            what = f"its split {split[:40]!a} has control characters or ends in .json"
            raise DataError(what, file=files[0], remedy="rename it")
    return splits


def _refuse_passed_over(folder: Path) -> None:
    """Refuse tars of other names: compressed ones, of which no byte can be found without all before it, and X.TAR."""
    for file in sorted([*folder.glob("*.*"), *folder.glob("*/*.*")]):
        suffix = file.suffix.lower()
        renamed = f"rename it to end in {suffix}" if suffix != file.suffix else ""
        if suffix == ".tar" and renamed:
            raise DataError("is passed over by its name", file=file, remedy=renamed)
        if suffix in _COMPRESSED and (".tar" in map(str.lower, file.suffixes) or suffix.startswith(".t")):
            raise DataError("is compressed", file=file, remedy=_advise_unpacking(suffix, renamed))


def _advise_unpacking(suffix: str, renamed: str) -> str:
    unpacked = f"unpack it to a plain .tar with {_COMPRESSED[suffix]}, and keep only that"
    return f"{renamed}, {unpacked}" if renamed else unpacked


def check_members(file: Path) -> None:
    """Check a tar by its headers; what is no tar is left to `index_shard`.

    Raises:
        DataError: a member may not be in a shard, and is named; or it is a compressed tar.
    """
    content = describe_content(file)
    if content and (suffix := _COMPRESSED_KINDS.get(content.kind)):
        remedy = _advise_unpacking(suffix, f"rename it to {file.name}{suffix}")
        raise DataError(f"is {content.words}, not an uncompressed tar", file=file, remedy=remedy)
    with file.open("rb") as stream, name_file(file):
        for number, (header, position) in enumerate(_read_headers(stream.fileno()), start=1):
            _check_header(file, header, position, os.fstat(stream.fileno()).st_size)
            if header.type in _NAME_HEADERS and _REDEFINED.search(read_range(stream.fileno(), position, header.size)):
                raise _refuse(file, header.name, "changes the size of another member")
            if number > MAX_MEMBERS:
                remedy = "write shards of fewer records"
                raise DataError(f"holds more than {MAX_MEMBERS:,} members", file=file, remedy=remedy)
    members = list_members(file)
    _check_neighbors(file, members)
    for key, kinds in members.items():
        for extension, (_, size) in kinds.items():
            name = f"{key}.{extension}" if extension else key
            if name.startswith("/") or ".." in name.split("/") or "\\" in name:
                raise _refuse(file, name, "leads out of the folder that it would be unpacked into")
            if _CONTROL.search(name):
                raise _refuse(file, name, "has characters that no name of a file should have")
            if not _KEYED.fullmatch(name) or _META.match(name):
                raise _refuse(
                    file, name, "has a name without a key or an extension, or one that readers of WebDataset skip"
                )
            if extension == "json" and size > MAX_JSON_BYTES:
                raise _refuse(file, name, f"has {size:,} bytes; a record may have {MAX_JSON_BYTES:,}")


def _check_neighbors(file: Path, members: Mapping[str, Mapping[str, tuple[int, int]]]) -> None:
    """Refuse a record whose members are not side by side: a stream gives each part of it as a record of its own."""
    placed = sorted((offset, key, kind) for key, kinds in members.items() for kind, (offset, _) in kinds.items())
    seen, last = set[str](), None
    for _, key, kind in placed:
        if key != last and key in seen:
            name = f"{key}.{kind}" if kind else key
            remedy = "write each record's image and .json one after the other: sort their names"
            raise DataError(
                "is not beside the other members of its key", file=file, record=f"member {name}", remedy=remedy
            )
        seen.add(key)
        last = key


def read_records(file: Path, contents: ShardContents) -> Iterator[tuple[str, ImageRecord]]:
    """Keys and records of a checked tar, the image of each decoded to its end and compared with its record.

    Raises:
        DataError: an image is damaged, too large or of another size than its record says, or a mask is none; names
            the key.
    """
    with file.open("rb") as stream, name_file(file):
        for row in contents.rows:
            document = read_range(stream.fileno(), row.json_offset, row.json_size)
            record = parse_record(document, file, row.key)
            if not 0 <= record.image_id < 1 << 63:
                what = f"image_id {record.image_id} is no number from 0 to 2^63 - 1"
                raise DataError(what, file=file, record=f"key {row.key}")
            if min(record.width, record.height) < 1 or record.width * record.height > MAX_PIXELS:
                what = f"the image has {record.width} × {record.height} pixels; 1 to {MAX_PIXELS:,} are read"
                raise DataError(what, file=file, record=f"key {row.key}")
            _check_texts(file, row.key, record)
            _check_boxes(file, row.key, record)
            _check_masks(file, row.key, record)
            data = read_range(stream.fileno(), row.image_offset, row.image_size)
            check_image(data, file, record, f"key {row.key}", kinds=("tar",))
            yield row.key, record


def _check_texts(file: Path, key: str, record: ImageRecord) -> None:
    for expression in record.expressions:
        try:
            expression.text.encode()
            blank = not expression.text.strip()
        except UnicodeEncodeError:
            blank = True
        if blank:
            what = f"expression {to_line(expression.id)} has a text that is empty or no Unicode"
            raise DataError(what, file=file, record=f"key {to_line(key)}")


def _check_boxes(file: Path, key: str, record: ImageRecord) -> None:
    for instance in record.instances:
        x0, y0, x1, y1 = instance.box
        if x0 == x1 or y0 == y1:
            what = f"the box of annotation {instance.ann_id} covers no pixel: {list(instance.box)}"
            raise DataError(what, file=file, record=f"key {to_line(key)}")


def _check_masks(file: Path, key: str, record: ImageRecord) -> None:
    for instance in record.instances:
        if instance.mask is None:
            continue
        what = f"the mask of annotation {instance.ann_id}"
        try:
            valid = validate_rle(instance.mask["counts"], record.height, record.width)
        except ValueError as error:
            raise DataError(f"{what} has {error}", file=file, record=f"key {to_line(key)}") from error
        # The bytes of the shard stay, so that a mask cannot be mended.
        if valid["counts"] != instance.mask["counts"]:
            remedy = "encode it again with pycocotools"
            raise DataError(f"{what} has runs of no pixels", file=file, record=f"key {to_line(key)}", remedy=remedy)


def _read_headers(descriptor: int) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """Each header, and the position of what follows it; ends where there is no header."""
    position = 0
    while True:
        block = os.pread(descriptor, tarfile.BLOCKSIZE, position)
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            return
        position += tarfile.BLOCKSIZE
        yield header, position
        if header.type != tarfile.DIRTYPE:
            position += -(-header.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _check_header(file: Path, header: tarfile.TarInfo, position: int, end: int) -> None:
    if header.type in _NAME_HEADERS:
        if not 0 <= header.size <= _MAX_NAME_BYTES:
            raise _refuse(file, header.name, f"is a name or description of {header.size:,} bytes")
    elif header.type in _FILES:
        if not 0 <= header.size <= MAX_MEMBER_BYTES:
            raise _refuse(file, header.name, f"has {header.size:,} bytes; a member may have {MAX_MEMBER_BYTES:,}")
        if position + header.size > end:
            what = f"has {header.size:,} bytes, and the tar ends after {max(0, end - position):,} of them"
            raise _refuse(file, header.name, what)
    elif header.type != tarfile.DIRTYPE:
        raise _refuse(file, header.name, f"is {_KINDS.get(header.type, 'a device or of an unknown type')}, not a file")


def _refuse(file: Path, name: str, what: str) -> DataError:
    shown = name if len(name) <= 100 else f"{name[:100]}…"
    return DataError(what, file=file, record=f"member {shown!r}", remedy=_REMEDY)
