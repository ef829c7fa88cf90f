"""ACLs, SCRAM credentials and quotas in the broker's metadata database (SQLite).

    acls                resource type, pattern type, resource name, principal, host, operation, permission
    scram_credentials   user name, mechanism, salt, stored key, server key, iterations
    client_quotas       entity (JSON: type -> name, null for the default), key, value
    pretend_key         one random key: what users who do not exist are asked with, see `scram.pretended`

The topic catalog made the file.  No password is stored, only what RFC 5802 calls StoredKey and ServerKey.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from tailrace.changes.errors import TailraceError
from tailrace.security.acls import Acl, Operation, PatternType, Permission, ResourceType
from tailrace.security.database import connect, transaction
from tailrace.security.scram import Credential, Mechanism

Entity = tuple[tuple[str, str | None], ...]
"""A quota's entity: (type, name) sorted by type; the name None is the default of the type."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS acls (
    resource_type INTEGER NOT NULL, pattern_type INTEGER NOT NULL, resource_name TEXT NOT NULL,
    principal TEXT NOT NULL, host TEXT NOT NULL, operation INTEGER NOT NULL, permission INTEGER NOT NULL,
    PRIMARY KEY (resource_type, pattern_type, resource_name, principal, host, operation, permission)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS scram_credentials (
    name TEXT NOT NULL, mechanism TEXT NOT NULL, salt BLOB NOT NULL, stored_key BLOB NOT NULL,
    server_key BLOB NOT NULL, iterations INTEGER NOT NULL, PRIMARY KEY (name, mechanism)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS client_quotas (
    entity TEXT NOT NULL, key TEXT NOT NULL, value REAL NOT NULL, PRIMARY KEY (entity, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pretend_key (one INTEGER PRIMARY KEY CHECK (one = 1), key BLOB NOT NULL) STRICT;
INSERT OR IGNORE INTO pretend_key VALUES (1, randomblob(32));
"""


class StoreError(TailraceError):
    """The metadata database cannot be written; nothing of the change counts."""


class SecurityStore:
    """What of security outlives the process; every change is durable on return, or raises StoreError."""

    def __init__(self, database: Path) -> None:
        self._path = database
        self._db = connect(database, _SCHEMA)

    def acls(self) -> list[Acl]:
        """Every rule."""
        rows = self._db.execute("SELECT * FROM acls").fetchall()
        return [
            Acl(ResourceType(kind), PatternType(pattern), name, who, host, Operation(what), Permission(way))
            for kind, pattern, name, who, host, what, way in rows
        ]

    def add_acls(self, acls: Iterable[Acl]) -> None:
        """Add rules that are not there."""
        with transaction(self._db, self._path, _refused):
            self._db.executemany("INSERT INTO acls VALUES (?, ?, ?, ?, ?, ?, ?)", map(_row, acls))

    def remove_acls(self, acls: Iterable[Acl]) -> None:
        """Remove rules."""
        with transaction(self._db, self._path, _refused):
            self._db.executemany(
                "DELETE FROM acls WHERE (resource_type, pattern_type, resource_name, principal, host,"
                " operation, permission) = (?, ?, ?, ?, ?, ?, ?)",
                map(_row, acls),
            )

    def credentials(self) -> dict[tuple[str, Mechanism], Credential]:
        """Every SCRAM credential by user name and mechanism."""
        rows = self._db.execute("SELECT * FROM scram_credentials").fetchall()
        return {
            (name, Mechanism(mechanism)): Credential(salt, stored_key, server_key, iterations)
            for name, mechanism, salt, stored_key, server_key, iterations in rows
        }

    def change_credentials(self, changes: Mapping[tuple[str, Mechanism], Credential | None]) -> None:
        """Set credentials, or remove those that are None, all or nothing."""
        with transaction(self._db, self._path, _refused):
            for (name, mechanism), made in changes.items():
                if made is None:
                    self._db.execute(
                        "DELETE FROM scram_credentials WHERE name = ? AND mechanism = ?", (name, mechanism)
                    )
                else:
                    self._db.execute(
                        "INSERT OR REPLACE INTO scram_credentials VALUES (?, ?, ?, ?, ?, ?)",
                        (name, mechanism, made.salt, made.stored_key, made.server_key, made.iterations),
                    )

    def pretend_key(self) -> bytes:
        """The key of `scram.pretended`: it stays, or a restart would tell who exists and who does not."""
        key: bytes = self._db.execute("SELECT key FROM pretend_key").fetchone()[0]
        return key

    def quotas(self) -> dict[Entity, dict[str, float]]:
        """Every quota by entity and key."""
        found: dict[Entity, dict[str, float]] = {}
        for raw, key, value in self._db.execute("SELECT * FROM client_quotas").fetchall():
            found.setdefault(tuple(sorted(json.loads(raw).items())), {})[key] = value
        return found

    def change_quotas(self, changes: Mapping[Entity, Mapping[str, float | None]]) -> None:
        """Set quotas, or remove those that are None, all or nothing."""
        with transaction(self._db, self._path, _refused):
            for entity, values in changes.items():
                raw = json.dumps(dict(entity), sort_keys=True)
                for key, value in values.items():
                    if value is None:
                        self._db.execute("DELETE FROM client_quotas WHERE entity = ? AND key = ?", (raw, key))
                    else:
                        self._db.execute(
                            "INSERT OR REPLACE INTO client_quotas VALUES (?, ?, ?)", (raw, key, value)
                        )

    def close(self) -> None:
        """Close the connection."""
        self._db.close()


def _refused(what: str, fix: str) -> StoreError:
    return StoreError(what, fix=fix)


def _row(acl: Acl) -> tuple[int, int, str, str, str, int, int]:
    return (
        acl.resource_type,
        acl.pattern_type,
        acl.resource_name,
        acl.principal,
        acl.host,
        acl.operation,
        acl.permission,
    )
