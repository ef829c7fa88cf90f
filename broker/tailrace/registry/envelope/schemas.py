"""What the envelope needs from a schema registry, and the Confluent wire format's frame.

byte 0      magic 0
bytes 1-4   schema id, int32 big endian
bytes 5-    Avro binary of one record
"""

from typing import Protocol

FRAME_SIZE = 5
"""Bytes in front of the Avro binary."""


class SchemaStore(Protocol):
    """The three questions the envelope asks a registry; `tailrace.registry.client` answers them over REST.

    Every method raises TailraceError when the registry cannot be reached or refuses.
    """

    def register(self, subject: str, schema: str, /) -> int:
        """The id of the schema under the subject, registered now if it is new there."""
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
