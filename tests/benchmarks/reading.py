"""Reading of training examples: from image files, from an image cache, and as the published loader does it.

Rates are those of one core: examples by seconds of processor time, so that other programs on the machine count little.
The three ways read the same examples in turns, and the fastest turn of each counts.
"""

from __future__ import annotations

import contextlib
import io
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from pipelines.config.presets import train_preset
from pipelines.data.batch import Batch, collate
from pipelines.data.cut_expressions import CutExpressions
from pipelines.data.datasets import GroundingDataset, read_texts
from pipelines.data.image_cache import ImageCache
from pipelines.data.image_cache_building import build_caches
from pipelines.data.image_transforms import PIXEL_MEAN, PIXEL_STD
from pipelines.data.loader import count_cpus, load_batches
from pipelines.data.processor import Processor
from pipelines.data.tokenizer import PAD_ID, save_tokenizer, train_tokenizer
from pipelines.runtime.memory import keep_freed_memory
from pipelines.training.setup import setup_training
from pipelines.training.trainer import open_batches
from shards.index import Row, ShardContents, join_shards, read_index, write_index
from shards.sampling import sample_batch
from tests.benchmarks.figures import Figure
from tests.support.photo_shards import EXPRESSIONS, write_photos

IMAGES, SIDE, BATCH = 200, 320, 16
FULL_SIZE = 20_000
STEP_SECONDS = 0.020


def measure(home: Path) -> list[Figure]:
    """Rates of the three ways, the shares of their steps, the first batch of a large set and a training's waiting."""
    shards = write_photos(home, IMAGES)
    # As in the workers of a training.
    keep_freed_memory()
    parts = [(shards, "train")]
    tokenizer = train_tokenizer(read_texts(parts), 8000)
    processor = Processor(tokenizer=tokenizer, max_tokens=50, image_size=SIDE)
    decoded, cached = (GroundingDataset(parts, processor, mask_size=SIDE) for _ in range(2))
    started = time.process_time()
    cached.caches = build_caches(cached.readers, SIDE, limit=1, workers=0)
    building = time.process_time() - started
    ways = {
        "from the image cache": lambda indices: collate(cached.read(indices), PAD_ID),
        "from image files": lambda indices: collate(decoded.read(indices), PAD_ID),
        "as the published loader": lambda indices: _read_as_published(decoded, indices),
    }
    bounds = {"from the image cache": "≥ 1,500", "from image files": "≥ 250"}
    figures = [
        Figure(f"read examples at {SIDE} px {way}, a core", rate, "examples/s", bounds.get(way, ""))
        for way, rate in _measure_rates(ways, len(decoded)).items()
    ]
    figures.append(Figure("build an image cache, a core", IMAGES / building, "images/s"))
    for name, data in (("image files", decoded), ("the image cache", cached)):
        figures += [
            Figure(f"share of {step}, from {name}", 100 * share, "%") for step, share in _measure_shares(data).items()
        ]
    figures += _measure_access(cached.caches[0])
    figures += _measure_full_size(home / "full", shards, processor)
    figures.append(_measure_training_start(home / "full", home / "run", tokenizer))
    return figures + _measure_waiting(cached)


def _measure_rates(ways: dict[str, Callable[[list[int]], Any]], total: int) -> dict[str, float]:
    """Examples by second of processor time."""
    best = dict.fromkeys(ways, float("inf"))
    generator = np.random.default_rng(0)
    for turn in range(16):
        indices = generator.integers(0, total, BATCH).tolist()
        for way, read in ways.items():
            repeats = 6 if "cache" in way else 1
            started = time.thread_time()
            for _ in range(repeats):
                read(indices)
            if turn:
                best[way] = min(best[way], (time.thread_time() - started) / repeats)
    return {way: BATCH / seconds for way, seconds in best.items()}


def _read_as_published(data: GroundingDataset, indices: list[int]) -> tuple[Any, ...]:
    """A batch by the steps of InstanceVG's loader, with Pillow in the place of OpenCV.

    For every expression: decode its image, resize it, normalize it as floats; decode each mask at the size of the
    image and resize it; merge the masks at the size of the image, decode and resize the union.
    """
    images, masks, unions, texts = [], [], [], []
    for index in indices:
        record, expression = data.find_expression(index)
        position = int(data.readers[0].index.image_ids.searchsorted(record.image_id))
        with Image.open(io.BytesIO(data.readers[0].image(position))) as file:
            image = np.asarray(file.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR), dtype=np.float32)
        images.append(((image - PIXEL_MEAN) / PIXEL_STD).astype(np.float32).transpose(2, 0, 1))
        rles = [instance.mask for instance in record.mask_targets(expression)]
        masks.append([_resize_nearest(coco_mask.decode(rle)) for rle in rles])
        empty = np.zeros((record.height, record.width), dtype=np.uint8)
        unions.append(_resize_nearest(coco_mask.decode(coco_mask.merge(rles)) if rles else empty))
        texts.append(data.processor.tokenize([expression.text])[0])
    return np.stack(images), masks, np.stack(unions), texts


def _resize_nearest(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(mask).resize((SIDE, SIDE), Image.Resampling.NEAREST))


class _Stopwatch:
    """Processor time of methods that are called while it runs, without that of the methods among them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner = [0.0]

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **keywords: Any) -> Any:
            self._inner.append(0.0)
            started = time.thread_time()
            result = function(*arguments, **keywords)
            spent, inner = time.thread_time() - started, self._inner.pop()
            self.seconds[name] = self.seconds.get(name, 0.0) + spent - inner
            self._inner[-1] += spent
            return result

        return timed


def _measure_shares(data: GroundingDataset) -> dict[str, float]:
    """The share of each step in the processor time of reading."""
    watch, reader, processor = _Stopwatch(), data.readers[0], data.processor
    replaced = [(reader, "record", "records"), (reader, "image", "bytes of images"), (data, "_resize_masks", "masks")]
    if data.caches:
        replaced.append((data.caches[0], "read", "the image cache"))
    with contextlib.ExitStack() as stack:
        for owner, method, name in replaced:
            setattr(owner, method, watch.wrap(name, getattr(owner, method)))
            stack.callback(delattr, owner, method)
        # A frozen dataclass: its methods are replaced in the class.
        for method, name in (("read", "decoding and resizing"), ("tokenize", "tokens")):
            original = getattr(Processor, method)
            setattr(Processor, method, watch.wrap(name, original))
            stack.callback(setattr, Processor, method, original)
        whole = watch.wrap("the rest", lambda indices: watch.wrap("collation", collate)(data.read(indices), PAD_ID))
        generator = np.random.default_rng(1)
        for _ in range(20):
            whole(generator.integers(0, len(data), BATCH).tolist())
    assert processor is data.processor
    total = sum(watch.seconds.values())
    return {name: seconds / total for name, seconds in sorted(watch.seconds.items(), key=lambda pair: -pair[1])}


def _measure_access(cache: ImageCache) -> list[Figure]:
    """Processor time of an image that is read at its offset, as `ImageCache.read` does, and copied from a mapping."""
    offset, shape = cache.layout.first_image, (len(cache), SIDE, SIDE, 3)
    mapped = np.memmap(cache.file, dtype=np.uint8, mode="r", offset=offset, shape=shape)
    ways: dict[str, Callable[[int], Any]] = {
        "read at its offset": cache.read, "copied from a mapping": lambda index: np.array(mapped[index]),
    }  # fmt: skip
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(20):
        for way, read in ways.items():
            started = time.thread_time()
            for index in range(len(cache)):
                read(index)
            best[way] = min(best[way], (time.thread_time() - started) / len(cache))
    return [Figure(f"a cached image {way}", 1e6 * seconds, "µs") for way, seconds in best.items()]


def _measure_training_start(folder: Path, out: Path, tokenizer: Any) -> Figure:
    """The first batch of a training of a full-size set: its set-up without the imports, and the workers' start."""
    save_tokenizer(tokenizer, out / "tokenizer")
    preset = train_preset("tiny")
    settings = replace(preset, text=replace(preset.text, tokenizer=str(out / "tokenizer")), batch_size=BATCH)
    accelerator = Accelerator(cpu=True)
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        training = setup_training(settings, [folder], out, accelerator)
        with contextlib.closing(CutExpressions(training.data)), contextlib.closing(open_batches(training)) as batches:
            next(batches)
            seconds.append(time.perf_counter() - started)
    return Figure(f"first batch of a training on {len(training.data):,} expressions", min(seconds), "s", "≤ 2")


def _measure_full_size(folder: Path, shards: Path, processor: Processor) -> list[Figure]:
    """The first batch, and the memory of the index, of a set as large as gRefCOCO."""
    _repeat_records(folder, shards)
    batch_indices = [sample_batch(FULL_SIZE * EXPRESSIONS, seed=0, start=0, batch_size=BATCH)]
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        data = GroundingDataset([(folder, "train")], processor, mask_size=SIDE)
        assert len(data) == FULL_SIZE * EXPRESSIONS
        with contextlib.closing(load_batches(data, batch_indices, workers=2)) as batches:
            next(batches)
        seconds.append(time.perf_counter() - started)
    tracemalloc.start()
    data = GroundingDataset([(folder, "train")], processor, mask_size=SIDE)
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    name = f"{len(data):,} expressions"
    return [
        Figure(f"first batch of {name}", min(seconds), "s", "≤ 2"),
        Figure(f"index of {name}", kept / len(data), "bytes/expression", "≤ 200"),
        Figure(f"index of {name}, while it is read", most / len(data), "bytes/expression"),
    ]


def _repeat_records(folder: Path, shards: Path) -> None:
    """Shards whose index names the records of others many times, under new keys."""
    (folder / "train").mkdir(parents=True)
    index = read_index(shards, "train")
    rows: list[Row] = []
    contents = []
    starts = np.cumsum([0, *(shard.records for shard in index.shards)]).tolist()
    for number, shard in enumerate(index.shards):
        (folder / "train" / shard.name).hardlink_to(shards / "train" / shard.name)
        rows = index.rows()[starts[number] : starts[number + 1]]
        count = FULL_SIZE // len(index.shards) + (number < FULL_SIZE % len(index.shards))
        repeated = [rows[n % len(rows)]._replace(key=f"{number}-{n:06}") for n in range(count)]
        entry = replace(shard, records=count, expressions=sum(row.expressions for row in repeated))
        contents.append(ShardContents(entry, repeated))
    write_index(folder, join_shards("train", contents))


def _measure_waiting(data: GroundingDataset) -> list[Figure]:
    """How long a training of `STEP_SECONDS` a step, which needs no processor itself, waits for four workers."""
    steps = 100
    started = time.process_time()
    for batch in _open_batches(data, steps, workers=0):
        assert len(batch) == BATCH
    seconds = (time.process_time() - started) / steps
    waited = []
    with contextlib.closing(_open_batches(data, steps, workers=4)) as batches:
        next(batches)
        for _ in range(steps - 1):
            time.sleep(STEP_SECONDS)
            started = time.perf_counter()
            next(batches)
            waited.append(time.perf_counter() - started)
    name = f"steps of {1000 * STEP_SECONDS:.0f} ms, batches of {BATCH}"
    return [
        Figure(f"{name}: reading of a batch ÷ 4 workers, from the image cache", 1000 * seconds / 4, "ms", "≤ 20"),
        Figure(f"{name}: median wait for {min(4, count_cpus())} CPUs' workers", 1000 * float(np.median(waited)), "ms"),
        Figure(f"{name}: mean wait", 1000 * float(np.mean(waited)), "ms"),
        Figure(f"{name}: share of waiting", 100 * sum(waited) / (sum(waited) + STEP_SECONDS * len(waited)), "%"),
    ]


def _open_batches(data: GroundingDataset, steps: int, workers: int) -> Iterator[Batch]:
    indices = (sample_batch(len(data), seed=2, start=BATCH * step, batch_size=BATCH) for step in range(steps))
    return load_batches(data, indices, workers=workers)
