"""The envelope: how a change sits in a record's key, value and headers (ARCHITECTURE.md, "What travels").

ChangeBatch -- ChangeEncoder.encode --> record batches per partition      (source)
record batches of one partition -- ChangeDecoder.decode --> ChangeBatches (sinks)
"""

from tailrace.registry.envelope.control import (
    ControlMark,
    SnapshotMark,
    SourcePosition,
    TruncateMark,
    control_batch,
    parse_control,
)
from tailrace.registry.envelope.decoder import ChangeDecoder, Decoded
from tailrace.registry.envelope.encoder import ChangeEncoder
from tailrace.registry.envelope.schemas import SchemaStore

__all__ = [
    "ChangeDecoder",
    "ChangeEncoder",
    "ControlMark",
    "Decoded",
    "SchemaStore",
    "SnapshotMark",
    "SourcePosition",
    "TruncateMark",
    "control_batch",
    "parse_control",
]
