"""What a broker leaves on the disk and in its logs, and from where it can be reached."""

import asyncio
import logging
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.fixtures.broker import BrokerFactory
from tests.fixtures.certificates import Certificates
from tests.fixtures.sasl import SCRAM, RefusedLoginError, choose, log_in, say
from tests.fixtures.wire import WireClient, batch, create, produce_request
from tests.unit.security.conftest import Guarded

from tailrace.broker.config import BrokerConfig
from tailrace.broker.embedded import EmbeddedBroker
from tailrace.broker.protocol import ApiKey, ErrorCode
from tailrace.broker.protocol import messages as m
from tailrace.broker.server import BrokerServer
from tailrace.changes.errors import TailraceError
from tailrace.security.tls import ServerTls, TlsFiles

CANARY = "canary-7f3a"
EVERY_USER = stat.S_IRWXG | stat.S_IRWXO
TIMEOUT_S = 30.0


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.05)


# -- files ---------------------------------------------------------------------------------------------


def mode_of(path: Path) -> int:
    """The mode of a file; no bits for one that a running broker renamed meanwhile."""
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return 0


def readable_by_others(folder: Path) -> list[str]:
    return [str(path) for path in [folder, *folder.rglob("*")] if mode_of(path) & EVERY_USER]


@pytest.fixture
def generous_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("generous_umask")
def test_every_file_and_folder_of_a_broker_is_for_its_user_only(guarded: Guarded) -> None:
    broker = guarded()
    with WireClient(broker.bootstrap) as admin:
        log_in(admin, "admin", "pw")
        create(admin, "t", 3)
        admin.ask(ApiKey.PRODUCE, produce_request("t", batch(b"x")))
        admin.ask(ApiKey.INIT_PRODUCER_ID, m.InitProducerIdRequest("tx", 10_000))
        topics = [
            m.OffsetCommitRequestTopic(
                "t", partitions=[m.OffsetCommitRequestPartition(0, 0, committed_metadata="")]
            )
        ]
        admin.ask(ApiKey.OFFSET_COMMIT, m.OffsetCommitRequest("g", topics=topics))
    wait_until((broker.config.data_dir / "status").is_dir, "no status is written")
    assert broker.stop() == 0
    broker.restart()
    files = list(broker.config.data_dir.rglob("*"))
    assert len(files) > 20
    assert readable_by_others(broker.config.data_dir) == []


@pytest.mark.usefixtures("generous_umask")
def test_every_file_of_tailrace_broker_is_for_its_user_only_and_a_second_one_is_refused(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "data"
    command = [sys.executable, "-m", "tailrace.pipeline.cli", "broker", "--data-dir", str(folder)]
    command += ["--listen", "127.0.0.1:0", "--registry", "127.0.0.1:0"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until((folder / "ports.json").exists, "the broker does not start")
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode != 0
        assert "another" in second.stderr and str(folder) in second.stderr
        assert running.poll() is None
        assert readable_by_others(folder) == []
    finally:
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0


def test_two_brokers_on_one_folder_are_refused_and_the_first_is_not_disturbed(broker: EmbeddedBroker) -> None:
    with WireClient(broker.bootstrap) as wire:
        create(wire, "t")
        with pytest.raises(TailraceError, match="another"):
            EmbeddedBroker(broker.config.data_dir).start()
        assert "t" in [topic.name for topic in wire.ask(ApiKey.METADATA, m.MetadataRequest(None)).topics]
    broker.kill()
    broker.restart()  # the lock ends with the process, however that ended


# -- addresses -----------------------------------------------------------------------------------------


def test_a_default_start_is_reachable_by_loopback_and_by_no_other_address(
    broker_factory: BrokerFactory,
) -> None:
    broker = broker_factory(metrics_listen="127.0.0.1:0")
    process = psutil.Process(broker.pid)
    listening = [c.laddr for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert len(listening) == 2
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert [c for c in process.net_connections("inet") if c.type == socket.SOCK_DGRAM] == []
    assert [c for c in process.net_connections("unix") if c.status == psutil.CONN_LISTEN] == []
    others = {
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == socket.AF_INET and not address.address.startswith("127.")
    }
    for host in others:
        for address in listening:
            with pytest.raises(OSError):
                socket.create_connection((host, address.port), 5).close()


def test_a_listener_beyond_loopback_without_tls_and_login_does_not_start(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tailrace.pipeline.cli", "broker", "--data-dir", str(tmp_path / "data")]
    command += ["--listen", "0.0.0.0:0", "--registry", "127.0.0.1:0"]
    command += [
        "-o",
        "advertised.listeners=PLAINTEXT://broker.example:9092",
        "-o",
        "listeners=PLAINTEXT://0.0.0.0:9092",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "which other machines can reach" in done.stderr
    assert "neither TLS nor authentication" in done.stderr
    assert not (tmp_path / "data" / "metadata.db").exists()


# -- TLS -----------------------------------------------------------------------------------------------


def over_tls(broker: EmbeddedBroker, context: ssl.SSLContext) -> ssl.SSLSocket:
    host, _, port = broker.bootstrap.rpartition(":")
    return context.wrap_socket(socket.create_connection((host, int(port)), 20), server_hostname=host)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_tls_before_1_2_is_refused(broker_factory: BrokerFactory, certificates: Certificates) -> None:
    pem = str(certificates.folder / "broker.pem")
    broker = broker_factory(listeners=("SSL://127.0.0.1:0",), ssl_keystore_location=pem)
    for newest in (ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ssl.create_default_context(cafile=str(certificates.authority))
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = newest
        if newest is ssl.TLSVersion.TLSv1_1:
            with pytest.raises(OSError):
                over_tls(broker, context).close()
        else:
            with over_tls(broker, context) as secured:
                assert secured.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[newest.name]


def test_a_renewed_certificate_serves_the_next_connection_without_a_restart(
    broker_factory: BrokerFactory, certificates: Certificates, tmp_path: Path
) -> None:
    pem = tmp_path / "server.pem"
    pem.write_bytes((certificates.folder / "broker.pem").read_bytes())
    broker = broker_factory(listeners=("SSL://127.0.0.1:0",), ssl_keystore_location=str(pem))
    context = ssl.create_default_context(cafile=str(certificates.authority))

    def served() -> bytes:
        with over_tls(broker, context) as secured:
            return secured.getpeercert(binary_form=True) or b""

    first = served()
    with over_tls(broker, context) as kept:
        pem.write_bytes(b"half a certificate")
        wait_until(lambda: "are not used" in broker.log_path.read_text(), "nobody looked at the file")
        assert served() == first  # broken files leave the ones in use
        pem.write_bytes(certificates.make("renewed", server=True).read_bytes())
        wait_until(lambda: served() != first, "the renewed certificate is not served")
        kept.sendall(b"\0")  # who was connected stays so


def test_a_certificate_without_its_password_is_an_error_and_not_a_question(
    certificates: Certificates, tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives import serialization

    locked = certificates.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"x"),
    )
    pem = tmp_path / "locked.pem"
    pem.write_bytes(locked + certificates.authority.read_bytes())
    with pytest.raises(TailraceError, match=r"ssl\.key\.password"):
        ServerTls(TlsFiles(pem, None, None, None))


# -- secrets -------------------------------------------------------------------------------------------


def secretive(certificates: Certificates) -> dict[str, Any]:
    """Options of a broker that is full of secrets."""
    key_set = certificates.folder / "jwks.json"
    key_set.write_text('{"keys": []}')
    return {
        "listeners": ("SASL_PLAINTEXT://127.0.0.1:0",),
        "sasl_enabled_mechanisms": ("SCRAM-SHA-256", "PLAIN", "OAUTHBEARER"),
        "sasl_oauthbearer_jwks_endpoint_url": key_set.as_uri(),
        "sasl_oauthbearer_expected_issuer": "i",
        "sasl_oauthbearer_expected_audience": ("a",),
        "scram_users": (f"admin={CANARY}-admin", f"alice={CANARY}-alice"),
        "ssl_key_password": f"{CANARY}-key",
    }


def hear_secrets(bootstrap: str) -> list[object]:
    """Tell a broker every kind of secret, right and wrong, and return its answers."""
    answers: list[object] = []
    with WireClient(bootstrap) as wire:
        log_in(wire, "admin", f"{CANARY}-admin")
        resource = m.DescribeConfigsResource(4, "1", None)
        described = wire.ask(ApiKey.DESCRIBE_CONFIGS, m.DescribeConfigsRequest([resource], True, True))
        shown = [
            (config.is_sensitive, config.value, *(synonym.value for synonym in config.synonyms))
            for config in described.results[0].configs
            if config.name in ("tailrace.scram.users", "ssl.key.password")
        ]
        assert len(shown) == 2
        assert {part for config in shown for part in config} == {True, None}
        answers.append(described)
        salted = m.ScramCredentialUpsertion("bob", 1, 4095, b"salt", f"{CANARY}-salted".encode())
        for iterations in (4095, 4096):  # refused, and taken
            salted.iterations = iterations
            change = m.AlterUserScramCredentialsRequest([], [salted])
            answers.append(wire.ask(ApiKey.ALTER_USER_SCRAM_CREDENTIALS, change))
        everybody = m.DescribeUserScramCredentialsRequest(None)
        answers.append(wire.ask(ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS, everybody))
        reference = m.CreatableTopicConfig("retention.ms", "${env:PW}")  # never resolved for a client
        topic = m.CreatableTopic("t", 1, 1, [], [reference])
        (made,) = wire.ask(ApiKey.CREATE_TOPICS, m.CreateTopicsRequest([topic])).topics
        assert made.error_code == ErrorCode.INVALID_CONFIG
        answers.append(made)
    for mechanism, message in (
        (str(SCRAM), f"n,,n={CANARY}-user,r=x"),
        (str(SCRAM), f"{CANARY}-nonsense"),
        ("OAUTHBEARER", f"n,,\x01auth=Bearer {CANARY}-token\x01\x01"),
        ("PLAIN", f"\0alice\0{CANARY}-typed"),
    ):
        with WireClient(bootstrap) as wire:
            if choose(wire, mechanism).error_code:
                assert mechanism == "PLAIN"  # not offered without TLS
                continue
            try:
                answers.append(say(wire, message.encode()))
                say(wire, f"c=biws,r={CANARY}-nonce,p={CANARY}".encode())
            except RefusedLoginError as error:
                answers.append(error)
    return answers


def test_no_secret_is_in_an_answer_a_file_or_the_list_of_processes(
    broker_factory: BrokerFactory, certificates: Certificates
) -> None:
    broker = broker_factory(env={"PW": CANARY}, **secretive(certificates))
    assert CANARY not in repr(hear_secrets(broker.bootstrap))
    assert CANARY not in " ".join(psutil.Process(broker.pid).cmdline())
    assert broker.stop() == 0
    written = [path for path in broker.config.data_dir.rglob("*") if path.is_file()]
    assert [path.name for path in written if CANARY.encode() in path.read_bytes()] == []
    assert broker.log_path in written


def test_no_secret_is_in_a_log_also_at_debug(
    tmp_path: Path, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def story() -> None:
        server = BrokerServer(BrokerConfig(tmp_path, **secretive(certificates)))
        host, port = await server.start()
        serving = asyncio.create_task(server.run_until_stopped())
        try:
            await asyncio.to_thread(hear_secrets, f"{host}:{port}")
        finally:
            server.stop()
            await serving

    asyncio.run(story())
    assert "login from" in caplog.text
    assert CANARY not in caplog.text


@pytest.mark.parametrize(
    "option",
    [
        {"scram_users": (f"admin={CANARY}${{env:X}}",)},
        {"scram_users": (f"={CANARY}",)},
        {"scram_users": (CANARY,)},
        {"scram_users": ("admin=${env:NOT_THERE}",)},
        {"listeners": ("SSL://127.0.0.1:0",), "ssl_key_password": f"{CANARY}${{file:/x}}"},
    ],
)
def test_an_error_about_a_secret_does_not_show_it(
    tmp_path: Path, certificates: Certificates, option: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    pem = str(certificates.folder / "broker.pem")
    with pytest.raises(TailraceError) as error:
        EmbeddedBroker(tmp_path / "broker", ssl_keystore_location=pem, **option).start()
    assert CANARY not in str(error.value) and CANARY not in caplog.text
    assert "scram.users" in str(error.value) or "key.password" in str(error.value)


def test_a_broker_told_by_a_file_shows_no_secret_of_it(tmp_path: Path) -> None:
    file = tmp_path / "broker.yaml"
    file.write_text(
        f"log.dir: data\ntailrace.scram.users: [{CANARY}]\nssl.key.password: [{CANARY}, x]\nno.such: 1\n"
    )
    command = [sys.executable, "-m", "tailrace.pipeline.cli", "broker", "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "no.such" in done.stderr and "ssl.key.password" in done.stderr
    assert CANARY not in done.stdout + done.stderr
