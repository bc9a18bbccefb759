"""The shards that a training reads now and next, kept in the cache and fetched ahead."""

from __future__ import annotations

import time
from collections.abc import Sequence

from shards.remote_cache import release
from shards.remote_folders import open_cache
from shards.remote_prefetch import prefetch
from shards.remote_shards import RemoteShard

# A shard that cannot be fetched is not asked for at every step.
_RETRY_SECONDS = 1.0


class HeldShards:
    """Shards that no process may remove from the cache, as far as they fit in it together."""

    def __init__(self) -> None:
        self._descriptors: dict[str, int] = {}
        self._asked: list[str] = []
        self._ask_again = 0.0

    def hold(self, shards: Sequence[RemoteShard]) -> None:
        """Hold these shards and no others; those that are not in the cache are fetched in the background, in order.

        Call it again from time to time: a shard is held from the first call after it has come.
        """
        needed = {shard.sha256: shard for shard in shards}
        for sha256 in self._descriptors.keys() - needed.keys():
            release(self._descriptors.pop(sha256))
        if len(self._descriptors) == len(needed):
            return
        cache = open_cache()
        missing, room = [], cache.limit
        for sha256, shard in needed.items():
            room -= shard.size
            if room < 0:
                break
            if sha256 not in self._descriptors:
                descriptor = cache.open(sha256, shard.size)
                if descriptor is None:
                    missing.append(shard)
                else:
                    self._descriptors[sha256] = descriptor
        self._fetch(missing)

    def _fetch(self, missing: list[RemoteShard]) -> None:
        names, now = [shard.sha256 for shard in missing], time.monotonic()
        if names != self._asked or now >= self._ask_again:
            self._asked, self._ask_again = names, now + _RETRY_SECONDS
            prefetch(missing)

    def close(self) -> None:
        """Let all of them go."""
        while self._descriptors:
            release(self._descriptors.popitem()[1])
