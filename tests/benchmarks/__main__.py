"""`make bench`: rows/s and CPU us/row of every process, next to what Postgres itself can give.

python -m tests.benchmarks [--rows 2000000] [--burst 1000000] [--sink delta] [--transform]
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import psycopg
from tests.benchmarks.limits import Leg, ReceiveLimit, copy_out
from tests.benchmarks.run import DIRECT, TRANSFORM, Pipeline

from tailrace.pipeline.embedded_postgres import EmbeddedPostgres

_SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "8GB"}


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    arguments.add_argument("--rows", type=int, default=2_000_000)
    arguments.add_argument("--burst", type=int, default=1_000_000)
    arguments.add_argument("--sink", choices=["delta", "iceberg"], default="delta")
    arguments.add_argument("--no-transform", action="store_true")
    options = arguments.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tailrace-bench-"))
    try:
        with EmbeddedPostgres(folder / "postgres", settings=_SETTINGS) as server:
            variants = [("direct", DIRECT)] + ([] if options.no_transform else [("transform", TRANSFORM)])
            for name, text in variants:
                _say(f"\n{name}, sink {options.sink}: {options.rows} rows, bursts of {options.burst}")
                for leg in _legs(server, folder / name, text, options.sink, options.rows, options.burst):
                    _say(_line(leg))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _legs(server: EmbeddedPostgres, folder: Path, text: str, sink: str, rows: int, burst: int) -> list[Leg]:
    _load(server, rows)
    legs = [copy_out(server, rows)]
    pipeline = Pipeline(folder, server, text, sink)
    pipeline.start()
    try:
        legs.append(pipeline.measure("snapshot", rows, live_rows=rows))
        for name, statement, live in (
            ("inserts", f"CALL burst_insert({burst})", rows + burst),
            ("mixed", f"CALL burst_mixed({burst}, {rows})", rows + burst + burst * 2 // 10),
        ):
            pipeline.pause()
            limit = ReceiveLimit(server, name)
            end = _run(server, statement)
            legs.append(pipeline.measure(name, burst, live_rows=live))
            legs.append(limit.measure(burst, end))
    finally:
        pipeline.resume()
        pipeline.stop()
    return legs


def _load(server: EmbeddedPostgres, rows: int) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("DROP PUBLICATION IF EXISTS bench")
        connection.execute("DROP PUBLICATION IF EXISTS tailrace_bench")
        connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
        connection.execute((Path(__file__).parent / "workload.sql").read_text())
        connection.execute(f"CALL fill(1, {rows})")
        connection.execute("CREATE PUBLICATION bench FOR TABLE public.transactions")
        connection.execute("VACUUM ANALYZE public.transactions")
        connection.execute("CHECKPOINT")


def _run(server: EmbeddedPostgres, statement: str) -> str:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(statement)
        row = connection.execute("SELECT pg_current_wal_lsn()::text").fetchone()
        assert row is not None
        return str(row[0])


def _line(leg: Leg) -> str:
    parts = "  ".join(f"{part} {1e6 * seconds / leg.rows:.2f}" for part, seconds in sorted(leg.cpu.items()))
    memory = {part: size / 2**20 for part, size in sorted(leg.peak_rss.items())}
    each = "  ".join(f"{part} {size:.0f}" for part, size in memory.items())
    peak = f"   peak MiB {sum(memory.values()):.0f}  ({each})" if memory else ""
    return f"{leg.name:<15}{leg.rows_per_second:>10.0f} rows/s   CPU us/row {leg.cpu_us_per_row:6.2f}  ({parts}){peak}"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
