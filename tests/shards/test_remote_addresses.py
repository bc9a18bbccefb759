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


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://[::1/set", "http://[::1/set"),
        ("http://anna:geheim/geheim@example.org/set?token=geheim", "http://***@example.org/set?***"),
        ("http://anna:ge#geheim@example.org/set", "http://***@example.org/set"),
        ("http://anna:ge?geheim@example.org/set", "http://***@example.org/set"),
        ("http://anna:geheim@geheim:1@example.org/set", "http://***@example.org/set"),
        ("https://example.org:port/set", "https://example.org:port/set"),
        ("https://example.org:65536/set", "https://example.org:65536/set"),
        ("https://anna:geheim@/set", "https://***@/set"),
        ("https:///set", "https:///set"),
        ("https://example.org/a set", "https://example.org/a set"),
        ("https://example.org/set\n", "https://example.org/set\\n"),
        ("https://a\udc80b/set", "https://a\\udc80b/set"),
        ("https://a..b/set", "https://a..b/set"),
    ],
)
def test_an_address_that_no_server_has_is_one_line_without_its_password(url: str, shown: str) -> None:
    with pytest.raises(SettingsError) as caught:
        locate_shards(url)
    line = str(caught.value)
    assert line.startswith(f"{shown} is no address: expected https://HOST/FOLDER")
    assert "geheim" not in line
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1]:8000/set",
        "https://anna:ge%2Fheim@b\xfccher.example/set?a=b",
        "HTTPS://h/@a/b:c",
        "http://h:1",
        "s3://a b/c",
        f"https://anna:{'long' * 40}@h/set",
    ],
)
def test_other_addresses_are_taken(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IGVG_CACHE", str(tmp_path))
    assert locate_shards(url).is_relative_to(tmp_path)
