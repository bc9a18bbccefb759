"""Who imports whom, read off the sources: `python -m tests.support.import_graph [--write]`.

Prints the packages with what they import and their sizes. With `--write` the imports become the table in
CONTRIBUTING.md, which `tests/test_architecture.py` compares with the sources.
"""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path
from textwrap import wrap

from tests.support.paths import ROOT

PACKAGES = ("igvg_cli", "pipelines", "shards")
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
START, END = "<!-- import graph -->\n", "<!-- end -->\n"


def name_module(file: Path) -> str:
    """The dotted name of a file's module."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_module(file): file for file in FILES}


@cache
def list_imports(file: Path) -> frozenset[str]:
    """Modules that a file imports: at its top, inside functions, and for the type checker alone."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & MODULES.keys()) or {node.module}
            if inner - MODULES.keys():
                found.add(node.module)
    return frozenset(found)


def find_package(module: str) -> str:
    """The package that a module stands in: its folder, or the module itself where it stands alone in `pipelines`."""
    folder = MODULES[module].parent.relative_to(ROOT)
    return module if folder == Path("pipelines") else ".".join(folder.parts)


def build_graph() -> dict[str, set[str]]:
    """Each package with the packages that its modules import."""
    graph: dict[str, set[str]] = {}
    for module, file in MODULES.items():
        package = find_package(module)
        imported = {find_package(other) for other in list_imports(file) if other in MODULES}
        graph.setdefault(package, set()).update(imported - {package})
    return graph


def sort_packages(graph: dict[str, set[str]]) -> list[str]:
    """The packages, from the command line down: each after all that import it."""
    placed: list[str] = []
    while len(placed) < len(graph):
        open_packages = [package for package in sorted(graph) if package not in placed]
        importers = {package: [o for o in open_packages if package in graph[o]] for package in open_packages}
        placed.append(next(package for package in open_packages if not importers[package]))
    return placed


def format_graph() -> str:
    """The table of imports, as CONTRIBUTING.md holds it; names stand without `pipelines.`."""
    graph = build_graph()
    order = [package for package in sort_packages(graph) if package != "pipelines"]
    rows = ["package              imports"]
    for package in order:
        imported = [other.removeprefix("pipelines.") for other in order if other in graph[package]]
        name = package.removeprefix("pipelines.")
        rows += wrap(", ".join(imported) or "-", 118, initial_indent=f"{name:21}", subsequent_indent=" " * 21)
    return "\n".join(["```", *rows, "```", ""])


def format_sizes() -> str:
    """Modules and lines of each package, and the longest module."""
    sizes: dict[str, list[tuple[int, str]]] = {}
    for module, file in MODULES.items():
        sizes.setdefault(find_package(module), []).append((file.read_text(encoding="utf-8").count("\n"), file.name))
    rows = [
        f"{name:32}{len(files):8}{sum(lines for lines, _ in files):8}{max(files)[0]:9}  {max(files)[1]}"
        for name, files in sorted(sizes.items())
    ]
    lines = sum(size for files in sizes.values() for size, _ in files)
    head = f"{'package':32}{'modules':>8}{'lines':>8}{'longest':>9}"
    return "\n".join([head, *rows, f"{'all':32}{len(FILES):8}{lines:8}"])


def main() -> None:
    """Print both tables; with `--write`, put the first into CONTRIBUTING.md."""
    sys.stdout.write(f"{format_graph()}\n{format_sizes()}\n")
    if "--write" in sys.argv:
        page = ROOT / "CONTRIBUTING.md"
        before, rest = page.read_text(encoding="utf-8").split(START)
        page.write_text(before + START + format_graph() + END + rest.split(END, 1)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
