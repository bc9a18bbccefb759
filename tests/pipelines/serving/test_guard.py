"""Who may use the server."""

from __future__ import annotations

import pytest

from pipelines.serving.guard import Access, is_loopback, split_host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost", "LOCALHOST"])
def test_loopback_addresses_are_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", "localhost.example.org", "127.1"])
def test_all_other_addresses_need_a_token(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost:80", "localhost"), ("LocalHost", "localhost"), ("[::1]:80", "::1"), ("127.0.0.1:80", "127.0.0.1"),
        ("localhost:port", None), ("localhost:99999", None), ("localhost/a", None), ("a@localhost", None), ("", None),
        ("localhost?a", None), ("localhost#a", None), ("[::1", None),
    ],
)  # fmt: skip
def test_a_host_header_is_a_name_or_an_address_with_or_without_port(header: str, name: str | None) -> None:
    assert split_host(header) == name


@pytest.mark.parametrize("header", ["localhost:8000", "127.0.0.1:9", "[::1]:8000", "localhost"])
def test_a_local_server_has_the_loopbacks_names_behind_any_forwarded_port(header: str) -> None:
    assert Access(host="127.0.0.1").allows_host(header)


@pytest.mark.parametrize(
    "header", ["evil.example", "localhost.evil.example", "192.168.1.2", "", "0.0.0.0", "evil:8000"]
)
def test_a_local_server_has_no_other_name(header: str) -> None:
    assert not Access(host="127.0.0.1").allows_host(header)


def test_a_server_for_other_machines_has_its_own_name_and_addresses_and_no_other_name() -> None:
    access = Access(host="Grounder.example", token="t")
    assert access.allows_host("grounder.example:8000")
    assert access.allows_host("192.168.1.2:8000")
    assert not access.allows_host("evil.example")


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        ("Bearer secret", True), ("bearer secret", True), ("Bearer Secret", False), ("secret", False), ("", False),
        ("Basic secret", False), ("Bearer", False), ("Bearer sécret", False), ("Bearer secretx", False),
    ],
)  # fmt: skip
def test_only_the_token_itself_opens(header: str, allowed: bool) -> None:
    assert Access(host="0.0.0.0", token="secret").allows_token(header) is allowed
    assert Access(host="127.0.0.1").allows_token(header)
