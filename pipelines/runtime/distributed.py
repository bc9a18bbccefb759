"""The processes of one training or prediction: who started them, and Accelerate's view of them.

torchrun, `accelerate launch`, SLURM and MPI start N processes and tell each of them so in its environment. Either these
N work together, or the command stops and says how to start it; N that each do all of the work are never wanted.
"""

from __future__ import annotations

import contextlib
import os
import warnings
import zlib
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.runtime.signals import leave_at_once
from shards.errors import IGVGError

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    from pipelines.config.settings import Precision
    from pipelines.runtime.precision import ComputeDtype

_HOW = "torchrun --nproc_per_node N -m igvg_cli … starts N processes on one machine"


class LaunchError(IGVGError):
    """Several processes were started that cannot work together, or one of them ended: says what would do."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """This process among those that were started together."""

    world_size: int = 1
    rank: int = 0
    local_rank: int = 0
    """Rank among the processes of this machine."""
    local_world_size: int = 1
    """Processes on this machine."""


@dataclass(frozen=True, kw_only=True)
class _Launcher:
    """The environment variables of something that starts processes."""

    name: str
    world_size: str
    rank: str
    local_rank: str
    local_world_size: str


_TORCHRUN = _Launcher(
    name="torchrun",
    world_size="WORLD_SIZE",
    rank="RANK",
    local_rank="LOCAL_RANK",
    local_world_size="LOCAL_WORLD_SIZE",
)
# SLURM_NTASKS also stands in the environment of a batch script, which is one process; only srun sets that of a step.
_OTHERS = (
    _Launcher(
        name="Open MPI",
        world_size="OMPI_COMM_WORLD_SIZE",
        rank="OMPI_COMM_WORLD_RANK",
        local_rank="OMPI_COMM_WORLD_LOCAL_RANK",
        local_world_size="OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    _Launcher(
        name="MVAPICH",
        world_size="MV2_COMM_WORLD_SIZE",
        rank="MV2_COMM_WORLD_RANK",
        local_rank="MV2_COMM_WORLD_LOCAL_RANK",
        local_world_size="MV2_COMM_WORLD_LOCAL_SIZE",
    ),
    _Launcher(
        name="SLURM",
        world_size="SLURM_STEP_NUM_TASKS",
        rank="SLURM_PROCID",
        local_rank="SLURM_LOCALID",
        local_world_size="SLURM_STEP_TASKS_PER_NODE",
    ),
    _Launcher(
        name="MPI",
        world_size="PMI_SIZE",
        rank="PMI_RANK",
        local_rank="MPI_LOCALRANKID",
        local_world_size="MPI_LOCALNRANKS",
    ),
)


def read_launch(environ: Mapping[str, str]) -> Launch:
    """This process's place among those that the environment says were started.

    Raises:
        LaunchError: the environment contradicts itself, or lacks what the processes need to find each other.
    """
    started = [(launcher, size) for launcher in _OTHERS if (size := _read(environ, launcher.world_size, least=1)) > 1]
    if not any(environ.get(name) for name in (_TORCHRUN.world_size, _TORCHRUN.rank)):
        return _read_place(environ, *started[0]) if started else Launch()
    if not environ.get(_TORCHRUN.world_size):
        if _read(environ, _TORCHRUN.rank):
            raise LaunchError(f"RANK is {environ['RANK']} and WORLD_SIZE is not set; set both or neither: {_HOW}")
        return _read_place(environ, *started[0]) if started else Launch()
    size = _read(environ, _TORCHRUN.world_size, least=1)
    # Under srun or mpirun, each of their processes may be a torchrun that starts its own.
    groups = _read(environ, "GROUP_WORLD_SIZE", default=size)
    for launcher, count in started:
        if groups < count:
            raise LaunchError(
                f"{launcher.name} started {count} processes ({launcher.world_size}), but WORLD_SIZE is {size} and "
                f"GROUP_WORLD_SIZE {groups}: each would do all of the work; start torchrun with --nnodes {count} and "
                "one --rdzv_endpoint HOST:PORT for all"
            )
    if size == 1 and not _read(environ, _TORCHRUN.rank):
        return Launch()
    place = _read_place(environ, _TORCHRUN, size)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not environ.get(name):
            raise LaunchError(f"WORLD_SIZE is {size} and {name} is not set, so the processes cannot meet; {_HOW}")
    return place


def speaks(environ: Mapping[str, str]) -> bool:
    """Whether this process prints: the first of those started together, or any whose place is not known."""
    try:
        return read_launch(environ).rank == 0
    except LaunchError:
        return True


def require_one_process(command: str, environ: Mapping[str, str]) -> None:
    """Refuse several processes for a command that would do its work in each.

    Raises:
        LaunchError: more than one was started.
    """
    size = read_launch(environ).world_size
    if size > 1:
        raise LaunchError(
            f"igvg {command} works in one process, but {size} were started; start it without torchrun, accelerate "
            "launch, mpirun or srun --ntasks (igvg train and igvg predict with --shards or --image share their work)"
        )


def start_accelerator() -> Accelerator:
    """Accelerate's view of this process, its device and the others.

    Raises:
        LaunchError: the processes that were started cannot work together.
    """
    import torch
    from accelerate import Accelerator

    launch = read_launch(os.environ)
    on_cpu = _wants_cpu(os.environ) or (launch.world_size > 1 and not _has_accelerator())
    if launch.world_size > 1:
        if not on_cpu:
            _check_device_count(launch, torch.accelerator.device_count())
        _announce(launch, os.environ)
    # Arithmetic and gradient accumulation are settings of igvg; `accelerate launch` may ask for others.
    try:
        # Where processes wait for each other, torch lets no handler run.
        with leave_at_once() if launch.world_size > 1 else contextlib.nullcontext():
            accelerator = Accelerator(cpu=on_cpu, mixed_precision="no", gradient_accumulation_steps=1)
    except (RuntimeError, ValueError) as error:
        if launch.world_size == 1:
            raise
        raise LaunchError(f"the {launch.world_size} processes cannot meet ({_first_line(error)}); {_HOW}") from error
    if (accelerator.num_processes, accelerator.process_index) != (launch.world_size, launch.rank):
        raise LaunchError(
            f"{launch.world_size} processes were started and Accelerate sees {accelerator.num_processes}; {_HOW}"
        )
    # Convolutions of 1 × 1 may lay out gradients in their own way; copying them costs next to nothing.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    return accelerator


@contextlib.contextmanager
def share_fate(accelerator: Accelerator) -> Iterator[None]:
    """Turn what torch raises when another process has ended into one line that points to that process's error.

    Raises:
        LaunchError: another process ended while this one waited for it.
    """
    try:
        yield
    except RuntimeError as error:
        if accelerator.num_processes == 1 or not _is_of_communication(error):
            raise
        raise LaunchError(
            f"another of the {accelerator.num_processes} processes ended; what it printed says why"
        ) from error


def resolve_precision_together(precision: Precision, accelerator: Accelerator) -> ComputeDtype:
    """What all processes compute in; with `auto` bfloat16 only if each of their devices multiplies it."""
    from accelerate.utils import gather_object

    from pipelines.runtime.precision import resolve_precision

    found: list[ComputeDtype] = gather_object([resolve_precision(precision, accelerator.device)])
    return "fp32" if "fp32" in found else "bf16"


def agree(value: object, what: str) -> None:
    """Make sure that all processes found the same.

    Raises:
        LaunchError: they did not: some of them see other files.
    """
    from accelerate.utils import gather_object

    found = gather_object([value])
    if any(other != found[0] for other in found):
        shown = ", ".join(map(str, found[:8]))
        raise LaunchError(f"the processes see different files ({what}: {shown}); give folders that all machines share")


def _read(environ: Mapping[str, str], name: str, *, default: int = 0, least: int = 0) -> int:
    text = environ.get(name, "")
    if not text:
        return max(default, least)
    if not text.isdecimal() or int(text) < least:
        raise LaunchError(f"{name} is {text!r} instead of a whole number of at least {least}; unset it, or: {_HOW}")
    return int(text)


def _read_place(environ: Mapping[str, str], launcher: _Launcher, size: int) -> Launch:
    for name in (launcher.rank, launcher.local_rank):
        if not environ.get(name):
            raise LaunchError(
                f"{launcher.world_size} is {size} and {name} is not set; unset {launcher.world_size} if this process "
                f"was started alone, else: {_HOW}"
            )
    rank, local_rank = _read(environ, launcher.rank), _read(environ, launcher.local_rank)
    if rank >= size:
        raise LaunchError(f"{launcher.rank} is {rank}, but {launcher.world_size} is {size}; {_HOW}")
    # SLURM writes 2(x3) for three machines of two; where it says nothing plain, all may be on other machines.
    local = environ.get(launcher.local_world_size, "")
    local_size = int(local) if local.isdecimal() else local_rank + 1
    return Launch(world_size=size, rank=rank, local_rank=local_rank, local_world_size=local_size)


def _announce(launch: Launch, environ: MutableMapping[str, str]) -> None:
    """Say what SLURM or MPI said in the words that torch and Accelerate read.

    Raises:
        LaunchError: the processes are on several machines, and none says where the first one is.
    """
    place = {
        "WORLD_SIZE": launch.world_size,
        "RANK": launch.rank,
        "LOCAL_RANK": launch.local_rank,
        "LOCAL_WORLD_SIZE": launch.local_world_size,
    }
    environ.update({name: str(value) for name, value in place.items()})
    if not environ.get("MASTER_ADDR"):
        if launch.local_world_size < launch.world_size:
            raise LaunchError(
                f"{launch.world_size} processes on several machines need MASTER_ADDR, the name of the machine of the "
                "first one; set it, or start torchrun on every machine"
            )
        environ["MASTER_ADDR"] = "127.0.0.1"
    if not environ.get("MASTER_PORT"):
        # Jobs that share a machine must not share a port.
        names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid")
        job = " ".join(environ.get(name, "") for name in names)
        environ["MASTER_PORT"] = str(20_000 + zlib.crc32(job.encode()) % 10_000)


def _wants_cpu(environ: Mapping[str, str]) -> bool:
    """Whether `accelerate launch --cpu` was asked for."""
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


def _is_of_communication(error: RuntimeError) -> bool:
    import torch.distributed

    kinds = tuple(
        kind
        for name in ("DistError", "DistBackendError", "DistNetworkError", "DistStoreError")
        if (kind := getattr(torch.distributed, name, None)) is not None
    )
    text = str(error).lower()
    return isinstance(error, kinds) or "gloo" in text or "nccl" in text


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
