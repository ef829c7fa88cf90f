"""`tailrace broker` as a process: it serves what its file says, stops cleanly, and says what is wrong."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from tests.fixtures.certificates import Certificates
from tests.fixtures.wire import WireClient, create

from tailrace.changes.errors import TailraceError
from tailrace.registry.client import RegistryClient
from tailrace.registry.login import RegistryLogin
from tailrace.security.secrets import Secret

COMMAND = [sys.executable, "-m", "tailrace.pipeline.cli", "broker"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(file: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [*COMMAND, "--config", str(file), *arguments], stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def connect(port: int) -> WireClient:
    deadline = time.monotonic() + 30
    while True:
        try:
            return WireClient(f"127.0.0.1:{port}")
        except ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_broker_of_a_file_serves_logs_json_and_ends_with_0_at_sigterm(tmp_path: Path) -> None:
    port = free_port()
    file = tmp_path / "broker.yaml"
    file.write_text(
        f"log.dir: data\ntailrace.listen: 127.0.0.1:{port}\ntailrace.registry.listen: 127.0.0.1:0\n"
        "tailrace.log.format: json\n"
    )
    with serving(file) as process:
        with connect(port) as wire:
            create(wire, "orders")
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
    assert process.returncode == 0
    events = [json.loads(line) for line in log.splitlines()]
    assert events[-1]["event"] == "broker stopped"
    assert all({"time", "level", "logger", "event"} <= event.keys() for event in events)
    assert (tmp_path / "data" / "orders-0").is_dir()


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("log.dir: data\nnum.partition: 1\n", 2, "broker.yaml:2:1: E202 'num.partition'"),
        ("log.dir: data\nnum.partitions: 0\n", 2, "num.partitions must be greater than 0"),
        ("log.dir: data\ntailrace.listen: 127.0.0.1:{taken}\n", 1, "another process uses this port"),
    ],
)
def test_a_mistake_ends_with_2_and_a_machine_that_does_not_allow_it_with_1(
    tmp_path: Path, text: str, code: int, told: str
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        file = tmp_path / "broker.yaml"
        file.write_text(
            text.replace("{taken}", str(other.getsockname()[1])) + "tailrace.registry.listen: 127.0.0.1:0\n"
        )
        ended = subprocess.run(
            [*COMMAND, "--config", str(file)], capture_output=True, text=True, timeout=30, check=False
        )
    assert ended.returncode == code, ended.stderr
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr


def test_help_lists_every_option_and_imports_nothing_heavy() -> None:
    shown = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, timeout=30, check=True)
    assert "num.partitions" in shown.stdout
    imported = subprocess.run(
        [sys.executable, "-X", "importtime", *COMMAND[1:-1], "--help"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stderr
    for heavy in ("pyarrow", "numba", "uvicorn", "pydantic", "numpy"):
        assert f" {heavy}\n" not in imported


SECURED = """\
log.dir: data
tailrace.registry.listen: 127.0.0.1:{registry}
listeners: SASL_SSL://127.0.0.1:{broker}
ssl.keystore.location: {folder}/broker.pem
authorizer.class.name: StandardAuthorizer
super.users: User:ops
tailrace.scram.users: ops=a-long-password
"""
LOGIN = """\
security.protocol=SASL_SSL
sasl.mechanism=SCRAM-SHA-512
sasl.username=ops
sasl.password=a-long-password
ssl.ca.location={authority}
"""


def secured(tmp_path: Path, certificates: Certificates, more: str = "") -> tuple[Path, int]:
    file, registry = tmp_path / "broker.yaml", free_port()
    place = {"registry": registry, "broker": free_port(), "folder": certificates.folder}
    file.write_text(SECURED.format(**place) + more)
    (tmp_path / "login.properties").write_text(LOGIN.format(authority=certificates.authority))
    return file, registry


def test_the_registry_logs_in_to_a_broker_that_asks_for_it(
    tmp_path: Path, certificates: Certificates
) -> None:
    file, port = secured(tmp_path, certificates, "tailrace.registry.command.config: login.properties\n")
    login = RegistryLogin(Secret("ops:a-long-password"))
    client = RegistryClient(f"http://127.0.0.1:{port}", login=login)
    with serving(file) as process, closing(client) as registry:
        deadline = time.monotonic() + 60
        while True:
            try:
                assert registry.register("orders-value", '"string"') == 1
                break
            except TailraceError:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)


def test_a_registry_without_a_login_ends_with_the_reason(tmp_path: Path, certificates: Certificates) -> None:
    file, _ = secured(tmp_path, certificates)
    with serving(file) as process:
        _, log = process.communicate(timeout=60)
    assert process.returncode
    assert "speaks TLS" in log and "security.protocol" in log
    assert "Traceback" not in log
