"""The source part as a process: configuration, crash points, status, and sessions until it is stopped."""

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tailrace.broker.client import PLAINTEXT, BrokerError, BrokerUnavailableError, Client, ClientSecurity
from tailrace.broker.protocol.errors import ErrorCode
from tailrace.changes import ConfigError, TableId, TailraceError, format_lsn
from tailrace.changes.status import StatusFile
from tailrace.connectors.plugins import load_source
from tailrace.connectors.prepare import LogNames
from tailrace.connectors.session import Session
from tailrace.connectors.source import DiscoveredTable, Source, SourceContext, SourceUnavailable
from tailrace.registry.client import RegistryClient
from tailrace.registry.login import RegistryLogin

CRASH_POINTS = (
    "source.before_publication",
    "source.after_publication",
    "source.after_snapshot_started_record",
    "source.after_slot",
    "source.mid_copy",
    "source.after_copy_before_commit",
    "source.after_snapshot_commit",
    "source.before_produce",
    "source.after_produce_before_commit",
    "source.after_commit_before_confirm",
    "source.after_confirm",
)

_log = logging.getLogger(__name__)

_TICK_S = 0.2
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_FRUITLESS_SESSIONS = 5
"""So many sessions in a row may break without one commit before a broker's refusal is final."""
_LOST_PRODUCER = frozenset(
    {
        ErrorCode.INVALID_TXN_STATE,
        ErrorCode.INVALID_PRODUCER_ID_MAPPING,
        ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
        ErrorCode.UNKNOWN_PRODUCER_ID,
        ErrorCode.TRANSACTION_ABORTABLE,
    }
)
"""The broker has forgotten or ended this producer's transaction; a new session has a new one."""


@dataclass(frozen=True, slots=True)
class SourcePartConfig:
    """What the source process of a pipeline is told; plain data, so that it can cross a process boundary."""

    pipeline: str
    source_type: str
    """A name of the entry point group `tailrace.sources`."""
    options: Mapping[str, Any]
    """The source's own options, checked by its `Config`."""
    topics: Mapping[TableId, str]
    """Raw topic of each table."""
    control_topic: str
    bootstrap: str
    registry_url: str
    data_dir: Path
    tables_needing_keys: frozenset[TableId] = frozenset()
    """Tables that a mirror or a transform reads."""
    transformed_tables: Mapping[TableId, str] = field(default_factory=dict)
    """Tables that transforms read, with their SQL: they see whole rows only, and no TRUNCATE."""
    partitions: int = 1
    """Partitions of a raw topic that does not exist yet."""
    retention_ms: int = 7 * 24 * 3600 * 1000
    """How long a raw topic keeps its full history; after that the latest row of every key."""
    security: ClientSecurity = PLAINTEXT
    """How to connect to the brokers."""
    registry_login: RegistryLogin | None = None
    """How to get into the registry."""


def run(config: SourcePartConfig, stop: threading.Event) -> None:
    """Publish the source's changes until `stop` is set.

    Returns after a clean stop: everything that was read is either committed and confirmed, or will be read
    again.  A lost source or broker is tried again with growing pauses for as long as it takes, once a session
    has run; before that it is a ConfigError, so that a wrong address is told at once.  Raises TailraceError
    when a person must act.
    """
    _Part(config, stop).run()


class _Part:
    def __init__(self, config: SourcePartConfig, stop: threading.Event) -> None:
        self._config = config
        self._stop = stop
        self._status = StatusFile(config.data_dir, "source")
        self._session: Session | None = None
        self._source: Source | None = None
        self._tables: list[DiscoveredTable] = []
        self._changes: Counter[TableId] = Counter()
        self._fruitless = 0

    def run(self) -> None:
        pause = _FIRST_PAUSE_S
        self._status.write("starting", **self._fields())
        while not self._stop.is_set():
            try:
                self._run_session()
            except TailraceError as error:
                productive = self._account()
                self._fruitless = 0 if productive else self._fruitless + 1
                if not self._may_try_again(error):
                    if error.retriable:  # tried often enough: a person must look
                        raise ConfigError(error.what, fix=error.fix) from error
                    raise
                pause = _FIRST_PAUSE_S if productive else min(2 * pause, _LONGEST_PAUSE_S)
                _log.warning("%s; trying again in %.1f s", error, pause)
                self._status.write("waiting", error=str(error), **self._fields())
                self._stop.wait(pause)
        self._account()
        self._status.write("stopped", **self._fields())

    def _run_session(self) -> None:
        config = self._config
        context = SourceContext(config.pipeline, config.data_dir / "source", config.tables_needing_keys)
        plugin = load_source(config.source_type)
        self._source = source = plugin(_checked_options(plugin, config.options), context)
        names = LogNames(
            config.pipeline,
            config.topics,
            config.control_topic,
            config.partitions,
            config.retention_ms,
            config.transformed_tables,
        )
        with (
            Client(
                config.bootstrap, client_id=f"tailrace-source-{config.pipeline}", security=config.security
            ) as client,
            contextlib.closing(RegistryClient(config.registry_url, login=config.registry_login)) as registry,
        ):
            self._session = session = Session(client, registry, names, source)
            reporter = threading.Thread(target=self._report, args=(session,), name="status")
            reporter.start()
            try:
                session.run(self._stop)
            finally:
                session.over.set()
                reporter.join()

    def _may_try_again(self, error: TailraceError) -> bool:
        if isinstance(error, SourceUnavailable):
            return self._is_known()
        if isinstance(error, BrokerUnavailableError):
            return True
        lost = isinstance(error, BrokerError) and error.error in _LOST_PRODUCER
        return (lost or error.retriable) and self._fruitless < _FRUITLESS_SESSIONS

    def _is_known(self) -> bool:
        """Whether the source was ever reached; if not, its address is more likely wrong than it is down."""
        session = self._session
        return session is not None and (
            session.checked or (session.log is not None and bool(session.log.notes))
        )

    def _account(self) -> bool:
        """Add the ended session's counters to ours; whether it committed anything."""
        session = self._session
        if session is None:
            return False
        self._changes.update(session.changes)
        session.changes.clear()
        productive, session.transactions = session.transactions > 0, 0
        return productive

    def _report(self, session: Session) -> None:
        assert self._source is not None
        while not session.over.wait(_TICK_S):
            if not self._status.due():
                continue
            if not self._tables and session.log is not None:
                self._tables = _discovered(self._source)
            fields = self._fields()
            caught_up = fields["lag_bytes"] == 0
            self._status.write("caught_up" if caught_up else self._source.progress().state, **fields)

    def _fields(self) -> dict[str, Any]:
        source, session = self._source, self._session
        progress = None if source is None else source.progress()
        position = None if session is None else session.position
        timestamp = 0 if session is None else session.timestamp
        received = None if progress is None else progress.received
        confirmed = None if progress is None else progress.confirmed
        estimates = {table.schema.id: table.estimated_rows for table in self._tables}
        changes = self._changes + (Counter() if session is None else session.changes)
        snapshot = {} if progress is None else progress.snapshot_rows
        return {
            "position": position,
            "position_lsn": _shown(position),
            "received_lsn": _shown(received),
            "confirmed_lsn": _shown(confirmed),
            "lag_bytes": max(0, received - position) if received and position else None,
            "freshness_s": round(max(0.0, time.time() - timestamp / 1_000_000), 3) if timestamp else None,
            "tables": {
                str(table): {
                    "topic": topic,
                    "snapshot_rows": snapshot.get(table, 0),
                    "snapshot_estimate": estimates.get(table),
                    "changes": changes[table],
                }
                for table, topic in self._config.topics.items()
            },
        }


def _discovered(source: Source) -> list[DiscoveredTable]:
    """Row estimates are worth a try, but no reason to stop."""
    try:
        return source.discover()
    except TailraceError as error:
        _log.info("no row estimates: %s", error)
        return []


def _checked_options(plugin: type[Source], options: Mapping[str, Any]) -> Any:
    try:
        return plugin.Config.model_validate(options)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(step) for step in problem['loc'])}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise ConfigError(f"the options of the source are wrong: {problems}") from None


def _shown(position: int | None) -> str | None:
    return None if position is None else format_lsn(position)
