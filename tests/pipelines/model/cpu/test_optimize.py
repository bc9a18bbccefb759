"""The network for prediction on a CPU gives the results of the plain one, and can do nothing but predict."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipelines.model import IGVGConfig, IGVGModel, IGVGOutput
from pipelines.model.cpu import optimize_for_cpu
from pipelines.model.cpu.minimal_filtering import MinimalFilteringConv2d
from tests.support.paths import ROOT

# Maps of 48, 24, 12 and 6 pixels on a side: two of them are large enough for minimal filtering.
CONFIG = IGVGConfig(
    image_size=48, patch_size=4, encoder_dim=24, encoder_layers=2, encoder_heads=2, encoder_ffn=32, vocab_size=50,
    text_positions=16, hidden_dim=16, num_queries=4, decoder_layers=2, decoder_heads=2, decoder_ffn=32,
    generation_ffn=32,
)  # fmt: skip


@pytest.fixture
def model() -> IGVGModel:
    """A network whose batch norms have seen a batch."""
    torch.manual_seed(0)
    model = IGVGModel(CONFIG).train()
    model(*draw_inputs())
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model.eval()


def draw_inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(2, 3, 48, 48, generator=generator)
    return pixels, torch.randint(0, 50, (2, 6), generator=generator), torch.ones(2, 6, dtype=torch.int64)


@torch.inference_mode()
def run(model: IGVGModel) -> dict[str, Tensor]:
    output: IGVGOutput = model(*draw_inputs())
    values = {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    return {name: torch.stack(value) if isinstance(value, list) else value for name, value in values.items()}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        scale = max(1.0, value.abs().max().item())
        torch.testing.assert_close(
            found[name], value, rtol=0, atol=1e-5 * scale, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_the_results_are_those_of_the_plain_network_up_to_rounding(model):
    optimized = optimize_for_cpu(model)
    assert_close(run(optimized), run(model))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in optimized.modules())
    assert sum(isinstance(module, MinimalFilteringConv2d) for module in optimized.modules()) == 10


def test_the_results_are_those_of_the_plain_network_on_a_cpu_without_avx512():
    plain = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    name = "test_the_results_are_those_of_the_plain_network_up_to_rounding"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{__file__}::{name}"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | plain, check=False)
    assert result.returncode == 0, result.stdout


def test_later_changes_of_the_model_change_nothing_in_the_optimized_one(model):
    optimized = optimize_for_cpu(model)
    before = run(optimized)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.zero_()
    after = run(optimized)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_weights_can_be_moved_after_which_the_model_has_none(model):
    expected = run(optimize_for_cpu(model))
    kept = model.encoder.text_embed.weight.data_ptr()
    optimized = optimize_for_cpu(model, copy=False)
    assert optimized.encoder.text_embed.weight.data_ptr() == kept
    assert all(torch.equal(value, expected[name]) for name, value in run(optimized).items())
    assert all(parameter.is_meta for parameter in model.parameters())
    with pytest.raises((RuntimeError, NotImplementedError)):
        run(model)


def test_the_model_itself_is_left_as_it_was(model):
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    optimize_for_cpu(model)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_training_gradients_and_saving_are_refused(model, tmp_path: Path):
    optimized = optimize_for_cpu(model)
    assert not optimized.training
    assert not any(parameter.requires_grad for parameter in optimized.parameters())
    assert optimized.eval() is optimized
    with pytest.raises(RuntimeError, match="can only predict"):
        optimized.train()
    assert not any(module.training for module in optimized.modules())
    with pytest.raises(RuntimeError, match="has no gradients"):
        optimized.requires_grad_()
    with pytest.raises(RuntimeError, match="its result is no checkpoint"):
        optimized.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bfloat16_takes_torchs_own_convolutions(model, monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError

    optimized = optimize_for_cpu(model)
    monkeypatch.setattr("pipelines.model.cpu.minimal_filtering.minimal_filtering", refuse)
    with pytest.raises(AssertionError):
        run(optimized)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert run(optimized)["global_mask_logits"].dtype == torch.bfloat16
