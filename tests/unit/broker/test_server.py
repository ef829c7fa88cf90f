"""The broker's sockets: frames, order, limits, start and stop, against a real process."""

import asyncio
import errno
import gc
import socket
import struct
import time
from pathlib import Path

import pytest
from tests.fixtures.broker import BrokerFactory
from tests.fixtures.wire import (
    WireClient,
    batch,
    create,
    fetch_request,
    fetched,
    produce_request,
    produced,
)

from tailrace.broker.config import BrokerConfig
from tailrace.broker.embedded import EmbeddedBroker
from tailrace.broker.handlers import HANDLERS
from tailrace.broker.log import StorageFailure
from tailrace.broker.log.sync import SyncRound
from tailrace.broker.protocol import (
    API_VERSIONS,
    ApiKey,
    ErrorCode,
    decode_request,
    encode_request,
)
from tailrace.broker.protocol import messages as m
from tailrace.broker.server import BrokerServer
from tailrace.changes.errors import ConfigError, TailraceError
from tailrace.changes.status import read_status

READ_COMMITTED = 1


def test_every_advertised_api_has_a_handler_and_no_other_is_advertised(wire: WireClient) -> None:
    response = wire.ask(ApiKey.API_VERSIONS, m.ApiVersionsRequest("test", "1"))
    advertised = {entry.api_key: (entry.min_version, entry.max_version) for entry in response.api_keys}
    assert advertised == {int(key): API_VERSIONS[key] for key in HANDLERS}
    assert advertised[ApiKey.PRODUCE][0] == 0  # librdkafka compresses only then
    # without transaction.version (level 0) clients keep to the classic transaction protocol
    assert response.finalized_features == [m.FinalizedFeatureKey("group.version", 1, 1)]
    assert response.finalized_features_epoch >= 0


def test_a_too_new_api_versions_request_is_answered_in_version_0(wire: WireClient) -> None:
    wire.send_bytes(struct.pack(">ihhih", 10, 18, 99, 7, -1))
    response = wire.receive(ApiKey.API_VERSIONS, 0)[1]
    assert response.error_code == ErrorCode.UNSUPPORTED_VERSION
    assert len(response.api_keys) == len(HANDLERS)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(struct.pack(">i", -1), id="negative size"),
        pytest.param(struct.pack(">i", 2**31 - 1), id="larger than the limit"),
        pytest.param(struct.pack(">ihhih", 10, 3, 12, 1, -1), id="cut short"),
        pytest.param(struct.pack(">ihhih", 10, 4711, 0, 1, -1), id="unknown api"),
        pytest.param(struct.pack(">ihhih", 10, 0, 2, 1, -1), id="produce version 2"),
        pytest.param(struct.pack(">ihhih", 10, 17, 1, 1, -1), id="an api without handler"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="http"),
    ],
)
def test_a_frame_that_is_no_request_closes_its_connection_only(broker: EmbeddedBroker, raw: bytes) -> None:
    with WireClient(broker.bootstrap) as healthy, WireClient(broker.bootstrap) as broken:
        broken.send_bytes(raw)
        assert broken.is_closed_by_broker()
        assert healthy.ask(ApiKey.METADATA, m.MetadataRequest(None)).brokers


def test_a_request_may_arrive_byte_by_byte_and_many_at_once(wire: WireClient) -> None:
    raw = b"".join(
        b"".join(encode_request(ApiKey.METADATA, 12, number, "c", m.MetadataRequest([])))
        for number in range(3)
    )
    for byte in raw[:-40]:
        wire.send_bytes(bytes([byte]))
    wire.send_bytes(raw[-40:])
    assert [wire.receive(ApiKey.METADATA, 12)[0] for _ in range(3)] == [0, 1, 2]


def test_answers_leave_in_request_order_even_when_an_early_one_has_to_wait(wire: WireClient) -> None:
    topic_id = create(wire, "t")
    waiting = wire.send(ApiKey.FETCH, fetch_request(topic_id, max_wait_ms=400))
    metadata = wire.send(ApiKey.METADATA, m.MetadataRequest([]))
    writes = [wire.send(ApiKey.PRODUCE, produce_request("t", batch(b"%d" % i))) for i in range(5)]
    assert wire.receive(ApiKey.FETCH)[0] == waiting
    assert wire.receive(ApiKey.METADATA)[0] == metadata
    answers = [wire.receive(ApiKey.PRODUCE) for _ in writes]
    assert [number for number, _ in answers] == writes
    assert [produced(answer) for _, answer in answers] == [(0, i) for i in range(5)]


def test_pipelined_produce_requests_keep_their_bytes(wire: WireClient) -> None:
    topic_id = create(wire, "t")
    values = [b"%06d" % i * 2_000 for i in range(60)]
    for value in values:
        wire.send(ApiKey.PRODUCE, produce_request("t", batch(value)))
    for _ in values:
        assert produced(wire.receive(ApiKey.PRODUCE)[1])[0] == 0
    assert fetched(wire.ask(ApiKey.FETCH, fetch_request(topic_id, max_bytes=1 << 24))) == values


def test_a_client_that_does_not_read_is_not_read_from(broker_factory: BrokerFactory) -> None:
    broker = broker_factory(max_in_flight_bytes=1 << 16)
    with WireClient(broker.bootstrap) as wire:
        topic_id = create(wire, "t")
        wire.ask(ApiKey.PRODUCE, produce_request("t", batch(b"x", size=900_000)))
        for _ in range(40):
            wire.send(ApiKey.FETCH, fetch_request(topic_id))
        assert all(len(fetched(wire.receive(ApiKey.FETCH)[1])) == 1 for _ in range(40))


def test_acks_0_is_not_answered_and_an_error_under_it_hangs_up(wire: WireClient) -> None:
    topic_id = create(wire, "t")
    wire.send(ApiKey.PRODUCE, produce_request("t", batch(b"a"), acks=0))
    assert fetched(wire.ask(ApiKey.FETCH, fetch_request(topic_id, max_wait_ms=5_000))) == [b"a"]
    wire.send(ApiKey.PRODUCE, produce_request("missing", batch(b"a"), acks=0))
    assert wire.is_closed_by_broker()


def test_a_failed_fsync_ends_the_broker_and_acknowledges_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: SyncRound) -> None:
        raise OSError(errno.EIO, "Input/output error", "the log")

    async def story() -> None:
        server = BrokerServer(BrokerConfig(tmp_path))
        host, port = await server.start()
        serving = asyncio.create_task(server.run_until_stopped())
        with WireClient(f"{host}:{port}") as wire:
            await asyncio.to_thread(create, wire, "t")
            monkeypatch.setattr(SyncRound, "run", fail)
            wire.send(ApiKey.PRODUCE, produce_request("t", batch(b"a")))
            with pytest.raises(StorageFailure, match="Input/output error"):
                await serving
            with pytest.raises(ConnectionError):
                wire.receive_bytes()
        assert read_status(tmp_path)["broker"]["state"] == "failed"

    asyncio.run(story())


def test_requests_leave_next_to_nothing_to_the_garbage_collector(tmp_path: Path) -> None:
    def ask(wire: WireClient, topic_id: bytes) -> None:
        for _ in range(100):
            assert produced(wire.ask(ApiKey.PRODUCE, produce_request("t", batch(b"a"))))[0] == 0
            wire.ask(ApiKey.FETCH, fetch_request(topic_id))

    async def story() -> int:
        server = BrokerServer(BrokerConfig(tmp_path))
        host, port = await server.start()
        serving = asyncio.create_task(server.run_until_stopped())
        with WireClient(f"{host}:{port}") as wire:
            topic_id = await asyncio.to_thread(create, wire, "t")
            await asyncio.to_thread(ask, wire, topic_id)
            gc.collect()
            gc.disable()
            try:
                await asyncio.to_thread(ask, wire, topic_id)
                found = gc.collect()
            finally:
                gc.enable()
        server.stop()
        await serving
        return found

    assert asyncio.run(story()) < 100


def test_an_idle_connection_is_closed(broker_factory: BrokerFactory) -> None:
    broker = broker_factory(connections_max_idle_ms=1000)
    with WireClient(broker.bootstrap) as wire:
        assert wire.is_closed_by_broker()


def test_a_request_above_the_limit_closes_the_connection(broker_factory: BrokerFactory) -> None:
    broker = broker_factory(request_max_bytes=10_000)
    with WireClient(broker.bootstrap) as wire:
        create(wire, "t")
        assert produced(wire.ask(ApiKey.PRODUCE, produce_request("t", batch(b"x", size=9_000))))[0] == 0
        wire.send(ApiKey.PRODUCE, produce_request("t", batch(b"x", size=10_000)))
        assert wire.is_closed_by_broker()


def test_the_advertised_address_is_told_to_clients(broker_factory: BrokerFactory) -> None:
    broker = broker_factory(advertised_host="broker.example", advertised_port=1234, node_id=7)
    with WireClient(broker.bootstrap) as wire:
        (node,) = wire.ask(ApiKey.METADATA, m.MetadataRequest([])).brokers
        assert (node.node_id, node.host, node.port) == (7, "broker.example", 1234)
        (found,) = wire.ask(
            ApiKey.FIND_COORDINATOR, m.FindCoordinatorRequest(key_type=0, coordinator_keys=["g"])
        ).coordinators
        assert (found.node_id, found.host, found.port) == (7, "broker.example", 1234)


def test_sigterm_ends_cleanly_answers_what_waits_and_keeps_the_leader_epoch(broker: EmbeddedBroker) -> None:
    with WireClient(broker.bootstrap) as wire:
        topic_id = create(wire, "t")
        wire.ask(ApiKey.PRODUCE, produce_request("t", batch(b"a")))
        wire.send(ApiKey.FETCH, fetch_request(topic_id, 1, max_wait_ms=60_000))
        assert broker.stop() == 0
        assert fetched(wire.receive(ApiKey.FETCH)[1]) == []
    epochs = []
    for end in (broker.stop, broker.kill, broker.kill):
        broker.restart()
        with WireClient(broker.bootstrap) as wire:
            topic = wire.ask(ApiKey.METADATA, m.MetadataRequest([m.MetadataRequestTopic(name="t")])).topics[0]
            epochs.append(topic.partitions[0].leader_epoch)
            assert fetched(wire.ask(ApiKey.FETCH, fetch_request(topic_id))) == [b"a"]
        end()
    assert epochs[0] == epochs[1] < epochs[2]


def test_a_taken_port_is_one_sentence_and_exit_code_1(broker: EmbeddedBroker, tmp_path: Path) -> None:
    with pytest.raises(TailraceError, match=r"another process uses this port.*--listen") as caught:
        EmbeddedBroker(tmp_path / "second", port=broker.config.port).start()
    assert "exited with code 1" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_a_data_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "broker").mkdir()
    (tmp_path / "broker" / "status").touch()
    with pytest.raises(TailraceError, match="cannot use the data directory") as caught:
        EmbeddedBroker(tmp_path / "broker").start()
    assert "Traceback" not in str(caught.value)


def test_a_data_directory_has_one_broker(broker: EmbeddedBroker) -> None:
    with pytest.raises(TailraceError, match="exited with code") as caught:
        EmbeddedBroker(broker.config.data_dir).start()
    assert "Traceback" not in str(caught.value)


def test_a_listener_beyond_loopback_must_be_asked_for(tmp_path: Path) -> None:
    for host in ("192.0.2.1", "example.org", "2001:db8::1"):
        with pytest.raises(ConfigError, match="neither TLS nor authentication"):
            BrokerConfig(tmp_path, host=host)
        assert BrokerConfig(tmp_path, host=host, insecure=True).host == host
    with pytest.raises(ConfigError, match="advertised host"):
        BrokerConfig(tmp_path, host="0.0.0.0", insecure=True)
    assert BrokerConfig(tmp_path, host="0.0.0.0", insecure=True, advertised_host="here").insecure
    assert BrokerConfig(tmp_path, host="localhost").host == "localhost"


@pytest.mark.parametrize(
    "options", [{"port": 70_000}, {"default_partitions": 0}, {"group_min_session_timeout_ms": 10**9}]
)
def test_an_option_out_of_range_is_a_config_error(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        BrokerConfig(tmp_path, **options)  # type: ignore[arg-type]


def test_the_status_file_tells_what_goes_on(broker: EmbeddedBroker, wire: WireClient) -> None:
    create(wire, "t")
    wire.ask(ApiKey.PRODUCE, produce_request("t", batch(b"a")))
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        status = read_status(broker.config.data_dir)["broker"]
        if status["produce_requests"]:
            break
    assert (status["state"], status["connections"], status["topics"]) == ("running", 1, 1)
    assert status["bytes_in"] > 0
    assert status["pid"] == broker.pid
    assert broker.stop() == 0
    assert read_status(broker.config.data_dir)["broker"]["state"] == "stopped"


def test_the_address_of_a_request_is_what_the_frame_says() -> None:
    raw = b"".join(encode_request(ApiKey.METADATA, 12, 5, "me", m.MetadataRequest([])))
    header, _ = decode_request(raw[4:])
    assert (header.correlation_id, header.client_id) == (5, "me")


def test_a_listener_takes_a_fixed_port(broker_factory: BrokerFactory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert broker_factory(port=port).bootstrap == f"127.0.0.1:{port}"
