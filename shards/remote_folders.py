"""Remote folders behind paths: `locate_shards` gives the path that stands for an address, all else takes paths.

The path is that of a folder in the cache that holds versions of `artifact.json` and of the indexes, named by their
content. Both are fetched when first asked for, the artifact once in each process: whatever the server gives later, a
process reads one version of the set. The shards come one by one, when their records are read.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from shards.errors import DataError
from shards.files import digest_file, flush, name_file, read_json, temporary_path
from shards.progress import log
from shards.remote_addresses import check_url, is_url, join_url, redact_url
from shards.remote_cache import ShardCache, find_cache_folder, read_cache_limit
from shards.remote_chunks import TransferError
from shards.remote_transfer import Expected, download

ARTIFACT = "artifact.json"
INDEX = "index.json"
_MAX_DOCUMENT_BYTES = 1 << 30
_REFUSED_ATTEMPTS = 3
_REMEDY = "check the address, the network and your access, then run the same command again"
_NO_ARTIFACT = (
    f"check the address and your access; it must be that of a folder with the {ARTIFACT} that igvg prepare writes"
)
_SPLIT_INDEX = re.compile(r"([^/.\0\n][^/\0\n]*)/index\.json")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How long a server may fail: attempts, the seconds before the second one, doubled each time, and the timeout."""

    attempts: int = 5
    wait: float = 0.5
    timeout: float = 30.0


@dataclass(frozen=True, kw_only=True)
class RemoteFolder:
    """A prepared folder at an address, and the folder in the cache that stands for it."""

    url: str = field(repr=False)
    folder: Path
    retries: Retries = Retries()

    @property
    def shown(self) -> str:
        """The address without credentials."""
        return redact_url(self.url)

    def show(self, name: str) -> str:
        """The address of a file of the folder without credentials."""
        return redact_url(join_url(self.url, name))

    def fetch_artifact(self) -> Path:
        """`artifact.json` as it is now; fetched once in each process.

        Raises:
            DataError: it cannot be fetched.
        """
        if self.folder not in _fetched:
            _fetched[self.folder] = self._fetch_document(ARTIFACT, Expected(size=_MAX_DOCUMENT_BYTES, exact=False))
        return _fetched[self.folder]

    def list_splits(self) -> list[str]:
        """The splits that the artifact names, sorted.

        Raises:
            DataError: the artifact cannot be fetched or is none.
        """
        found = (_SPLIT_INDEX.fullmatch(name) for name in self._read_artifact("files"))
        return sorted(match[1] for match in found if match)

    def fetch_index(self, split: str) -> Path:
        """The index of a split, fetched if the cache does not hold the one that the artifact names.

        Raises:
            DataError: it cannot be fetched.
        """
        name = f"{split}/{INDEX}"
        size, sha256 = self._read_artifact("files").get(name), self._read_artifact("digests").get(name, "")
        if not isinstance(sha256, str) or (sha256 and not SHA256.fullmatch(sha256)):
            raise DataError(f"the SHA-256 of {name} is {sha256!r}", file=self.show(ARTIFACT))
        file = self._find_version(name, sha256)
        if sha256 and file.is_file() and digest_file(file) == sha256:
            return file
        expected = Expected(size=_MAX_DOCUMENT_BYTES, sha256=sha256, exact=False)
        return self._fetch_document(
            name, replace(expected, size=size, exact=True) if isinstance(size, int) else expected
        )

    def download(self, name: str, target: Path, expected: Expected, **options: Any) -> None:
        """One attempt at a file of the folder, as `remote_transfer.download`."""
        download(join_url(self.url, name), target, expected, timeout=self.retries.timeout, **options)

    def _fetch_document(self, name: str, expected: Expected) -> Path:
        """Fetch a document to a file of its own version, and return that."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)

        def attempt() -> None:
            self.download(name, temporary, expected)
            _check_document(temporary)

        with temporary_path(file) as temporary, name_file(file, temporary):
            self.retry(name, attempt)
            flush(temporary)
            return temporary.replace(self._find_version(name, digest_file(temporary)))

    def _find_version(self, name: str, sha256: str) -> Path:
        """Where a document of this content is kept: other processes may read one that was there before or after it."""
        file = self.folder / name
        return file.with_name(f"{file.stem}-{sha256[:16]}{file.suffix}")

    def retry(self, name: str, attempt: Callable[[], None]) -> None:
        """Attempts at a file until one succeeds.

        Raises:
            DataError: all failed; names the file.
        """
        wait = self.retries.wait
        for made in range(1, self.retries.attempts + 1):
            try:
                attempt()
            except TransferError as error:
                if made == self.retries.attempts or (error.refused and made >= _REFUSED_ATTEMPTS):
                    what = f"cannot be fetched, {made} attempts failed: {error.what}"
                    remedy = error.remedy or (_NO_ARTIFACT if name == ARTIFACT and error.refused else _REMEDY)
                    raise DataError(what, file=self.show(name), remedy=remedy) from error
                log(f"{self.show(name)}: {error.what}; attempt {made + 1} in {wait:g} s")
                time.sleep(wait)
                wait *= 2
            else:
                return

    def _read_artifact(self, group: str) -> dict[str, Any]:
        values = read_json(self.fetch_artifact()).get(group, {})
        if not isinstance(values, dict):
            raise DataError(f"is no record of a stage ({group} is no dict)", file=self.show(ARTIFACT))
        return values


def _check_document(file: Path) -> None:
    """Check that a file is a JSON object with the checksum that it names, if any.

    Raises:
        TransferError: it is not.
    """
    try:
        document = read_json(file)
    except DataError as error:
        raise TransferError(error.what, refused=True) from error
    if not isinstance(document, dict):
        raise TransferError("is no JSON object", refused=True)
    if checksum := document.pop("checksum", ""):
        # As `Artifact.expected_checksum` of the stages.
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
        if hashlib.sha256(canonical.encode()).hexdigest() != checksum:
            raise TransferError("it differs from its checksum")


# By the folder in the cache that stands for each.
_folders: dict[Path, RemoteFolder] = {}
# The artifacts.
_fetched: dict[Path, Path] = {}


def locate_shards(text: str) -> Path:
    """The path of prepared shards: the text itself or, for an address, the folder in the cache that stands for it.

    Nothing is fetched yet.

    Raises:
        SettingsError: it is an address that no server can be asked for, or there is no folder for the cache.
    """
    if not is_url(text):
        return Path(text)
    check_url(text)
    # Whoever reads the name of the folder cannot try passwords on it.
    user, at, _ = text.partition("://")[2].partition("/")[0].rpartition("@")
    key = hashlib.sha256(text.replace(user + at, "", 1).encode(errors="surrogatepass")).hexdigest()
    folder = find_cache_folder() / "folders" / key[:16]
    _folders[folder] = RemoteFolder(url=text, folder=folder)
    return folder


def find_remote(folder: Path) -> RemoteFolder | None:
    """The remote folder that a path stands for."""
    return _folders.get(folder)


def show_addresses(text: str) -> str:
    """A message that names remote folders by their addresses, not by the paths that stand for them.

    Paths of files below, such as an image cache, stay: these are on this machine.
    """
    for folder, remote in _folders.items():
        text = re.sub(rf"{re.escape(str(folder))}(?![\w/])", remote.shown.replace("\\", r"\\"), text)
    return text


def open_cache() -> ShardCache:
    """The cache of shards of this machine.

    Raises:
        SettingsError: IGVG_CACHE_LIMIT is no size.
    """
    return ShardCache(find_cache_folder() / "shards", read_cache_limit())
