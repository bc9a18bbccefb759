"""The package as it is installed: built, put into a fresh environment, and used outside of the repository."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tests.support.import_graph import FILES, PACKAGES
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow

NETWORK = ("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of what the repository holds."""
    # setuptools puts what an earlier build has left in build/ into the wheel: a copy has none.
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if name.startswith((*(f"{package}/" for package in PACKAGES), "pyproject.toml", "README.md", "LICENSE")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", out, source]
    subprocess.run(command, check=True, timeout=300)
    (file,) = out.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `igvg` of a fresh environment, which takes the other packages from this one."""
    home = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True, timeout=100)
    fresh = home / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", fresh, "install", "--quiet", "--no-deps", wheel]
    subprocess.run(install, check=True, timeout=100)
    where = [fresh, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(where, capture_output=True, text=True, check=True).stdout.strip())
    # After its own packages: `igvg` is found there, all else here. Path files of this environment are not read.
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return home / "bin" / "igvg"


def run(command: Path, *arguments: str | Path, folder: Path) -> str:
    result = subprocess.run(
        [command, *arguments], cwd=folder, capture_output=True, text=True, timeout=200, env={"OMP_NUM_THREADS": "1"}
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_wheel_holds_every_module_the_shipped_network_and_the_marks_for_type_checkers(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = {str(file.relative_to(ROOT)) for file in FILES}
    network = {f"pipelines/networks/shapes/{name}" for name in NETWORK}
    assert names >= modules | network | {f"{package}/py.typed" for package in PACKAGES}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == set(PACKAGES)


def test_the_installed_command_is_that_of_the_wheel(command: Path, tmp_path: Path) -> None:
    assert run(command, "--version", folder=tmp_path).strip().endswith("0.1.0")
    code = "import pipelines; print(pipelines.__file__)"
    assert run(command.with_name("python"), "-c", code, folder=tmp_path).startswith(str(command.parents[1]))


def test_the_installed_command_predicts_with_the_shipped_network(command: Path, tmp_path: Path) -> None:
    image = Image.new("RGB", (96, 96), "gray")
    ImageDraw.Draw(image).rectangle((20, 20, 50, 50), fill="red")
    image.save(tmp_path / "shapes.png")
    text = "the red square"
    run(
        command,
        "predict",
        "--checkpoint",
        "shapes",
        "--image",
        "shapes.png",
        "--text",
        text,
        "--out",
        "found",
        folder=tmp_path,
    )
    (line,) = (tmp_path / "found" / "predictions.jsonl").read_text().splitlines()
    assert json.loads(line)["mask"]["size"] == [96, 96]
