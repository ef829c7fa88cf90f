"""What clients set on the cluster itself, in the broker's metadata database (SQLite).

    resource_configs    resource type, resource name, name, value    configs of what is no topic and no broker
    feature_levels      name, level, changes                         levels that were changed, and how often

A connection of its own to the database file that the topic catalog made: WAL, synchronous=FULL, so what is
committed survives a power cut.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tailrace.broker.log import LogError
from tailrace.broker.protocol.errors import ErrorCode
from tailrace.changes.errors import TailraceError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS resource_configs (
    resource_type INTEGER NOT NULL, resource_name TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (resource_type, resource_name, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS feature_levels (
    name TEXT PRIMARY KEY, level INTEGER NOT NULL, changes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""


class ClusterStore:
    """Every change is durable on return, or raises LogError: KAFKA_STORAGE_ERROR."""

    def __init__(self, database: Path) -> None:
        self._path = database
        self._configs: dict[tuple[int, str], dict[str, str]] = {}
        try:
            self._db = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
                for kind, resource, name, value in self._db.execute("SELECT * FROM resource_configs"):
                    self._configs.setdefault((kind, resource), {})[name] = value
            except BaseException:
                self._db.close()
                raise
        except sqlite3.Error as error:
            raise TailraceError(
                f"the broker's metadata database {database} cannot be opened: {error}",
                fix="Free space on its disk, or restore it from a copy",
            ) from error

    def configs(self, resource_type: int, resource: str) -> Mapping[str, str]:
        """What is set on a resource."""
        return dict(self._configs.get((resource_type, resource), {}))

    def resources(self, resource_type: int) -> Sequence[str]:
        """The resources of a type that have something set, by name."""
        return sorted(name for kind, name in self._configs if kind == resource_type)

    def set_configs(self, resource_type: int, resource: str, configs: Mapping[str, str]) -> None:
        """Replace what is set on a resource."""
        with self._transaction():
            self._db.execute(
                "DELETE FROM resource_configs WHERE resource_type = ? AND resource_name = ?",
                (resource_type, resource),
            )
            self._db.executemany(
                "INSERT INTO resource_configs VALUES (?, ?, ?, ?)",
                [(resource_type, resource, name, value) for name, value in configs.items()],
            )
        if configs:
            self._configs[resource_type, resource] = dict(configs)
        else:
            self._configs.pop((resource_type, resource), None)

    def feature_levels(self) -> tuple[Mapping[str, int], int]:
        """The levels that clients have set, and how many changes that took."""
        rows = self._db.execute("SELECT name, level, changes FROM feature_levels").fetchall()
        return {name: level for name, level, _ in rows}, sum(changes for *_, changes in rows)

    def set_feature_levels(self, levels: Mapping[str, int]) -> None:
        """Change levels, all or nothing."""
        with self._transaction():
            self._db.executemany(
                "INSERT INTO feature_levels VALUES (?, ?, 1) ON CONFLICT (name) DO UPDATE"
                " SET level = excluded.level, changes = changes + 1",
                levels.items(),
            )

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise LogError(
                ErrorCode.KAFKA_STORAGE_ERROR,
                f"cannot write the broker's metadata database {self._path}: {error}",
                fix="Free space on its disk",
            ) from error
