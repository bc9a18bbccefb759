"""What is made of weights is kept as long as they stay, and no longer."""

import copy
import io

import pytest
import torch
from torch import Tensor, nn

from pipelines.model.derived import Derived


class Counted:
    """Doubles a weight and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, weight: Tensor) -> Tensor:
        self.calls += 1
        return 2 * weight.detach()


def to_onednn(weight: Tensor) -> Tensor:
    return weight.to_mkldnn()


def make() -> tuple[Derived[Tensor], Counted, nn.Parameter]:
    counted = Counted()
    return Derived(counted).eval(), counted, nn.Parameter(torch.ones(3))


def test_in_evaluation_a_value_is_made_once():
    derived, counted, weight = make()
    assert derived.get(weight) is derived.get(weight)
    assert counted.calls == 1


def test_in_training_there_is_none():
    derived, counted, weight = make()
    assert derived.train().get(weight) is None
    assert counted.calls == 0


def test_of_weights_made_in_inference_mode_whose_changes_torch_does_not_count_there_is_none():
    with torch.inference_mode():
        assert make()[0].get(torch.ones(3)) is None


def test_a_change_in_place_makes_a_new_value():
    derived, _, weight = make()
    derived.get(weight)
    with torch.no_grad():
        weight.mul_(5)
    assert derived.get(weight).tolist() == [10, 10, 10]


@pytest.mark.parametrize("kind", [{"fused": True}, {"foreach": True}, {"foreach": False}])
def test_a_step_of_an_optimizer_makes_a_new_value(kind):
    derived, _, weight = make()
    derived.get(weight)
    weight.sum().backward()
    torch.optim.SGD([weight], lr=0.5, **kind).step()
    assert derived.get(weight).tolist() == [1, 1, 1]


@pytest.mark.parametrize("assign", [True, False])
def test_loaded_weights_make_a_new_value_copied_or_assigned(assign):
    derived, module = make()[0], nn.Linear(1, 1)
    derived.get(module.weight)
    module.load_state_dict({"weight": torch.full((1, 1), 4.0), "bias": torch.zeros(1)}, assign=assign)
    assert derived.get(module.weight).tolist() == [[8]]


def test_another_parameter_with_the_same_memory_makes_a_new_value():
    derived, counted, weight = make()
    derived.get(weight)
    derived.get(nn.Parameter(weight.data))
    assert counted.calls == 2


def test_another_storage_makes_a_new_value():
    derived, _, weight = make()
    derived.get(weight)
    weight.data = torch.full((3,), 7.0)
    assert derived.get(weight).tolist() == [14, 14, 14]


def test_another_storage_at_the_place_of_the_first_makes_a_new_value():
    for number in range(20):
        derived, _, weight = make()
        derived.get(weight)
        # Twice, so that the allocator may give the first place again.
        for value in (-1.0, float(number)):
            weight.data = torch.full((3,), value)
        assert derived.get(weight).tolist() == [2 * number] * 3


def test_training_begun_and_ended_makes_a_new_value_even_after_changes_torch_does_not_count():
    derived, _, weight = make()
    derived.get(weight)
    weight.data.fill_(3)
    derived.train().eval()
    assert derived.get(weight).tolist() == [6, 6, 6]


@pytest.mark.parametrize("free", [Derived.forget, Derived.double])
def test_forgetting_and_a_move_to_another_type_free_the_value(free):
    derived, counted, weight = make()
    derived.get(weight)
    free(derived)
    derived.get(weight)
    assert counted.calls == 2


def test_a_module_that_keeps_what_cannot_be_copied_can_be_copied_and_saved():
    derived, weight = Derived(to_onednn).eval(), torch.ones(2, 3)
    derived.get(weight)
    torch.save(derived, io.BytesIO())
    assert copy.deepcopy(derived).get(weight).to_dense().tolist() == [[1, 1, 1], [1, 1, 1]]


def test_nothing_of_it_reaches_a_checkpoint():
    derived, _, weight = make()
    derived.get(weight)
    assert derived.state_dict() == {}
