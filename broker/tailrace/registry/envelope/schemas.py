"""What the envelope needs from a schema registry, and the Confluent wire format's frame.

byte 0      magic 0
bytes 1-4   schema id, int32 big endian
bytes 5-    Avro binary of one record
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from tailrace.broker.records.columnar_varint import frozen
from tailrace.changes.compiled import kernel

FRAME_SIZE = 5
"""Bytes in front of the Avro binary."""

NULL = -1
"""In place of a schema id: the string is null."""
UNFRAMED = -2
"""In place of a schema id: the string does not begin with a frame."""


class SchemaStore(Protocol):
    """The three questions the envelope asks a registry; `tailrace.registry.client` answers them over REST.

    Every method raises TailraceError when the registry cannot be reached or refuses.
    """

    def register(self, subject: str, schema: str, /) -> int:
        """The id of the schema (JSON text) under the subject, registered now if it is new there."""
        ...

    def schema(self, schema_id: int, /) -> str:
        """The schema with this id, as JSON text."""
        ...

    def latest(self, subject: str, /) -> tuple[int, str] | None:
        """Id and JSON text of the subject's newest schema, None when there is no such subject."""
        ...


def frame(schema_id: int) -> bytes:
    """The five bytes in front of a row of this schema."""
    return b"\0" + schema_id.to_bytes(4, "big")


def read_frames(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """int64[n], the schema id of each string of `data`, or NULL (length -1), or UNFRAMED."""
    ids = np.empty(len(starts), np.int64)
    _read_frames(frozen(data), frozen(starts), frozen(lengths), ids)
    return ids


@kernel
def _read_frames(
    data: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    ids: npt.NDArray[np.int64],
) -> None:
    for row in range(ids.size):
        at = starts[row]
        if lengths[row] < 0:
            ids[row] = NULL
        elif lengths[row] < FRAME_SIZE or data[at] != 0 or data[at + 1] > 127:
            ids[row] = UNFRAMED
        else:
            schema_id = np.int64(0)
            for i in range(1, FRAME_SIZE):
                schema_id = (schema_id << 8) | np.int64(data[at + i])
            ids[row] = schema_id
