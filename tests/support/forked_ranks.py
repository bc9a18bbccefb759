"""Commands of several processes that work together, each forked from one that has loaded everything."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.support.forked_commands import CommandServer, ForkedCommand


class RankServer:
    """Runs one command at a time in several processes, with the variables that torchrun sets."""

    def __init__(self, folder: Path, world_size: int = 2) -> None:
        folders = [folder / f"rank-{rank}" for rank in range(world_size)]
        for each in folders:
            each.mkdir()
        self._servers = [CommandServer(each) for each in folders]

    def start(self, words: Sequence[str], **environment: str) -> list[ForkedCommand]:
        """The processes, by rank."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = str(listener.getsockname()[1])
        count = str(len(self._servers))
        shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        return [
            server.start(words, **environment, **shared, RANK=str(rank), LOCAL_RANK=str(rank))
            for rank, server in enumerate(self._servers)
        ]

    def run(self, words: Sequence[str], **environment: str) -> None:
        """Run a command to its end, with success."""
        commands = self.start(words, **environment)
        statuses = [command.wait() for command in commands]
        assert not any(statuses), (words, statuses, [command.errors.read_text() for command in commands])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for server in self._servers:
            server.__exit__(*error)
