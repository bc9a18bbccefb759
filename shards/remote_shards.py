"""Shards of remote folders, fetched into the cache of this machine when they are opened, or ahead of that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shards.errors import DataError
from shards.files import name_file
from shards.remote_cache import ShardCache
from shards.remote_folders import INDEX, SHA256, RemoteFolder, open_cache
from shards.remote_transfer import Expected


@dataclass(frozen=True, kw_only=True)
class RemoteShard:
    """A shard as the index of its split describes it."""

    folder: RemoteFolder
    split: str
    name: str
    size: int
    sha256: str

    def open(self) -> int:
        """A descriptor of the shard, which is fetched if the cache does not hold it.

        Raises:
            DataError: it cannot be fetched; names it.
        """
        cache = open_cache()
        while (descriptor := cache.open(self.sha256, self.size)) is None:
            with cache.lock(self.sha256):
                # Another process may have fetched it while this one waited.
                if not cache.has(self.sha256, self.size):
                    self._fetch(cache)
        return descriptor

    def fetch_ahead(self, is_cancelled: Callable[[], bool]) -> None:
        """One attempt at a shard that will be needed, unless another process or thread is at it.

        Raises:
            TransferError, TransferCancelledError, SettingsError, OSError: it failed.
        """
        cache = open_cache()
        if cache.has(self.sha256, self.size):
            return
        with cache.lock(self.sha256, wait=False) as locked:
            if locked and not cache.has(self.sha256, self.size):
                self._fetch(cache, is_cancelled)

    def _fetch(self, cache: ShardCache, is_cancelled: Callable[[], bool] | None = None) -> None:
        """Fetch the shard, whose lock is held: once, and if it fits, if that can be cancelled, else with retries."""
        if not cache.make_room(self.size) and is_cancelled:
            return
        temporary, expected = cache.temporary(self.sha256), Expected(size=self.size, sha256=self.sha256)
        name = f"{self.split}/{self.name}"
        with name_file(cache.file(self.sha256), temporary):
            if is_cancelled:
                self.folder.download(name, temporary, expected, is_cancelled=is_cancelled)
            else:
                self.folder.retry(name, lambda: self.folder.download(name, temporary, expected))
            cache.admit(self.sha256)


def list_shards(folder: RemoteFolder, split: str, shards: Sequence[tuple[str, int, str]]) -> list[RemoteShard]:
    """The shards of a split, from the name, size and SHA-256 of each.

    Raises:
        DataError: a SHA-256 is none.
    """
    for name, _, sha256 in shards:
        if not isinstance(sha256, str) or not SHA256.fullmatch(sha256):
            raise DataError(f"the SHA-256 of shard {name} is {sha256!r}", file=folder.show(f"{split}/{INDEX}"))
    return [
        RemoteShard(folder=folder, split=split, name=name, size=size, sha256=sha256) for name, size, sha256 in shards
    ]
