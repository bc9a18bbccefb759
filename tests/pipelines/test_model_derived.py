"""What is made of weights is kept as long as they stay, and no longer."""

import copy
import io

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


def make() -> tuple[Derived[Tensor], Counted, nn.Parameter]:
    counted = Counted()
    return Derived(counted).eval(), counted, nn.Parameter(torch.ones(3))


def test_in_evaluation_a_value_is_made_once():
    derived, counted, weight = make()
    assert derived(weight) is derived(weight)
    assert counted.calls == 1


def test_in_training_a_value_is_made_each_time():
    derived, counted, weight = make()
    derived.train()
    derived(weight), derived(weight)
    assert counted.calls == 2


def test_a_change_in_place_makes_a_new_value():
    derived, _, weight = make()
    derived(weight)
    with torch.no_grad():
        weight.mul_(5)
    assert derived(weight).tolist() == [10, 10, 10]


def test_what_is_forgotten_is_made_anew():
    derived, counted, weight = make()
    derived(weight)
    derived.forget()
    derived(weight)
    assert counted.calls == 2


def test_loaded_weights_make_a_new_value_copied_or_assigned():
    for assign in (False, True):
        derived, module = make()[0], nn.Linear(1, 1)
        derived(module.weight)
        module.load_state_dict({"weight": torch.full((1, 1), 4.0), "bias": torch.zeros(1)}, assign=assign)
        assert derived(module.weight).tolist() == [[8]]


def test_another_parameter_where_the_first_lay_makes_a_new_value():
    derived, counted, _ = make()
    for number in range(50):
        # Freed at once, so that the allocator may hand out the same place again.
        assert derived(nn.Parameter(torch.full((3,), float(number)))).tolist() == [2 * number] * 3
    assert counted.calls == 50


def test_another_storage_makes_a_new_value():
    derived, _, weight = make()
    derived(weight)
    weight.data = torch.full((3,), 7.0)
    assert derived(weight).tolist() == [14, 14, 14]


def test_training_begun_and_ended_makes_a_new_value_even_after_changes_torch_does_not_count():
    derived, _, weight = make()
    derived(weight)
    weight.data.fill_(3)
    derived.train().eval()
    assert derived(weight).tolist() == [6, 6, 6]


def test_a_move_to_another_type_frees_the_value():
    derived, counted, weight = make()
    derived(weight)
    derived.double()
    derived(weight)
    assert counted.calls == 2


def test_weights_made_in_inference_mode_are_kept_too():
    counted = Counted()
    with torch.inference_mode():
        derived, weight = Derived(counted).eval(), torch.ones(3)
        derived(weight), derived(weight)
    assert counted.calls == 1


def test_a_module_that_keeps_what_cannot_be_copied_can_be_copied_and_saved():
    derived = Derived(torch.Tensor.to_mkldnn).eval()
    with torch.no_grad():
        derived(torch.ones(2, 3))
        torch.save(derived, io.BytesIO())
        assert copy.deepcopy(derived)(torch.ones(2, 3)).to_dense().tolist() == [[1, 1, 1], [1, 1, 1]]


def test_nothing_of_it_reaches_a_checkpoint():
    derived, _, weight = make()
    derived(weight)
    assert derived.state_dict() == {}
