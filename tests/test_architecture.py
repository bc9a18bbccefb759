"""The arrows between packages, the sizes of files and functions, and what the command line loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("igvg_cli", "pipelines", "shards")
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
MAY_IMPORT = {
    "shards": {"shards"},
    "pipelines": {"pipelines", "shards"},
    "igvg_cli": {"igvg_cli", "pipelines", "shards"},
}
STAGES = ("prepare", "train", "predict", "score", "compare", "convert", "sweep")
# What every process of a distributed run goes through.
DISTRIBUTED = {
    "pipelines/chunks.py",
    "pipelines/divergence.py",
    "pipelines/interrupts.py",
    "pipelines/processes.py",
    "pipelines/training.py",
    "pipelines/validation.py",
}
FILE_LINES, FUNCTION_LINES, PARAMETERS = 350, 50, 7


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def list_imports(file: Path, *, at_import: bool = False) -> set[str]:
    """Modules that a file names in imports; `at_import` leaves out those inside functions and for the type checker."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if at_import and isinstance(node, ast.FunctionDef):
            continue
        if at_import and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        waiting += ast.iter_child_nodes(node)
    return found


@pytest.mark.parametrize("file", FILES, ids=name)
def test_packages_import_only_downwards(file: Path) -> None:
    package = file.relative_to(ROOT).parts[0]
    ours = {module.split(".")[0] for module in list_imports(file)} & set(PACKAGES)
    assert ours <= MAY_IMPORT[package]


@pytest.mark.parametrize("file", [file for file in FILES if file.is_relative_to(ROOT / "shards")], ids=name)
def test_shards_know_nothing_of_torch(file: Path) -> None:
    assert not {module.split(".")[0] for module in list_imports(file)} & {"torch", "transformers", "accelerate"}


def test_metrics_know_nothing_of_torch() -> None:
    for file in (ROOT / "pipelines" / "metrics").rglob("*.py"):
        assert not any(module.split(".")[0] == "torch" for module in list_imports(file)), file


@pytest.mark.parametrize("module", [*(f"pipelines.{stage}" for stage in STAGES), "pipelines.ablation"])
def test_a_stage_loads_no_torch_before_there_is_work_for_it(module: str) -> None:
    assert not load(module) & {"torch", "transformers", "accelerate"}


def test_the_command_line_loads_no_heavy_library() -> None:
    heavy = {"torch", "transformers", "accelerate", "numpy", "scipy", "PIL", "pycocotools", "pydantic"}
    assert not load("igvg_cli.app", "igvg_cli.app.build_app()") & heavy


def load(module: str, then: str = "") -> set[str]:
    """Top-level modules that are loaded after an import."""
    code = f"import sys, {module}\n{then}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(result.stdout.split())


@pytest.mark.parametrize("stage", STAGES)
def test_stages_do_not_import_each_other(stage: str) -> None:
    others = {f"pipelines.{other}" for other in STAGES if other != stage}
    assert not list_imports(ROOT / "pipelines" / f"{stage}.py") & others


def test_the_network_stands_on_torch_and_itself_and_its_files_on_how_files_are_kept() -> None:
    files = {"pipelines/model/storage.py", "pipelines/model/tensor_files.py"}
    for file in (ROOT / "pipelines" / "model").glob("*.py"):
        ours = {module for module in list_imports(file) if module.split(".")[0] in PACKAGES}
        others = {module for module in ours if f"{module}.".partition("pipelines.model.")[0]}
        allowed = ("shards.files", "shards.file_kinds", "shards.errors") if name(file) in files else ()
        assert all(module.startswith(allowed) for module in others) if allowed else not others, file


def test_only_distributed_work_imports_accelerate() -> None:
    users = {name(file) for file in FILES if any(m.split(".")[0] == "accelerate" for m in list_imports(file))}
    assert users <= DISTRIBUTED


def test_only_masks_imports_pycocotools() -> None:
    users = {name(file) for file in FILES if any(m.split(".")[0] == "pycocotools" for m in list_imports(file))}
    assert users == {"shards/masks.py"}


@pytest.mark.parametrize("file", FILES, ids=name)
def test_files_and_functions_stay_small(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") <= FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef):
            continue
        start = node.body[0].end_lineno if ast.get_docstring(node) else node.lineno
        assert start is not None
        assert node.end_lineno is not None
        assert node.end_lineno - start <= FUNCTION_LINES, node.name
        # A command's parameters are its options.
        if file.parent.name != "igvg_cli":
            parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            assert len([p for p in parameters if p.arg not in ("self", "cls")]) <= PARAMETERS, node.name


@pytest.mark.parametrize("file", FILES, ids=name)
def test_every_module_says_what_it_is_for(file: Path) -> None:
    assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))


def test_no_module_is_named_after_nothing() -> None:
    assert not {file.stem for file in FILES} & {"utils", "util", "misc", "common", "helpers", "base"}
