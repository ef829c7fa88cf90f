"""What verify found, for people and for programs."""

from dataclasses import dataclass, field
from typing import Any

from tailrace.changes import Lsn, format_lsn
from tailrace.pipeline.verify.compare import KEPT_KEYS, Difference


@dataclass(slots=True)
class TableVerdict:
    """The verdict on one table of one sink.

    through    the LSN up to which the table was compared; 0 for a transformed table.
    unsettled  keys that changed during every round and so could not be compared.
    skipped    why the table could not be checked; empty when it was.
    """

    sink: str
    table: str
    kind: str
    rows: int = 0
    through: Lsn = 0
    difference: Difference = field(default_factory=Difference)
    unsettled: int = 0
    skipped: str = ""

    @property
    def equal(self) -> bool:
        """Whether every row was checked and none differs."""
        return not (self.skipped or self.unsettled) and self.difference.equal

    def as_json(self) -> dict[str, Any]:
        """Plain data; keys are named, never other values."""
        wrong = sorted(self.difference.wrong.items())[:KEPT_KEYS]
        return {
            "sink": self.sink,
            "table": self.table,
            "kind": self.kind,
            "equal": self.equal,
            "rows": self.rows,
            "verified_through": format_lsn(self.through) if self.through else None,
            "lost": len(self.difference.lost),
            "unexpected": len(self.difference.unexpected),
            "doubled": len(self.difference.doubled),
            "wrong": len(self.difference.wrong),
            "missing_columns": list(self.difference.missing_columns),
            "unsettled": self.unsettled,
            "skipped": self.skipped or None,
            "keys": {
                "lost": sorted(self.difference.lost)[:KEPT_KEYS],
                "unexpected": sorted(self.difference.unexpected)[:KEPT_KEYS],
                "doubled": sorted(self.difference.doubled)[:KEPT_KEYS],
                "wrong": [{"key": key, "columns": columns} for key, columns in wrong],
            },
        }

    def render(self) -> str:
        """One line, and one per kind of difference."""
        name = f"{self.sink}: {self.table} ({self.kind})"
        if self.skipped:
            return f"{name}: NOT CHECKED: {self.skipped}"
        through = f" verified through LSN {format_lsn(self.through)}" if self.through else " verified"
        rest = f", {self.unsettled} keys kept changing" if self.unsettled else ""
        if self.equal:
            return f"{name}: {self.rows} rows,{through}"
        if self.difference.equal:
            return f"{name}: NOT CHECKED{rest}: verify again when fewer rows change"
        lines = [f"{name}: DIFFERS from the source{rest}"]
        if self.difference.missing_columns:
            lines.append(f"  columns missing: {', '.join(self.difference.missing_columns)}")
        for word, keys in (
            ("lost", self.difference.lost),
            ("unexpected", self.difference.unexpected),
            ("doubled", self.difference.doubled),
        ):
            if keys:
                shown = ", ".join("/".join(map(str, key)) for key in sorted(keys)[:KEPT_KEYS])
                lines.append(f"  {word}: {len(keys)} keys: {shown}")
        if self.difference.wrong:
            shown = ", ".join(
                f"{'/'.join(map(str, key))} ({', '.join(columns)})"
                for key, columns in sorted(self.difference.wrong.items())[:KEPT_KEYS]
            )
            lines.append(f"  wrong: {len(self.difference.wrong)} keys: {shown}")
        return "\n".join(lines)


@dataclass(slots=True)
class Report:
    """All verdicts of one verification."""

    tables: list[TableVerdict]

    @property
    def equal(self) -> bool:
        """Whether every table was checked and equals its source."""
        return all(table.equal for table in self.tables)

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"equal": self.equal, "tables": [table.as_json() for table in self.tables]}

    def render(self) -> str:
        """A paragraph for people."""
        verdict = "every table equals its source" if self.equal else "NOT every table equals its source"
        return "\n".join([*(table.render() for table in self.tables), verdict])
