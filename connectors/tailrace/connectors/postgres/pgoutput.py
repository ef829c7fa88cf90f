"""pgoutput messages in compiled loops: which transaction, table and rows a run of messages holds.

    B  Int64 commit record's LSN | Int64 commit time | Int32 xid
    C  Int8 flags | Int64 commit LSN | Int64 end LSN | Int64 commit time
    I  [Int32 xid] Int32 relation | 'N' tuple
    U  [Int32 xid] Int32 relation | ['K' or 'O' tuple] | 'N' tuple
    D  [Int32 xid] Int32 relation | 'K' or 'O' tuple
    T  [Int32 xid] Int32 relations | Int8 flags | Int32 relation each
    S  Int32 xid | Int8 first block          E  (nothing)
    c  Int32 xid | Int8 flags | Int64 commit LSN | Int64 end LSN | Int64 commit time
    A  Int32 xid | Int32 subtransaction's xid
    R  see relation.py          Y type, O origin, M logical message: not needed here

    tuple: Int16 columns | per column: 'n' null, 'u' unchanged TOAST, or 't'/'b' Int32 length and the bytes

The [xid] of the subtransaction stands only inside streamed blocks (between S and E, protocol version 2).  Times are
microseconds since 2000-01-01.  PostgreSQL manual, "Logical Replication Message Formats".
"""

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tailrace.changes import TailraceError
from tailrace.changes.compiled import kernel
from tailrace.connectors.postgres.decode_binary import EPOCH_MICROS
from tailrace.connectors.postgres.wire import Bytes, Offsets, read_i64, read_u8, read_u32

BEGIN, COMMIT, RELATION, TRUNCATE = ord("B"), ord("C"), ord("R"), ord("T")
INSERT, UPDATE, DELETE = ord("I"), ord("U"), ord("D")
TYPE, ORIGIN, MESSAGE = ord("Y"), ord("O"), ord("M")
STREAM_START, STREAM_STOP, STREAM_COMMIT, STREAM_ABORT = ord("S"), ord("E"), ord("c"), ord("A")

STREAM_CONTROL = np.zeros(256, np.bool_)
STREAM_CONTROL[[STREAM_START, STREAM_STOP, STREAM_COMMIT, STREAM_ABORT]] = True
TURNING_POINT = np.zeros(256, np.bool_)
"""Messages that end a run of rows: what follows is another shape, or must not be reordered across it."""
TURNING_POINT[[RELATION, TRUNCATE]] = True
_SMALLEST = np.full(256, 1 << 62, np.int64)
"""Bytes that a message of each kind has at least; a kind that is not here is unknown."""
for _kind, _size in (
    *((BEGIN, 21), (COMMIT, 26), (RELATION, 10), (TRUNCATE, 10), (TYPE, 7), (ORIGIN, 10), (MESSAGE, 15)),
    *((INSERT, 8), (UPDATE, 8), (DELETE, 8)),
    *((STREAM_START, 6), (STREAM_STOP, 1), (STREAM_COMMIT, 30), (STREAM_ABORT, 9)),
):
    _SMALLEST[_kind] = _size


@dataclass(frozen=True, slots=True)
class Messages:
    """A run of messages: message i is data[starts[i]:ends[i]].

    xid_bytes   4 inside streamed blocks, where a message names its subtransaction, else 0.
    """

    data: Bytes
    starts: Offsets
    ends: Offsets
    kinds: npt.NDArray[np.uint8]
    xid_bytes: int = 0

    def __len__(self) -> int:
        return self.starts.size

    def __getitem__(self, part: slice) -> "Messages":
        return Messages(self.data, self.starts[part], self.ends[part], self.kinds[part], self.xid_bytes)

    @property
    def nbytes(self) -> int:
        return int((self.ends - self.starts).sum())

    def message(self, index: int) -> bytes:
        return self.data[self.starts[index] : self.ends[index]].tobytes()


@dataclass(frozen=True, slots=True)
class Transactions:
    """Source transactions in commit order: end LSN, xid and commit time (microseconds since 1970) of each."""

    lsn: npt.NDArray[np.int64]
    xid: npt.NDArray[np.int64]
    timestamp: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return self.lsn.size


def messages_of(block: Bytes, starts: Offsets, ends: Offsets) -> Messages:
    """The messages of a fed block; raises TailraceError for a kind that protocol version 2 does not have."""
    data = block.view()
    data.flags.writeable = False  # one compiled variant, whatever the caller's buffer is
    kinds = data[starts]
    broken = np.flatnonzero(ends - starts < _SMALLEST[kinds])
    if broken.size:
        raise TailraceError(
            f"the replication stream holds a message of kind {chr(kinds[broken[0]])!r} that we cannot read",
            fix="create the slot without two_phase; or report this with the server's version",
        )
    return Messages(data, starts, ends, kinds)


def transactions_of(messages: Messages) -> tuple[Transactions, npt.NDArray[np.int64]]:
    """The complete transactions of a plain run, and for each message the index of its transaction."""
    count = int(np.count_nonzero(messages.kinds == COMMIT))
    found = Transactions(*(np.empty(count, np.int64) for _ in range(3)))
    owner = np.empty(len(messages), np.int64)
    _index_transactions(
        messages.data, messages.starts, messages.kinds, owner, found.lsn, found.xid, found.timestamp
    )
    return found, owner


def commit_of(messages: Messages, index: int, xid: int) -> Transactions:
    """The one transaction that ends with this Commit or Stream Commit message."""
    at = 6 if messages.kinds[index] == STREAM_COMMIT else 2
    end_lsn, timestamp = struct.unpack_from(">qq", messages.message(index), at + 8)
    return Transactions(
        np.array([end_lsn], np.int64),
        np.array([xid], np.int64),
        np.array([timestamp + EPOCH_MICROS], np.int64),
    )


def xid_of(messages: Messages, index: int) -> int:
    """The xid right behind the kind byte."""
    return int(struct.unpack_from(">I", messages.message(index), 1)[0])


def aborted_subxid(messages: Messages, index: int) -> int:
    """The subtransaction of a Stream Abort; the transaction itself when all of it was rolled back."""
    return int(struct.unpack_from(">I", messages.message(index), 5)[0])


def begun_xid(messages: Messages, index: int) -> int:
    """The xid of a Begin message."""
    return int(struct.unpack_from(">I", messages.message(index), 17)[0])


def truncated_oids(messages: Messages, index: int) -> tuple[int, ...]:
    """The relations of a Truncate message."""
    at = 1 + messages.xid_bytes
    message = messages.message(index)
    (count,) = struct.unpack_from(">I", message, at)
    return struct.unpack_from(f">{count}I", message, at + 5)


@kernel
def _index_transactions(
    data: Bytes,
    starts: Offsets,
    kinds: npt.NDArray[np.uint8],
    owner: npt.NDArray[np.int64],
    lsn: npt.NDArray[np.int64],
    xid: npt.NDArray[np.int64],
    timestamp: npt.NDArray[np.int64],
) -> None:
    done = 0
    for i in range(starts.size):
        owner[i] = done
        if kinds[i] == BEGIN:
            xid[done] = read_u32(data, starts[i] + 17)
        elif kinds[i] == COMMIT:
            lsn[done] = read_i64(data, starts[i] + 10)
            timestamp[done] = read_i64(data, starts[i] + 18) + EPOCH_MICROS
            done += 1


@kernel
def is_row(kind: int) -> bool:
    return kind in (INSERT, UPDATE, DELETE)


@kernel
def sort_rows(
    data: Bytes,
    starts: Offsets,
    kinds: npt.NDArray[np.uint8],
    skip: int,
    ignored: npt.NDArray[np.bool_],
    oids: npt.NDArray[np.int64],
    order: npt.NDArray[np.int64],
    bounds: npt.NDArray[np.int64],
    with_old: npt.NDArray[np.int64],
) -> int:
    """Group row messages by relation, keeping the order inside each.

    skip       bytes of an xid before the relation's OID.
    ignored    per message: not to be decoded.
    oids       relations, ascending.
    order      out: message indexes, those of oids[k] at order[bounds[k]:bounds[k + 1]].
    with_old   out: per relation, how many updates bring an old tuple.
    Returns the OID of a row whose relation is not among `oids`, 0 if there is none.
    """
    relation_of = np.full(starts.size, -1, np.int64)
    counts = np.zeros(oids.size + 1, np.int64)
    last, last_oid = 0, -1
    for i in range(starts.size):
        if not is_row(kinds[i]) or ignored[i]:
            continue
        at = starts[i] + 1 + skip
        oid = read_u32(data, at)
        if oid != last_oid:
            last = int(np.searchsorted(oids, oid))
            if last == oids.size or oids[last] != oid:
                return oid
            last_oid = oid
        relation_of[i] = last
        counts[last] += 1
        if kinds[i] == UPDATE and read_u8(data, at + 4) != 78:  # 'N'
            with_old[last] += 1
    bounds[0] = 0
    for k in range(oids.size):
        bounds[k + 1] = bounds[k] + counts[k]
        counts[k] = bounds[k]
    for i in range(starts.size):
        if relation_of[i] >= 0:
            order[counts[relation_of[i]]] = i
            counts[relation_of[i]] += 1
    return 0


@kernel
def number_changes(
    kinds: npt.NDArray[np.uint8],
    owner: npt.NDArray[np.int64],
    two: npt.NDArray[np.bool_],
    first_owner: int,
    first_seq: int,
    seq: npt.NDArray[np.int64],
) -> int:
    """Index of each row's (first) change inside its transaction; `two` marks key changes.

    Starts with `first_seq` in transaction `first_owner`; returns the next index of the last transaction.
    """
    current, following = first_owner, first_seq
    for i in range(kinds.size):
        if owner[i] != current:
            current, following = owner[i], 0
        seq[i] = following
        if kinds[i] == TRUNCATE or is_row(kinds[i]):
            following += 2 if two[i] else 1
    return following
