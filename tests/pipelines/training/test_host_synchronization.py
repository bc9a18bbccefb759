"""A training step keeps the device busy: nothing in it asks for a value that the device has yet to compute."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.profiler import ProfilerActivity, profile

from pipelines.config.settings import LossSettings, MatchingSettings
from pipelines.data.batch import Targets
from pipelines.model import IGVGModel
from pipelines.training.losses import compute_losses
from tests.support.small_network import CONFIG

# What hands a value to Python, or makes a tensor whose shape hangs on values.
WAITING = {"aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::masked_select", "aten::is_nonzero"}


def make_targets(counts: list[int]) -> Targets:
    masks = [torch.rand(count, 32, 32) > 0.5 for count in counts]
    return Targets(
        boxes=[torch.full((count, 4), 0.5) for count in counts],
        instance_masks=masks,
        global_masks=torch.stack([mask.any(dim=0) for mask in masks]),
        exists=torch.tensor(counts) > 0,
    )


def test_forward_losses_and_backward_never_wait_for_a_value() -> None:
    model = IGVGModel(CONFIG).train()
    inputs = torch.randn(2, 3, 32, 32), torch.randint(4, 40, (2, 6)), torch.ones(2, 6, dtype=torch.int64)
    targets = make_targets([2, 0])
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        losses = compute_losses(
            model(*inputs),
            targets,
            MatchingSettings(),
            LossSettings(),
        )
        losses["total"].backward()
    called = {event.key for event in profiler.key_averages()}
    assert "aten::sigmoid" in called
    assert not called & WAITING


def test_the_network_is_one_graph_for_the_compiler() -> None:
    # Maps of 40 × 40, which without the compiler would take the short way to convolve.
    model = IGVGModel(replace(CONFIG, image_size=80)).eval()
    inputs = torch.randn(2, 3, 80, 80), torch.randint(4, 40, (2, 6)), torch.ones(2, 6, dtype=torch.int64)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(*inputs).boxes, model(*inputs).boxes)


def test_the_network_asks_no_device_but_a_cpu_for_the_length_of_its_texts() -> None:
    # Tensors of this device have no values: whatever asks for one fails.
    model = IGVGModel(CONFIG).to("meta").eval()
    inputs = torch.randn(2, 3, 32, 32), torch.randint(4, 40, (2, 6)), torch.ones(2, 6, dtype=torch.int64)
    assert model(*(tensor.to("meta") for tensor in inputs)).boxes.shape == (2, CONFIG.num_queries, 4)
