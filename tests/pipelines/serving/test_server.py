"""The socket that a server listens on."""

from __future__ import annotations

import socket

import pytest

from pipelines.serving.server import format_url, open_socket
from shards.errors import SettingsError


@pytest.mark.parametrize(("host", "name"), [("127.0.0.1", "127.0.0.1"), ("localhost", "localhost")])
def test_a_free_port_is_taken_and_named(host: str, name: str) -> None:
    with open_socket(host, 0) as bound:
        port = bound.getsockname()[1]
        assert format_url(host, bound) == f"http://{name}:{port}/"
        socket.create_connection(("127.0.0.1", port), timeout=5).close()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_addresses_of_version_6_stand_in_brackets() -> None:
    try:
        bound = open_socket("::1", 0)
    except SettingsError:
        pytest.skip("no IPv6 on the loopback")
    with bound:
        assert format_url("::1", bound) == f"http://[::1]:{bound.getsockname()[1]}/"


def test_a_server_on_all_addresses_is_named_after_its_machine() -> None:
    with open_socket("0.0.0.0", 0) as bound:
        assert format_url("0.0.0.0", bound).startswith(f"http://{socket.gethostname()}:")


@pytest.mark.parametrize("host", ["no.such.name.invalid", "a b", "x" * 70 + ".example", "192.0.2.1"])
def test_a_host_that_is_not_here_is_one_line(host: str) -> None:
    with pytest.raises(SettingsError, match="cannot listen on"):
        open_socket(host, 0)
