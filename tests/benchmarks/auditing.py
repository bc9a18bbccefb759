"""The time and the memory of `igvg audit` on sets of the size of the published ones.

The sets share most of their images under COCO's ids, 14 expressions each, and put them into other splits. Images are
a few bytes: the audit reads indexes and records alone.
"""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np

from shards.annotations.file_names import coco_name
from shards.index import write_index
from shards.indexing import index_split
from shards.masks import encode_mask
from shards.record import Rle
from tests.benchmarks.figures import Figure

SETS, IMAGES = 3, 20_000
_EXPRESSIONS, _INSTANCES, _PER_SHARD = 14, 6, 1000
_HEIGHT, _WIDTH = 427, 640


def measure() -> list[Figure]:
    """Time of a whole `igvg audit`, and the memory of its process."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "igvg_cli", "audit", "--format", "json"]
        for number in range(SETS):
            draw_set(Path(folder) / str(number), f"set{number}", IMAGES, seed=number)
            words += ["--shards", str(Path(folder) / str(number))]
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(words, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    name = f"audit of {SETS * IMAGES:,} images with {SETS * IMAGES * _EXPRESSIONS:,} expressions"
    return [
        Figure(name, seconds, "s"),
        Figure(f"{name}, processor time", worked, "s"),
        Figure(f"{name}, largest process", after.ru_maxrss / 1024, "MiB"),
    ]


def draw_set(folder: Path, name: str, images: int, seed: int) -> None:
    """A prepared set of two splits, a tenth of its images in val."""
    random = np.random.default_rng(seed)
    # As if each set were drawn from the same part of COCO.
    image_ids = np.sort(random.choice(np.arange(1, images * 5 // 4 + 1), images, replace=False))
    chosen = random.random(images) < 0.1
    masks = [encode_mask(_draw_mask(random)) for _ in range(50)]
    for split, ids in (("train", image_ids[~chosen]), ("val", image_ids[chosen])):
        (folder / split).mkdir(parents=True)
        for first in range(0, len(ids), _PER_SHARD):
            file = folder / split / f"{split}-{first // _PER_SHARD:06d}.tar"
            with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as archive:
                for image_id in ids[first : first + _PER_SHARD].tolist():
                    document = json.dumps(_draw_record(name, image_id, masks, random)).encode()
                    for extension, content in (("jpg", b"image %d" % image_id), ("json", document)):
                        member = tarfile.TarInfo(f"{image_id:012d}.{extension}")
                        member.size = len(content)
                        archive.addfile(member, io.BytesIO(content))
        write_index(folder, index_split(folder, split))


def _draw_mask(random: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:_HEIGHT, :_WIDTH]
    center, size = random.uniform(60, 360, 2), random.uniform(20, 60, 2)
    return np.asarray(((y - center[0]) / size[0]) ** 2 + ((x - center[1]) / size[1]) ** 2 <= 1)


def _draw_record(name: str, image_id: int, masks: list[Rle], random: np.random.Generator) -> dict[str, object]:
    boxes = np.sort(random.uniform(0, 400, (_INSTANCES, 2, 2)), axis=1).reshape(-1, 4).round(2).tolist()
    instances = [
        {"ann_id": image_id * 10 + number, "category_id": 1, "box": box, "mask": masks[random.integers(len(masks))]}
        for number, box in enumerate(boxes)
    ]
    expressions = [
        {"id": f"{name}/{image_id * 20 + number}/{number}", "text": f"thing {random.integers(40)} on the left",
         "instances": [number % _INSTANCES] * (number % 7 > 0), "ref_id": image_id * 20 + number}
        for number in range(_EXPRESSIONS)
    ]  # fmt: skip
    return {"image_id": image_id, "file_name": coco_name(image_id), "width": _WIDTH, "height": _HEIGHT,
            "instances": instances, "expressions": expressions}  # fmt: skip
