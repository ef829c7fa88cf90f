"""pgoutput messages in, change sets out: the whole of the stream's decoding, without I/O of its own.

Speaks protocol versions 1 and 2 (with and without `streaming 'on'`), `binary` on or off.
"""

from collections.abc import Iterator
from pathlib import Path

from tailrace.changes import ChangeSet, Lsn, TailraceError
from tailrace.connectors.postgres.type_plan import Resolver
from tailrace.connectors.postgres.wire import Bytes, Offsets

DEFAULT_MEMORY_LIMIT = 64 << 20
DEFAULT_PIECE_BYTES = 16 << 20


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
        raise NotImplementedError

    @property
    def in_transaction(self) -> bool:
        """Whether a begin was fed, but not yet its commit; a keepalive's WAL end is then no position."""
        raise NotImplementedError

    @property
    def open_streamed(self) -> int:
        """Transactions in progress at the server whose first changes are in the spool."""
        raise NotImplementedError

    @property
    def spooled_bytes(self) -> int:
        """Raw bytes of open transactions now held, in memory and in files."""
        raise NotImplementedError

    def feed(self, block: Bytes, starts: Offsets, ends: Offsets) -> Iterator[ChangeSet]:
        """Decode the messages block[starts[i]:ends[i]], in order (see `frames.scan_frames`).

        Yields, in commit order, the transactions that are complete now: as a rule ONE set for all of them,
        with the last one's end LSN as position.  A transaction larger than `piece_bytes` comes in pieces,
        all but the last with position None.  A set without changes: nothing up to its position is for us.

        Use up the iterator before the next call; the block may be reused then.  Between two yields is the
        place to answer keepalives.  Raises SourceDataError (table, column, LSN), NeedsTextFormat, and
        TailraceError when the spool's disk is full.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Free the spool."""
        raise NotImplementedError
