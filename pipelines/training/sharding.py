"""A network that is split over the ranks: PyTorch's `fully_shard` (FSDP version 2), as `accelerate launch` asks for it.

Every rank holds a slice of each parameter, of its gradient and of its moments: a DTensor. The layers of encoder and
decoder, and the rest of the network, gather their parameters when they are computed. Buffers are whole on every rank.
"""

from __future__ import annotations

import os
import warnings

from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from pipelines.config.settings import TrainSettings
from pipelines.model import IGVGModel
from pipelines.runtime.launch import asks_for_fsdp
from pipelines.runtime.precision import ComputeDtype
from pipelines.training.compilation import compile_model
from pipelines.training.ema import ExponentialMovingAverage
from pipelines.training.split_tensors import full_tensor
from shards.errors import SettingsError
from shards.progress import log


def splits_network(accelerator: Accelerator) -> bool:
    """Whether the launch asks the ranks to hold a slice of the network each."""
    return accelerator.num_processes > 1 and asks_for_fsdp(os.environ)


def parallelize(
    model: IGVGModel, settings: TrainSettings, accelerator: Accelerator, compute_dtype: ComputeDtype
) -> tuple[nn.Module, ExponentialMovingAverage | None]:
    """What the ranks train together, with the parameters of `model`, and the moving average of these if it is set.

    It is compiled if that is set. Several ranks hold the whole network each, or a slice of it where the launch says so.

    Raises:
        SettingsError: a setting cannot be combined with a network that is split.
    """
    splits = splits_network(accelerator)
    if splits:
        check_settings(settings, compute_dtype)
        model.to(accelerator.device)
        # As DistributedDataParallel does: all ranks begin with the weights of rank 0.
        for tensor in (*model.parameters(), *model.buffers()):
            broadcast(tensor.detach())
        trained: nn.Module = model
    else:
        trained = accelerator.prepare_model(compile_model(model, accelerator.device) if settings.compile else model)
    ema = ExponentialMovingAverage(model, settings.ema_decay) if settings.ema_decay else None
    if splits:
        for network in (model, *([ema.model] if ema else [])):
            shard_model(network, accelerator)
        if accelerator.is_main_process:
            log(f"the network is split over {accelerator.num_processes} processes (FSDP)")
    return trained, ema


def check_settings(settings: TrainSettings, compute_dtype: ComputeDtype) -> None:
    """Refuse what does not work with a network that is split.

    Raises:
        SettingsError: such a setting; says what to set instead.
    """
    if settings.compile:
        raise SettingsError("compile=true does not work with a network that is split (--use_fsdp); set compile=false, "
                            "or start the processes without --use_fsdp")  # fmt: skip
    if compute_dtype == "fp16":
        raise SettingsError("precision=fp16 does not work with a network that is split (--use_fsdp); set "
                            "precision=bf16, or start the processes without --use_fsdp")  # fmt: skip


def shard_model(model: IGVGModel, accelerator: Accelerator) -> None:
    """Leave every rank its slice of the parameters, along their first dimension; the names of the state dict stay."""
    # Nothing changes an output in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for module in (*model.encoder.layers, *model.decoder.layers, model):
        unit = fully_shard(module, mesh=mesh)
        # The tensors for whole weights are made now: those of a validation, in inference mode, could not be trained.
        unit.unshard()
        unit.reshard()


def is_sharded(model: nn.Module) -> bool:
    """Whether a network is split over the ranks."""
    return isinstance(model, FSDPModule)


def agree(condition: bool) -> bool:
    """Whether a condition holds on all ranks; every rank has to call it."""
    return all(gather_object([condition]))


def gather_model(model: IGVGModel, accelerator: Accelerator) -> IGVGModel | None:
    """The whole of a split network, in evaluation mode, on rank 0; None on others. Every rank has to call it.

    The copy takes 4 bytes a parameter until it is dropped. A network that is not split is returned itself.
    """
    if not is_sharded(model):
        return model
    state = {}
    for name, tensor in model.state_dict().items():
        whole = full_tensor(tensor.detach())
        if accelerator.is_main_process:
            state[name] = whole
    return IGVGModel.from_state_dict(model.config, state, "the split network") if state else None
