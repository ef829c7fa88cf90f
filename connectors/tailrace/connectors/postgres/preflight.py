"""Every reason not to start, found before anything is created; each names the repair, mostly as SQL.

All checks only read.  They run at every start: a server may be restored, reconfigured or failed over in
between.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from psycopg import sql

from tailrace.changes import ConfigError, TableId, format_lsn
from tailrace.connectors.postgres.config import PostgresConfig
from tailrace.connectors.postgres.connection import Connection, connect_replication
from tailrace.connectors.postgres.publication import (
    Publication,
    add_statement,
    create_statement,
    missing_tables,
    read_publication,
    unfit,
)
from tailrace.connectors.postgres.slot import (
    PLUGIN,
    Slot,
    SystemIdentity,
    describe_holder,
    describe_position,
    identify_system,
    wait_for_release,
)
from tailrace.connectors.postgres.snapshot_note import SnapshotNote
from tailrace.connectors.postgres.tables import TableFacts, read_facts, similar_tables
from tailrace.connectors.source import Finding, LogState, SourceContext

_OLDEST_SERVER = 140000
# Earlier minor releases can lose changes of transactions that were open during a DDL (release notes of May
# 2025).
_SAFE_MINORS = {14: 18, 15: 13, 16: 9, 17: 5}


@dataclass(frozen=True, slots=True)
class Preflight:
    """The checks of one start, on one open session."""

    connection: Connection
    config: PostgresConfig
    context: SourceContext

    def findings(self, log: LogState | None) -> list[Finding]:
        """All of them, errors first."""
        server = [*self._server()]
        found = [*server, *self._tables()]
        if log is not None:
            found += self._slot(log)
        if not any(finding.level == "error" for finding in server):
            found += self._replication(log)
        return sorted(found, key=lambda finding: finding.level)

    def _replication(self, log: LogState | None) -> Iterator[Finding]:
        """Whether a walsender session can be had, and whether it is the cluster that the log came from."""
        try:
            with connect_replication(self.config) as replication:
                system = identify_system(replication)
        except ConfigError as error:
            yield Finding("error", error.what, error.fix)
            return
        if log is not None:
            yield from self._same_source(log, system)

    def _server(self) -> Iterator[Finding]:
        row = self.connection.execute(
            "SELECT current_setting('wal_level'), pg_is_in_recovery(), current_user, "
            "(SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user) "
            "OR EXISTS (SELECT FROM pg_roles r WHERE r.rolname IN ('rds_replication', 'azure_pg_admin') "
            "AND pg_has_role(r.oid, 'USAGE')), pg_encoding_to_char(encoding) FROM pg_database "
            "WHERE datname = current_database()"
        ).fetchone()
        assert row is not None
        wal_level, in_recovery, user, may_replicate, encoding = row
        version = self.connection.info.server_version
        major, minor = divmod(version, 10000)
        if version < _OLDEST_SERVER:
            yield Finding("error", f"the server is Postgres {major}", "upgrade to Postgres 14 or newer")
        elif minor < _SAFE_MINORS.get(major, 0):
            yield Finding(
                "warning",
                f"Postgres {major}.{minor} can lose changes in logical decoding when a table is altered "
                "while "
                "transactions are open (fixed in May 2025)",
                f"update to {major}.{_SAFE_MINORS[major]} or newer",
            )
        if in_recovery:
            yield Finding("error", "the server is a standby", "point `dsn` at the primary")
        if wal_level != "logical":
            yield Finding(
                "error",
                f"wal_level is {wal_level}, so the WAL does not hold what logical decoding needs",
                "ALTER SYSTEM SET wal_level = 'logical', then restart the server",
            )
        if not may_replicate:
            role = sql.Identifier(user).as_string()
            yield Finding("error", f"role {user} may not replicate", f"ALTER ROLE {role} REPLICATION")
        if encoding == "SQL_ASCII":
            yield Finding(
                "warning",
                "the database has encoding SQL_ASCII: bytes that are not UTF-8 stop the source",
                "exclude such columns, or convert the database",
            )

    def _tables(self) -> Iterator[Finding]:
        options = self.config.table_options()
        facts = read_facts(self.connection, options)
        for table in options:
            if table not in facts:
                yield self._missing(table)
                continue
            yield from self._table(facts[table])
        publication = read_publication(self.connection, self.config.publication_name(self.context.pipeline))
        readable = [table for table in options if table in facts and facts[table].kind in "rp"]
        partitioned = [table for table in readable if facts[table].is_partitioned]
        if publication is not None:
            yield from unfit(publication, readable, partitioned)
        yield from self._publication_rights(publication, readable, facts)

    def _missing(self, table: TableId) -> Finding:
        names = [str(similar) for similar in similar_tables(self.connection, table)]
        near = difflib.get_close_matches(str(table), names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "create it, or take it out of `tables`"
        return Finding(
            "error", f"table {table} does not exist in database {self.connection.info.dbname}", hint
        )

    def _table(self, facts: TableFacts) -> Iterator[Finding]:
        name = sql.Identifier(facts.id.namespace, facts.id.name).as_string()
        if facts.kind not in "rp":
            yield Finding("error", f"{facts.id} is not a table", "read the tables it is made from")
            return
        if facts.persistence != "p":
            yield Finding(
                "error",
                f"table {facts.id} is unlogged or temporary, so its changes are not in the WAL",
                f"ALTER TABLE {name} SET LOGGED, or take it out of `tables`",
            )
        if not facts.readable:
            role = sql.Identifier(self.connection.info.user).as_string()
            schema = sql.Identifier(facts.id.namespace).as_string()
            yield Finding(
                "error",
                f"role {self.connection.info.user} may not read table {facts.id}",
                f"GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT ON {name} TO {role}",
            )
        if facts.rows_hidden:
            role = sql.Identifier(self.connection.info.user).as_string()
            yield Finding(
                "error",
                f"a row security policy hides rows of {facts.id} from role {self.connection.info.user}",
                f"ALTER ROLE {role} BYPASSRLS",
            )
        yield from self._columns(facts)
        yield from self._key(facts, name)

    def _columns(self, facts: TableFacts) -> Iterator[Finding]:
        options = self.config.table_options()[facts.id]
        for option, columns in (
            ("exclude", options.exclude),
            ("as_text", options.as_text),
            ("key", options.key),
        ):
            unknown = [column for column in columns if column not in facts.columns]
            if unknown:
                yield Finding(
                    "error",
                    f"table {facts.id} has no column {', '.join(unknown)}, named under `{option}`",
                    f"its columns are {', '.join(facts.columns)}",
                )
        key = facts.key(options.key)
        excluded_key = [column for column in key if column in options.exclude]
        if excluded_key:
            yield Finding(
                "error",
                f"`exclude` of table {facts.id} names the key column {', '.join(excluded_key)}",
                "keep key columns: without them no row can be found again",
            )

    def _key(self, facts: TableFacts, name: str) -> Iterator[Finding]:
        asked = self.config.table_options()[facts.id].key
        key = facts.key(asked)
        if asked and key != asked:
            yield Finding(
                "error",
                f"the replica identity of {facts.id} does not cover the key ({', '.join(asked)})",
                f"ALTER TABLE {name} REPLICA IDENTITY FULL",
            )
        nullable = [column for column in key if column not in facts.not_null]
        if nullable:
            yield Finding(
                "error",
                f"the key column {', '.join(nullable)} of {facts.id} may be null",
                f"ALTER TABLE {name} ALTER COLUMN {sql.Identifier(nullable[0]).as_string()} SET NOT NULL",
            )
        if not key and not asked and facts.id in self.context.tables_needing_keys:
            yield Finding(
                "error",
                f"table {facts.id} has no primary key, and a mirror cannot find its rows again without one",
                f"ALTER TABLE {name} ADD PRIMARY KEY (...), or load it in append mode",
            )
        if not facts.identity_columns:
            yield Finding(
                "warning",
                f"table {facts.id} has no replica identity: once published, Postgres refuses every UPDATE "
                "and DELETE on it",
                f"ALTER TABLE {name} REPLICA IDENTITY FULL",
            )

    def _publication_rights(
        self, publication: Publication | None, tables: list[TableId], facts: Mapping[TableId, TableFacts]
    ) -> Iterator[Finding]:
        name = self.config.publication_name(self.context.pipeline)
        missing = tables if publication is None else missing_tables(publication, tables)
        if not missing:
            return
        statement = create_statement(name, tables) if publication is None else add_statement(name, missing)
        row = self.connection.execute(
            "SELECT has_database_privilege(current_database(), 'CREATE'), "
            "(SELECT rolsuper FROM pg_roles WHERE rolname = current_user)"
        ).fetchone()
        assert row is not None
        may_create, superuser = row
        foreign = [table for table in missing if not facts[table].owned]
        if superuser:
            return
        if foreign or (publication is None and not may_create):
            reason = (
                f"does not own {', '.join(map(str, foreign))}"
                if foreign
                else "may not create publications here"
            )
            yield Finding(
                "error",
                f"publication {name} must carry {', '.join(map(str, missing))}, and role "
                f"{self.connection.info.user} {reason}",
                f"let the owner run: {statement.as_string()}",
            )

    def _slot(self, log: LogState) -> Iterator[Finding]:
        name = self.config.slot_name(self.context.pipeline)
        note = SnapshotNote.of(log)
        slot = wait_for_release(self.connection, name)
        if slot is None:
            yield from self._absent_slot(name, note, log)
            return
        drop = f"SELECT pg_drop_replication_slot('{name}')"
        if slot.plugin != PLUGIN or slot.database != self.connection.info.dbname:
            yield Finding(
                "error",
                f"slot {name} is of plugin {slot.plugin} in database {slot.database}; ours is {PLUGIN} in "
                f"{self.connection.info.dbname}",
                f"set another name under `slot`, or, if nobody needs it: {drop}",
            )
            return
        if slot.active_pid is not None:
            yield Finding(
                "error",
                f"slot {name} is held by {describe_holder(self.connection, slot.active_pid)}",
                f"stop that process, or: SELECT pg_terminate_backend({slot.active_pid})",
            )
        if note is None:
            yield Finding(
                "error",
                f"slot {name} exists, but the log of pipeline {self.context.pipeline} knows nothing of it: "
                "it belongs to "
                "another pipeline, or the log was removed",
                f"set another name under `slot`, or start anew with: {drop}",
            )
        elif note.slot != name:  # an unfinished snapshot would begin by dropping it
            yield Finding(
                "error",
                f"slot {name} exists, but pipeline {self.context.pipeline} made slot {note.slot}",
                f"set {note.slot} under `slot`",
            )
        elif note.is_done:
            yield from self._unfit_slot(slot, log, drop)

    def _absent_slot(self, name: str, note: SnapshotNote | None, log: LogState) -> Iterator[Finding]:
        if note is not None and note.is_done:
            position = "none" if log.position is None else format_lsn(log.position)
            yield Finding(
                "error",
                f"slot {name} is gone, but the log stands at {position}: the changes since then cannot be "
                "read any more",
                "take a new initial snapshot: start the pipeline with a new data directory (or another "
                "pipeline name)",
            )
        row = self.connection.execute(
            "SELECT current_setting('max_replication_slots')::int, count(*) FROM pg_replication_slots"
        ).fetchone()
        assert row is not None
        limit, used = row
        if used >= limit:
            yield Finding(
                "error",
                f"all {limit} replication slots of the server are in use (max_replication_slots)",
                "drop one that nobody needs (SELECT slot_name, active FROM pg_replication_slots), or "
                f"ALTER SYSTEM SET max_replication_slots = {limit + 10} and restart the server",
            )

    def _unfit_slot(self, slot: Slot, log: LogState, drop: str) -> Iterator[Finding]:
        if slot.wal_status == "lost":
            yield Finding(
                "error",
                f"slot {slot.name} is lost: the server removed WAL that it still needed "
                "(max_slot_wal_keep_size)",
                f"raise max_slot_wal_keep_size, then {drop} and start the pipeline with a new data directory",
            )
        if slot.two_phase:
            yield Finding("error", f"slot {slot.name} decodes at PREPARE (two_phase)", drop)
        position = log.position or 0
        if slot.confirmed_flush is not None and slot.confirmed_flush > position:
            yield Finding(
                "error",
                f"SLOT_AHEAD: slot {slot.name} stands at {describe_position(slot)}, the log only at "
                f"{format_lsn(position)}; "
                f"the changes between them cannot be read any more",
                "something else read from the slot, or the log was restored from an older copy. Put the "
                "newer log "
                f"back, or {drop} and start the pipeline with a new data directory",
            )

    def _same_source(self, log: LogState, system: SystemIdentity) -> Iterator[Finding]:
        note = SnapshotNote.of(log)
        if note is None or not note.is_done:
            return
        if note.system.system_id != system.system_id:
            yield Finding(
                "error",
                f"this is another Postgres cluster (system identifier {system.system_id}) than the one "
                "in the log "
                f"({note.system.system_id})",
                "point `dsn` at the cluster that the log came from, or start a new pipeline for this one",
            )
        elif note.system.timeline != system.timeline:
            yield Finding(
                "error",
                f"the cluster is on timeline {system.timeline}, the log was taken on "
                f"{note.system.timeline}: it was "
                "restored from a backup or failed over, and may have lost changes that the log holds",
                "start the pipeline with a new data directory",
            )
        added = [str(table) for table in self.config.table_options() if table not in note.tables]
        if added:
            yield Finding(
                "error",
                f"{', '.join(added)} came into `tables` after the initial snapshot, which therefore does "
                "not hold its rows",
                "take it out again, or read it in a pipeline of its own",
            )
