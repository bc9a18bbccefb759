"""The lowest versions that pyproject.toml allows, as constraints for pip: `python -m tests.support.lowest_versions`.

Those of the tests' own tools are among them.
"""

from __future__ import annotations

import re
import sys
import tomllib

from tests.support.paths import ROOT


def list_lowest() -> dict[str, str]:
    """The lower bound of every dependency, by name, those of the extras that `dev` takes in among them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    lowest, requirements = dict[str, str](), [*project["dependencies"], *extras["dev"]]
    while requirements:
        requirement = requirements.pop(0)
        if taken_in := re.fullmatch(rf"{project['name']}\[([\w,-]+)\]", requirement):
            requirements += [each for name in taken_in[1].split(",") for each in extras[name]]
            continue
        bound = re.fullmatch(r"([\w.-]+)>=([\d.]+)", requirement)
        assert bound, f"{requirement} is not NAME>=VERSION"
        lowest[bound[1]] = bound[2]
    return lowest


if __name__ == "__main__":
    # Arguments such as torch==2.13.0 replace a bound.
    replaced = dict(argument.split("==") for argument in sys.argv[1:])
    sys.stdout.writelines(f"{name}=={version}\n" for name, version in (list_lowest() | replaced).items())
