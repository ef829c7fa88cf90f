"""The broker's metadata database (SQLite): topics, configs, ACLs, credentials, quotas, each with a connection of its own.

WAL and synchronous=FULL: what is committed survives a power cut.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tailrace.changes.errors import TailraceError


def connect(path: Path, schema: str = "") -> sqlite3.Connection:
    """A connection for one thread at a time; `schema` makes the tables that are missing.  Raises TailraceError."""
    with opening(path):
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            if schema:
                db.executescript(f"BEGIN IMMEDIATE; {schema} COMMIT;")
        except BaseException:
            db.close()
            raise
        return db


@contextmanager
def opening(path: Path) -> Iterator[None]:
    """What SQLite says of a database that is being opened becomes a TailraceError."""
    try:
        yield
    except sqlite3.Error as error:
        raise TailraceError(
            f"the broker's metadata database {path} cannot be opened: {error}",
            fix="Free space on its disk, or restore it from a copy",
        ) from error


@contextmanager
def transaction(
    db: sqlite3.Connection, path: Path, refused: Callable[[str, str], TailraceError]
) -> Iterator[None]:
    """All or nothing, durable at the end; else what `refused` makes of the reason and the next step is raised."""
    try:
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
    except sqlite3.Error as error:
        what = f"cannot write the broker's metadata database {path}: {error}"
        raise refused(what, "Free space on its disk") from error
