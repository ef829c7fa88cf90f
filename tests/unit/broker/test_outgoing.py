"""Answers on their way to a client that takes them at its own pace."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.broker.log.harness import Harness

from tailrace.broker.log.unread import Unread
from tailrace.broker.outgoing import Outgoing
from tailrace.broker.protocol import Buffer

MIB = 1 << 20


class Client:
    """A transport that holds what it got; `patience`: after so many bytes it asks to wait."""

    def __init__(self, patience: int = 1 << 40) -> None:
        self.got = bytearray()
        self.patience = self._left = patience
        self.closed = False
        self.emptied = 0
        self.errors: list[Exception] = []
        self.outgoing = Outgoing(self._count, self.errors.append)
        self.outgoing.begin(cast(asyncio.Transport, self))

    def _count(self) -> None:
        self.emptied += 1

    def writelines(self, parts: list[Buffer]) -> None:
        assert not self.closed
        for part in parts:
            self.got += part
            self._left -= len(part)
        if self._left < 0:
            self.outgoing.pause()

    def take(self) -> None:
        self._left = self.patience
        self.outgoing.resume()

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    """A log of 3 MB."""
    harness = Harness(tmp_path_factory.mktemp("outgoing") / "data")
    for number in range(30):
        harness.append(bytes([number]) * 100_000)
    harness.sync()
    yield harness
    harness.crash()


def unread(at: Harness, offset: int) -> Any:
    found = at.log.read_later(offset, 10 * MIB, upper=30)
    assert isinstance(found, Unread)
    return found


def content(at: Harness, offset: int) -> bytes:
    return b"".join(at.log.read(offset, 10 * MIB, upper=30))


@given(
    answers=st.lists(
        st.lists(st.one_of(st.binary(max_size=20), st.integers(0, 29)), min_size=1, max_size=4), max_size=6
    ),
    patience=st.sampled_from([0, 1_000, 300_000, 2 * MIB]),
    takes=st.lists(st.integers(0, 6)),
)
def test_all_arrives_once_and_in_order_whenever_the_client_takes_it(
    at: Harness, answers: list[list[bytes | int]], patience: int, takes: list[int]
) -> None:
    async def run() -> None:
        client, expected = Client(patience), b""
        for answer in answers:
            client.outgoing.send([unread(at, part) if isinstance(part, int) else part for part in answer])
            expected += b"".join(content(at, part) if isinstance(part, int) else part for part in answer)
            for _ in range(takes.pop() if takes else 0):
                client.take()
                await asyncio.sleep(0)
        client.outgoing.close()
        while not client.closed:
            client.take()
            await asyncio.sleep(0)
        assert client.got == expected

    asyncio.run(run())


def test_nothing_is_read_for_a_client_that_takes_nothing(at: Harness) -> None:
    async def run() -> None:
        client = Client(patience=0)
        client.outgoing.send([b"head", unread(at, 0), b"tail"])
        assert len(client.got) < 0.5 * MIB and client.outgoing.slow
        await asyncio.sleep(0)
        assert len(client.got) < 0.5 * MIB and not client.emptied

    asyncio.run(run())


def test_a_large_answer_leaves_others_their_turns(at: Harness) -> None:
    async def run() -> None:
        client = Client()
        client.outgoing.send([unread(at, 0) for _ in range(5)])
        turns = 0
        while client.outgoing.slow:
            assert not client.emptied
            turns += 1
            await asyncio.sleep(0)
        assert turns >= 3 and client.emptied == 1
        assert client.got == content(at, 0) * 5

    asyncio.run(run())


def test_what_cannot_be_read_ends_the_answer(at: Harness) -> None:
    class Gone(Unread):
        def take(self, most: int) -> bytes:
            raise OSError(5, "Input/output error")

    async def run() -> None:
        client = Client()
        gone = Gone(at.log.segments[0].file, 0, 100_000, lambda: None)
        client.outgoing.send([b"head", cast(bytes, gone), b"tail"])
        assert [str(error) for error in client.errors] == ["[Errno 5] Input/output error"]
        assert b"tail" not in client.got

    asyncio.run(run())


def test_a_connection_that_is_gone_keeps_no_file_open(tmp_path: Path) -> None:
    async def run() -> None:
        at = Harness(tmp_path / "data")
        at.append(bytes(500_000))
        at.sync()
        file = at.log.segments[0].file
        client = Client(patience=0)
        found = at.log.read_later(0, 10 * MIB, upper=1)
        client.outgoing.send([cast(Any, found)])
        del found
        at.crash()
        assert file.fd >= 0
        client.outgoing.end()
        assert file.fd == -1

    asyncio.run(run())
