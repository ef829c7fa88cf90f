"""/metrics and /health of a running broker: what they tell is what is so."""

import asyncio
import base64
import json
import shutil
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.fixtures.broker import BrokerFactory
from tests.fixtures.certificates import Certificates
from tests.fixtures.wire import (
    WireClient,
    batch,
    begin,
    create,
    fetch_request,
    fetched,
    produce_request,
    produced,
)

from tailrace.broker import operations
from tailrace.broker.client import Client, TopicPartition
from tailrace.broker.config import BrokerConfig
from tailrace.broker.log.disk import LocalDisk
from tailrace.broker.operations import Operations
from tailrace.broker.protocol import ApiKey
from tailrace.broker.protocol import messages as m
from tailrace.broker.server import BrokerServer
from tailrace.changes.errors import ConfigError, TailraceError


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def ready(port: int) -> tuple[int, dict[str, str]]:
    """Status, and the reasons of the checks that fail."""
    status, body = get(port, "/health/ready")
    checks = json.loads(body)["checks"]
    return status, {name: check["detail"] for name, check in checks.items() if not check["ok"]}


def samples(port: int) -> Callable[..., float]:
    """Look-up of one sample by name and labels."""
    status, text = get(port, "/metrics")
    assert status == 200
    found = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    return lambda name, **labels: found[name, tuple(sorted(labels.items()))]


def test_the_metrics_count_what_clients_did_under_kafkas_names(broker_factory: BrokerFactory) -> None:
    port = free_port()
    broker = broker_factory(metrics_listen=f"127.0.0.1:{port}")
    client = Client(broker.bootstrap, client_id="metrics")
    with WireClient(broker.bootstrap) as wire:
        topic_id = create(wire, "orders")
        records = batch(b"a", b"b", b"c")
        for _ in range(2):
            assert produced(wire.ask(ApiKey.PRODUCE, produce_request("orders", records)))[0] == 0
        assert produced(wire.ask(ApiKey.PRODUCE, produce_request("nowhere", records)))[0] == 3
        assert len(fetched(wire.ask(ApiKey.FETCH, fetch_request(topic_id)))) == 6
        create(wire, "ledger")
        begin(wire, "txn", "ledger")
        client.commit_offsets("readers", {TopicPartition("orders", 0): 2})
        value = samples(port)
        connections = value("kafka_server_socket_server_metrics_connection_count")
    client.close()
    place = {"topic": "orders", "partition": "0"}
    assert value("kafka_server_brokertopicmetrics_messagesin_total", topic="orders") == 6
    assert value("kafka_server_brokertopicmetrics_bytesin_total", topic="orders") == 2 * len(records)
    assert value("kafka_server_brokertopicmetrics_bytesout_total", topic="orders") == 2 * len(records)
    assert value("kafka_log_log_size", **place) == 2 * len(records)
    assert value("kafka_log_log_logendoffset", **place) == 6
    assert value("kafka_log_log_logstartoffset", **place) == 0
    assert value("kafka_consumergroup_lag", consumergroup="readers", **place) == 4
    assert value("kafka_network_requestmetrics_errors_total", request="Produce", error="NONE") == 3
    unknown = "UNKNOWN_TOPIC_OR_PARTITION"
    assert value("kafka_network_requestmetrics_errors_total", request="Produce", error=unknown) == 1
    assert value("kafka_network_requestmetrics_totaltimems_count", request="Produce") == 4
    assert value("kafka_log_logflushstats_logflushrateandtimems_count") >= 3
    assert value("kafka_cluster_partition_laststableoffsetlag", topic="ledger", partition="0") == 1
    assert value("tailrace_partition_last_stable_offset_age_seconds", topic="ledger", partition="0") > 0
    assert value("tailrace_transactions", state="Ongoing") == 1
    assert value("kafka_server_replicamanager_offlinereplicacount") == 0
    assert connections == 2
    assert value("process_resident_memory_bytes") > 1 << 20


def test_a_broker_that_serves_is_live_and_ready_until_its_folder_cannot_be_written(
    broker_factory: BrokerFactory,
) -> None:
    port = free_port()
    broker = broker_factory(metrics_listen=f"127.0.0.1:{port}")
    assert get(port, "/health/live")[0] == 200
    assert ready(port) == (200, {})
    assert get(port, "/else")[0] == 404
    away = broker.config.data_dir.with_name("away")
    broker.config.data_dir.rename(away)
    status, reasons = ready(port)
    away.rename(broker.config.data_dir)
    assert status == 503
    assert "No such file" in reasons["folder"]
    assert get(port, "/health/live")[0] == 200


def test_a_broker_is_not_ready_with_a_partition_offline_or_too_little_room(
    broker_factory: BrokerFactory,
) -> None:
    port = free_port()
    broker = broker_factory(metrics_listen=f"127.0.0.1:{port}", health_min_free_bytes=1 << 62)
    with WireClient(broker.bootstrap) as wire:
        create(wire, "orders")
    broker.stop()
    shutil.rmtree(broker.config.data_dir / "orders-0")
    broker.start()
    status, reasons = ready(port)
    assert status == 503
    assert set(reasons) == {"partitions", "space"}
    assert "orders-0" in reasons["partitions"]
    assert "make room" in reasons["space"]
    assert samples(port)("kafka_server_replicamanager_offlinereplicacount") == 1


async def in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)


def test_a_broker_is_alive_but_not_ready_while_it_recovers_and_while_it_stops(tmp_path: Path) -> None:
    async def scenario() -> None:
        config = BrokerConfig(tmp_path, metrics_listen="127.0.0.1:0")
        served = Operations(config)
        try:
            assert (await in_thread(get, served.port, "/health/live"))[0] == 200
            assert await in_thread(ready, served.port) == (503, {"phase": "the logs are being recovered"})
            assert (await in_thread(get, served.port, "/metrics"))[0] == 503
            server = BrokerServer(config)
            await server.start()
            served.serving(server)
            assert await in_thread(ready, served.port) == (200, {})
            served.stopping()
            assert await in_thread(ready, served.port) == (503, {"phase": "the broker is stopping"})
            server.stop()
            await server.run_until_stopped()
        finally:
            await in_thread(served.close)

    asyncio.run(scenario())


def test_a_broker_whose_fsync_hangs_is_not_ready_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr(operations, "_LOOP_PATIENCE_S", 0.05)

    def seen(port: int) -> dict[str, str]:
        status, reasons = ready(port)
        while "fsync" not in reasons:  # a busy machine may miss another check first
            status, reasons = ready(port)
        assert status == 503
        release.set()
        return reasons

    async def scenario() -> None:
        config = BrokerConfig(tmp_path, metrics_listen="127.0.0.1:0", health_max_fsync_s=0.05)
        served, server = Operations(config), BrokerServer(config)
        try:
            await server.start()
            served.serving(server)
            server.broker.topics.create("orders", 1, {})
            log = server.broker.topics.log("orders", 0)
            monkeypatch.setattr(LocalDisk, "fdatasync", lambda *_: release.wait(30))
            log.append(batch(b"a"), now_ms=0, leader_epoch=0)
            server.broker.flusher.request([log])
            assert "fdatasync" in (await in_thread(seen, served.port))["fsync"]
            while (await in_thread(ready, served.port))[0] != 200:
                pass
            server.stop()
            await server.run_until_stopped()
        finally:
            release.set()
            await in_thread(served.close)

    asyncio.run(scenario())


def test_a_broker_whose_event_loop_hangs_is_not_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "_LOOP_PATIENCE_S", 0.05)

    async def scenario() -> None:
        config = BrokerConfig(tmp_path, metrics_listen="127.0.0.1:0")
        served, server = Operations(config), BrokerServer(config)
        try:
            await server.start()
            served.serving(server)
            status, body = get(served.port, "/health/live")  # on the loop itself: it hangs meanwhile
            assert status == 503
            assert "event loop" in json.loads(body)["checks"]["process"]["detail"]
            assert ready(served.port)[0] == 503
            server.stop()
            await server.run_until_stopped()
        finally:
            await in_thread(served.close)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("address", "kind", "told"),
    [
        ("0.0.0.0:9308", ConfigError, "tailrace.metrics.open"),
        ("https://0.0.0.0:9308", ConfigError, "tailrace.metrics.open"),
        ("https://127.0.0.1:9308", ConfigError, "needs a certificate"),
        ("http://127.0.0.1:9308", ConfigError, "host:port"),
        ("9308", ConfigError, "host:port"),
        ("127.0.0.1:{taken}", TailraceError, "--metrics"),
    ],
)
def test_an_address_that_must_not_be_used_is_refused(
    tmp_path: Path, address: str, kind: type[TailraceError], told: str
) -> None:
    async def scenario() -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            taken = address.replace("{taken}", str(other.getsockname()[1]))
            with pytest.raises(kind) as refused:
                Operations(BrokerConfig(tmp_path, metrics_listen=taken))
            assert told in str(refused.value)

    asyncio.run(scenario())


def test_an_authorizer_alone_does_not_let_a_password_go_over_the_network_in_plain_text(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        with pytest.raises(ConfigError, match="https://host:port"):
            Operations(
                BrokerConfig(tmp_path, metrics_listen="0.0.0.0:0", authorizer_class_name="StandardAuthorizer")
            )

    asyncio.run(scenario())


def test_beyond_loopback_metrics_are_for_who_may_describe_the_cluster_and_health_is_for_everybody(
    broker_factory: BrokerFactory, certificates: Certificates
) -> None:
    port = free_port()
    broker = broker_factory(
        metrics_listen=f"https://0.0.0.0:{port}",
        ssl_keystore_location=str(certificates.folder / "broker.pem"),
        authorizer_class_name="StandardAuthorizer",
        super_users="User:prometheus",
        scram_users=("prometheus=right", "clerk=right"),
    )
    context = ssl.create_default_context(cafile=certificates.authority)

    def ask(path: str, login: str = "") -> tuple[int, Any]:
        header = {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()} if login else {}
        request = urllib.request.Request(f"https://127.0.0.1:{port}{path}", headers=header)
        try:
            with urllib.request.urlopen(request, timeout=30, context=context) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers["WWW-Authenticate"]

    status, text = ask("/metrics", "prometheus:right")
    assert status == 200 and "kafka_server" in text
    for login in ("", "prometheus:wrong", "nobody:right"):
        assert ask("/metrics", login) == (401, 'Basic realm="tailrace", charset="UTF-8"')
    assert ask("/metrics", "clerk:right") == (403, None)
    assert ask("/health/ready")[0] == ask("/health/live")[0] == 200
    with socket.create_connection(("127.0.0.1", port)) as silent:  # it holds up nobody
        assert ask("/health/live")[0] == 200
        silent.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert ask("/health/live")[0] == 200
    assert broker.is_running()


def test_a_request_without_an_end_does_not_hold_the_address(broker_factory: BrokerFactory) -> None:
    port = free_port()
    broker_factory(metrics_listen=f"127.0.0.1:{port}")
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    for connection in held:
        connection.sendall(b"GET /metr")
    assert ready(port) == (200, {})
    for connection in held:
        connection.close()


def test_versions_are_told_by_request(broker_factory: BrokerFactory) -> None:
    port = free_port()
    broker = broker_factory(metrics_listen=f"127.0.0.1:{port}")
    with WireClient(broker.bootstrap) as wire:
        wire.ask(ApiKey.METADATA, m.MetadataRequest(topics=[]), 9)
    assert samples(port)("kafka_network_requestmetrics_requests_total", request="Metadata", version="9") == 1
