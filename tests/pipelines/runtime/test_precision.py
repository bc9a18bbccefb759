"""`auto` is bfloat16 where the device multiplies it, and float32 where it would be emulated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.config.settings import PredictSettings, TextSettings
from pipelines.pretrained import save_checkpoint
from pipelines.runtime.precision import (
    ComputeDtype,
    advise_precision,
    autocast_context,
    describe_compute_dtype,
    log_compute_dtype,
    resolve_precision,
)
from pipelines.stages import predict
from pipelines.training.state import save_state
from pipelines.training.trainer import train
from shards.errors import SettingsError
from shards.progress import set_sink
from tests.support.drawn_shards import write_shards
from tests.support.pipeline_runs import SMALL_NETWORK, igvg
from tests.support.small_training import open_small

CPU = torch.device("cpu")
PLAIN = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
CPUINFO = Path("/proc/cpuinfo")
LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")


@pytest.fixture(scope="module", autouse=True)
def _initialized() -> None:
    # oneDNN reads its limit once, when it first computes. Under a limit that a test sets, all later tests of this
    # process would round differently from the processes that they start.
    torch.nn.functional.conv2d(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 3, 3))


@pytest.fixture(autouse=True)
def without_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LIMITS:
        monkeypatch.delenv(name, raising=False)


def test_a_cpu_has_neither_tf32_nor_float16() -> None:
    assert resolve_precision("tf32", CPU) == "fp32"
    with pytest.raises(SettingsError, match=r"precision=fp16 needs a GPU .* computes on a cpu; set precision=auto"):
        resolve_precision("fp16", CPU)


@pytest.mark.parametrize(("compute_dtype", "rounded"), [("fp32", False), ("tf32", True)])
def test_products_on_a_gpu_are_rounded_to_tf32_where_that_is_set_and_nowhere_else(
    compute_dtype: ComputeDtype, rounded: bool
) -> None:
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [each.allow_tf32 for each in flags]
    with autocast_context(torch.device("cuda"), compute_dtype):
        assert [each.allow_tf32 for each in flags] == [rounded] * 2
    assert [each.allow_tf32 for each in flags] == before


@pytest.mark.parametrize("limit", ["AVX2", "avx2", "AVX512_CORE", "AVX512_CORE_VNNI"])
def test_a_matrix_library_without_bfloat16_products_is_given_float32(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert resolve_precision("auto", CPU) == "fp32"


def test_a_torch_that_is_told_to_use_avx2_computes_in_float32() -> None:
    code = (
        "import torch; from pipelines.runtime.precision import *; print(resolve_precision('auto', torch.device('cpu')))"
    )
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "avx2"}
    words = [sys.executable, "-c", code]
    result = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    assert result.stdout.strip() == "fp32"


@pytest.mark.skipif(not CPUINFO.exists(), reason="what the processor has is read from /proc/cpuinfo")
@pytest.mark.skipif("AVX2" in torch.backends.cpu.get_cpu_capability(), reason="torch uses AVX2 and nothing newer")
def test_a_processor_computes_in_bfloat16_if_the_kernel_lists_such_instructions() -> None:
    native = bool(set(CPUINFO.read_text().split()) & {"avx512_bf16", "amx_bf16", "bf16"})
    assert resolve_precision("auto", CPU) == ("bf16" if native else "fp32")


def test_what_is_asked_for_is_what_it_computes_in() -> None:
    assert [resolve_precision(asked, CPU) for asked in ("fp32", "bf16")] == ["fp32", "bf16"]


def test_bfloat16_that_is_emulated_and_float32_beside_native_bfloat16_are_remarked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert "emulates them, many times slower than float32: precision=auto" in advise_precision("bf16", CPU)
    assert advise_precision("fp32", CPU) == advise_precision("auto", CPU) == ""


@pytest.mark.skipif(resolve_precision("auto", CPU) == "fp32", reason="this processor has no bfloat16 products")
def test_a_published_float32_is_told_what_bfloat16_would_gain() -> None:
    assert "--set precision=bf16 trains faster" in advise_precision("fp32", CPU)
    assert advise_precision("bf16", CPU) == advise_precision("auto", CPU) == ""


@pytest.mark.parametrize("doing", ["training", "predicting"])
def test_asking_for_an_emulated_bfloat16_is_told_what_it_costs(doing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    lines: list[str] = []
    with set_sink(log=lines.append):
        log_compute_dtype(doing, "fp32", ["fp32"], CPU)
        assert lines == []
        log_compute_dtype(doing, "bf16", ["bf16"], CPU)
    assert lines == [advise_precision("bf16", CPU)]


@pytest.mark.skipif(resolve_precision("auto", CPU) == "fp32", reason="this processor has no bfloat16 products")
def test_a_training_in_float32_is_told_what_bfloat16_would_gain_and_a_prediction_is_not() -> None:
    lines: list[str] = []
    with set_sink(log=lines.append):
        log_compute_dtype("predicting", "fp32", ["fp32"], CPU)
        assert lines == []
        log_compute_dtype("training", "fp32", ["fp32"], CPU)
    assert lines == [advise_precision("fp32", CPU)]


def test_a_device_without_bfloat16_products_says_why_it_computes_in_float32() -> None:
    assert describe_compute_dtype("fp32", CPU) == "float32: this cpu has no bfloat16 products (precision=auto)"


def test_auto_is_printed_recorded_and_found_finished_on_a_machine_that_resolves_it_otherwise(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "drawn")
    settings = (*SMALL_NETWORK, 'splits=["val"]', "max_steps=1")
    sets = [word for setting in settings for word in ("--set", setting)]
    words = ["train", "--shards", shards, "--out", tmp_path / "run", "--preset", "tiny", *sets]
    made = igvg(*words, **PLAIN)
    assert made.returncode == 0, made.stderr
    assert "training in float32: this cpu has no bfloat16 products (precision=auto)" in made.stderr.splitlines()
    artifact = json.loads((tmp_path / "run" / "artifact.json").read_text())
    assert artifact["options"]["precision"] == "auto"
    assert artifact["counts"]["precision"] == "fp32"
    start = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])["start"]
    assert start == {"processes": 1, "precision": "fp32"}
    assert "is up to date" in igvg(*words).stderr


def test_a_prediction_under_auto_says_what_it_came_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    shards = write_shards(tmp_path / "drawn")
    training = open_small(shards, tmp_path / "run", text=TextSettings(max_tokens=8))
    save_checkpoint(tmp_path / "run", training.model, training.data.processor.tokenizer, 8)
    settings = PredictSettings(split="val", precision="auto", workers=0)
    words = settings, tmp_path / "run", shards, tmp_path / "out"
    lines: list[str] = []
    with set_sink(log=lines.append):
        assert predict.run(*words).counts["precision"] == "fp32"
    assert "predicting in float32: this cpu has no bfloat16 products (precision=auto)" in lines
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    result = predict.run(*words)
    assert result.artifact is not None
    assert (result.artifact.options["precision"], result.cached) == ("auto", True)


def test_a_training_begun_in_bfloat16_goes_on_in_float32_on_a_machine_that_would_emulate_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    shards = write_shards(tmp_path / "drawn")
    begun = open_small(shards, tmp_path / "run", precision="auto", max_steps=2)
    begun.step, begun.compute_dtypes = 1, ("bf16",)
    save_state(begun)
    training = open_small(shards, tmp_path / "run", precision="auto", max_steps=2)
    assert training.compute_dtypes == ("bf16", "fp32")
    lines: list[str] = []
    with set_sink(log=lines.append):
        train(training)
    assert "training began in bf16 and goes on in fp32, which this device has" in lines


def test_attention_in_bfloat16_on_a_cpu_is_fused_in_prediction_alone() -> None:
    with autocast_context(CPU, "bf16"):
        assert torch.is_autocast_enabled("cpu")
        assert not torch.backends.cuda.flash_sdp_enabled()
    for precision in ("bf16", "fp32"):
        with torch.inference_mode(), autocast_context(CPU, precision):
            assert torch.is_autocast_enabled("cpu") == (precision == "bf16")
            assert torch.backends.cuda.flash_sdp_enabled()
    with autocast_context(CPU, "fp32"):
        assert torch.backends.cuda.flash_sdp_enabled()
