"""The demo's last words: what ran, what it cost, how fresh the tables were, and whether they are right."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailrace.pipeline.verify.report import Report


@dataclass(slots=True)
class DemoTable:
    """One table of one sink."""

    sink: str
    table: str
    location: str
    rows: int
    changes: int
    rows_per_second: float
    cpu_us_per_row: float
    freshness_p50_ms: float | None
    freshness_p99_ms: float | None


@dataclass(slots=True)
class DemoReport:
    """Everything that the demo measured."""

    tables: list[DemoTable]
    verdicts: Report
    parts: dict[str, dict[str, float]]
    kills: int
    survived: int
    source_changes: int
    seconds: float
    lake: Path
    kept: bool

    @property
    def verified(self) -> bool:
        """Whether every table equals its source and every killed part came back."""
        return self.verdicts.equal and self.survived == self.kills

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "verified": self.verified,
            "tables": [{name: getattr(table, name) for name in DemoTable.__slots__} for table in self.tables],
            "verification": self.verdicts.as_json(),
            "parts": self.parts,
            "kills": self.kills,
            "survived": self.survived,
            "source_changes": self.source_changes,
            "seconds": self.seconds,
            "lake": str(self.lake),
        }

    def render(self) -> str:
        """A page for people."""
        lines = [
            "",
            f"{'table':<34}{'rows':>10}{'changes':>10}{'rows/s':>9}{'CPU us/row':>12}{'fresh p50':>11}{'p99':>9}",
        ]
        for table in self.tables:
            name = f"{table.sink}: {table.table}"
            lines.append(
                f"{name:<34}{table.rows:>10}{table.changes:>10}{table.rows_per_second:>9.0f}"
                f"{table.cpu_us_per_row:>12.1f}{_ms(table.freshness_p50_ms):>11}{_ms(table.freshness_p99_ms):>9}"
            )
        lines.append("")
        for part, use in self.parts.items():
            lines.append(
                f"{part:<20} CPU {use['cpu_seconds']:7.1f} s   peak memory {use['peak_rss_bytes'] / 2**20:6.0f} MiB"
                f"   started {use['starts']:.0f} times"
            )
        lines.append("")
        lines.append(
            f"{self.source_changes} row changes committed under load, {self.survived} of {self.kills} kills survived,"
            f" {self.seconds:.0f} s in all"
        )
        lines += ["", self.verdicts.render(), ""]
        lines += [f"{table.sink}: {table.table} lies at {table.location}" for table in self.tables]
        if self.kept:
            lines += ["", "query them:", *self._queries()]
        return "\n".join(lines)

    def _queries(self) -> list[str]:
        delta = f"{self.lake}/delta/enriched_transactions"
        load = f"load_catalog('tailrace', type='sql', uri='sqlite:///{self.lake}/iceberg/catalog.db')"
        iceberg = f"{load}.load_table('shop.enriched_transactions')"
        programs = (
            f"import polars as pl; print(pl.scan_delta('{delta}').collect())",
            f"import duckdb; duckdb.sql(\"FROM delta_scan('{delta}') LIMIT 5\").show()",
            f"import polars as pl; from pyiceberg.catalog import load_catalog; print(pl.scan_iceberg({iceberg}).collect())",
        )
        return [f"  python -c {shlex.quote(program)}" for program in programs]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"
