"""Many clients at once, clients that leave, and a server that has more to do than it can."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection
from typing import Any

import pytest

from pipelines import Grounder
from pipelines.config.settings import PostprocessSettings, ServeSettings
from pipelines.serving.answers import build_answer, write_masks
from pipelines.serving.app import build_app
from pipelines.serving.guard import Access
from pipelines.serving.results import KeptResult
from pipelines.serving.server import build_server, format_url, open_socket
from pipelines.serving.service import AbandonedError, GroundingService
from shards.errors import NonFiniteError
from tests.support.drawn_images import draw_shapes
from tests.support.drawn_outputs import draw_output
from tests.support.grounding_server import Client, encode_form, resident_mebibytes, run_server

CLIENTS = 20
# Each is a prediction, and its post-processing once again. The first fill what the server keeps.
KEPT, WARM_UP_PAIRS, PAIRS = 32, 60, 100
# What two hundred further requests may add to memory.
GROWTH_MEBIBYTES = 4
# The C library then returns freed memory at once, and what is in use is seen.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


def test_twenty_clients_at_once_are_answered_and_memory_does_not_grow() -> None:
    image = draw_shapes()
    with run_server("--set", f"kept_results={KEPT}", **ALLOCATOR) as server, ThreadPoolExecutor(CLIENTS) as clients:

        def use(index: int) -> list[int]:
            reply = server.predict(image, "the red square", f"the circle {index}")
            again = server.postprocess(reply.document["id"], score_threshold=0.1, max_side=64)
            return [reply.status, again.status]

        memory = []
        for pairs in (WARM_UP_PAIRS, PAIRS):
            assert list(clients.map(use, range(pairs))) == [[200, 200]] * pairs
            memory.append(resident_mebibytes(server.process.pid))
        health = server.health()
    assert memory[1] - memory[0] < GROWTH_MEBIBYTES, memory
    assert health["results"] == KEPT
    assert health["waiting"] == 0
    assert health["expressions"] == 2 * (WARM_UP_PAIRS + PAIRS)
    # Requests that waited together shared forward passes.
    assert health["forward_passes"] < WARM_UP_PAIRS + PAIRS


class Gate:
    """Holds the network back until it is opened."""

    def __init__(self, grounder: Grounder) -> None:
        self.opened, self.entered = threading.Event(), threading.Semaphore(0)
        self._hook = grounder.model.register_forward_pre_hook(self._wait)  # type: ignore[union-attr]

    def _wait(self, *_: object) -> None:
        self.entered.release()
        assert self.opened.wait(60)

    def remove(self) -> None:
        self.opened.set()
        self._hook.remove()


@pytest.fixture(scope="module")
def grounder() -> Grounder:
    return Grounder.from_pretrained("shapes", device="cpu")


@pytest.fixture
def gate(grounder: Grounder) -> Iterator[Gate]:
    gate = Gate(grounder)
    yield gate
    gate.remove()


@contextmanager
def serve_here(
    grounder: Grounder, errors: list[Exception] | None = None, **changes: Any
) -> Iterator[tuple[Client, GroundingService]]:
    """A server in a thread of this process, whose network a test can hold back; errors fail it unless given a list."""
    service = GroundingService(grounder, ServeSettings(**changes))
    unforeseen: list[Exception] = []
    with open_socket("127.0.0.1", 0) as bound:
        server = build_server(
            build_app(service, Access(host="127.0.0.1"), (unforeseen if errors is None else errors).append),
            service.settings.timeout_seconds,
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            yield Client(format_url("127.0.0.1", bound)), service
        finally:
            server.should_exit = True
            thread.join()
            service.close()
    assert unforeseen == []


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def start_request(client: Client, *texts: str) -> socket.socket:
    """A connection that has sent a request, and has not read the answer."""
    body, kind = encode_form([("image", draw_shapes()), *(("texts", text) for text in texts)])
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", client.port), timeout=30)
    connection.sendall(head.encode() + body)
    return connection


def read_status(connection: socket.socket) -> bytes:
    with connection:
        return connection.recv(1 << 16).split(b"\r\n")[0]


def test_a_client_that_leaves_costs_no_forward_pass(grounder: Grounder, gate: Gate) -> None:
    with serve_here(grounder) as (client, service):
        first = start_request(client, "the red square")
        assert gate.entered.acquire(timeout=20)
        leaving, staying = start_request(client, "a", "b", "c"), start_request(client, "the blue circle")
        wait_until(lambda: service.waiting == 3 and service.queue.num_waiting == 4)
        leaving.close()
        wait_until(lambda: service.waiting == 2)
        gate.opened.set()
        assert read_status(first) == read_status(staying) == b"HTTP/1.1 200 OK"
        assert (service.queue.forward_passes, service.queue.examples_run) == (2, 2)


def test_a_request_that_waits_too_long_is_refused_and_costs_no_forward_pass(grounder: Grounder, gate: Gate) -> None:
    with serve_here(grounder, timeout_seconds=2.0) as (client, service):
        first = start_request(client, "the red square")
        assert gate.entered.acquire(timeout=20)
        reply = client.predict(draw_shapes(), "the blue circle")
        assert reply.status == 503
        assert int(reply.headers["Retry-After"]) > 0
        assert "2 seconds" in reply.document["detail"]
        assert read_status(first).startswith(b"HTTP/1.1 503 ")
        gate.opened.set()
        assert client.predict(draw_shapes(), "the green star").status == 200
        assert service.queue.examples_run == 2


def test_where_too_many_wait_the_next_is_told_to_come_again(grounder: Grounder, gate: Gate) -> None:
    with serve_here(grounder, max_waiting=2) as (client, service):
        waiting = [start_request(client, "the red square") for _ in range(2)]
        wait_until(lambda: service.waiting == 2)
        reply = client.predict(draw_shapes(), "the red square")
        assert reply.status == 503
        assert int(reply.headers["Retry-After"]) > 0
        assert client.ask("GET", "/health").status == 200
        gate.opened.set()
        assert [read_status(connection) for connection in waiting] == [b"HTTP/1.1 200 OK"] * 2
        assert client.predict(draw_shapes(), "the red square").status == 200


def test_a_body_that_arrives_too_slowly_is_given_up(grounder: Grounder) -> None:
    with (
        serve_here(grounder, timeout_seconds=0.5) as (client, _),
        socket.create_connection(("127.0.0.1", client.port), timeout=20) as connection,
    ):
        kind = "multipart/form-data; boundary=b"
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: 1000\r\n\r\n--b"
        connection.sendall(head.encode())
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\nHost:", b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3000],
    ids=["nothing", "half a head", "much that is not read"],
)  # fmt: skip
def test_a_connection_whose_client_stops_is_cut_off(grounder: Grounder, sent: bytes) -> None:
    with (
        serve_here(grounder, timeout_seconds=0.5) as (client, _),
        socket.create_connection(("127.0.0.1", client.port), timeout=20) as connection,
    ):
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            connection.sendall(sent)
        wait_until(lambda: is_cut_off(connection))
        assert client.health()["status"] == "ok"


def is_cut_off(connection: socket.socket) -> bool:
    """Whether the other end has closed a connection; nothing is taken out of it."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


def test_connections_with_requests_stay_open_longer(grounder: Grounder) -> None:
    with serve_here(grounder, timeout_seconds=2.0) as (client, _):
        connection = HTTPConnection("127.0.0.1", client.port, timeout=20)
        connection.connect()
        ends = connection.sock.getsockname()
        for _ in range(5):
            connection.request("GET", "/health")
            assert connection.getresponse().read()
            assert connection.sock.getsockname() == ends
            time.sleep(0.6)
        connection.close()


def test_work_that_nobody_waits_for_ends_and_takes_no_further_thread(grounder: Grounder) -> None:
    started, ended = [], []

    def run(check: Callable[[], None]) -> None:
        started.append(threading.get_ident())
        try:
            for _ in range(500):
                time.sleep(0.01)
                check()
        except AbandonedError:
            ended.append(threading.get_ident())
            raise

    async def abandon(service: GroundingService) -> int:
        tasks = [asyncio.create_task(service.run_in_thread(run)) for _ in range(20)]
        while len(started) < 2:
            await asyncio.sleep(0.01)
        # What waits is cancelled before a thread becomes free for it.
        for part in (tasks[2:], tasks[:2]):
            for task in part:
                task.cancel()
            await asyncio.wait(part)
        return await service.run_in_thread(lambda _: 7)

    service = GroundingService(grounder, ServeSettings())
    assert asyncio.run(abandon(service)) == 7
    service.close()
    assert len(started) == len(set(started)) == 2
    assert sorted(ended) == sorted(started)


@pytest.mark.parametrize("write", [partial(build_answer, "id"), write_masks])
def test_masks_that_nobody_waits_for_are_not_made(write: Callable[..., object]) -> None:
    result = KeptResult((draw_output("a", (20, 30), 0),) * 2, ("the red star",) * 2)
    settings = PostprocessSettings(score_threshold=0.0)
    checks = itertools.count()
    write(result, settings, check=lambda: next(checks))
    num_queries = len(result.raw[0].points)
    assert next(checks) == 2 * (1 + num_queries)
    left = iter(range(3))
    with pytest.raises(StopIteration):
        write(result, settings, check=lambda: next(left))


def test_outputs_that_are_no_numbers_are_an_error_without_details(grounder: Grounder) -> None:
    def spoil(_module: object, _inputs: object, output: Any) -> None:
        output.boxes.fill_(float("nan"))

    hook = grounder.model.register_forward_hook(spoil)  # type: ignore[union-attr]
    errors: list[Exception] = []
    try:
        with serve_here(grounder, errors) as (client, _):
            reply = client.predict(draw_shapes(), "the red square")
    finally:
        hook.remove()
    assert (reply.status, reply.document) == (500, {"detail": "the server could not answer; its log says why"})
    assert isinstance(errors[0], NonFiniteError)
