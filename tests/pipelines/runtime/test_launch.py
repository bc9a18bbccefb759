"""World size and ranks come from the environment; processes that cannot work together are an error."""

from __future__ import annotations

import os

import pytest

from pipelines.runtime.distributed import start_accelerator
from pipelines.runtime.launch import Launch, LaunchError, is_main_process, read_launch, require_one_process
from pipelines.training.setup import start_processes
from shards.errors import SettingsError
from tests.support.small_training import small_settings

TORCHRUN = {
    "WORLD_SIZE": "4", "RANK": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "2",
    "MASTER_ADDR": "node1", "MASTER_PORT": "29500",
}  # fmt: skip
SRUN = {
    "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_NTASKS": "4",
}  # fmt: skip
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}  # fmt: skip
BATCH_SCRIPT = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}


@pytest.mark.parametrize(
    ("environ", "launch"),
    [
        ({}, Launch()),
        (TORCHRUN, Launch(world_size=4, rank=2, local_rank=0, local_world_size=2)),
        (SRUN, Launch(world_size=4, rank=3, local_rank=1, local_world_size=2)),
        (OPEN_MPI, Launch(world_size=2, rank=1, local_rank=1, local_world_size=2)),
        (
            {"PMI_SIZE": "3", "PMI_RANK": "1", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "1"},
            Launch(world_size=3, rank=1, local_rank=0, local_world_size=1),
        ),
        (
            {"MV2_COMM_WORLD_SIZE": "2", "MV2_COMM_WORLD_RANK": "0", "MV2_COMM_WORLD_LOCAL_RANK": "0"},
            Launch(world_size=2, rank=0, local_rank=0, local_world_size=1),
        ),
        # A batch script of four tasks is one process until srun starts them.
        (BATCH_SCRIPT, Launch()),
        (BATCH_SCRIPT | {"SLURM_STEP_NUM_TASKS": "1"}, Launch()),
        # torchrun on each of two machines, started by srun.
        (SRUN | {"SLURM_STEP_NUM_TASKS": "2"} | TORCHRUN, Launch(world_size=4, rank=2, local_world_size=2)),
        ({"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}, Launch()),
        ({"WORLD_SIZE": "1"}, Launch()),
        ({"WORLD_SIZE": ""}, Launch()),
        ({"RANK": "0"}, Launch()),
    ],
)
def test_world_size_and_ranks_are_read_from_the_environment(environ: dict[str, str], launch: Launch) -> None:
    assert read_launch(environ) == launch


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE is 4 and RANK is not set"),
        ({"RANK": "1"}, "RANK is 1 and WORLD_SIZE is not set"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "LOCAL_RANK is not set"),
        ({name: value for name, value in TORCHRUN.items() if name != "MASTER_ADDR"}, "MASTER_ADDR is not set"),
        ({name: value for name, value in TORCHRUN.items() if name != "MASTER_PORT"}, "MASTER_PORT is not set"),
        (TORCHRUN | {"RANK": "4"}, "RANK is 4, but WORLD_SIZE is 4"),
        (TORCHRUN | {"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        (TORCHRUN | {"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
        (TORCHRUN | {"RANK": "-1"}, "RANK is '-1'"),
        ({"WORLD_SIZE": "1", "RANK": "1", "LOCAL_RANK": "0"}, "RANK is 1, but WORLD_SIZE is 1"),
        ({"SLURM_STEP_NUM_TASKS": "2"}, "SLURM_PROCID is not set"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_RANK is not set"),
        # Two torchruns that do not know of each other.
        (SRUN | {"SLURM_STEP_NUM_TASKS": "2"} | TORCHRUN | {"GROUP_WORLD_SIZE": "1"}, "SLURM started 2 processes"),
        (OPEN_MPI | {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}, "Open MPI started 2 processes"),
    ],
)
def test_processes_that_cannot_connect_are_an_error_that_says_how_to_start_them(
    environ: dict[str, str], named: str
) -> None:
    with pytest.raises(LaunchError, match="torchrun") as error:
        read_launch(environ)
    assert named in str(error.value)


def test_rank_0_prints_and_a_process_of_unknown_rank_too() -> None:
    assert is_main_process({})
    assert is_main_process(TORCHRUN | {"RANK": "0"})
    assert not is_main_process(TORCHRUN)
    assert not is_main_process(OPEN_MPI)
    assert is_main_process({"WORLD_SIZE": "4"})


def test_commands_that_do_not_share_their_work_refuse_several_processes() -> None:
    require_one_process("score", BATCH_SCRIPT)
    with pytest.raises(LaunchError, match="igvg score works in one process, but 4 were started"):
        require_one_process("score", SRUN)


def test_processes_on_several_machines_need_the_host_name_of_rank_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", SRUN | {"ACCELERATE_USE_CPU": "true"})
    with pytest.raises(LaunchError, match="4 processes on several machines need MASTER_ADDR"):
        start_accelerator()


def test_a_batch_that_cannot_be_shared_evenly_is_refused() -> None:
    with pytest.raises(SettingsError, match="batch_size 6 cannot be shared by 1 processes × 4 micro_batches"):
        start_processes(small_settings(batch_size=6, micro_batches=4))


@pytest.mark.parametrize("name", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM"])
def test_processes_that_would_split_the_network_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    option = name.removeprefix("ACCELERATE_").lower()
    monkeypatch.setenv(name, "true")
    with pytest.raises(
        LaunchError, match=rf"{name}=true\), which splits the network; .* start them without --{option}$"
    ):
        start_accelerator()
    monkeypatch.setenv(name, "false")
    start_accelerator()


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({}, "version 1 of FSDP .* give accelerate launch --fsdp_version 2$"),
        ({"FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "true"}, "--fsdp_offload_params true"),
        (
            {"FSDP_VERSION": "2", "FSDP_ACTIVATION_CHECKPOINTING": "true"},
            "give igvg train --set activation_checkpointing=true$",
        ),
    ],
)
def test_a_training_splits_the_network_with_version_2_of_fsdp_alone(
    environ: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ({"ACCELERATE_USE_FSDP": "true"} | environ).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LaunchError, match=named):
        start_accelerator(may_split=True)
    monkeypatch.setenv("FSDP_VERSION", "2")
    for name in environ.keys() - {"FSDP_VERSION"}:
        monkeypatch.setenv(name, "false")
    accelerator = start_accelerator(may_split=True)
    assert accelerator.distributed_type == "NO"
    assert os.environ["ACCELERATE_USE_FSDP"] == "true"
