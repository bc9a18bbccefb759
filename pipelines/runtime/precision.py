"""The compute dtype: float32, float32 with products in TF32, or autocast to bfloat16 or float16.

A CPU without bfloat16 instructions emulates them, many times slower than float32.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipelines.config.settings import Precision
from shards.errors import SettingsError
from shards.progress import log

ComputeDtype = Literal["fp32", "tf32", "bf16", "fp16"]
_AUTOCAST: dict[ComputeDtype, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}

# Values of ONEDNN_MAX_CPU_ISA and DNNL_MAX_CPU_ISA without bfloat16 instructions.
_PLAIN_ISA = frozenset({
    "SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_MIC", "AVX512_MIC_4OPS", "AVX512_CORE",
    "AVX512_CORE_VNNI",
})  # fmt: skip


@contextlib.contextmanager
def autocast_context(device: torch.device, compute_dtype: ComputeDtype) -> Iterator[None]:
    """Inside, torch autocasts to bfloat16 (bf16) or float16 (fp16), and products are those of `products_context`."""
    with products_context(device, compute_dtype):
        if dtype := _AUTOCAST.get(compute_dtype):
            with torch.autocast(device.type, dtype=dtype):
                yield
        else:
            yield


@contextlib.contextmanager
def products_context(device: torch.device, compute_dtype: ComputeDtype) -> Iterator[None]:
    """Inside, a GPU rounds the factors of float32 products to TF32 (tf32) or does not (fp32), forward and backward.

    Without it PyTorch rounds those of convolutions, and not those of matrix products.
    """
    if device.type == "cuda" and compute_dtype in ("fp32", "tf32"):
        with _tf32_products(compute_dtype == "tf32"):
            yield
    elif device.type == "cpu" and compute_dtype in _AUTOCAST and torch.is_grad_enabled():
        # The backward pass of PyTorch's fused attention takes several times as long as plain products in bfloat16.
        with sdpa_kernel(SDPBackend.MATH):
            yield
    else:
        yield


@contextlib.contextmanager
def _tf32_products(allowed: bool) -> Iterator[None]:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def resolve_precision(precision: Precision, device: torch.device) -> ComputeDtype:
    """The compute dtype on a device: bfloat16 for `auto`, and TF32 for `tf32`, where the device has it, else float32.

    Raises:
        SettingsError: there is no such precision, or the device has no float16 products.
    """
    if precision not in get_args(Precision):
        raise SettingsError(f"precision is {precision!r}; give {', '.join(get_args(Precision))}")
    if precision == "auto":
        return "bf16" if supports_bfloat16(device) else "fp32"
    if precision == "tf32":
        return "tf32" if device.type == "cuda" and torch.cuda.is_tf32_supported() else "fp32"
    if precision == "fp16" and device.type not in ("cuda", "xpu"):
        raise SettingsError(
            f"precision=fp16 needs a GPU with float16 products, and this process computes on a {device.type}; "
            "set precision=auto"
        )
    return precision


def supports_bfloat16(device: torch.device) -> bool:
    """Whether a device has bfloat16 instructions.

    On a CPU these are AMX, AVX-512 BF16 or Arm's BF16, unless ATEN_CPU_CAPABILITY or ONEDNN_MAX_CPU_ISA forbids them.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "xpu":
        return True
    return device.type == "cpu" and _cpu_supports_bfloat16()


def describe_compute_dtype(compute_dtype: ComputeDtype, device: torch.device) -> str:
    """The compute dtype that `auto` resolved to, and why."""
    if compute_dtype == "bf16":
        return f"bfloat16, which this {device.type} multiplies natively (precision=auto)"
    return f"float32: this {device.type} has no bfloat16 products (precision=auto)"


def advise_precision(precision: Precision, device: torch.device) -> str:
    """A line of advice if another precision suits the device better; empty otherwise."""
    native = supports_bfloat16(device)
    if precision == "bf16" and not native:
        return (
            f"this {device.type} has no bfloat16 products and emulates them, many times slower than float32: "
            "precision=auto (or fp32) computes in float32 here"
        )
    if precision == "fp32" and native:
        return (
            f"this {device.type} multiplies bfloat16 natively: --set precision=bf16 trains faster and in less memory, "
            "rounding products to 8 bits; fp32 is the published arithmetic"
        )
    return ""


def log_compute_dtype(
    doing: Literal["training", "predicting"],
    precision: Precision,
    history: Sequence[ComputeDtype],
    device: torch.device,
) -> None:
    """Log the compute dtype where `auto` chose it or it has changed, and advice if another suits the device better.

    `history` holds the compute dtypes so far, an entry for each change; the last is the present one.
    """
    if len(history) > 1:
        before = " then ".join(history[:-1])
        log(f"{doing} began in {before} and goes on in {history[-1]}, which this device has")
    elif precision == "tf32" and history[-1] == "fp32":
        log(f"{doing} in float32: this {device.type} has no TF32 products (precision=tf32)")
    elif precision == "auto":
        log(f"{doing} in {describe_compute_dtype(history[-1], device)}")
    # Predictions of a published network are published in float32.
    if (precision == "bf16" or doing == "training") and (advice := advise_precision(precision, device)):
        log(advice)


def _cpu_supports_bfloat16() -> bool:
    if not torch.backends.mkldnn.is_available() or _read_limit() in _PLAIN_ISA:  # type: ignore[no-untyped-call]
        return False
    capability = torch.backends.cpu.get_cpu_capability()
    if capability in ("DEFAULT", "AVX2"):
        # On Arm, DEFAULT is NEON.
        return _is_arm() and _has_flags("bf16")
    return _has_flags("avx512_bf16", "amx_bf16", "bf16")


def _read_limit() -> str:
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    return limit.upper()


def _is_arm() -> bool:
    import platform

    return platform.machine().lower() in ("aarch64", "arm64")


def _has_flags(*names: str) -> bool:
    """Whether the processor has one of these features, by torch's own list or by the kernel's."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is not None:
        found = capabilities()
        return any(found.get(name) for name in names)
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    listed = next((line.split() for line in text.splitlines() if line.lower().startswith(("flags", "features"))), [])
    return any(name in listed for name in names)
