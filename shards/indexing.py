"""The contents of shards found from their tars alone.

Shards of igvg and of other programs with the same layout (an image and KEY.json per record) are indexed by the same
code.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import zlib
from pathlib import Path

from shards.errors import DataError, to_line
from shards.file_kinds import explain_unreadable
from shards.files import name_file, read_range
from shards.index import IMAGE_EXTENSIONS, Row, ShardContents, ShardEntry, ShardIndex, join_shards, parse_record


def index_split(folder: Path, split: str) -> ShardIndex:
    """Index FOLDER/SPLIT/*.tar, in the order of their names, from the tars alone; `write_index` keeps the result.

    Raises:
        DataError: there are no tars, one is damaged or does not keep to the layout, or a key occurs twice.
    """
    files = sorted((folder / split).glob("*.tar"))
    if not files:
        raise DataError("holds no .tar files", file=folder / split)
    return join_shards(split, [index_shard(file) for file in files])


def index_shard(file: Path) -> ShardContents:
    """Find and check the records of one tar.

    Raises:
        DataError: the tar is damaged or compressed, or a record lacks its image or a readable KEY.json.
    """
    members = list_members(file)
    rows = []
    with file.open("rb") as stream, name_file(file):
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        for key, kinds in members.items():
            images = [extension for extension in kinds if extension.rpartition(".")[2].lower() in IMAGE_EXTENSIONS]
            if "json" not in kinds or len(images) != 1:
                what = f"is not one image and one .json, but {', '.join(f'.{kind}' for kind in kinds)}"
                raise DataError(what, file=file, record=f"key {to_line(key)}")
            checks = {}
            for kind in (images[0], "json"):
                data = read_range(stream.fileno(), *kinds[kind])
                checks[kind] = (*kinds[kind], zlib.crc32(data))
            record = parse_record(data, file, key)
            counts = record.image_id, len(record.expressions)
            rows.append(Row(key, images[0], *counts, *checks[images[0]], *checks["json"]))
    total = sum(row.expressions for row in rows)
    size = file.stat().st_size
    return ShardContents(
        ShardEntry(name=file.name, records=len(rows), expressions=total, bytes=size, sha256=sha256), rows
    )


def list_members(file: Path) -> dict[str, dict[str, tuple[int, int]]]:
    """Key → extension → (offset, size), in the order of first appearance.

    As in WebDataset, the key ends at the first dot of the name without its folders.
    """
    members: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(file, "r:") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                directory, slash, name = member.name.rpartition("/")
                stem, _, extension = name.partition(".")
                kinds = members.setdefault(directory + slash + stem, {})
                if member.issparse():
                    remedy = "write a tar that stores files whole"
                    raise DataError(
                        "is sparse, not stored whole", file=file, record=f"member {member.name}", remedy=remedy
                    )
                if extension in kinds:
                    raise DataError("occurs twice in the shard", file=file, record=f"member {member.name}")
                kinds[extension] = member.offset_data, member.size
            end = archive.offset
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        remedy = "copy it again, or prepare the split again"
        raise explain_unreadable(file, "an uncompressed tar", error, remedy, kinds=("tar",)) from error
    # tarfile takes a broken header after the first for the end of the archive: a true end is a block of zeros.
    with file.open("rb") as stream:
        if os.pread(stream.fileno(), tarfile.BLOCKSIZE, end) != bytes(tarfile.BLOCKSIZE):
            raise DataError(f"the tar breaks off at byte {end}", file=file)
    return members
