"""The expressions of a training that are cut at the token limit, counted beside it: its first step does not wait."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any

from pipelines.data.datasets import GroundingDataset
from pipelines.data.truncation import Finding, describe_findings, find_truncated_expressions
from shards.progress import log
from shards.workers import BackgroundCall, check_parent

_BATCH = 1000


class CutExpressions:
    """Counts the expressions of a data set that are cut at the token limit, in a process of its own.

    All records are read for it, of a set of published size in seconds. `close` ends the process.
    """

    def __init__(self, data: GroundingDataset) -> None:
        self._max_tokens = data.processor.max_tokens
        # A tokenizer that has used its threads warns in every process that is forked, unless this is set.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self._call = BackgroundCall(partial(_find_cut, data), remedy="run the same command again, it goes on")

    @cached_property
    def count(self) -> int:
        """How many there are; waits for the count, and logs it if it is not 0.

        Raises:
            DataError: a record is damaged.
            WorkerError: the process died.
        """
        findings = self._call.result()
        for line in describe_findings(findings, self._max_tokens, each=False):
            log(line)
        return len(findings)

    @property
    def is_counted(self) -> bool:
        """Whether the count is known by now."""
        return "count" in self.__dict__ or self._call.is_done

    def log_when_counted(self) -> None:
        """Log the count if it is known by now.

        Raises:
            DataError, WorkerError: as `count`.
        """
        if self.is_counted:
            assert self.count >= 0

    def close(self) -> None:
        """End the process."""
        self._call.close()


def _find_cut(data: GroundingDataset) -> list[Finding]:
    processor = data.processor
    return list(
        find_truncated_expressions(processor.tokenizer, _watch_parent(data.expressions()), processor.max_tokens)
    )


def _watch_parent(expressions: Iterator[Any]) -> Iterator[Any]:
    for index, expression in enumerate(expressions):
        if index % _BATCH == 0:
            check_parent()
        yield expression
