"""A disk that takes nothing more, and a clock that jumps: producers retry, consumers notice nothing."""

import asyncio
import errno
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.wire import WireClient, batch, create, fetch_request, fetched, produce_request, produced
from tests.unit.broker.log.harness import make_batch

from tailrace.broker.config import BrokerConfig
from tailrace.broker.log import LogManager, PartitionSpec, TopicConfig
from tailrace.broker.log.disk import LocalDisk
from tailrace.broker.log.partition import sync_all
from tailrace.broker.protocol import ApiKey, ErrorCode
from tailrace.broker.protocol import messages as m
from tailrace.broker.server import BrokerServer


class Trouble:
    """Makes an operation on the files of topic `t` fail with an errno while `on`."""

    def __init__(self, operation: str, number: int) -> None:
        self.on = False
        self.seen = 0
        self._operation, self._number = operation, number

    def wrap(self, patched: pytest.MonkeyPatch) -> None:
        real = getattr(LocalDisk, self._operation)

        def checked(disk: LocalDisk, target: int | Path, *arguments: Any, **options: Any) -> Any:
            path = target if isinstance(target, Path) else Path(f"/proc/self/fd/{target}").readlink()
            if self.on and path.parent.name == "t-0" and path.suffix in (".log", ".tmp"):
                self.seen += 1
                raise OSError(self._number, os.strerror(self._number))
            return real(disk, target, *arguments, **options)

        patched.setattr(LocalDisk, self._operation, checked)


@pytest.mark.parametrize(
    ("operation", "number"),
    [
        ("write", errno.ENOSPC),
        ("write", errno.EDQUOT),
        ("write", errno.EIO),
        ("open", errno.EMFILE),
        ("open", errno.ENOSPC),
        ("open", errno.EDQUOT),
        ("rename", errno.ENOSPC),
    ],
    ids=lambda value: value if isinstance(value, str) else errno.errorcode[value],
)
def test_producers_retry_and_consumers_go_on_until_there_is_space_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, number: int
) -> None:
    trouble = Trouble(operation, number)
    trouble.wrap(monkeypatch)
    large = batch(b"acked", size=600_000)  # the second one needs another segment

    def story(wire: WireClient) -> None:
        topic_id = create(wire, "t", segment_bytes="1048576")
        assert produced(wire.ask(ApiKey.PRODUCE, produce_request("t", large))) == (ErrorCode.NONE, 0)
        before = fetched(wire.ask(ApiKey.FETCH, fetch_request(topic_id)))
        assert len(before) == 1
        trouble.on = True
        for _ in range(3):
            code, _ = produced(wire.ask(ApiKey.PRODUCE, produce_request("t", large)))
            assert code == ErrorCode.KAFKA_STORAGE_ERROR
            assert fetched(wire.ask(ApiKey.FETCH, fetch_request(topic_id))) == before
        assert trouble.seen
        trouble.on = False
        assert produced(wire.ask(ApiKey.PRODUCE, produce_request("t", large))) == (ErrorCode.NONE, 1)

    def afterwards(wire: WireClient) -> None:
        topics = wire.ask(ApiKey.METADATA, m.MetadataRequest([m.MetadataRequestTopic(name="t")])).topics
        topic_id = topics[0].topic_id
        for offset in (0, 1):
            found = fetched(wire.ask(ApiKey.FETCH, fetch_request(topic_id, offset)))
            assert [value and value.rstrip() for value in found[:1]] == [b"acked"]
        assert fetched(wire.ask(ApiKey.FETCH, fetch_request(topic_id, 2))) == []

    serve(tmp_path, story)
    serve(tmp_path, afterwards)


def serve(data_dir: Path, story: Callable[[WireClient], None]) -> None:
    """Run a broker in this process while a client does something with it in a thread."""

    async def run() -> None:
        server = BrokerServer(BrokerConfig(data_dir))
        host, port = await server.start()
        serving = asyncio.create_task(server.run_until_stopped())

        def talk() -> None:
            with WireClient(f"{host}:{port}") as wire:
                story(wire)

        await asyncio.to_thread(talk)
        server.stop()
        await serving

    asyncio.run(run())


@pytest.mark.parametrize("years", [1, -1])
def test_a_wall_clock_that_jumps_a_year_deletes_nothing_and_ages_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, years: int
) -> None:
    real, jump_ns = time.time_ns, 0
    monkeypatch.setattr(time, "time_ns", lambda: real() + jump_ns)
    logs = LogManager(tmp_path / "data")
    config = TopicConfig(retention_ms=86_400_000, segment_ms=86_400_000)
    logs.create([PartitionSpec("t", 0, uuid.UUID(int=1), config, created=False)])
    log = logs.get("t", 0)
    for _ in range(3):
        now_ms = logs.clock.now_ms()
        log.append(
            make_batch([b"v"], producer=(7, 0), timestamp_ms=now_ms),
            now_ms=now_ms,
            leader_epoch=0,
            internal=True,
        )
        sync_all(log)
        jump_ns += years * 365 * 86_400 * 10**9
        asyncio.run(logs.maintain())
    assert (log.log_start_offset, log.log_end_offset, len(log.segments)) == (0, 3, 1)
    assert len(log.producers()) == 1
    logs.close()
