"""The one network of a server, the queue before it, and the results behind it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from pipelines.config.settings import PostprocessSettings, ServeSettings
from pipelines.data.batch import Example, collate
from pipelines.data.tokenizer import PAD_ID, check_expressions
from pipelines.grounder import Grounder
from pipelines.model import IGVGModel
from pipelines.prediction.families import find_family
from pipelines.prediction.predictor import predict_batches
from pipelines.prediction.raw_output import RawOutput
from pipelines.serving.answers import build_answer
from pipelines.serving.batching import BatchQueue
from pipelines.serving.documents import Answer
from pipelines.serving.results import KeptResult, ResultStore
from pipelines.serving.uploads import decode_upload
from shards.errors import CheckpointError

MEBIBYTE = 1 << 20
# Images decoded, and results post-processed, at a time: each takes one core and memory for its image.
_THREADS = 2
T = TypeVar("T")
Check = Callable[[], None]


class BusyError(Exception):
    """As many requests as the server takes wait already."""


class AbandonedError(Exception):
    """Nobody waits for the result any more."""


class GroundingService:
    """Answers requests; its coroutines run on one event loop.

    Args:
        grounder: an igvg network with its preprocessing.
        settings: limits, and the defaults of post-processing.
    """

    def __init__(self, grounder: Grounder, settings: ServeSettings) -> None:
        assert isinstance(grounder.model, IGVGModel)
        assert grounder.processor is not None
        self.model, self.processor, self.compute_dtype = grounder.model, grounder.processor, grounder.compute_dtype
        self.settings = settings
        self.queue = BatchQueue(self._forward, settings.batch_size)
        self.results = ResultStore(
            max_results=settings.kept_results,
            max_bytes=settings.kept_mebibytes * MEBIBYTE,
            max_seconds=settings.kept_minutes * 60,
        )
        self.waiting = 0
        self.num_parameters = sum(parameter.numel() for parameter in self.model.parameters())
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="images")

    @contextlib.contextmanager
    def admit(self) -> Iterator[None]:
        """Count a request as waiting while the block runs.

        Raises:
            BusyError: too many wait already.
        """
        if self.waiting >= self.settings.max_waiting:
            raise BusyError
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    async def predict(
        self, image: BinaryIO, texts: Sequence[str], settings: PostprocessSettings, max_side: int
    ) -> Answer:
        """Run the network on an image and expressions, keep its outputs, and post-process them.

        Cancelling the call takes the expressions out of the queue.

        Raises:
            DataError, SettingsError: the image or an expression cannot be used.
        """
        check_expressions(texts)
        examples = await self.run_in_thread(lambda _: self._prepare(image, texts))
        futures = [asyncio.wrap_future(future) for future in self.queue.submit(examples)]
        try:
            raw = await asyncio.gather(*futures)
        finally:
            # Where one failed, the others of the request are of no use.
            for future in futures:
                future.cancel()
        result = KeptResult(tuple(raw), tuple(texts))
        result_id = self.results.add(result)
        return await self.run_in_thread(lambda check: build_answer(result_id, result, settings, max_side, check=check))

    async def run_in_thread(self, function: Callable[[Check], T]) -> T:
        """Call a function in one of a few threads, so that the event loop goes on.

        Args:
            function: is given what it calls from time to time, and what then ends it if nobody waits for it any more.
        """
        is_abandoned = threading.Event()

        def check() -> None:
            if is_abandoned.is_set():
                raise AbandonedError

        try:
            return await asyncio.wrap_future(self._threads.submit(function, check))
        finally:
            is_abandoned.set()

    def close(self) -> None:
        """Cancel what waits, and return when what is in progress has ended."""
        self._threads.shutdown(cancel_futures=True)
        self.queue.close()

    def _prepare(self, image: BinaryIO, texts: Sequence[str]) -> list[Example]:
        pixels = decode_upload(image, int(self.settings.max_megapixels * 1e6))
        height, width = pixels.shape[:2]
        resized = self.processor.resize(pixels)
        return [
            Example(
                id=str(index),
                image=resized,
                input_ids=input_ids,
                original_size=(height, width),
                boxes=np.zeros((0, 4), dtype=np.float32),
                masks=np.zeros((0, 0, 0), dtype=bool),
            )
            for index, input_ids in enumerate(self.processor.tokenize(texts))
        ]

    def _forward(self, examples: Sequence[Example]) -> list[RawOutput]:
        # The masks of all queries are kept: a later request may lower the threshold.
        batches = [collate(examples, PAD_ID)]
        outputs = next(predict_batches(self.model, batches, self.compute_dtype, score_threshold=0.0))
        return [_detach(raw) for raw in outputs]


def open_service(checkpoint: Path, settings: ServeSettings, device: str | None) -> GroundingService:
    """A service around the network of a checkpoint.

    Raises:
        CheckpointError, SettingsError: it cannot be used, or is no network of igvg.
    """
    family = find_family(checkpoint)
    if family is not None:
        raise CheckpointError(
            f"{checkpoint}: {family.name} has no raw outputs that settings could change afterwards; give a network of "
            "igvg, or use igvg predict"
        )
    return GroundingService(Grounder.from_pretrained(checkpoint, device=device, precision=settings.precision), settings)


def _detach(raw: RawOutput) -> RawOutput:
    """The same with arrays of its own: views would keep the arrays of the whole batch in memory."""
    arrays = {each.name: getattr(raw, each.name) for each in dataclasses.fields(raw)}
    copies: dict[str, Any] = {name: array.copy() for name, array in arrays.items() if isinstance(array, np.ndarray)}
    return dataclasses.replace(raw, **copies)
