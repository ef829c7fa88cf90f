"""pgoutput messages in, change sets out: the whole of the stream's decoding, without I/O of its own.

Speaks protocol versions 1 and 2 (with and without `streaming 'on'`), `binary` on or off.

A fed block is cut at stream control messages.  Between them stand plain transactions: those that are complete are
decoded together, the open one at the end waits in a spool, as streamed ones do per transaction.  A decoded run is
cut where a table changes its shape or is truncated; inside such a segment rows are grouped by table, each table's
cells are located by one walk, and each column is decoded by one compiled loop.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tailrace.changes import ChangeBatch, ChangeSet, Lsn, TableId, TailraceError, Truncate
from tailrace.connectors.postgres.assemble import assemble, relaxed_plan
from tailrace.connectors.postgres.pgoutput import (
    BEGIN,
    COMMIT,
    RELATION,
    STREAM_ABORT,
    STREAM_CONTROL,
    STREAM_START,
    STREAM_STOP,
    TURNING_POINT,
    Messages,
    Transactions,
    aborted_subxid,
    begun_xid,
    commit_of,
    messages_of,
    number_changes,
    sort_rows,
    transactions_of,
    truncated_oids,
    xid_of,
)
from tailrace.connectors.postgres.relation import Relation, parse_relation
from tailrace.connectors.postgres.spool import Spool, SpoolRoom
from tailrace.connectors.postgres.type_plan import Resolver, TablePlan
from tailrace.connectors.postgres.walk import BrokenTuple, Walked, walk
from tailrace.connectors.postgres.wire import Bytes, Offsets

DEFAULT_MEMORY_LIMIT = 64 << 20
DEFAULT_PIECE_BYTES = 16 << 20

_Change = ChangeBatch | Truncate
_Indexes = npt.NDArray[np.int64]


class NeedsTextFormat(TailraceError):
    """A table of the stream now has a column whose binary form we cannot read.

    Not for people: close the connection and start again from the durable position with `binary 'false'`.
    """


class StreamDecoder:
    """Decodes one connection's stream; make a new one for each connection.

    resolve        gives the plan of a table at each Relation message that is new or changed.
    spool_dir      where transactions go that are too large for memory; the files have no name and vanish
                   with the process.
    skip_through   transactions that end at or before this LSN are dropped (a slot may be behind the log).
    memory_limit   bytes of raw messages of open transactions held in memory, over all of them.
    piece_bytes    raw bytes decoded at once, of a transaction too large to be decoded whole.
    binary         the connection asked for `binary 'true'`.
    """

    def __init__(
        self,
        resolve: Resolver,
        spool_dir: Path,
        *,
        binary: bool,
        skip_through: Lsn = 0,
        memory_limit: int = DEFAULT_MEMORY_LIMIT,
        piece_bytes: int = DEFAULT_PIECE_BYTES,
    ) -> None:
        self._tables = _Tables(resolve, binary)
        self._skip_through = skip_through
        self._piece_bytes = piece_bytes
        self._room = SpoolRoom(spool_dir, memory_limit)
        self._open: Spool | None = None
        self._open_xid = 0
        self._streamed: dict[int, Spool] = {}
        self._receiving: Spool | None = None
        """Of the streamed block that has started and not stopped."""

    @property
    def in_transaction(self) -> bool:
        """Whether a begin was fed, but not yet its commit; a keepalive's WAL end is then no position."""
        return self._open is not None or self._receiving is not None

    @property
    def open_streamed(self) -> int:
        """Transactions in progress at the server whose first changes are in the spool."""
        return len(self._streamed)

    @property
    def spooled_bytes(self) -> int:
        """Raw bytes of open transactions now held, in memory and in files."""
        return self._room.nbytes

    def feed(self, block: Bytes, starts: Offsets, ends: Offsets) -> Iterator[ChangeSet]:
        """Decode the messages block[starts[i]:ends[i]], in order (see `frames.scan_frames`).

        Yields, in commit order, the transactions that are complete now: as a rule ONE set for all of them,
        with the last one's end LSN as position.  A transaction larger than `piece_bytes` comes in pieces,
        all but the last with position None.  A set without changes: nothing up to its position is for us.

        Use up the iterator before the next call; the block may be reused then.  Between two yields is the
        place to answer keepalives.  Raises SourceDataError (table, column, LSN), NeedsTextFormat, and
        TailraceError when the spool's disk is full.
        """
        messages = messages_of(block, starts, ends)
        at = 0
        for index in np.flatnonzero(STREAM_CONTROL[messages.kinds]).tolist():
            yield from self._between(messages[at:index])
            yield from self._control(messages, index)
            at = index + 1
        yield from self._between(messages[at:])

    def close(self) -> None:
        """Free the spool."""
        self._room.close()

    def _between(self, messages: Messages) -> Iterator[ChangeSet]:
        """Messages without stream control among them."""
        if self._receiving is not None:
            if len(messages):
                self._receiving.append(messages)
            return
        commits = np.flatnonzero(messages.kinds == COMMIT)
        complete = int(commits[-1]) + 1 if commits.size else 0
        whole = messages[:complete]
        if complete and self._open is not None:
            spool, self._open = self._open, None
            first = int(commits[0]) + 1
            transaction = commit_of(messages, first - 1, self._open_xid)
            if spool.nbytes + whole.nbytes <= self._piece_bytes:
                spool.append(whole)
                (whole,) = spool.pieces(2 * self._piece_bytes)
            else:
                spool.append(whole[:first])
                yield from self._decode_spool(spool, transaction)
                whole = whole[first:]
            spool.close()
        if len(whole):
            yield from self._decode_plain(whole)
        self._hold(messages[complete:])

    def _hold(self, messages: Messages) -> None:
        """Keep the messages of the open transaction."""
        if self._open is None:
            begins = np.flatnonzero(messages.kinds == BEGIN)
            if not begins.size:
                return
            messages = messages[int(begins[0]) :]
            self._open = self._room.open(0)
            self._open_xid = begun_xid(messages, 0)
        if len(messages):
            self._open.append(messages)

    def _control(self, messages: Messages, index: int) -> Iterator[ChangeSet]:
        kind = messages.kinds[index]
        if kind == STREAM_STOP:
            self._receiving = None
            return
        xid = xid_of(messages, index)
        if kind == STREAM_START:
            if xid not in self._streamed:
                self._streamed[xid] = self._room.open(4)
            self._receiving = self._streamed[xid]
        elif kind == STREAM_ABORT:
            spool = self._streamed.get(xid)
            subxid = aborted_subxid(messages, index)
            if spool is not None and subxid != xid:
                spool.abort(subxid)
            elif spool is not None:
                self._streamed.pop(xid).close()
        else:
            spool = self._streamed.pop(xid, None) or self._room.open(4)
            yield from self._decode_spool(spool, commit_of(messages, index, xid))
            spool.close()

    def _decode_plain(self, messages: Messages) -> Iterator[ChangeSet]:
        """A run of complete plain transactions: one set."""
        transactions, owner = transactions_of(messages)
        decoder = _RunDecoder(self._tables, transactions, self._skip_through)
        changes = decoder.decode(messages, owner)
        if (position := int(transactions.lsn[-1])) > self._skip_through:
            yield ChangeSet(changes, position, int(transactions.timestamp[-1]))

    def _decode_spool(self, spool: Spool, transaction: Transactions) -> Iterator[ChangeSet]:
        """One transaction from its spool, in pieces; its position comes with the last one."""
        decoder = _RunDecoder(self._tables, transaction, self._skip_through)
        position, timestamp = int(transaction.lsn[0]), int(transaction.timestamp[0])
        before: tuple[_Change, ...] | None = None
        for piece in spool.pieces(self._piece_bytes):
            if before:
                yield ChangeSet(before, None, timestamp)
            before = decoder.decode(piece, np.zeros(len(piece), np.int64))
        if position > self._skip_through:
            yield ChangeSet(before or (), position, timestamp)


class _Tables:
    """The tables that the stream has declared, and their plans."""

    def __init__(self, resolve: Resolver, binary: bool) -> None:
        self._resolve = resolve
        self._binary = binary
        self._relations: dict[int, Relation] = {}
        self._plans: dict[int, TablePlan | None] = {}
        self._relaxed: dict[int, frozenset[str]] = {}
        self.oids = np.empty(0, np.int64)
        """Declared relations, ascending."""

    def plan(self, oid: int) -> TablePlan | None:
        """The plan in force; None for a table that is not ours."""
        return self._plans.get(oid)

    def is_declared(self, relation: Relation) -> bool:
        return self._relations.get(relation.oid) == relation

    def declare(self, relation: Relation) -> None:
        """From here on the table has this shape."""
        plan = self._resolve(relation)
        if plan is not None and self._binary and not plan.binary:
            unreadable = next(column for column in plan.columns if not column.binary)
            raise NeedsTextFormat(
                f"the stream sends {unreadable.pg_type} of {plan.id}.{unreadable.name} in binary",
                fix="the source starts again in text format",
            )
        if plan is not None and (names := self._relaxed.get(relation.oid)):
            plan = plan.relaxed(names)
        self._relations[relation.oid] = relation
        self._plans[relation.oid] = plan
        self.oids = np.array(sorted(self._relations), np.int64)

    def relax(self, oid: int, plan: TablePlan, walked: Walked) -> TablePlan:
        """The plan in force, with columns nullable that hold nulls in these rows; they stay so."""
        relaxed = relaxed_plan(plan, walked)
        if relaxed is not plan:
            names = {c.name for c, old in zip(relaxed.columns, plan.columns, strict=True) if c != old}
            self._relaxed[oid] = self._relaxed.get(oid, frozenset()) | names
            self._plans[oid] = relaxed
        return relaxed


class _RunDecoder:
    """Decodes the runs of one or more whole transactions, numbering changes across the runs."""

    def __init__(self, tables: _Tables, transactions: Transactions, skip_through: Lsn) -> None:
        self._tables = tables
        self._transactions = transactions
        self._is_skipped = transactions.lsn <= skip_through
        self._owner = 0
        self._seq = 0

    def decode(self, messages: Messages, owner: _Indexes) -> tuple[_Change, ...]:
        """All changes of a run; `owner` gives each message's transaction."""
        changes: list[_Change] = []
        at = 0
        for index in np.flatnonzero(TURNING_POINT[messages.kinds]).tolist():
            if messages.kinds[index] == RELATION:
                relation = parse_relation(messages.message(index), streamed=messages.xid_bytes > 0)
                if self._tables.is_declared(relation):
                    continue
                changes += self._segment(messages[at : index + 1], owner[at : index + 1])
                self._tables.declare(relation)
            else:
                changes += self._segment(messages[at : index + 1], owner[at : index + 1])
                changes += self._truncate(messages, index, int(owner[index]))
            at = index + 1
        changes += self._segment(messages[at:], owner[at:])
        return tuple(changes)

    def _segment(self, messages: Messages, owner: _Indexes) -> list[_Change]:
        """Messages in which no table changes its shape."""
        if not len(messages):
            return []
        oids = self._tables.oids
        order, bounds = np.empty(len(messages), np.int64), np.zeros(oids.size + 1, np.int64)
        with_old = np.zeros(oids.size, np.int64)
        unknown = sort_rows(
            messages.data,
            messages.starts,
            messages.kinds,
            messages.xid_bytes,
            self._is_skipped[owner],
            oids,
            order,
            bounds,
            with_old,
        )
        if unknown:
            raise _broken_stream(f"rows of a table (OID {unknown}) that no Relation message declared")
        key_changed = np.zeros(len(messages), np.bool_)
        found: list[tuple[TablePlan, Walked]] = []
        for k in np.flatnonzero(np.diff(bounds)).tolist():
            oid = int(oids[k])
            plan = self._tables.plan(oid)
            if plan is None:
                continue
            walked = _walk_table(messages, order[bounds[k] : bounds[k + 1]], int(with_old[k]), plan)
            key_changed[walked.message[walked.second]] = True
            found.append((self._tables.relax(oid, plan, walked), walked))
        seq = np.empty(len(messages), np.int64)
        self._seq = number_changes(messages.kinds, owner, key_changed, self._owner, self._seq, seq)
        self._owner = int(owner[-1])
        batches: list[_Change] = []
        for plan, walked in found:
            batches += assemble(plan, messages.data, walked, owner, seq, self._transactions)
        return batches

    def _truncate(self, messages: Messages, index: int, owner: int) -> list[_Change]:
        """A Truncate of ours; its own change was just numbered as the last one."""
        if self._is_skipped[owner]:
            return []
        tables: list[TableId] = []
        for oid in truncated_oids(messages, index):
            plan = self._tables.plan(oid)
            if plan is not None:
                tables.append(plan.id)
        if not tables:
            return []
        lsn, timestamp = self._transactions.lsn[owner], self._transactions.timestamp[owner]
        return [Truncate(tuple(tables), int(lsn), self._seq - 1, int(timestamp))]


def _walk_table(messages: Messages, chosen: Offsets, with_old: int, plan: TablePlan) -> Walked:
    is_key = np.zeros(len(plan.relation.columns), np.bool_)
    is_key[[column.position for column in plan.columns if column.key]] = True
    try:
        return walk(messages, chosen, with_old, is_key)
    except BrokenTuple:
        raise _broken_stream(f"a row of {plan.id} that does not fit its Relation message") from None


def _broken_stream(what: str) -> TailraceError:
    return TailraceError(
        f"the replication stream holds {what}", fix="start the source again; if it repeats, report it"
    )
