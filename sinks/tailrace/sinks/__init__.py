"""Sinks: topics in, lakehouse tables out, exactly once."""

from tailrace.sinks.backend import (
    CommitConflict,
    DataFile,
    ForeignWriteError,
    TableBackend,
    TableCommit,
    TableState,
)
from tailrace.sinks.checkpoint import Checkpoint, TopicPartition
from tailrace.sinks.sink import CommitResult, Mode, Sink, SinkPlace, TableWriter, Target

__all__ = [
    "Checkpoint",
    "CommitConflict",
    "CommitResult",
    "DataFile",
    "ForeignWriteError",
    "Mode",
    "Sink",
    "SinkPlace",
    "TableBackend",
    "TableCommit",
    "TableState",
    "TableWriter",
    "Target",
    "TopicPartition",
]
