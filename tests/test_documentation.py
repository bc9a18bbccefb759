"""What the pages say is so: links lead somewhere, commands and options exist, the programs run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
import torch
from PIL import Image

from pipelines.config.model import IGVGConfig
from pipelines.config.settings import ScoreSettings
from pipelines.evaluation.metrics.benchmarks import DEFINITIONS
from pipelines.model import IGVGModel
from pipelines.networks import SHIPPED
from pipelines.prediction.raw_format import pack_arrays
from pipelines.stages import score
from tests.benchmarks.__main__ import GROUPS
from tests.documentation.__main__ import generate
from tests.documentation.messages import list_messages
from tests.documentation.settings import find_group, list_all_classes, list_classes, read_meanings
from tests.support.drawn_outputs import draw_output
from tests.support.drawn_shards import write_shards
from tests.support.paths import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
# Options of other programs.
FOREIGN = {
    "--use_fsdp", "--fsdp_version", "--fsdp_offload_params", "--signals-to-handle",
    "--nproc_per_node", "--nnodes", "--rdzv_backend", "--rdzv_endpoint", "--num_processes", "--ntasks", "--shm-size",
    "--help", "--install", "--write", "--steps", "--dry-run", "--count",
}  # fmt: skip
# A model that finds the whole image.
MODEL = """
import numpy as np

def find(image, text):
    mask = np.ones((image.height, image.width), dtype=bool)
    return mask, np.array([[0, 0, image.width, image.height]]), np.array([0.9])
"""


def anchor(title: str) -> str:
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, heading = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        if heading:
            text = file.read_text(encoding="utf-8")
            titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
            assert heading in {*map(anchor, titles), *re.findall(r'<a id="([^"]+)"', text)}, target


@cache
def list_commands() -> dict[str, click.Command]:
    from typer.main import get_command

    from igvg_cli.app import build_app

    application = build_app()
    return (application if hasattr(application, "commands") else get_command(application)).commands


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page: Path) -> None:
    commands = list_commands()
    options = {name for command in commands.values() for option in command.params for name in option.opts}
    options |= {"--quiet", "--debug", "--version", "--install-completion"} | FOREIGN
    text = page.read_text(encoding="utf-8")
    words = re.findall(r"(?:^|`)igvg ([a-z]+)", text, re.MULTILINE)
    assert set(words) - {"is", "needs"} <= commands.keys()
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z_-]*[a-z]", text)) <= options


def list_command_lines(page: Path) -> list[str]:
    """The words after `igvg`, or after `-m igvg_cli`, of every whole command line in the page's blocks of code."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = "".join(block for language, block in blocks if language in {"", "bash"}).replace("\\\n", " ").splitlines()
    found = [
        re.match(r"(?:for .* do |\S+=\S+ )*(?:igvg|\S*(?:torchrun|accelerate) .*-m igvg_cli) (.*)", line)
        for line in lines
    ]
    return [match[1].partition(" # ")[0].partition(";")[0] for match in found if match and "…" not in match[1]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_command_lines_are_understood(page: Path) -> None:
    for line in list_command_lines(page):
        name, *arguments = shlex.split(line)
        list_commands()[name].make_context(name, arguments).close()


def test_command_lines_are_found() -> None:
    assert sum(len(list_command_lines(page)) for page in PAGES) > 40


def test_benchmarks_that_pages_name_exist() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = {word for words in re.findall(r"-m tests\.benchmarks ([a-z -]+)", text) for word in words.split()}
    assert named
    assert named <= GROUPS.keys()
    for module in re.findall(r"-m ((?:tests|pipelines)\.[a-z_.]+)", text):
        assert find_spec(module), module


def test_pages_that_come_from_the_code_are_current() -> None:
    for file, text in generate().items():
        current = file.exists() and file.read_text(encoding="utf-8") == text
        assert current, f"{file.relative_to(ROOT)} is out of date: run python -m tests.documentation"


def test_every_class_of_settings_and_every_field_is_described() -> None:
    assert list_all_classes() == list_classes()
    for kind in list_all_classes():
        for name, meaning in read_meanings(kind).items():
            assert meaning or find_group(kind, name), (kind.__name__, name)


def test_messages_are_read_off_the_sources() -> None:
    messages = {(message.what, message.remedy) for message in list_messages()}
    assert ("no split 'SPLIT'", "it holds …") in messages
    assert ("FOLDER holds no artifact.json", "run igvg to make it") in messages
    assert ("has no list 'images'", "give the annotations.json that igvg convert wrote") in messages
    assert ("--shards is missing", "only --show-settings needs none") in messages
    # Through a dictionary, a tuple, a method that makes the error, and another module's function.
    assert ("FILE: predict has no splits", "name them as name/split, e.g. grefcoco/val") in messages
    assert ("INSTANCES_FILE has no image IMAGE_ID", "") in messages
    assert ("annotation ANN_ID has box … outside the image", "") in messages
    assert ("no recipe NAME", "did you mean …?") in messages


def test_the_sizes_of_the_network_are_those_of_the_page() -> None:
    with torch.device("meta"):
        model = IGVGModel(IGVGConfig())
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    parts = ["encoder", "query_generation", "decoder", "feature_pyramid", "pixel_decoder"]
    expected = [sizes[name] for name in parts]
    expected.append(sum(sizes.values()) - sum(expected))
    text = (DOCS / "network.md").read_text(encoding="utf-8")
    assert re.findall(r"\| ([\d.]+) million \|", text) == [f"{size / 1e6:.1f}" for size in expected]
    assert f"{sum(sizes.values()) / 1e6:.1f} million parameters" in text


def test_formats_are_described_with_every_metric_and_array() -> None:
    rows = [line for line in (ROOT / "docs" / "formats.md").read_text(encoding="utf-8").splitlines() if "|" in line]
    for name, definition in DEFINITIONS.items():
        assert any(f"`{name}`" in row and f"| {definition} |" in row for row in rows), name
    for name in pack_arrays([draw_output("drawn/0/0", (20, 30), 0)]):
        assert any(row.split("|")[1].find(f"`{name}`") >= 0 for row in rows), name


def test_the_programs_with_a_checkpoint_run_on_the_shipped_network(tmp_path: Path) -> None:
    programs = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    chosen = [program for program in programs if "pipelines import" in program or "import pipelines" in program]
    assert len(chosen) == 3
    Image.new("RGB", (60, 40), "white").save(tmp_path / "shapes.png")
    program = "\n".join(chosen).replace("runs/first", str(SHIPPED["shapes"]))
    (tmp_path / "program.py").write_text(program)
    environment = {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "program.py"], cwd=tmp_path, check=True, timeout=200, env=environment)


def test_the_loop_around_another_model_writes_predictions_that_score_takes(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "drawn").rename(tmp_path / "shards")
    programs = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (program,) = [program for program in programs if "my_model" in program]
    (tmp_path / "my_model.py").write_text(MODEL)
    (tmp_path / "loop.py").write_text(program.replace("shards/grefcoco", "shards"))
    environment = {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "loop.py"], cwd=tmp_path, check=True, timeout=100, env=environment)
    report = score.run(tmp_path / "predictions.jsonl", shards, ScoreSettings(split="val", bootstrap=0)).report
    assert report.metrics["T-acc"] == 100
