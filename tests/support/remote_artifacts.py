"""What remote shards need beside them, the record of their folder, and what of them is in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

from shards.files import digest_file


def write_artifact(folder: Path) -> None:
    """The part of the record of `igvg prepare` that is read from afar."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.suffix in (".tar", ".json")]
    names = {file.relative_to(folder).as_posix(): file for file in files if file.name != "artifact.json"}
    document = {
        "stage": "prepare",
        "fingerprint": "f" * 64,
        "inputs": {},
        "options": {},
        "files": {name: file.stat().st_size for name, file in names.items()},
        "digests": {name: digest_file(file) for name, file in names.items() if file.suffix == ".json"},
    }
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    document["checksum"] = hashlib.sha256(canonical.encode()).hexdigest()
    (folder / "artifact.json").write_text(json.dumps(document), encoding="utf-8")


def list_cached(cache: Path) -> list[Path]:
    return sorted((cache / "shards").glob("*.tar"))


def measure_cached(cache: Path) -> int:
    """Bytes of the shards in the cache; the thread that fetches ahead may remove some while they are counted."""
    total = 0
    for file in list_cached(cache):
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size
    return total
