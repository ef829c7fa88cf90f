"""Clients that are slow, broken or hostile, against a real broker process: the others notice nothing, memory is
bounded, files are given back."""

import asyncio
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.fixtures.broker import BrokerFactory
from tests.fixtures.wire import WireClient, batch, create, fetch_request, fetched, produce_request, produced

from tailrace.broker.config import BrokerConfig
from tailrace.broker.embedded import EmbeddedBroker
from tailrace.broker.handlers import HANDLERS
from tailrace.broker.protocol import ApiKey, ErrorCode, encode_request
from tailrace.broker.protocol import messages as m
from tailrace.broker.server import BrokerServer

MIB = 1 << 20
HEALTHY_S = 5.0  # generous: the machine may be busy
IDLE_CONNECTIONS = 10_000


def rss(broker: EmbeddedBroker) -> int:
    return int(psutil.Process(broker.pid).memory_info().rss)


def open_files(broker: EmbeddedBroker) -> int:
    """Of the broker, in round tens: it opens and closes files of its own, too."""
    return len(list(Path(f"/proc/{broker.pid}/fd").iterdir())) // 10 * 10


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.02)


def is_served(wire: WireClient) -> None:
    started = time.monotonic()
    assert wire.ask(ApiKey.METADATA, m.MetadataRequest([])).brokers
    assert time.monotonic() - started < HEALTHY_S


def connect(broker: EmbeddedBroker) -> socket.socket:
    return socket.create_connection((broker.config.host, broker.config.port), 20)


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < IDLE_CONNECTIONS + 500:
        pytest.skip(f"the system allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_ten_thousand_idle_connections_cost_little_and_disturb_nobody(broker: EmbeddedBroker) -> None:
    hello = b"".join(encode_request(ApiKey.API_VERSIONS, 3, 1, "idle", m.ApiVersionsRequest("idle", "1")))
    with WireClient(broker.bootstrap) as wire:
        is_served(wire)
        files, memory = open_files(broker), rss(broker)
        with ExitStack() as stack:
            for number in range(IDLE_CONNECTIONS):
                idle = stack.enter_context(connect(broker))
                if number % 2:
                    idle.sendall(hello)
            wait_until(lambda: open_files(broker) >= files + IDLE_CONNECTIONS - 10, "not all are accepted")
            is_served(wire)
            # a transport and what it has to send; with a receive buffer for each it would be 640 MiB more
            assert rss(broker) - memory < 150 * MIB
        wait_until(lambda: open_files(broker) <= files, "files are not given back")
        is_served(wire)


def test_half_frames_are_kept_without_the_memory_they_claim(broker: EmbeddedBroker) -> None:
    claim = struct.pack(">ihhih", 100 * MIB, 0, 9, 1, -1)
    with WireClient(broker.bootstrap) as wire:
        is_served(wire)
        files, memory = open_files(broker), rss(broker)
        with ExitStack() as stack:
            for _ in range(300):
                half = stack.enter_context(connect(broker))
                half.sendall(claim + bytes(20_000))
            wait_until(lambda: open_files(broker) >= files + 290, "not all are accepted")
            is_served(wire)
            assert rss(broker) - memory < 60 * MIB
        wait_until(lambda: open_files(broker) <= files, "files are not given back")


def test_a_frame_that_is_never_finished_ends_its_connection_however_busy_it_looks(
    broker_factory: BrokerFactory,
) -> None:
    broker = broker_factory(connections_max_idle_ms=1500)
    with connect(broker) as loris:
        loris.settimeout(0.1)
        loris.sendall(struct.pack(">i", 1000))
        for _ in range(200):
            try:
                loris.sendall(b"x")
                if loris.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            pytest.fail("the broker waits for ever")
    assert "it finishes no frame" in broker.log_path.read_text()


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        pytest.param(
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), "a TLS handshake", id="tls"
        ),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP", id="http"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP", id="http2"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", "socket.request.max.bytes", id="ssh"),
        pytest.param(bytes(4), "a frame of 0 bytes", id="zeros"),
        pytest.param(struct.pack(">i", 6) + b"\x00\x12\x00\x03\x00\x00", "request header", id="short header"),
    ],
)
def test_who_speaks_another_protocol_is_hung_up_on_with_the_reason_in_the_log(
    broker: EmbeddedBroker, raw: bytes, told: str
) -> None:
    with WireClient(broker.bootstrap) as wire, WireClient(broker.bootstrap) as stranger:
        stranger.send_bytes(raw)
        assert stranger.is_closed_by_broker()
        is_served(wire)
    assert told in broker.log_path.read_text()


def test_a_flood_of_garbage_does_not_fill_the_log(broker: EmbeddedBroker) -> None:
    for _ in range(500):
        with connect(broker) as garbage:
            garbage.sendall(b"\xff" * 8)
            assert garbage.recv(1) == b""
    with WireClient(broker.bootstrap) as wire:
        is_served(wire)
    wait_until(lambda: "were left out" in broker.log_path.read_text(), "the count is not told")
    assert broker.log_path.read_text().count("closed: it sent") < 500


def filled(wire: WireClient, batches: int) -> bytes:
    topic_id = create(wire, "t")
    for _ in range(batches):
        assert produced(wire.ask(ApiKey.PRODUCE, produce_request("t", batch(b"x", size=1_000_000))))[0] == 0
    return topic_id


def test_clients_that_never_read_cost_a_bounded_buffer_and_are_hung_up_on(
    broker_factory: BrokerFactory,
) -> None:
    broker = broker_factory(connections_max_idle_ms=3000)
    with ExitStack() as stack:
        wire = stack.enter_context(WireClient(broker.bootstrap))
        asked = fetch_request(filled(wire, 40), max_bytes=50 * MIB)
        asked.max_bytes = 50 * MIB
        files, memory = open_files(broker), rss(broker)
        for _ in range(30):  # 1.2 GB, if all were answered at once as they ask
            deaf = stack.enter_context(WireClient(broker.bootstrap))
            for _ in range(5):
                deaf.send(ApiKey.FETCH, asked)
        highest = memory
        wait_until(lambda: open_files(broker) > files, "nobody is accepted")

        def gone() -> bool:
            nonlocal highest
            highest = max(highest, rss(broker))
            is_served(wire)
            return open_files(broker) <= files

        wait_until(gone, "clients that do not read are kept")
        assert highest - memory < 500 * MIB
    assert "it reads no answers" in broker.log_path.read_text()


def test_a_pipeline_of_ten_thousand_requests_is_answered_in_order_while_others_are_served(
    broker: EmbeddedBroker,
) -> None:
    count = 10_000
    with WireClient(broker.bootstrap) as wire, WireClient(broker.bootstrap) as eager:
        for number in range(5):
            create(wire, f"topic-{number}", 4)
        raw = b"".join(
            b"".join(encode_request(ApiKey.METADATA, 12, number, "c", m.MetadataRequest(None)))
            for number in range(count)
        )
        sender = threading.Thread(target=eager.send_bytes, args=(raw,))
        answers: list[int] = []

        def receive() -> None:
            answers.extend(struct.unpack_from(">i", eager.receive_bytes())[0] for _ in range(count))

        receiver = threading.Thread(target=receive)
        sender.start()
        receiver.start()
        served = 0
        while receiver.is_alive():
            is_served(wire)
            served += 1
        sender.join()
        assert answers == list(range(count))
        assert served > 10


def test_an_answer_that_is_on_its_way_at_sigterm_arrives(broker: EmbeddedBroker) -> None:
    with WireClient(broker.bootstrap) as wire:
        asked = fetch_request(filled(wire, 30), max_bytes=50 * MIB)
        asked.max_bytes = 50 * MIB
        wire.send(ApiKey.FETCH, asked)
        first = wire.receive_exactly(4)
        stopping = threading.Thread(target=broker.stop)
        stopping.start()
        (size,) = struct.unpack(">i", first)
        assert len(wire.receive_exactly(size)) == size > 30_000_000
        assert wire.is_closed_by_broker()
        stopping.join()


def served_in_process(tmp_path: Path, story: Callable[[BrokerServer, WireClient], Any]) -> None:
    """Run `story` in a thread, against a broker in this process."""

    async def run() -> None:
        server = BrokerServer(BrokerConfig(tmp_path / "broker"))
        host, port = await server.start()
        serving = asyncio.create_task(server.run_until_stopped())
        try:
            with WireClient(f"{host}:{port}") as wire:
                await asyncio.to_thread(story, server, wire)
        finally:
            server.stop()
            await serving

    asyncio.run(run())


async def _fails_later(*_: object) -> None:
    await asyncio.sleep(0)
    raise ZeroDivisionError("a bug")


def _fails(*_: object) -> None:
    raise ZeroDivisionError("a bug")


def _answers_nonsense(*_: object) -> object:
    return m.MetadataResponse(controller_id="not a number")  # type: ignore[arg-type]


@pytest.mark.parametrize("handler", [_fails, _fails_later, _answers_nonsense])
def test_a_bug_in_a_handler_is_answered_and_logged_with_the_name_of_its_api(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, handler: Any
) -> None:
    def story(server: BrokerServer, wire: WireClient) -> None:
        answer = wire.ask(ApiKey.METADATA, m.MetadataRequest([]))
        assert answer.error_code == ErrorCode.UNKNOWN_SERVER_ERROR
        assert wire.ask(ApiKey.API_VERSIONS, m.ApiVersionsRequest("a", "1")).api_keys
        wire.send(ApiKey.METADATA, m.MetadataRequest(None), 12)  # a version that cannot say it for "all"
        assert wire.is_closed_by_broker()

    monkeypatch.setitem(HANDLERS, ApiKey.METADATA, handler)
    served_in_process(tmp_path, story)
    assert "request METADATA v13 of /127.0.0.1 failed" in caplog.text


def test_a_waiting_fetch_ends_with_its_client(tmp_path: Path) -> None:
    def story(server: BrokerServer, wire: WireClient) -> None:
        asked = fetch_request(create(wire, "t"), max_wait_ms=2**31 - 1)
        with WireClient(f"127.0.0.1:{server.broker.port}") as gone:
            gone.send(ApiKey.FETCH, asked)
            wait_until(lambda: len(server.unanswered) == 1, "the fetch does not wait")
        wait_until(lambda: not server.unanswered, "the fetch waits for nobody")
        assert fetched(wire.ask(ApiKey.FETCH, fetch_request(asked.topics[0].topic_id))) == []

    served_in_process(tmp_path, story)
