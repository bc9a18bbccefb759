"""Files of torch.save from untrusted sources: read as tensors and plain values, never as code.

torch's errors about a file that it refuses advise to load it without protection; they are never passed on.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shards.errors import CheckpointError
from shards.file_kinds import explain_unreadable

_KIND = "a checkpoint of torch.save"
_EMA = "ema_state_dict"
# A dictionary may contain itself.
_MAX_WRAPPERS = 8
_FOREIGN_NAME = re.compile(r"(?:GLOBAL|Unsupported class|find class) ([\w.]+)")
_REASON = re.compile(r"WeightsUnpickler error:\s*([^\n]*)")
_ADVICE = re.compile(r"weights_only|safe_globals|torch\.load|torch\.serialization|pickle_module", re.IGNORECASE)
_NO_CODE = "igvg runs no code from checkpoints: ask its authors for a state dict (torch.save(model.state_dict(), …))"


def load_values(file: Path, remedy: str, *, mmap: bool = False) -> Any:
    """The content of a file of torch.save, on the CPU.

    Args:
        file: the file.
        remedy: the advice for a damaged file.
        mmap: leave tensors in the file until they are used.

    Raises:
        CheckpointError: the file cannot be read, is of another kind, or holds more than tensors and plain values.
    """
    try:
        _refuse_bomb(file)
        # torch warns of pickle protocols that it may not be able to read; an error would follow.
        allowed = torch.serialization.safe_globals([(_NumpyValue, name) for name in _NUMPY_NAMES])
        with allowed, warnings.catch_warnings(action="ignore"):
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # the reader raises errors of dozens of kinds
        if name := _FOREIGN_NAME.search(str(error)):
            raise CheckpointError(
                f"{file}: a whole model or other objects were saved in it, not tensors alone (it asks for {name[1]}); "
                + _NO_CODE
            ) from error
        reason = error if isinstance(error, OSError) else _shorten(error)
        sound = ("torch", "old torch", "cut zip")
        raise CheckpointError(str(explain_unreadable(file, _KIND, reason, remedy, kinds=sound))) from error


def read_tensors(file: Path, *, ema: bool = False) -> dict[str, Tensor]:
    """The tensors of a file that torch.save wrote, without wrapping dictionaries and the prefix of parallel training.

    Args:
        file: the file.
        ema: take the exponential moving average of the weights (`ema_state_dict`) instead of the weights.

    Raises:
        CheckpointError: there is no such file, it is something else, holds more than tensors and plain values, no
            tensors at all, or no moving average.
    """
    wrappers = _unwrap(load_values(file, "download it again"))
    if ema:
        averages = [average for wrapper in wrappers if isinstance(average := wrapper.get(_EMA), Mapping) and average]
        if not averages:
            raise CheckpointError(f"{file} holds no moving average of the weights ({_EMA}); import it without --ema")
        wrappers = _unwrap(averages[0])
    state = {
        key.removeprefix("module."): check_tensor(key, value, file).float()
        for key, value in (wrappers[-1].items() if wrappers else ())
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    if not state:
        raise CheckpointError(f"{file} holds no tensors; give a published checkpoint")
    return state


def check_tensor(name: str, tensor: Tensor, file: Path) -> Tensor:
    """Return a tensor that is dense, real and not larger than its bytes in the file.

    Raises:
        CheckpointError: it is not, so that copying it could need any amount of memory.
    """
    dense = tensor.layout is torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"
    if not dense or tensor.is_complex():
        raise CheckpointError(f"{file}: {name} is no plain tensor of numbers; ask its authors for a plain state dict")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointError(f"{file}: {name} {list(tensor.shape)} is larger than what is stored of it; "
                              "ask its authors for a plain state dict")  # fmt: skip
    return tensor


def _unwrap(content: object) -> list[Mapping[str, object]]:
    """The content of a file, and the dictionaries wrapped in it, from the outermost to the one with the tensors."""
    wrappers: list[Mapping[str, object]] = []
    inner = content
    while isinstance(inner, Mapping) and len(wrappers) <= _MAX_WRAPPERS:
        wrappers.append(inner)
        named = (inner.get(key) for key in ("state_dict", "model", "module"))
        inner = next((value for value in named if isinstance(value, Mapping)), None)
    return wrappers


def _refuse_bomb(file: Path) -> None:
    """Refuse a zip that unpacks to much more than its own size: torch.save does not compress."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > 2 * file.stat().st_size:
        raise ValueError(f"it unpacks to {unpacked} bytes")


def _shorten(error: Exception) -> str:
    found = _REASON.search(str(error))
    reason = found[1] if found else (str(error).splitlines() or [""])[0]
    return type(error).__name__ if _ADVICE.search(reason) or not reason.strip() else reason[:160]


class _NumpyValue:
    """Replaces NumPy numbers of a training record, so that unpickling one calls nothing of NumPy."""

    def __init__(self, *parts: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


_NUMPY_NAMES = ("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
