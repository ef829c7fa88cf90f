"""Two tables of canonical text compared by key: what is lost, doubled, unexpected or different, and where."""

from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from tailrace.pipeline.verify.canonical import quoted

KEPT_KEYS = 20
"""Differing keys that a report names; the counts are always complete."""


@dataclass(slots=True)
class Difference:
    """How a table differs from what was expected.

    Every set holds keys as tuples of canonical text.  `wrong` also says which columns differ.
    """

    lost: set[tuple[str, ...]] = field(default_factory=set)
    unexpected: set[tuple[str, ...]] = field(default_factory=set)
    doubled: set[tuple[str, ...]] = field(default_factory=set)
    wrong: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)
    missing_columns: tuple[str, ...] = ()
    extra_columns: tuple[str, ...] = ()

    @property
    def keys(self) -> set[tuple[str, ...]]:
        """Every key that differs in any way."""
        return self.lost | self.unexpected | self.doubled | set(self.wrong)

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not self.keys and not self.missing_columns

    def without(self, keys: set[tuple[str, ...]]) -> "Difference":
        """The same less some keys."""
        return Difference(
            self.lost - keys,
            self.unexpected - keys,
            self.doubled - keys,
            {key: columns for key, columns in self.wrong.items() if key not in keys},
            self.missing_columns,
            self.extra_columns,
        )


def compare(expected: pa.Table, found: pa.Table, key: tuple[str, ...]) -> Difference:
    """Compare rows by key and every column that both have; values are canonical text.

    A column only `found` has is noted but is no fault: a column dropped at the source stays in the table,
    with the values that it had.
    """
    shared = [name for name in expected.column_names if name in found.column_names and name not in key]
    difference = Difference(
        missing_columns=tuple(name for name in expected.column_names if name not in found.column_names),
        extra_columns=tuple(name for name in found.column_names if name not in expected.column_names),
    )
    with duckdb.connect() as database:
        database.register("expected", expected)
        database.register("found", found)
        keys = ", ".join(quoted(name) for name in key)
        for row in database.execute(
            f"SELECT {keys} FROM found GROUP BY {keys} HAVING count(*) > 1"
        ).fetchall():
            difference.doubled.add(tuple(row))
        joined = " AND ".join(f"e.{quoted(name)} IS NOT DISTINCT FROM f.{quoted(name)}" for name in key)
        for target, left, right in (
            (difference.lost, "expected", "found"),
            (difference.unexpected, "found", "expected"),
        ):
            query = f"SELECT {keys} FROM {left} e ANTI JOIN {right} f ON {joined}"
            target.update(
                tuple(row) for row in database.execute(query.replace(keys, _of("e", key), 1)).fetchall()
            )
        if shared:
            _wrong(database, difference, joined, key, shared)
    return difference


def _of(alias: str, key: tuple[str, ...]) -> str:
    return ", ".join(f"{alias}.{quoted(name)}" for name in key)


def _wrong(
    database: duckdb.DuckDBPyConnection,
    difference: Difference,
    joined: str,
    key: tuple[str, ...],
    shared: list[str],
) -> None:
    tests = [f"e.{quoted(name)} IS DISTINCT FROM f.{quoted(name)}" for name in shared]
    rows = database.execute(
        f"SELECT {_of('e', key)}, {', '.join(tests)} FROM expected e JOIN found f ON {joined} WHERE {' OR '.join(tests)}"
    ).fetchall()
    for row in rows:
        columns = tuple(name for name, differs in zip(shared, row[len(key) :], strict=True) if differs)
        place = tuple(row[: len(key)])
        difference.wrong[place] = tuple(dict.fromkeys((*difference.wrong.get(place, ()), *columns)))
