"""The recipes that the package ships: the settings of the published trainings, one TOML file each."""

from __future__ import annotations

from pathlib import Path

from shards.errors import SettingsError, near_match_hint

RECIPES = {file.stem: file for file in sorted(Path(__file__).with_suffix("").glob("*.toml"))}
"""The files by name."""


def find_recipe(name: str) -> Path | None:
    """The file of a recipe; None if no name is given.

    Raises:
        SettingsError: there is no such recipe; names the nearest one.
    """
    if name and name not in RECIPES:
        raise SettingsError(f"no recipe {name}; {near_match_hint(name, RECIPES)}")
    return RECIPES.get(name)
