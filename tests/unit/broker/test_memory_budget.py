"""The budget over all connections: who is read while it is used up, and that somebody always goes on."""

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fixtures.wire import WireClient, batch, create, produce_request, produced

from tailrace.broker import memory_budget
from tailrace.broker.config import BrokerConfig
from tailrace.broker.embedded import EmbeddedBroker
from tailrace.broker.memory_budget import SMALL, MemoryBudget, Share
from tailrace.broker.protocol import ApiKey
from tailrace.broker.protocol import messages as m
from tailrace.broker.server import BrokerServer
from tailrace.changes.errors import ConfigError

MIB = 1 << 20


@dataclass
class Client:
    """A connection that obeys the budget."""

    budget: MemoryBudget
    is_read: bool = True
    aborted: bool = False
    may_read: bool = True
    share: Share = field(init=False)

    def __post_init__(self) -> None:
        self.share = Share(self.budget, self.reconsider, lambda: self.is_read, self.abort)

    def reconsider(self) -> None:
        self.is_read = self.may_read and self.budget.admits(self.share)

    def abort(self) -> None:
        self.aborted = True
        self.share.close()

    def send(self, size: int, whole: int = 1 << 20) -> None:
        """More of a frame that is not whole."""
        assert self.is_read
        self.share.note_unfinished(self.share.unfinished + size, whole)

    def complete(self) -> None:
        size = self.share.unfinished
        self.share.take(size)
        self.share.note_unfinished(0, 0)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_over_the_budget_who_holds_little_is_read_and_of_the_others_those_that_lack_least() -> None:
    budget = MemoryBudget(12 * SMALL)
    full, first, second, third, small = (Client(budget) for _ in range(5))
    full.share.take(12 * SMALL)
    first.send(SMALL, 20 * SMALL)
    second.send(SMALL, 9 * SMALL)
    third.send(SMALL, 8 * SMALL)
    small.send(SMALL - 1, 8 * SMALL)
    full.reconsider()

    def read() -> list[bool]:
        return [client.is_read for client in (full, first, second, third, small)]

    assert read() == [False, True, False, False, True]  # somebody must go on
    first.complete()
    assert read() == [False, False, False, True, True]
    third.complete()
    assert read() == [False, False, True, False, True]
    full.share.give_back(12 * SMALL)
    assert read() == [True] * 5
    assert budget.held == 4 * SMALL - 1


def test_several_have_a_turn_at_once_as_long_as_they_lack_little() -> None:
    budget = MemoryBudget(40 * SMALL)
    full, *others = (Client(budget) for _ in range(6))
    full.share.take(40 * SMALL)
    for client in others:
        client.send(2 * SMALL, 5 * SMALL)
    full.reconsider()
    assert [c.is_read for c in (full, *others)] == [False, True, True, True, False, False]


def test_who_wastes_its_turn_is_hung_up_on_and_who_may_not_read_for_another_reason_is_not() -> None:
    clock = Clock()
    budget = MemoryBudget(3 * SMALL, clock)
    stalled, muted, full = (Client(budget) for _ in range(3))
    full.share.take(3 * SMALL)
    stalled.send(SMALL, 2 * SMALL)
    muted.send(SMALL, 2 * SMALL)
    assert [stalled.is_read, muted.is_read] == [True, False]
    clock.now += 9
    assert budget.look_after() == 0
    clock.now += 2
    assert budget.look_after() == 1
    assert [stalled.aborted, muted.is_read] == [True, True]  # now it has the turn
    muted.may_read = False
    muted.reconsider()
    clock.now += 11
    assert budget.look_after() == 0
    assert not muted.aborted
    assert budget.held == 4 * SMALL


def test_what_a_closed_connection_held_is_given_back_once() -> None:
    budget = MemoryBudget(100)
    client = Client(budget)
    client.share.take(70)
    client.share.note_unfinished(20, 50)
    client.share.close()
    client.share.give_back(70)  # the handler has finished meanwhile
    assert budget.held == 0


@given(st.data())
def test_whatever_clients_do_the_sum_is_right_and_somebody_goes_on(data: st.DataObject) -> None:
    clock = Clock()
    budget = MemoryBudget(8 * SMALL, clock)
    clients = [Client(budget) for _ in range(4)]
    for _ in range(data.draw(st.integers(1, 40))):
        open_ones = [client for client in clients if not client.aborted]
        if not open_ones:
            break
        client = data.draw(st.sampled_from(open_ones))
        action = data.draw(st.sampled_from(["send", "complete", "answer", "close", "tick"]))
        if action == "send" and client.is_read:
            client.send(data.draw(st.sampled_from([1, SMALL // 2, SMALL, 3 * SMALL])))
        elif action == "complete" and client.share.unfinished and client.is_read:
            client.complete()
        elif action == "answer":
            client.share.give_back(client.share.held)
            client.reconsider()
        elif action == "close":
            client.abort()
        elif action == "tick":
            clock.now += 11
            budget.look_after()
        alive = [client for client in clients if not client.aborted]
        assert budget.held == sum(c.share.held + c.share.unfinished for c in alive)
        # a request that is being served will be answered; if there is none, a frame can go on
        assert not alive or any(c.is_read or c.share.held for c in alive)
        if budget.held < budget.most:
            assert all(c.is_read for c in alive)


def test_a_limit_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"queued\.max\.request\.bytes"):
        BrokerConfig(tmp_path, queued_max_request_bytes=0)
    assert BrokerConfig(tmp_path, queued_max_request_bytes=-1).queued_max_request_bytes == -1


# -- a whole broker ------------------------------------------------------------------------------------

Story = Callable[[BrokerServer, str], Any]
Serve = Callable[[Story], None]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """A broker in this process with a budget of 8 MiB, and turns of half a second."""
    monkeypatch.setattr(memory_budget, "_TURN_S", 0.5)

    async def run(story: Story) -> None:
        config = BrokerConfig(tmp_path / "broker", queued_max_request_bytes=8 * MIB)
        server = BrokerServer(config)
        host, port = await server.start()
        serving = asyncio.create_task(server.run_until_stopped())
        try:
            await asyncio.to_thread(story, server, f"{host}:{port}")
        finally:
            server.stop()
            await serving
        assert server.budget.held == 0

    yield lambda story: asyncio.run(run(story))


def push(sock: socket.socket, data: bytes) -> None:
    """Send what the system takes."""
    sock.setblocking(False)
    try:
        while data:
            data = data[sock.send(data) :]
    except BlockingIOError:
        pass


@pytest.mark.timeout(60)
def test_frames_that_are_never_finished_hold_no_more_than_the_budget_and_keep_nobody_out(
    serve: Serve,
) -> None:
    count = 60

    def story(server: BrokerServer, bootstrap: str) -> None:
        host, _, port = bootstrap.rpartition(":")
        with ExitStack() as stack:
            honest = stack.enter_context(WireClient(bootstrap))
            create(honest, "t", 1, **{"max.message.bytes": str(4 * MIB)})
            for _ in range(count):
                half = stack.enter_context(socket.create_connection((host, int(port))))
                push(half, struct.pack(">i", 20 * MIB) + bytes(2 * MIB))
            highest = 0
            for _ in range(10):
                for size in (100, 3 * MIB):
                    records = batch(b"x", size=size)
                    assert produced(honest.ask(ApiKey.PRODUCE, produce_request("t", records)))[0] == 0
                    highest = max(highest, server.budget.held)
            # over it: what one read brought, a small share for each, and the frame whose turn it is
            assert highest < 8 * MIB + count * 2 * SMALL + 8 * MIB

    serve(story)


def test_large_frames_of_many_clients_keep_the_process_below_250_mb(broker: EmbeddedBroker) -> None:
    process, highest = psutil.Process(broker.pid), 0
    with ExitStack() as stack:
        left = {}
        for number in range(60):
            sock = stack.enter_context(socket.create_connection((broker.config.host, broker.config.port)))
            size = 100 * MIB if number % 6 == 0 else 10 * MIB
            sock.setblocking(False)
            left[sock] = memoryview(struct.pack(">i", size) + bytes(size * 9 // 10))
        until = time.monotonic() + 4
        while time.monotonic() < until:
            for sock, rest in left.items():
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    left[sock] = rest[sock.send(rest[:MIB]) :]
            highest = max(highest, process.memory_info().rss)
        with WireClient(broker.bootstrap) as wire:
            assert wire.ask(ApiKey.METADATA, m.MetadataRequest([])).brokers
    assert 100_000_000 < highest < 250_000_000


@pytest.mark.timeout(120)
def test_many_that_send_more_than_the_budget_at_once_are_all_answered(serve: Serve) -> None:
    def story(server: BrokerServer, bootstrap: str) -> None:
        with WireClient(bootstrap) as wire:
            create(wire, "t", 1, **{"max.message.bytes": str(4 * MIB)})
        answered: list[int] = []
        records = batch(b"x", size=3 * MIB)

        def produce() -> None:
            with WireClient(bootstrap) as wire:
                answers = (wire.ask(ApiKey.PRODUCE, produce_request("t", records)) for _ in range(5))
                answered.extend(produced(answer)[0] for answer in answers)

        threads = [threading.Thread(target=produce) for _ in range(16)]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answered == [0] * 80
        assert time.monotonic() - started < 60

    serve(story)
