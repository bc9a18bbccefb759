"""The start of Accelerate's processes, and checks that all of them agree."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, NoReturn

from pipelines.runtime.launch import (
    HOW_TO_LAUNCH,
    USE_FSDP,
    Launch,
    LaunchError,
    export_launch,
    read_launch,
    require_data_parallel,
)
from pipelines.runtime.signals import exit_on_signal
from shards.errors import first_line

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    from pipelines.config.settings import Precision
    from pipelines.runtime.precision import ComputeDtype


class Group:
    """Whether this process has worked in a process group."""

    joined = False


def start_accelerator(*, may_split: bool = False) -> Accelerator:
    """Accelerate's view of this process, its device and the other processes.

    Args:
        may_split: whether `accelerate launch --use_fsdp` is taken; Accelerate itself is not told of it.

    Raises:
        LaunchError: the processes that were started cannot work together.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    launch = read_launch(os.environ)
    require_data_parallel(os.environ, may_split=may_split)
    on_cpu = _forces_cpu(os.environ) or (launch.world_size > 1 and not _has_accelerator())
    if launch.world_size > 1:
        if not on_cpu:
            _check_device_count(launch, torch.accelerator.device_count())
        export_launch(launch, os.environ)
        Group.joined = True
    # `accelerate launch` may set other values for precision and gradient accumulation, which are settings of igvg.
    try:
        # While processes wait for each other inside torch, Python runs no signal handler.
        interruptible = exit_on_signal() if launch.world_size > 1 else contextlib.nullcontext()
        with interruptible, _hide(os.environ, USE_FSDP):
            accelerator = Accelerator(
                cpu=on_cpu, mixed_precision="no", gradient_accumulation_steps=1,
                # Saves a copy of every gradient, in memory and in time.
                kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
            )  # fmt: skip
    except (RuntimeError, ValueError) as error:
        if launch.world_size == 1:
            raise
        raise LaunchError(
            f"the {launch.world_size} processes cannot connect ({first_line(error)}); {HOW_TO_LAUNCH}"
        ) from error
    if (accelerator.num_processes, accelerator.process_index) != (launch.world_size, launch.rank):
        raise LaunchError(
            f"{launch.world_size} processes were started and Accelerate sees {accelerator.num_processes}; "
            f"{HOW_TO_LAUNCH}"
        )
    # Gradients of 1 × 1 convolutions may have another memory layout; copying them costs next to nothing.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    return accelerator


def leave_process_group() -> None:
    """End the communication with other processes, if there is any, as PyTorch asks of a program whose work is done."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def run_program(program: Callable[[], None]) -> None:
    """Run a program; if it has worked in a process group, this process ends here, without Python's finalization.

    Threads of a process group outlive it while anything holds it, e.g. the caches of DTensor. One that lets go of its
    last tensor while Python is finalized aborts a process whose work is done (pytorch/pytorch#179291).
    """
    try:
        program()
    except BaseException as error:
        if not Group.joined:
            raise
        _end_process(_report_end(error))
    if Group.joined:
        _end_process(0)


def _report_end(error: BaseException) -> int:
    """Print what Python prints of an error that nothing has caught; returns the exit status."""
    if not isinstance(error, SystemExit):
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    sys.stderr.write(f"{error.code}\n")
    return 1


def _end_process(status: int) -> NoReturn:
    """What Python does at its end up to the functions of atexit."""
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001, waits for threads that are no daemons
    atexit._run_exitfuncs()  # noqa: SLF001
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


@contextlib.contextmanager
def _hide(environ: MutableMapping[str, str], name: str) -> Iterator[None]:
    value = environ.pop(name, None)
    try:
        yield
    finally:
        if value is not None:
            environ[name] = value


@contextlib.contextmanager
def explain_lost_process(accelerator: Accelerator) -> Iterator[None]:
    """Replace torch's errors after the end of another process by one line that refers to that process's error.

    Raises:
        LaunchError: another process ended while this one communicated with it.
    """
    try:
        yield
    except RuntimeError as error:
        if accelerator.num_processes == 1 or not _is_communication_error(error):
            raise
        raise LaunchError(
            f"another of the {accelerator.num_processes} processes ended; what it printed says why"
        ) from error


def resolve_shared_precision(precision: Precision, accelerator: Accelerator) -> ComputeDtype:
    """The compute dtype of all processes: float32 if it is that of any device."""
    from accelerate.utils import gather_object

    from pipelines.runtime.precision import resolve_precision

    found: list[ComputeDtype] = gather_object([resolve_precision(precision, accelerator.device)])
    return "fp32" if "fp32" in found else found[0]


def require_equal(value: object, name: str) -> None:
    """Make sure that a value read from files is the same in all processes.

    Raises:
        LaunchError: it is not: some processes see other files; `name` says what the value is.
    """
    from accelerate.utils import gather_object

    found = gather_object([value])
    if any(other != found[0] for other in found):
        shown = ", ".join(map(str, found[:8]))
        raise LaunchError(f"the processes see different files ({name}: {shown}); give folders that all machines share")


def _forces_cpu(environ: Mapping[str, str]) -> bool:
    """Whether the command was started by `accelerate launch --cpu`."""
    return environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on", "y", "t")


def _has_accelerator() -> bool:
    import torch

    # Apple's GPU is one device, which processes cannot share through torch.distributed.
    device: torch.device | None = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return device is not None and device.type != "mps"


def _check_device_count(launch: Launch, devices: int) -> None:
    if launch.local_rank >= devices:
        raise LaunchError(
            f"process {launch.local_rank + 1} of this machine has no device of its own: there are {devices}; start at "
            f"most {devices} a machine, or set CUDA_VISIBLE_DEVICES= (empty) to work on the CPU"
        )


def _is_communication_error(error: RuntimeError) -> bool:
    import torch.distributed

    kinds = tuple(
        kind
        for name in ("DistError", "DistBackendError", "DistNetworkError", "DistStoreError")
        if (kind := getattr(torch.distributed, name, None)) is not None
    )
    text = str(error).lower()
    return isinstance(error, kinds) or "gloo" in text or "nccl" in text
