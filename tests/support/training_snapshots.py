"""What a training leaves in its folder, without what its log says about times and starts."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch

MEASURED = ("expressions_per_second", "data_wait", "peak_memory_mb")
"""What a training's log says about its time and memory."""


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones among them; folders without files have an empty name."""
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*"))}
    # The lock of an image cache is there as long as the cache.
    return {
        name: path.read_bytes() if path.is_file() else b"" for name, path in files.items() if path.suffix != ".lock"
    }


def snapshot_training(folder: Path) -> dict[str, Any]:
    """As `snapshot`, without the times and the starts that a log tells, and what follows from its bytes."""
    found: dict[str, Any] = dict(snapshot(folder))
    for name in [name for name in found if name.endswith("log.jsonl")]:
        entries = [json.loads(line) for line in found[name].splitlines()]
        found[name] = [
            {key: value for key, value in entry.items() if key not in MEASURED}
            for entry in entries
            if "start" not in entry
        ]
    # What was saved before the last state depends on the clock, and how a state is pickled on what was loaded before.
    found.pop("state/state-1.pt", None)
    if "state/state.pt" in found:
        found["state/state.pt"] = list_values(torch.load(io.BytesIO(found["state/state.pt"]), weights_only=True))
    for name in [name for name in found if name.endswith("artifact.json")]:
        record = json.loads(found[name])
        for file in ("log.jsonl", "state/state.pt", "state/state-1.pt"):
            record["files"].pop(file, None)
            record["digests"].pop(file, None)
        found[name] = {**record, "checksum": ""}
    return found


def list_values(values: Any, prefix: str = "") -> dict[str, Any]:
    """The values of nested dictionaries and lists by their keys, joined by dots; tensors as lists."""
    if isinstance(values, torch.Tensor):
        return {prefix: values.tolist()}
    if not isinstance(values, (dict, list)):
        return {prefix: values}
    found: dict[str, Any] = {}
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        found |= list_values(value, f"{prefix}.{key}")
    return found
