"""`COPY ... TO STDOUT (FORMAT binary)` bytes in, Arrow batches of the table's plan out.

    "PGCOPY\\n\\377\\r\\n\\0" | Int32 flags | Int32 header extension length | extension | tuples | Int16 -1
    a tuple: Int16 fields | per field: Int32 length (-1: null) | the value's binary form

PostgreSQL manual, COPY, "Binary Format".  Values come out bit for bit as the stream's: one set of kernels.
"""

from collections.abc import Iterator

import pyarrow as pa

from tailrace.connectors.postgres.type_plan import TablePlan
from tailrace.connectors.postgres.wire import Bytes


class CopyDecoder:
    """Decodes one COPY of `plan.copy_columns`; feed it the stream's bytes (payloads of CopyData, joined)."""

    def __init__(self, plan: TablePlan) -> None:
        raise NotImplementedError

    @property
    def plan(self) -> TablePlan:
        """The plan, with columns made nullable that turned out to hold nulls."""
        raise NotImplementedError

    def feed(self, block: Bytes | bytes | bytearray | memoryview) -> Iterator[pa.RecordBatch]:
        """Rows of `plan.schema.arrow` that are complete now; a tuple may be cut anywhere between two calls.

        Raises SourceDataError naming table and column, TailraceError when the bytes are no binary COPY.
        """
        raise NotImplementedError

    def finish(self) -> None:
        """Say that no more bytes come; raises TailraceError when the copy broke off before its trailer."""
        raise NotImplementedError
