"""Files of a checkpoint and of raw outputs with a few bytes changed, and what reading them may lead to.

Read by hand, more of them than in the tests: `python -m tests.support.corrupted_files KIND COUNT [FIRST_SEED]`.
"""

from __future__ import annotations

import io
import json
import random
import resource
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.data.tokenizer import load_tokenizer, train_tokenizer
from pipelines.model import IGVGModel
from pipelines.model.convert.instancevg import load_instancevg_checkpoint
from pipelines.prediction.raw_output import unpack_output
from pipelines.prediction.raw_store import RawReader, RawWriter
from pipelines.pretrained import save_checkpoint
from pipelines.training.state_files import read_state, write_state
from shards.errors import CheckpointError, DataError, SettingsError
from tests.support.corrupted_bytes import TOKENS, corrupt
from tests.support.published_network import make_published
from tests.support.small_network import CONFIG

HUGE = (0, 1, -1, 2, 255, 1 << 31, 1 << 40, 1 << 60, 1 << 63, 1 << 64, 10**30, -(1 << 40), 1e308, float("nan"))
LONGEST_SECONDS, MOST_MEGABYTES = 20.0, 1000
ADVICE = ("weights_only", "trust_remote_code", "safe_globals", "allow_pickle", "Traceback", "\n", "[Errno")


def write_whole(folder: Path) -> None:
    """Everything that is corrupted: a checkpoint, a published file, a state, raw outputs."""
    torch.manual_seed(0)
    model = IGVGModel(CONFIG)
    save_checkpoint(folder, model, train_tokenizer(["red star", "blue star"] * 3, 40), 9)
    torch.save({"state_dict": make_published(), "epoch": 3}, folder / "published.pth")
    write_state(folder, {"step": 3, "best": 1.0, "model": {"w": torch.ones(3)}, "optimizer": {}})
    side, length = CONFIG.image_size, 5
    with torch.no_grad():
        output = model.eval()(
            torch.rand(2, 3, side, side), torch.ones(2, length, dtype=torch.long), torch.ones(2, length)
        )
    writer = RawWriter(folder / "raw")
    writer.write_chunk(0, unpack_output(output, ["a/1/1", "a/1/2"], [(9, 8), (7, 6)], image_size=side))
    writer.finish()


def corrupt_binary(data: bytes, source: random.Random, header: int = 0) -> bytes:
    """One to three changes of bytes, most of them in the first `header`; or the end cut off."""
    changed = bytearray(data)
    for _ in range(source.randint(1, 3)):
        place = source.randrange(min(header, len(changed)) if header and source.random() < 0.8 else len(changed))
        change = source.randrange(4)
        if change == 0:
            changed[place] = source.randrange(256)
        elif change == 1:
            changed[place : place + 8] = source.choice(HUGE[:9]).to_bytes(9, "little", signed=True)[:8]  # type: ignore[union-attr]
        elif change == 2:
            del changed[place : place + source.randint(1, 9)]
        else:
            changed[place:place] = source.choice(TOKENS)
        if len(changed) < 2:
            break
    return bytes(changed[: source.randrange(len(changed))] if source.random() < 0.05 else changed)


def corrupt_values(document: Any, source: random.Random) -> bytes:
    """JSON with one value somewhere in it replaced, or a few bytes of its text."""
    if source.random() < 0.4:
        return corrupt(json.dumps(document).encode(), source)
    document = json.loads(json.dumps(document))
    at = document
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = source.choice(keys)
        if not isinstance(at[key], (dict, list)) or not at[key] or source.random() < 0.2:
            break
        at = at[key]
    at[key] = source.choice([*HUGE, "", "x", None, True, [], {}, [[1]], {"a": 1}, "igvg"])
    return json.dumps(document).encode()


def corrupt_safetensors(data: bytes, source: random.Random) -> bytes:
    """A header with changed values that says its true length, or changed bytes."""
    if source.random() < 0.5:
        return corrupt_binary(data, source, header=2000)
    length = int.from_bytes(data[:8], "little")
    header = corrupt_values(json.loads(data[8 : 8 + length]), source)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def corrupt_archive(data: bytes, source: random.Random) -> bytes:
    """A zip archive with a member of which bytes are changed, whose checksum is right; or changed bytes."""
    if source.random() < 0.3:
        return corrupt_binary(data, source)
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as whole, zipfile.ZipFile(packed, "w") as archive:
        members = whole.namelist()
        # The first of torch's holds the pickle; NumPy's arrays begin with a header.
        chosen = members[0] if members[0].endswith("data.pkl") and source.random() < 0.8 else source.choice(members)
        for member in members:
            content = whole.read(member)
            archive.writestr(member, corrupt_binary(content, source, header=4000) if member == chosen else content)
    return packed.getvalue()


def _corrupt_json(data: bytes, source: random.Random) -> bytes:
    return corrupt_values(json.loads(data), source)


def _read_raw(folder: Path) -> None:
    list(RawReader(folder / "raw"))


def _read_published(folder: Path) -> None:
    load_instancevg_checkpoint(folder / "published.pth")


KINDS: dict[str, tuple[str, Callable[[bytes, random.Random], bytes], Callable[[Path], object]]] = {
    "config": ("config.json", _corrupt_json, IGVGModel.from_pretrained),
    "weights": ("model.safetensors", corrupt_safetensors, IGVGModel.from_pretrained),
    "tokenizer": ("tokenizer.json", _corrupt_json, load_tokenizer),
    "tokenizer-config": ("tokenizer_config.json", _corrupt_json, load_tokenizer),
    "published": ("published.pth", corrupt_archive, _read_published),
    "state": ("state.pt", corrupt_archive, read_state),
    "raw-index": ("raw/index.json", _corrupt_json, _read_raw),
    "raw-chunk": ("raw/chunk-000000.npz", corrupt_archive, _read_raw),
}


def read_corrupted(kind: str, folder: Path, seeds: range) -> int:
    """Corrupt a file once for each seed and read it; returns how often it was refused. The file is whole afterwards.

    Raises:
        AssertionError: a refusal is not one line, or reading took too long.
    """
    name, change, read = KINDS[kind]
    file, refused = folder / name, 0
    whole = file.read_bytes()
    try:
        for seed in seeds:
            # A new file each time: weights that were read before may still be mapped.
            file.unlink()
            file.write_bytes(change(whole, random.Random(seed)))
            started, refusal = time.monotonic(), ""
            try:
                read(folder)
            except (CheckpointError, DataError, SettingsError) as error:
                refusal = str(error)
            except Exception as error:
                raise AssertionError(f"{kind}, seed {seed}: {type(error).__name__}: {error}") from error
            refused += bool(refusal)
            assert len(refusal) < 1000, (seed, refusal)
            assert not [word for word in ADVICE if word in refusal], (seed, refusal)
            assert time.monotonic() - started < LONGEST_SECONDS, seed
    finally:
        file.unlink(missing_ok=True)
        file.write_bytes(whole)
    return refused


def main(kind: str, count: int, first: int = 0) -> None:
    """Read many and print how many were refused and the largest memory of this process."""
    folder = Path(tempfile.mkdtemp())
    try:
        write_whole(folder)
        np.seterr(all="ignore")
        refused = read_corrupted(kind, folder, range(first, first + count))
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000
        sys.stdout.write(f"{kind}: {refused} of {count} refused in one line, others read; at most {megabytes} MB\n")
        assert megabytes < MOST_MEGABYTES
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
