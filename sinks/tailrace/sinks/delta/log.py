"""Reading a Delta log: checkpoint plus the commits after it (Delta protocol, "Action Reconciliation").

deltalake can open the same tables, but shows neither deletion vector descriptors nor app ids that one does
not already know; a writer needs both.  Supported: JSON commits; single-file and multi-part checkpoints.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import pyarrow.parquet as pq

from tailrace.changes import TailraceError
from tailrace.sinks.delta.store import TableStore

Action = dict[str, Any]
LOG = "_delta_log"

_COMMIT = re.compile(rf"{LOG}/(\d{{20}})\.json$")
_CHECKPOINT = re.compile(rf"{LOG}/(\d{{20}})\.checkpoint(?:\.(\d{{10}})\.(\d{{10}}))?\.parquet$")
_FOREIGN_CHECKPOINT = re.compile(rf"{LOG}/\d{{20}}\.checkpoint\.[0-9a-f-]{{36}}\.(parquet|json)$")
_SUPPORTED = {"deletionVectors", "appendOnly", "invariants", "timestampNtz", "vacuumProtocolCheck"}


@dataclass(slots=True)
class LogState:
    """One version of a table, as its log tells it; `adds` and `removes` by (decoded) path."""

    version: int = -1
    protocol: Action = field(default_factory=dict)
    metadata: Action = field(default_factory=dict)
    transactions: dict[str, int] = field(default_factory=dict)
    adds: dict[str, Action] = field(default_factory=dict)
    removes: list[Action] = field(default_factory=list)

    def apply(self, actions: Iterable[Action]) -> None:
        """Replay the actions of one commit; inside a commit removes come before adds."""
        added = []
        for action in actions:
            if (remove := action.get("remove")) is not None:
                self.adds.pop(unquote(remove["path"]), None)
                self.removes.append(remove)
            elif (add := action.get("add")) is not None:
                added.append(add)
            elif (txn := action.get("txn")) is not None:
                self.transactions[txn["appId"]] = txn["version"]
            elif (metadata := action.get("metaData")) is not None:
                self.metadata = metadata
            elif (protocol := action.get("protocol")) is not None:
                self.protocol = protocol
        for add in added:
            self.adds[unquote(add["path"])] = add


def commit_path(version: int) -> str:
    """Where the log keeps the commit of a version."""
    return f"{LOG}/{version:020d}.json"


def read_commit(store: TableStore, version: int) -> list[Action]:
    """Actions of one commit; FileNotFoundError when it is not there (yet, or any more)."""
    return [json.loads(line) for line in store.get(commit_path(version)).splitlines() if line.strip()]


def read_log(store: TableStore) -> LogState | None:
    """The newest version of the table; None when there is no log.

    TailraceError for tables with features that this sink does not know, and for logs with a gap.
    """
    names = [entry.path for entry in store.list(LOG)]
    commits = {int(match[1]) for name in names if (match := _COMMIT.match(name))}
    state = LogState()
    checkpoint = _newest_checkpoint(names)
    if checkpoint:
        state.version, parts = checkpoint
        # All parts at once: a tombstone of one part may be older than the live file of another.
        state.apply(action for part in parts for action in _checkpoint_actions(store, part))
    elif not commits:
        return None
    for version in sorted(v for v in commits if v > state.version):
        if version != state.version + 1:
            raise TailraceError(
                f"the log of {store.url} has no version {state.version + 1}", fix="restore the file"
            )
        state.apply(read_commit(store, version))
        state.version = version
    _check_features(store, state.protocol)
    return state


def _newest_checkpoint(names: list[str]) -> tuple[int, list[str]] | None:
    parts: dict[tuple[int, int], list[str]] = {}
    for name in names:
        if match := _CHECKPOINT.match(name):
            parts.setdefault((int(match[1]), int(match[3] or 1)), []).append(name)
        elif _FOREIGN_CHECKPOINT.match(name):
            raise TailraceError(f"{name} is a checkpoint of a kind (V2) that this sink does not read")
    complete = [(version, files) for (version, count), files in parts.items() if len(files) == count]
    return max(complete, default=None)


def _checkpoint_actions(store: TableStore, path: str) -> Iterator[Action]:
    wanted = {"add", "remove", "txn", "metaData", "protocol"}
    with pq.ParquetFile(store.source(path)) as file:
        columns = [name for name in file.schema_arrow.names if name in wanted]
        for batch in file.iter_batches(columns=columns):
            for row in batch.to_pylist(maps_as_pydicts="lossy"):
                yield {kind: _without_nulls(action) for kind, action in row.items() if action is not None}


def _without_nulls(action: Action) -> Action:
    return {
        name: _without_nulls(value) if isinstance(value, dict) else value
        for name, value in action.items()
        if value is not None
    }


def _check_features(store: TableStore, protocol: Action) -> None:
    features = {*protocol.get("readerFeatures", ()), *protocol.get("writerFeatures", ())}
    if unknown := sorted(features - _SUPPORTED):
        raise TailraceError(
            f"table {store.url} uses Delta features that this sink does not write: {', '.join(unknown)}",
            fix="give the sink another path",
        )
