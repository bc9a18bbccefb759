"""The environment variables with which torchrun, `accelerate launch`, SLURM and MPI start processes.

Several processes either work together, or the command stops and says how to start it: they must never each do all of
the work. Nothing here loads torch.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import NamedTuple

from shards.errors import IGVGError

HOW_TO_LAUNCH = "torchrun --nproc_per_node N -m igvg_cli … starts N processes on one machine"


class LaunchError(IGVGError):
    """Several processes were started that cannot work together, or one of them ended."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """The place of this process among those that were started together."""

    world_size: int = 1
    rank: int = 0
    local_rank: int = 0
    """Rank among the processes of this machine."""
    local_world_size: int = 1
    """Processes on this machine."""


class _Launcher(NamedTuple):
    """The environment variables that a launcher sets."""

    name: str
    world_size: str
    rank: str
    local_rank: str
    local_world_size: str


_TORCHRUN = _Launcher("torchrun", "WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_OMPI, _MV2 = "OMPI_COMM_WORLD_", "MV2_COMM_WORLD_"
# Variables by which `accelerate launch` asks for a network that is split over processes.
USE_FSDP = "ACCELERATE_USE_FSDP"
"""Set by `accelerate launch --use_fsdp`."""
_SPLITTING = {
    USE_FSDP: "--use_fsdp",
    "ACCELERATE_USE_DEEPSPEED": "--use_deepspeed",
    "ACCELERATE_USE_MEGATRON_LM": "--use_megatron_lm",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "--use_parallelism_config",
}
# Options of --use_fsdp, and what to do instead.
_FSDP_OPTIONS = {
    "FSDP_OFFLOAD_PARAMS": "leave it out",
    "FSDP_ACTIVATION_CHECKPOINTING": "leave it out, and give igvg train --set activation_checkpointing=true",
}
# SLURM_NTASKS is also set in a batch script, which is one process; SLURM_STEP_NUM_TASKS only by srun.
_OTHERS = (
    _Launcher("Open MPI", f"{_OMPI}SIZE", f"{_OMPI}RANK", f"{_OMPI}LOCAL_RANK", f"{_OMPI}LOCAL_SIZE"),
    _Launcher("MVAPICH", f"{_MV2}SIZE", f"{_MV2}RANK", f"{_MV2}LOCAL_RANK", f"{_MV2}LOCAL_SIZE"),
    _Launcher("SLURM", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"),
    _Launcher("MPI", "PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
)


def read_launch(environ: Mapping[str, str]) -> Launch:
    """World size and ranks from the environment.

    Raises:
        LaunchError: variables contradict each other, or some that the processes need to connect are not set.
    """
    started = [(launcher, size) for launcher in _OTHERS if (size := _read_int(environ, launcher.world_size, 1)) > 1]
    if not any(environ.get(name) for name in (_TORCHRUN.world_size, _TORCHRUN.rank)):
        return _read_ranks(environ, *started[0]) if started else Launch()
    if not environ.get(_TORCHRUN.world_size):
        if _read_int(environ, _TORCHRUN.rank):
            raise LaunchError(
                f"RANK is {environ['RANK']} and WORLD_SIZE is not set; set both or neither: {HOW_TO_LAUNCH}"
            )
        return _read_ranks(environ, *started[0]) if started else Launch()
    world_size = _read_int(environ, _TORCHRUN.world_size, 1)
    # Under srun or mpirun, each of their processes may be a torchrun that starts its own.
    num_groups = _read_int(environ, "GROUP_WORLD_SIZE") if environ.get("GROUP_WORLD_SIZE") else world_size
    for launcher, count in started:
        if num_groups < count:
            raise LaunchError(
                f"{launcher.name} started {count} processes ({launcher.world_size}), but WORLD_SIZE is {world_size} "
                f"and GROUP_WORLD_SIZE {num_groups}: each would do all of the work; start torchrun with --nnodes "
                f"{count} and one --rdzv_endpoint HOST:PORT for all"
            )
    if world_size == 1 and not _read_int(environ, _TORCHRUN.rank):
        return Launch()
    launch = _read_ranks(environ, _TORCHRUN, world_size)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not environ.get(name):
            raise LaunchError(
                f"WORLD_SIZE is {world_size} and {name} is not set, so the processes cannot connect; {HOW_TO_LAUNCH}"
            )
    return launch


def is_main_process(environ: Mapping[str, str]) -> bool:
    """Whether this process prints: rank 0, or a process whose rank cannot be read."""
    try:
        return read_launch(environ).rank == 0
    except LaunchError:
        return True


def require_one_process(command: str, environ: Mapping[str, str]) -> None:
    """Refuse several processes for a command that cannot share its work.

    Raises:
        LaunchError: more than one process was started.
    """
    world_size = read_launch(environ).world_size
    if world_size > 1:
        raise LaunchError(
            f"igvg {command} works in one process, but {world_size} were started; start it without torchrun, "
            "accelerate launch, mpirun or srun --ntasks (igvg train and igvg predict with --shards or --image share "
            "their work)"
        )


def require_data_parallel(environ: Mapping[str, str], *, may_split: bool = False) -> None:
    """Refuse the ways of `accelerate launch` to split a network, but for FSDP version 2 where it `may_split`.

    Raises:
        LaunchError: such a way was asked for.
    """
    for name, option in _SPLITTING.items():
        if may_split and name == USE_FSDP:
            continue
        if _is_true(environ, name):
            raise LaunchError(
                f"the processes were started with {option} ({name}={environ[name]}), which splits the network; igvg "
                "train splits it with --use_fsdp --fsdp_version 2 alone, and all other commands hold all of it: start "
                f"them without {option}"
            )
    if not asks_for_fsdp(environ):
        return
    if (version := environ.get("FSDP_VERSION", "1")) != "2":
        raise LaunchError(
            f"the processes were started with --use_fsdp and version {version} of FSDP (FSDP_VERSION); igvg train "
            "splits the network with version 2: give accelerate launch --fsdp_version 2"
        )
    for name, remedy in _FSDP_OPTIONS.items():
        if _is_true(environ, name):
            raise LaunchError(
                f"the processes were started with --{name.lower()} true ({name}), which igvg train does not take; "
                f"{remedy}"
            )


def asks_for_fsdp(environ: Mapping[str, str]) -> bool:
    """Whether `accelerate launch --use_fsdp` started this process."""
    return _is_true(environ, USE_FSDP)


def export_launch(launch: Launch, environ: MutableMapping[str, str]) -> None:
    """Set the variables that torch and Accelerate read, for every launcher.

    Raises:
        LaunchError: the processes are on several machines, and MASTER_ADDR is not set.
    """
    values = {
        "WORLD_SIZE": launch.world_size,
        "RANK": launch.rank,
        "LOCAL_RANK": launch.local_rank,
        "LOCAL_WORLD_SIZE": launch.local_world_size,
    }
    environ.update({name: str(value) for name, value in values.items()})
    if not environ.get("MASTER_ADDR"):
        if launch.local_world_size < launch.world_size:
            raise LaunchError(
                f"{launch.world_size} processes on several machines need MASTER_ADDR, the host name of rank 0; "
                "set it, or start torchrun on every machine"
            )
        environ["MASTER_ADDR"] = "127.0.0.1"
    if not environ.get("MASTER_PORT"):
        # Jobs that share a machine need different ports.
        names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid")
        job = " ".join(environ.get(name, "") for name in names)
        environ["MASTER_PORT"] = str(20_000 + zlib.crc32(job.encode()) % 10_000)


def _is_true(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "").lower() in ("1", "true", "yes", "on", "y", "t")


def _read_int(environ: Mapping[str, str], name: str, least: int = 0) -> int:
    """The value of a variable; `least` if it is not set."""
    text = environ.get(name, "")
    if not text:
        return least
    if not text.isdecimal() or int(text) < least:
        raise LaunchError(
            f"{name} is {text!r} instead of a whole number of at least {least}; unset it, or: {HOW_TO_LAUNCH}"
        )
    return int(text)


def _read_ranks(environ: Mapping[str, str], launcher: _Launcher, world_size: int) -> Launch:
    for name in (launcher.rank, launcher.local_rank):
        if not environ.get(name):
            raise LaunchError(
                f"{launcher.world_size} is {world_size} and {name} is not set; unset {launcher.world_size} if this "
                f"process was started alone, else: {HOW_TO_LAUNCH}"
            )
    rank, local_rank = _read_int(environ, launcher.rank), _read_int(environ, launcher.local_rank)
    if rank >= world_size:
        raise LaunchError(f"{launcher.rank} is {rank}, but {launcher.world_size} is {world_size}; {HOW_TO_LAUNCH}")
    # SLURM writes 2(x3) for three machines of two; without a plain number all others may be on other machines.
    local = environ.get(launcher.local_world_size, "")
    local_world_size = int(local) if local.isdecimal() else local_rank + 1
    return Launch(world_size=world_size, rank=rank, local_rank=local_rank, local_world_size=local_world_size)
