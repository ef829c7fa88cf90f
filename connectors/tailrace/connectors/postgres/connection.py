"""Opening connections to the source: one set of session settings, one reading of what a failure means.

Snapshot (COPY) and stream (pgoutput) must render a value alike, so every session gets the same output
settings;
a session that holds a snapshot or a slot must not be ended by an idle timeout that a role or database has
set.
"""

import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors, pq
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow

from tailrace.changes import ConfigError, TailraceError
from tailrace.connectors.postgres.config import PostgresConfig, redacted
from tailrace.connectors.source import SourceUnavailable

Connection = psycopg.Connection[TupleRow]

_SETTINGS = {
    "search_path": "pg_catalog",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "3",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    # a policy would hide rows from the snapshot; with this, Postgres raises an error instead
    "row_security": "off",
}
_NEWER_SETTINGS = ((140000, "idle_session_timeout"), (170000, "transaction_timeout"))
_CONNECT_TIMEOUT_S = 10
# admin shutdown, crash shutdown, cannot connect now, idle session timeout, too many connections, object in use
_RETRIABLE_STATES = frozenset({"57P01", "57P02", "57P03", "57P05", "53300", "55006"})
_POLL_S = 0.1

# What libpq says when a retry cannot help; it offers no SQLSTATE for a failed start-up.
_FINAL_REFUSALS = (
    ("password authentication failed", "check user and password in `dsn`"),
    ("no password supplied", "put a password into `dsn`, PGPASSWORD or a password file"),
    ("does not exist", "check database and user in `dsn`"),
    ("pg_hba.conf", "let this host and user in, for the database and for replication, in pg_hba.conf"),
    ("could not translate host name", "check the host in `dsn`"),
    ("failed to resolve host", "check the host in `dsn`"),
    ("does not support SSL", "set sslmode in `dsn` to what the server offers"),
    ("certificate", "check the SSL settings in `dsn`"),
    ("must be superuser or replication role", "ALTER ROLE ... REPLICATION"),
    ("permission denied to start WAL sender", "ALTER ROLE ... REPLICATION"),
)


def connect(config: PostgresConfig) -> Connection:
    """A plain session in autocommit mode; ConfigError or SourceUnavailable when it cannot be had."""
    return _open(config, {})


def connect_replication(config: PostgresConfig) -> Connection:
    """A walsender session (simple queries only); GSS encryption off, because the raw socket is read later."""
    return _open(config, {"replication": "database", "gssencmode": "disable"})


def simple_query(
    connection: Connection, command: str, while_waiting: Callable[[], None] | None = None
) -> list[list[str | None]]:
    """Run one command by the simple protocol, as a walsender wants it; rows as text.

    `while_waiting` is called about ten times a second until the answer comes; what it raises ends the wait.
    Raises the psycopg error of the server's SQLSTATE, SourceUnavailable when the connection is gone.
    """
    with readable_errors():
        connection.pgconn.send_query(command.encode())
        results = []
        while (result := next_result(connection, while_waiting)) is not None:
            results.append(result)
    for result in results:
        if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
            state = result.error_field(pq.DiagnosticField.SQLSTATE)
            raise server_error(state.decode() if state else None, _first_line(result.get_error_message()))
    last = results[-1]
    return [
        [_text(last.get_value(row, column)) for column in range(last.nfields)] for row in range(last.ntuples)
    ]


def next_result(
    connection: Connection, while_waiting: Callable[[], None] | None = None
) -> pq.abc.PGresult | None:
    """The next result of what was sent; libpq's own wait would hold the GIL, and so every thread."""
    pgconn = connection.pgconn
    while pgconn.is_busy():
        if select.select([pgconn.socket], [], [], _POLL_S)[0]:
            pgconn.consume_input()
        elif while_waiting is not None:
            while_waiting()
    return pgconn.get_result()


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turn psycopg's errors into ours: SourceUnavailable where a retry may help, TailraceError otherwise."""
    try:
        yield
    except psycopg.Error as error:
        raise readable(error.sqlstate, _first_line(error)) from error


def readable(state: str | None, message: str) -> TailraceError:
    """What an error of the server (or, without SQLSTATE, of the connection) means for a person."""
    if state is None or state[:2] == "08":
        return SourceUnavailable(f"the connection to Postgres was lost: {message}")
    if state in _RETRIABLE_STATES:
        return SourceUnavailable(f"Postgres ended the session: {message}")
    return TailraceError(f"Postgres refused: {message} (SQLSTATE {state})")


def _open(config: PostgresConfig, extra: dict[str, Any]) -> Connection:
    parameters = {"client_encoding": "UTF8", "application_name": "tailrace", **extra}
    conninfo = config.dsn.get_secret_value()
    if "connect_timeout" not in conninfo:
        parameters["connect_timeout"] = _CONNECT_TIMEOUT_S
    try:
        connection = psycopg.connect(make_conninfo(conninfo, **parameters), autocommit=True)
    except psycopg.OperationalError as error:
        raise _refusal(config, error) from None
    settings = dict(_SETTINGS)
    settings |= {name: "0" for since, name in _NEWER_SETTINGS if connection.info.server_version >= since}
    try:
        simple_query(
            connection, "; ".join(f"SET {name} = {_literal(value)}" for name, value in settings.items())
        )
    except BaseException:
        connection.close()
        raise
    return connection


def server_error(state: str | None, message: str) -> psycopg.Error | SourceUnavailable:
    """The psycopg class of the SQLSTATE, so that callers can tell them apart."""
    if state is None:
        return SourceUnavailable(f"the connection to Postgres was lost: {message}")
    try:
        return errors.lookup(state)(message)
    except KeyError:
        return psycopg.DatabaseError(f"{message} (SQLSTATE {state})")


def _refusal(config: PostgresConfig, error: psycopg.OperationalError) -> TailraceError:
    what = f"cannot connect to Postgres ({redacted(config.dsn)}): {_first_line(error)}"
    for words, fix in _FINAL_REFUSALS:
        if words in str(error):
            return ConfigError(what, fix=fix)
    return SourceUnavailable(what, fix="check that the server runs and that host and port in `dsn` are right")


def _first_line(error: object) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()
