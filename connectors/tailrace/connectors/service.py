"""The source part as a process: configuration, crash points, and the loop around one publishing session."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailrace.changes import TableId

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
    partitions: int = 1
    """Partitions of a raw topic that does not exist yet."""
    retention_ms: int = 7 * 24 * 3600 * 1000
    """How long a raw topic keeps its full history; after that the latest row of every key."""


def run(config: SourcePartConfig, stop: threading.Event) -> None:
    """Publish the source's changes until `stop` is set.

    Returns after a clean stop: everything that was read is either committed and confirmed, or will be read
    again.  Raises TailraceError when a person must act; `retriable` ones may be tried again.
    """
    raise NotImplementedError
