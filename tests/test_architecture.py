"""The arrows between packages, the sizes of files and functions, and what the command line loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.support.import_graph import END, FILES, MODULES, PACKAGES, START, find_package, format_graph, list_imports
from tests.support.paths import ROOT

# From the command line down: each may import what stands below it, never back. The two of one row do not know each
# other.
LAYERS = (
    ("igvg_cli",),
    ("pipelines.experiments", "pipelines.inspection", "pipelines.serving"),
    ("pipelines.stages",),
    ("pipelines.grounder",),
    ("pipelines.huggingface",),
    ("pipelines.grounding",),
    ("pipelines.report",),
    ("pipelines.training",),
    ("pipelines.evaluation",),
    ("pipelines.prediction",),
    ("pipelines.pretrained",),
    ("pipelines.data", "pipelines.model"),
    ("pipelines.runtime",),
    ("pipelines.networks",),
    ("pipelines.hub",),
    ("pipelines.config",),
    ("shards",),
)
NETWORK_RUNNERS = {
    f"pipelines.prediction.{name}"
    for name in ("box_masks", "chunked", "predictor", "transformers_model", "zero_shot", "zero_shot_chunks")
}
TORCH_FREE = ("pipelines.evaluation", "pipelines.config", "pipelines.networks", "pipelines.hub", "shards")
STAGES = (
    "prepare",
    "prepare_webdataset",
    "train",
    "predict",
    "predict_images",
    "score",
    "compare",
    "convert",
    "sweep",
    "import_checkpoint",
    "push",
    "report",
)
HEAVY = {"torch", "transformers", "accelerate"}
# What every process of a distributed run goes through.
DISTRIBUTED = {
    "pipelines/prediction/chunked.py",
    "pipelines/prediction/chunks.py",
    "pipelines/prediction/zero_shot_chunks.py",
    "pipelines/stages/artifact.py",
    "pipelines/stages/prediction_work.py",
    "pipelines/stages/predict_images.py",
    "pipelines/training/adaptation.py",
    "pipelines/runtime/distributed.py",
    "pipelines/runtime/signals.py",
    "pipelines/training/divergence.py",
    "pipelines/training/sharded_state.py",
    "pipelines/training/sharding.py",
    "pipelines/training/skipped.py",
    "pipelines/training/trackers.py",
    "pipelines/training/setup.py",
    "pipelines/training/trainer.py",
    "pipelines/training/validation.py",
}
FILE_LINES, FUNCTION_LINES, PARAMETERS = 350, 50, 7


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def find_layer(module: str) -> tuple[int, str]:
    """The row of a module's package, from the top, and the package."""
    for row, packages in enumerate(LAYERS):
        for package in packages:
            if f"{module}.".startswith(f"{package}."):
                return row, package
    raise AssertionError(f"{module} stands in no layer")


@pytest.mark.parametrize("module", [module for module in MODULES if module != "pipelines"])
def test_packages_import_only_downwards(module: str) -> None:
    row, package = find_layer(module)
    for imported in list_imports(MODULES[module]):
        if imported.split(".")[0] in PACKAGES:
            other_row, other = find_layer(imported)
            assert other_row > row or other == package, imported


def test_no_module_imports_itself_through_others() -> None:
    sorter = TopologicalSorter(
        {
            module: [other for other in list_imports(file) if other in MODULES and other != module]
            for module, file in MODULES.items()
        }
    )
    sorter.prepare()


@pytest.mark.parametrize("module", [module for module in MODULES if f"{module}.".startswith(TORCH_FREE)])
def test_what_needs_no_torch_does_not_import_it(module: str) -> None:
    assert not {imported.split(".")[0] for imported in list_imports(MODULES[module])} & HEAVY


def test_of_prediction_only_what_runs_the_network_loads_torch() -> None:
    modules = {module for module in MODULES if module.startswith("pipelines.prediction.")}
    assert not load(", ".join(sorted(modules - NETWORK_RUNNERS))) & HEAVY


@pytest.mark.parametrize(
    "module", [*(f"pipelines.stages.{stage}" for stage in STAGES), "pipelines.experiments.ablation"]
)
def test_a_stage_loads_no_torch_before_there_is_work_for_it(module: str) -> None:
    assert not load(module) & HEAVY


def test_the_command_line_loads_no_heavy_library() -> None:
    heavy = HEAVY | {"numpy", "scipy", "PIL", "pycocotools", "pydantic"}
    assert not load("igvg_cli.app", "igvg_cli.app.build_app()") & heavy


@cache
def load(module: str, then: str = "") -> frozenset[str]:
    """Top-level modules that are loaded after an import."""
    code = f"import sys, {module}\n{then}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return frozenset(result.stdout.split())


@pytest.mark.parametrize("stage", STAGES)
def test_stages_do_not_import_each_other(stage: str) -> None:
    others = {f"pipelines.stages.{other}" for other in STAGES if other != stage}
    assert not list_imports(MODULES[f"pipelines.stages.{stage}"]) & others


def test_modules_import_for_the_type_checker_alone_only_what_is_slow_to_load() -> None:
    for file in FILES:
        if file.parent.name == "igvg_cli":
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                for each in node.body:
                    assert isinstance(each, ast.Import | ast.ImportFrom), file
                    modules = [alias.name for alias in each.names] if isinstance(each, ast.Import) else [each.module]
                    for module in modules:
                        assert module is not None
                        assert load(module) & (HEAVY | {"pydantic"}), (file, module)


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


def test_the_contributors_page_shows_the_present_imports() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert page.split(START)[1].split(END)[0] == format_graph(), "run python -m tests.support.import_graph --write"


@pytest.mark.parametrize("package", sorted({find_package(module) for module in MODULES} - {"pipelines"}))
def test_the_readme_has_a_line_for_every_package(package: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = readme.split("<!-- tree -->")[1].split("```")[1]
    folders: list[str] = []
    listed: set[str] = set()
    for line in tree.strip().splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        folders = [*folders[:depth], line.split()[0].removesuffix(".py").rstrip("/")]
        listed.add(".".join(folders))
    assert package in listed


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_tells_type_checkers_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


def test_tests_stand_in_the_folders_of_what_they_test() -> None:
    folders = {file.parent.relative_to(ROOT / "tests") for file in (ROOT / "tests").rglob("test_*.py")}
    packages = {file.parent.relative_to(ROOT) for file in FILES} - {Path("pipelines/networks")}
    assert folders - {Path()} == packages
