"""What clients set on the cluster itself, in the broker's metadata database (SQLite).

    resource_configs    resource type, resource name, name, value    configs of what is no topic and no broker
    feature_levels      name, level, changes                         levels that were changed, and how often

The topic catalog made the file.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tailrace.broker.log.errors import storage_error
from tailrace.security.database import connect, transaction

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
        self._db = connect(database, _SCHEMA)
        for kind, resource, name, value in self._db.execute("SELECT * FROM resource_configs"):
            self._configs.setdefault((kind, resource), {})[name] = value

    def configs(self, resource_type: int, resource: str) -> Mapping[str, str]:
        """What is set on a resource."""
        return dict(self._configs.get((resource_type, resource), {}))

    def resources(self, resource_type: int) -> Sequence[str]:
        """The resources of a type that have something set, by name."""
        return sorted(name for kind, name in self._configs if kind == resource_type)

    def set_configs(self, resource_type: int, resource: str, configs: Mapping[str, str]) -> None:
        """Replace what is set on a resource."""
        with transaction(self._db, self._path, storage_error):
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
        with transaction(self._db, self._path, storage_error):
            self._db.executemany(
                "INSERT INTO feature_levels VALUES (?, ?, 1) ON CONFLICT (name) DO UPDATE"
                " SET level = excluded.level, changes = changes + 1",
                levels.items(),
            )

    def close(self) -> None:
        """Close the connection."""
        self._db.close()
