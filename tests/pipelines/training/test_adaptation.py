"""What a training changes about the network before it begins: frozen layers, batch norms, checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from pipelines.training.setup import Training
from pipelines.training.trainer import open_batches, train_step
from shards.errors import SettingsError
from tests.support.small_training import open_small, write_set

EMBEDDINGS = ("cls_token", "image_pos_embed", "text_pos_embed", "patch_embed.", "text_embed.")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("adaptation"))


def take_steps(training: Training, count: int) -> list[dict[str, float]]:
    """The losses of some steps."""
    losses = []
    for batch in open_batches(training):
        result = train_step(training, batch)
        losses.append({name: value.item() for name, value in result.losses.items()})
        training.step += 1
        if len(losses) == count:
            break
    return losses


def copy_state(training: Training) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in training.model.state_dict().items()}


def count_kept_bytes(training: Training) -> int:
    """Bytes of the activations of a step that are kept for its backward pass."""
    kept: dict[int, int] = {}
    parameters = {parameter.untyped_storage().data_ptr() for parameter in training.model.parameters()}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        take_steps(training, 1)
    return sum(kept.values())


# Activation checkpointing


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_that_computes_layers_again_ends_in_the_same_bits(
    shards: Path, tmp_path: Path, precision: str
) -> None:
    """Stochastic depth drops the same paths, and attention is computed in the same way."""
    trainings = [
        open_small(shards, tmp_path / str(again), precision=precision, activation_checkpointing=again)
        for again in (False, True)
    ]
    plain, again = (take_steps(training, 3) for training in trainings)
    assert plain == again
    states = [training.model.state_dict() for training in trainings]
    assert list(states[0]) == list(states[1])
    assert [name for name, tensor in states[0].items() if not torch.equal(tensor, states[1][name])] == []


def test_the_activations_of_layers_that_are_computed_again_are_not_kept(shards: Path, tmp_path: Path) -> None:
    plain, again = (
        count_kept_bytes(open_small(shards, tmp_path, activation_checkpointing=again)) for again in (False, True)
    )
    assert again < 0.95 * plain


# Frozen layers


def test_frozen_layers_and_embeddings_stay_as_they_are_and_all_others_are_trained(shards: Path, tmp_path: Path) -> None:
    training = open_small(shards, tmp_path, frozen_encoder_layers=1)
    before = copy_state(training)
    take_steps(training, 2)
    for name, parameter in training.model.named_parameters():
        part = name.removeprefix("encoder.")
        frozen = name.startswith("encoder.") and part.startswith((*EMBEDDINGS, "layers.0."))
        assert torch.equal(parameter, before[name]) == frozen, name
        assert parameter.requires_grad != frozen
    optimized = {id(each) for group in training.optimizer.param_groups for each in group["params"]}
    assert optimized == {id(each) for each in training.model.parameters() if each.requires_grad}


def test_frozen_layers_compute_what_they_compute_in_evaluation_and_keep_nothing(shards: Path, tmp_path: Path) -> None:
    sizes = {}
    for count in (0, 1, 2):
        training = open_small(shards, tmp_path / str(count), frozen_encoder_layers=count)
        sizes[count] = count_kept_bytes(training)
    assert sizes[2] < sizes[1] < sizes[0]
    layer = training.model.encoder.layers[1]
    tokens, mask = (torch.randn(64, 4, 16), torch.randn(64, 3, 16)), torch.ones(64, 1, 1, 7, dtype=torch.bool)
    assert torch.equal(layer.train()(*tokens, mask)[0], layer.eval()(*tokens, mask)[0])


def test_more_frozen_layers_than_there_are_are_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="frozen_encoder_layers is 3, and the encoder has 2 layers; set 2 at most"):
        open_small(shards, tmp_path, frozen_encoder_layers=3)


# Batch norms


def test_frozen_batch_norms_use_and_keep_their_statistics_and_train_their_weights(shards: Path, tmp_path: Path) -> None:
    training = open_small(shards, tmp_path, frozen_batchnorm=True)
    norms = {name: module for name, module in training.model.named_modules() if isinstance(module, _BatchNorm)}
    for module in norms.values():
        assert module.running_mean is not None
        module.running_mean.fill_(0.25)
    before = copy_state(training)
    take_steps(training, 2)
    assert len(norms) == 6
    for name, module in norms.items():
        features = torch.randn(2, module.num_features, 3, 3)
        assert torch.equal(module(features), module.eval()(features))
        for part, value in module.state_dict().items():
            assert torch.equal(value, before[f"{name}.{part}"]) == (part not in ("weight", "bias")), part
