"""The replication slot: what it is now, making it with an exported snapshot, dropping it.

PostgreSQL manual: "Logical Decoding Concepts", "Streaming Replication Protocol", view pg_replication_slots.
"""

import time
from dataclasses import dataclass
from typing import Any

from psycopg import errors, sql

from tailrace.changes import Lsn, TailraceError, format_lsn, parse_lsn
from tailrace.connectors.postgres.connection import Connection, simple_query

PLUGIN = "pgoutput"
_RELEASE_PATIENCE_S = 10.0
_CREATE_PATIENCE_S = 300.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Slot:
    """One row of pg_replication_slots, as far as we need it."""

    name: str
    plugin: str | None
    database: str | None
    active_pid: int | None
    restart_lsn: Lsn | None
    confirmed_flush: Lsn | None
    wal_status: str | None
    two_phase: bool


@dataclass(frozen=True, slots=True)
class SystemIdentity:
    """Which cluster this is and on which timeline (IDENTIFY_SYSTEM)."""

    system_id: str
    timeline: int

    def as_note(self) -> dict[str, Any]:
        return {"system_id": self.system_id, "timeline": self.timeline}


@dataclass(frozen=True, slots=True)
class CreatedSlot:
    """A new slot: changes after `consistent_point` are in the stream, all before are in the snapshot."""

    consistent_point: Lsn
    snapshot_name: str


def identify_system(replication: Connection) -> SystemIdentity:
    """The identity of the server behind a walsender session."""
    system_id, timeline, *_ = simple_query(replication, "IDENTIFY_SYSTEM")[0]
    return SystemIdentity(str(system_id), int(str(timeline)))


def read_slot(connection: Connection, name: str) -> Slot | None:
    """The slot as it is now, None when there is none."""
    row = connection.execute(
        "SELECT plugin, database, active_pid, restart_lsn::text, confirmed_flush_lsn::text, wal_status, "
        "two_phase "
        "FROM pg_replication_slots WHERE slot_name = %s",
        (name,),
    ).fetchone()
    if row is None:
        return None
    plugin, database, pid, restart, confirmed, wal_status, two_phase = row
    return Slot(name, plugin, database, pid, _lsn(restart), _lsn(confirmed), wal_status, bool(two_phase))


def wait_for_release(connection: Connection, name: str) -> Slot | None:
    """The slot once no walsender holds it, or still held after ten seconds; None when there is none.

    A process that was killed leaves its walsender behind until that one reads the end of the connection.
    """
    deadline = time.monotonic() + _RELEASE_PATIENCE_S
    while True:
        slot = read_slot(connection, name)
        if slot is None or slot.active_pid is None or time.monotonic() > deadline:
            return slot
        time.sleep(_POLL_S)


def describe_holder(connection: Connection, pid: int) -> str:
    """Who holds a slot, for a message: process id, application, address."""
    row = connection.execute(
        "SELECT application_name, client_addr::text, backend_start::text FROM pg_stat_activity WHERE pid = "
        "%s",
        (pid,),
    ).fetchone()
    if row is None:
        return f"pid {pid}"
    return f"pid {pid} (application {row[0] or 'unnamed'}, from {row[1] or 'a local socket'}, since {row[2]})"


def create_slot(connection: Connection, replication: Connection, name: str) -> CreatedSlot:
    """Create the slot on `replication`; the next command there ends the exported snapshot.

    Waits for the transactions that are running now to end.  TailraceError after five minutes, naming
    those that still run; no slot is left behind then.
    """
    deadline = time.monotonic() + _CREATE_PATIENCE_S

    def give_up_at_the_deadline() -> None:
        if time.monotonic() > deadline:
            raise TailraceError(
                f"slot {name} could not be created within {_CREATE_PATIENCE_S:.0f} s: "
                f"it waits for running transactions: {_running_transactions(connection)}",
                fix="end them (SELECT pg_terminate_backend(pid)) or wait for them, then start again",
            )

    # the option list in parentheses is newer than 14; this form works on all
    command = f'CREATE_REPLICATION_SLOT "{name}" LOGICAL {PLUGIN} EXPORT_SNAPSHOT'
    try:
        _, consistent_point, snapshot_name, _ = simple_query(replication, command, give_up_at_the_deadline)[0]
    except BaseException:
        replication.close()  # the server drops a slot that was not finished
        raise
    return CreatedSlot(parse_lsn(str(consistent_point)), str(snapshot_name))


def drop_slot(connection: Connection, name: str) -> None:
    """Drop our slot if it exists; psycopg's ObjectInUse when a walsender still holds it."""
    slot = wait_for_release(connection, name)
    if slot is None:
        return
    try:
        connection.execute(sql.SQL("SELECT pg_drop_replication_slot({})").format(sql.Literal(name)))
    except errors.UndefinedObject:
        return


def describe_position(slot: Slot) -> str:
    """confirmed_flush_lsn as Postgres writes it."""
    return "none" if slot.confirmed_flush is None else format_lsn(slot.confirmed_flush)


def _running_transactions(connection: Connection) -> str:
    rows = connection.execute(
        "SELECT pid, application_name, xact_start::text FROM pg_stat_activity "
        "WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() ORDER BY xact_start LIMIT 5"
    ).fetchall()
    return ", ".join(
        f"pid {pid} ({application or 'unnamed'}, since {since})" for pid, application, since in rows
    )


def _lsn(text: str | None) -> Lsn | None:
    return None if text is None else parse_lsn(text)
