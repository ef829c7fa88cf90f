"""Logins, limits and quotas over real sockets, against real broker processes."""

import asyncio
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from tests.fixtures.broker import BrokerFactory
from tests.fixtures.certificates import Certificates
from tests.fixtures.sasl import SCRAM, RefusedLoginError, choose, log_in, say
from tests.fixtures.wire import WireClient, batch, create, fetch_request, produce_request, produced
from tests.unit.security.conftest import Guarded

from tailrace.broker.config import BrokerConfig
from tailrace.broker.embedded import EmbeddedBroker
from tailrace.broker.listening import bind
from tailrace.broker.protection import Protection
from tailrace.broker.protocol import ApiKey, ErrorCode, encode_request
from tailrace.broker.protocol import messages as m
from tailrace.broker.server import BrokerServer
from tailrace.changes.errors import TailraceError
from tailrace.security.listeners import Listener, SecurityProtocol
from tailrace.security.scram import ScramClient
from tailrace.security.secrets import Secret

METADATA = m.MetadataRequest([])
TIMEOUT_S = 30.0


def is_served(wire: WireClient) -> bool:
    return bool(wire.ask(ApiKey.METADATA, METADATA).brokers)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.02)


def hangs_up(wire: WireClient) -> bool:
    """Whether the broker closes the connection, be it while we send."""
    try:
        wire.send(ApiKey.METADATA, METADATA)
    except OSError:
        return True
    return wire.is_closed_by_broker()


# -- logins --------------------------------------------------------------------------------------------


def test_a_login_lets_in_and_nothing_else_does(guarded: Guarded) -> None:
    broker = guarded()
    with WireClient(broker.bootstrap) as wire:
        assert hangs_up(wire)
    with WireClient(broker.bootstrap) as wire:
        assert wire.ask(ApiKey.API_VERSIONS, m.ApiVersionsRequest("t", "1")).api_keys
        assert choose(wire, str(SCRAM)).mechanisms == ["SCRAM-SHA-512", "SCRAM-SHA-256"]
        assert hangs_up(wire)  # a mechanism chosen is no login
    with WireClient(broker.bootstrap) as wire:
        assert log_in(wire, "alice", "pw") == 0
        assert is_served(wire)


def test_a_failed_login_is_answered_late_alike_for_every_reason_and_ends_the_connection(
    guarded: Guarded,
) -> None:
    broker = guarded(connection_failed_authentication_delay_ms=400)
    answers = []
    for user, password in (("alice", "wrong"), ("nobody", "pw"), ("", "pw")):
        with WireClient(broker.bootstrap) as wire:
            choose(wire, str(SCRAM))
            client = ScramClient(SCRAM, user, Secret(password))
            began, message = time.monotonic(), client.first()
            if user:
                message = client.final(say(wire, message).auth_bytes)
                began = time.monotonic()
            answer = wire.ask(ApiKey.SASL_AUTHENTICATE, m.SaslAuthenticateRequest(message), 2)
            assert time.monotonic() - began >= 0.3  # a loop's clock may stand still for a moment
            answers.append((answer.error_code, answer.error_message, answer.auth_bytes))
            assert wire.is_closed_by_broker()
    assert set(answers) == {answers[0]}
    assert answers[0][0] == ErrorCode.SASL_AUTHENTICATION_FAILED


def test_others_are_served_while_a_failed_login_waits_for_its_answer(guarded: Guarded) -> None:
    broker = guarded(connection_failed_authentication_delay_ms=10_000)
    with WireClient(broker.bootstrap) as good, WireClient(broker.bootstrap) as bad:
        log_in(good, "alice", "pw")
        choose(bad, str(SCRAM))
        bad.send(ApiKey.SASL_AUTHENTICATE, m.SaslAuthenticateRequest(b"nonsense"), 2)
        began = time.monotonic()
        assert is_served(good)
        assert time.monotonic() - began < 8


def test_what_is_sent_together_with_a_login_that_fails_is_not_served(guarded: Guarded) -> None:
    broker = guarded()
    with WireClient(broker.bootstrap) as wire:
        requests = [
            encode_request(ApiKey.SASL_HANDSHAKE, 1, 1, "c", m.SaslHandshakeRequest("GSSAPI")),
            encode_request(ApiKey.SASL_HANDSHAKE, 1, 2, "c", m.SaslHandshakeRequest(str(SCRAM))),
            encode_request(ApiKey.API_VERSIONS, 3, 3, "c", m.ApiVersionsRequest("t", "1")),
        ]
        wire.send_bytes(b"".join(bytes(part) for parts in requests for part in parts))
        correlation_id, answer = wire.receive(ApiKey.SASL_HANDSHAKE, 1)
        assert (correlation_id, answer.error_code) == (1, ErrorCode.UNSUPPORTED_SASL_MECHANISM)
        assert wire.is_closed_by_broker()


def test_a_name_is_locked_out_after_ten_failures_from_its_address(guarded: Guarded) -> None:
    broker = guarded(connection_failed_authentication_delay_ms=0)
    for _ in range(10):
        with WireClient(broker.bootstrap) as wire, pytest.raises(RefusedLoginError):
            log_in(wire, "alice", "wrong")
    with WireClient(broker.bootstrap) as wire, pytest.raises(RefusedLoginError) as error:
        log_in(wire, "alice", "pw")
    assert error.value.code == ErrorCode.SASL_AUTHENTICATION_FAILED
    # the answer goes out before the log is written
    wait_until(lambda: "locked for a minute" in broker.log_path.read_text(), "the lock is not told")
    with WireClient(broker.bootstrap) as wire:
        log_in(wire, "admin", "pw")


def test_a_login_by_bare_tokens_is_served_and_refused_like_any_other(guarded: Guarded) -> None:
    """SaslHandshake v0, which kafka-clients before 1.0 speak."""
    broker = guarded()
    for password in ("pw", "wrong"):
        with WireClient(broker.bootstrap) as wire:
            assert wire.ask(ApiKey.SASL_HANDSHAKE, m.SaslHandshakeRequest(str(SCRAM)), 0).error_code == 0
            client = ScramClient(SCRAM, "alice", Secret(password))
            for message in (client.first, lambda: client.final(wire.receive_bytes())):  # noqa: B023
                raw = message()
                wire.send_bytes(struct.pack(">i", len(raw)) + raw)
            if password == "pw":
                client.verify(wire.receive_bytes())
                assert is_served(wire)
            else:
                assert wire.is_closed_by_broker()


def test_a_client_that_does_not_log_in_is_hung_up_on(guarded: Guarded) -> None:
    broker = guarded(authentication_timeout_ms=500)
    with WireClient(broker.bootstrap) as wire, WireClient(broker.bootstrap) as half:
        choose(half, str(SCRAM))
        assert wire.is_closed_by_broker()
        assert half.is_closed_by_broker()
    assert "it does not log in" in broker.log_path.read_text()


def test_before_the_login_a_frame_is_at_most_512_kib(guarded: Guarded) -> None:
    broker = guarded()
    with WireClient(broker.bootstrap) as wire:
        wire.send_bytes(struct.pack(">i", (512 << 10) + 1))
        assert wire.is_closed_by_broker()
    with WireClient(broker.bootstrap) as wire:
        log_in(wire, "alice", "pw")
        create(wire, "t")
        assert produced(wire.ask(ApiKey.PRODUCE, produce_request("t", batch(b"x", size=1_000_000))))[0] == 0
    assert "before its login; at most 524288" in broker.log_path.read_text()


def test_requests_before_the_login_cost_no_decoding(guarded: Guarded) -> None:
    """Half a megabyte of array items would otherwise keep the event loop busy, for anybody who connects."""
    broker = guarded()
    wanted = m.MetadataRequest([m.MetadataRequestTopic(bytes(16), "t")] * 20_000)
    request = b"".join(encode_request(ApiKey.METADATA, 12, 1, "c", wanted))
    assert len(request) < 512 << 10
    with ExitStack() as stack:
        wires = [stack.enter_context(WireClient(broker.bootstrap)) for _ in range(50)]
        before = sum(psutil.Process(broker.pid).cpu_times()[:2])
        for wire in wires:
            wire.send_bytes(request)
        for wire in wires:
            assert wire.is_closed_by_broker()
        assert (
            sum(psutil.Process(broker.pid).cpu_times()[:2]) - before < 0.5
        )  # decoding took a second and more


# -- renewal and revocation ----------------------------------------------------------------------------


def test_a_session_ends_after_connections_max_reauth_ms_unless_it_is_renewed(guarded: Guarded) -> None:
    broker = guarded(connections_max_reauth_ms=3000)
    with WireClient(broker.bootstrap) as renewing, WireClient(broker.bootstrap) as lazy:
        assert log_in(lazy, "alice", "pw") == 3000
        assert log_in(renewing, "alice", "pw") == 3000
        began = time.monotonic()
        while time.monotonic() - began < 3.2:
            assert is_served(renewing)
            assert log_in(renewing, "alice", "pw") == 3000
        assert is_served(renewing)
        assert hangs_up(lazy)
    assert "without a login that holds" in broker.log_path.read_text()


def test_a_session_cannot_be_renewed_by_another_user(guarded: Guarded) -> None:
    with WireClient(guarded().bootstrap) as wire:
        log_in(wire, "alice", "pw")
        with pytest.raises(RefusedLoginError):
            log_in(wire, "admin", "pw")
        assert wire.is_closed_by_broker()


def change_user(wire: WireClient, name: str, password: bytes | None) -> None:
    mechanism = 1
    request = (
        m.AlterUserScramCredentialsRequest([m.ScramCredentialDeletion(name, mechanism)], [])
        if password is None
        else m.AlterUserScramCredentialsRequest(
            [], [m.ScramCredentialUpsertion(name, mechanism, 4096, b"salt", password)]
        )
    )
    (result,) = wire.ask(ApiKey.ALTER_USER_SCRAM_CREDENTIALS, request).results
    assert result.error_code == 0, result


@pytest.mark.parametrize("change", ["removed", "changed"])
def test_a_credential_that_is_gone_closes_the_live_sessions_that_rest_on_it(
    guarded: Guarded, change: str
) -> None:
    broker = guarded()
    with (
        WireClient(broker.bootstrap) as alice,
        WireClient(broker.bootstrap) as waiting,
        WireClient(broker.bootstrap) as admin,
    ):
        log_in(alice, "alice", "pw")
        log_in(waiting, "alice", "pw")
        log_in(admin, "admin", "pw")
        topic_id = create(admin, "t")
        waiting.send(ApiKey.FETCH, fetch_request(topic_id, max_wait_ms=60_000))
        assert is_served(alice)
        change_user(admin, "alice", None if change == "removed" else b"another salted password")
        assert alice.is_closed_by_broker()  # nobody asked it anything
        assert waiting.is_closed_by_broker()
        assert is_served(admin)
    with WireClient(broker.bootstrap) as again, pytest.raises(RefusedLoginError):
        log_in(again, "alice", "pw")


def test_who_changes_the_own_credential_gets_the_answer_first(guarded: Guarded) -> None:
    with WireClient(guarded().bootstrap) as admin:
        log_in(admin, "admin", "pw")
        change_user(admin, "admin", None)
        assert admin.is_closed_by_broker()


# -- limits --------------------------------------------------------------------------------------------


def test_connections_beyond_the_limit_are_refused_until_others_leave(broker_factory: BrokerFactory) -> None:
    broker = broker_factory(max_connections=3)
    with ExitStack() as stack:
        wires = [stack.enter_context(WireClient(broker.bootstrap)) for _ in range(3)]
        assert all(is_served(wire) for wire in wires)
        with WireClient(broker.bootstrap) as fourth:
            assert hangs_up(fourth)
        wires[0].close()

        def let_in() -> bool:
            with WireClient(broker.bootstrap) as wire:
                return not hangs_up_or_serves(wire)

        wait_until(let_in, "the place of the one that left is not given to another")
        assert is_served(wires[1])
    assert "refused: max.connections is 3" in broker.log_path.read_text()


def hangs_up_or_serves(wire: WireClient) -> bool:
    """True: hung up on; False: served."""
    try:
        return not is_served(wire)
    except OSError:
        return True


def test_an_address_has_a_limit_of_its_own(broker_factory: BrokerFactory) -> None:
    broker = broker_factory(max_connections_per_ip=2, max_connections_per_ip_overrides=("127.0.0.2:3",))

    def connect(source: str) -> socket.socket:
        where = (broker.config.host, broker.config.port)
        return socket.create_connection(where, 20, source_address=(source, 0))

    def served(sock: socket.socket) -> bool:
        try:
            sock.sendall(
                b"".join(encode_request(ApiKey.API_VERSIONS, 3, 1, "c", m.ApiVersionsRequest("t", "1")))
            )
            return sock.recv(1) != b""
        except OSError:
            return False

    with ExitStack() as stack:
        for source, most in (("127.0.0.1", 2), ("127.0.0.2", 3), ("127.0.0.3", 2)):
            socks = [stack.enter_context(connect(source)) for _ in range(most + 1)]
            assert [served(sock) for sock in socks] == [True] * most + [False]


def test_connections_that_come_too_fast_are_refused_and_later_ones_are_not(
    broker_factory: BrokerFactory,
) -> None:
    broker = broker_factory(max_connection_creation_rate=2)

    def comes_in() -> bool:
        with WireClient(broker.bootstrap) as wire:
            return not hangs_up_or_serves(wire)

    assert comes_in()
    outcomes = [comes_in() for _ in range(60)]
    assert 5 <= sum(outcomes) < 60
    wait_until(comes_in, "nobody is let in any more")


def test_a_client_without_a_certificate_that_counts_gives_its_place_back(
    broker_factory: BrokerFactory, certificates: Certificates
) -> None:
    broker = broker_factory(
        listeners=("SSL://127.0.0.1:0",),
        ssl_keystore_location=str(certificates.folder / "broker.pem"),
        ssl_truststore_location=str(certificates.authority),
        ssl_client_auth="required",
        ssl_principal_mapping_rules="RULE:CN=(ops)/$1/",
        max_connections=2,
    )
    host, _, port = broker.bootstrap.rpartition(":")

    def visit(certificate: Path | None) -> bool:
        context = ssl.create_default_context(cafile=str(certificates.authority))
        if certificate is not None:
            context.load_cert_chain(certificate)
        try:
            with (
                socket.create_connection((host, int(port)), 20) as sock,
                context.wrap_socket(sock, server_hostname=host) as secured,
            ):
                request = encode_request(ApiKey.API_VERSIONS, 3, 1, "c", m.ApiVersionsRequest("t", "1"))
                secured.sendall(b"".join(request))
                return secured.recv(1) != b""
        except OSError:
            return False

    ops, guest = certificates.make("ops"), certificates.make("guest")
    for _ in range(10):
        assert not visit(guest)  # signed, and no rule names it
        assert not visit(None)
    wait_until(lambda: visit(ops), "places are not given back")
    wait_until(lambda: visit(ops), "places are not given back")


# -- quotas --------------------------------------------------------------------------------------------


def set_quota(wire: WireClient, key: str, value: float, **entity: str | None) -> None:
    named = [m.QuotaEntity(kind.replace("_", "-"), name) for kind, name in entity.items()]
    change = m.QuotaAlteration(named, [m.QuotaOp(key, value, False)])
    (entry,) = wire.ask(ApiKey.ALTER_CLIENT_QUOTAS, m.AlterClientQuotasRequest([change])).entries
    assert entry.error_code == 0, entry


def took(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def test_a_producer_over_its_quota_is_told_and_muted_and_others_are_not(broker: EmbeddedBroker) -> None:
    with WireClient(broker.bootstrap) as slow, WireClient(broker.bootstrap) as other:
        create(other, "t")
        set_quota(other, "producer_byte_rate", 10_000, client_id="slow")
        request = produce_request("t", batch(b"x", size=120_000))
        answer = slow.ask(ApiKey.PRODUCE, request, client_id="slow")
        assert produced(answer)[0] == 0  # it is written all the same
        assert 1500 <= answer.throttle_time_ms <= 3000
        assert other.ask(ApiKey.PRODUCE, request).throttle_time_ms == 0
        assert took(lambda: is_served(slow)) >= answer.throttle_time_ms / 1000 - 0.5
        assert took(lambda: is_served(other)) < 1.5


def test_a_consumer_over_its_quota_is_told_and_gets_its_records_later(broker: EmbeddedBroker) -> None:
    with WireClient(broker.bootstrap) as slow, WireClient(broker.bootstrap) as other:
        topic_id = create(other, "t")
        for _ in range(6):
            other.ask(ApiKey.PRODUCE, produce_request("t", batch(b"x", size=24_000)))
        set_quota(other, "consumer_byte_rate", 10_000, client_id="slow")
        got, empty, told_ms, began = 0, 0, 0, time.monotonic()
        while got < 6:
            assert time.monotonic() - began < TIMEOUT_S
            answer = slow.ask(ApiKey.FETCH, fetch_request(topic_id, got, max_bytes=1000), client_id="slow")
            told_ms = max(told_ms, answer.throttle_time_ms)
            records = [p.records for topic in answer.responses for p in topic.partitions]
            if records and records[0]:
                got += 1
            else:
                empty += 1
        assert told_ms > 0 and empty > 0
        assert time.monotonic() - began > 5  # 144 kB at 10 kB/s, the first 100 kB at once


def test_a_client_over_its_share_of_the_brokers_time_is_told_and_muted(broker: EmbeddedBroker) -> None:
    with WireClient(broker.bootstrap) as greedy, WireClient(broker.bootstrap) as other:
        set_quota(other, "request_percentage", 0.0001, client_id="greedy")
        for number in range(20):
            create(other, f"t{number}", 10)
        every = m.MetadataRequest(None)
        answers = [greedy.ask(ApiKey.METADATA, every, client_id="greedy").throttle_time_ms for _ in range(5)]
        assert 0 < max(answers) <= 1000  # Kafka mutes for a second at most
        assert took(lambda: greedy.ask(ApiKey.METADATA, every, client_id="greedy")) >= 0.05
        assert other.ask(ApiKey.METADATA, every).throttle_time_ms == 0


# -- who comes by which address ------------------------------------------------------------------------


def test_a_client_of_ipv4_has_the_address_that_rules_name_also_on_an_ipv6_socket(tmp_path: Path) -> None:
    async def story() -> set[str]:
        config = BrokerConfig(tmp_path, listeners=("PLAINTEXT://[::]:0",), insecure=True,
                              advertised_listeners=("PLAINTEXT://localhost:0",))  # fmt: skip
        server = BrokerServer(config)
        await server.start()
        serving = asyncio.create_task(server.run_until_stopped())
        port = server.doors[0].port

        def visit() -> set[str]:
            with WireClient(f"127.0.0.1:{port}") as wire:
                assert is_served(wire)
                return {connection.address for connection in server.connections}

        try:
            return await asyncio.to_thread(visit)
        finally:
            server.stop()
            await serving

    assert asyncio.run(story()) == {"127.0.0.1"}


def test_a_name_that_is_no_loopback_on_this_machine_is_not_listened_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`localhost` in a broken /etc/hosts would open the listener that is meant for this machine."""
    elsewhere = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("0.0.0.0", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: elsewhere)
    with pytest.raises(TailraceError, match="others can reach"):
        bind(Listener("PLAINTEXT", SecurityProtocol.PLAINTEXT, "localhost", 0, "localhost"))


def test_a_client_of_whom_it_cannot_be_found_out_who_it_is_is_served_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise ValueError("a certificate that cannot be read")

    monkeypatch.setattr(Protection, "certified", fails)

    async def story() -> None:
        server = BrokerServer(BrokerConfig(tmp_path, authorizer_class_name="StandardAuthorizer"))
        host, port = await server.start()
        serving = asyncio.create_task(server.run_until_stopped())

        def visit() -> None:
            for _ in range(3):
                with WireClient(f"{host}:{port}") as wire:
                    assert hangs_up_or_serves(wire)

        await asyncio.to_thread(visit)
        server.stop()
        await serving
        assert server.broker.security.limits._total == 0

    asyncio.run(story())
    assert "who it is cannot be found out" in caplog.text
