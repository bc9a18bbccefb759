"""Addresses that no server is asked for: their errors name the package, the scheme or the variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.errors import SettingsError
from shards.reader import ShardReader
from shards.remote_folders import locate_shards


@pytest.mark.parametrize("url", ["s3://bucket/set", "gs://bucket/set"])
def test_a_missing_package_is_named(url: str) -> None:
    package = {"s3": "s3fs", "gs": "gcsfs"}[url[:2]]
    try:
        __import__(package)
    except ImportError:
        with pytest.raises(SettingsError, match=package):
            ShardReader(locate_shards(url), "val")
    else:
        pytest.skip(f"{package} is installed")


def test_an_unknown_scheme_is_one_line() -> None:
    with pytest.raises(SettingsError, match="htps:// is no address"):
        ShardReader(locate_shards("htps://example.org/set"), "val")


def test_without_a_home_folder_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def expand(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("IGVG_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", expand)
    with pytest.raises(SettingsError, match="IGVG_CACHE"):
        locate_shards("https://example.com/shards")
