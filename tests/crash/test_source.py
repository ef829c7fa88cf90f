"""SIGKILL of the source process at each of its crash points, under load: nothing is lost, nothing is doubled."""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import pytest
from tests.fixtures.registry import Stack
from tests.integration.connectors import mirror
from tests.integration.connectors.shop import Shop

from tailrace.changes import parse_lsn
from tailrace.connectors.service import CRASH_POINTS

pytestmark = [pytest.mark.postgres, pytest.mark.crash]

_PROGRAM = """
import logging, pickle, signal, sys, threading
from tailrace.connectors.service import run

logging.basicConfig(level=logging.INFO)
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
run(pickle.load(open(sys.argv[1], "rb")), stop)
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One broker and registry for the whole file."""
    running = Stack(tmp_path_factory.mktemp("stack"))
    running.start()
    yield running
    running.kill()


@pytest.fixture
def shop(postgres: str, stack: Stack, tmp_path: Path) -> Iterator[Shop]:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE TABLE orders (id int PRIMARY KEY, note text)")
        connection.execute("INSERT INTO orders SELECT n, 'order ' || n FROM generate_series(1, 3000) n")
    running = Shop(postgres, stack, tmp_path / "run", {"public.orders": {}})
    yield running
    running.close()


def start(shop: Shop, log_path: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """The source part as a process of its own."""
    config = log_path.with_suffix(".config")
    config.write_bytes(pickle.dumps(shop.config))
    with log_path.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(config)],
            stdout=log,
            stderr=log,
            env={**os.environ, **environment},
        )


def write_until_dead(shop: Shop, process: subprocess.Popen[bytes]) -> None:
    """Small transactions of every kind until the process has been killed; the slot never stands ahead."""
    with psycopg.connect(shop.dsn, autocommit=True) as connection:
        for n in range(10_000):
            if process.poll() is not None:
                break
            connection.execute("INSERT INTO orders VALUES (%s, 'new')", (100_000 + n,))
            connection.execute("UPDATE orders SET note = note || '.' WHERE id = %s", (n % 3000 + 1,))
            connection.execute("DELETE FROM orders WHERE id = %s", (100_000 + n - 50,))
            connection.execute("UPDATE orders SET id = id + 1000000 WHERE id = %s", (100_000 + n - 20,))
            if n % 20 == 0:
                assert_slot_not_ahead(shop, connection)
        assert_slot_not_ahead(shop, connection)


def assert_slot_not_ahead(shop: Shop, connection: psycopg.Connection) -> None:
    row = connection.execute(
        "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s",
        (f"tailrace_{shop.name}",),
    ).fetchone()
    # a slot whose snapshot is not in the log yet is made anew at the next start
    position = mirror.durable_position(shop.client, shop.control)
    if row is not None and row[0] is not None and position:
        assert parse_lsn(row[0]) <= position


@pytest.mark.parametrize(
    "at",
    [*CRASH_POINTS, *(f"{point}:4" for point in CRASH_POINTS[CRASH_POINTS.index("source.before_produce") :])],
)
def test_a_kill_at_a_crash_point_loses_and_doubles_nothing(at: str, shop: Shop, tmp_path: Path) -> None:
    log_path = tmp_path / "source.log"
    environment = {"TAILRACE_CRASH_AT": at, "TAILRACE_CRASH_MARK": str(tmp_path / "mark")}
    process = start(shop, log_path, environment)
    try:
        write_until_dead(shop, process)
        assert process.wait(10) == -signal.SIGKILL, log_path.read_text()[-2000:]
        process = start(shop, log_path, environment)  # the mark exists: no point fires again
        shop.catch_up()
        process.terminate()
        assert process.wait(20) == 0, log_path.read_text()[-2000:]
    finally:
        process.kill()
        process.wait()
    shop.assert_equal("public.orders")


@pytest.mark.slow
def test_a_second_instance_is_refused_and_leaves_the_first_alone(shop: Shop, tmp_path: Path) -> None:
    first = start(shop, tmp_path / "first.log", {})
    second = None
    try:
        shop.catch_up()
        second = start(shop, tmp_path / "second.log", {})
        assert second.wait(25) == 1
        assert f"slot tailrace_{shop.name} is held by pid" in (tmp_path / "second.log").read_text()
        with psycopg.connect(shop.dsn, autocommit=True) as connection:
            connection.execute("DELETE FROM orders WHERE id % 2 = 0")
        shop.catch_up()
        first.terminate()
        assert first.wait(20) == 0, (tmp_path / "first.log").read_text()[-2000:]
        shop.assert_equal("public.orders")
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()
                process.wait()


@pytest.mark.slow
def test_a_zombie_that_wakes_up_beside_its_successor_is_fenced(shop: Shop, tmp_path: Path) -> None:
    with psycopg.connect(shop.dsn, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET wal_sender_timeout = '1s'")
        connection.execute("SELECT pg_reload_conf()")
        first = start(shop, tmp_path / "first.log", {})
        second = None
        try:
            shop.catch_up()
            first.send_signal(signal.SIGSTOP)
            connection.execute("UPDATE orders SET note = 'while the first was stopped'")
            second = start(shop, tmp_path / "second.log", {})
            shop.catch_up()
            first.send_signal(signal.SIGCONT)
            connection.execute("DELETE FROM orders WHERE id % 2 = 0")
            # it finds its connection gone, and at its next start the slot in other hands
            assert first.wait(25) == 1, (tmp_path / "first.log").read_text()[-2000:]
            connection.execute("UPDATE orders SET note = 'after the first was gone'")
            shop.catch_up()
            second.terminate()
            assert second.wait(20) == 0, (tmp_path / "second.log").read_text()[-2000:]
            shop.assert_equal("public.orders")
        finally:
            connection.execute("ALTER SYSTEM RESET wal_sender_timeout")
            connection.execute("SELECT pg_reload_conf()")
            for process in (first, second):
                if process is not None:
                    process.kill()
                    process.wait()
