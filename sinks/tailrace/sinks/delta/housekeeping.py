"""Upkeep of one Delta table: checkpoints, log clean-up, removal of files that nobody reads any more.

A replaced data file or deletion vector stays for `keep_old_files` seconds after the commit that replaced it
(readers of older versions), then it goes.  Files that no version ever named (left by a kill) go once they are
older than that, and only if they have the names that this sink gives.  `deltalake.vacuum` does neither: its
full mode removes live deletion vectors, its lite mode never removes old ones.
"""

import re
import time
from collections import deque
from urllib.parse import unquote

from deltalake import DeltaTable

from tailrace.sinks.backend import TableState
from tailrace.sinks.delta.config import DeltaConfig
from tailrace.sinks.delta.log import Action, LogState
from tailrace.sinks.delta.store import TableStore
from tailrace.sinks.delta.vectors import vector_path

LOG_KEPT_S = 24 * 3600
"""Commits older than this, and before a checkpoint, may leave the log."""

_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_OURS = re.compile(
    rf"(part-{_UUID}\.zstd\.parquet|deletion_vector_{_UUID}\.bin|(_delta_log/)?\.{_UUID}\.tmp)$"
)
_SWEEP_EVERY_S = 60.0
_ORPHANS_EVERY_S = 600.0
_CLEAN_LOG_EVERY = 20


class Housekeeping:
    """What is due, and when."""

    def __init__(self, store: TableStore, config: DeltaConfig) -> None:
        self._store = store
        self._config = config
        self.described = LogState()
        """Protocol and metadata of the newest version."""
        self._replaced: deque[tuple[float, str]] = deque()
        self._checkpointed = -1
        self._checkpoints = 0
        self._next_sweep = 0.0
        self._next_orphans = 0.0

    def start(self, log: LogState) -> None:
        """Take over from a log that was just read."""
        self.described = LogState(protocol=log.protocol, metadata=log.metadata)
        self._replaced.clear()
        self.removed([{"remove": remove} for remove in log.removes])
        self._checkpointed = max(
            self._checkpointed, log.version - log.version % self._config.checkpoint_every
        )

    def removed(self, removes: list[Action]) -> None:
        """Files and vectors that a commit replaced."""
        for action in removes:
            remove = action["remove"]
            at = remove.get("deletionTimestamp", 0) / 1000
            self._replaced.append((at, unquote(remove["path"])))
            if "deletionVector" in remove:
                self._replaced.append((at, vector_path(remove["deletionVector"])))

    def run(self, state: TableState) -> None:
        """Do what is due; cheap when nothing is."""
        if state.version - self._checkpointed >= self._config.checkpoint_every:
            self._checkpoint(state.version)
        if time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + min(_SWEEP_EVERY_S, self._config.keep_old_files)
            self._sweep(state)

    def _checkpoint(self, version: int) -> None:
        table = DeltaTable(self._store.url, storage_options=self._store.options or None)
        table.create_checkpoint()
        self._checkpointed = version
        if self._checkpoints % _CLEAN_LOG_EVERY == 0:
            table.cleanup_metadata()
        self._checkpoints += 1

    def _sweep(self, state: TableState) -> None:
        too_old = time.time() - self._config.keep_old_files
        kept = self._named(state)
        kept.update(path for at, path in self._replaced if at > too_old)
        while self._replaced and self._replaced[0][0] <= too_old:
            _at, path = self._replaced.popleft()
            if path not in kept:
                self._store.delete(path)
        if time.monotonic() >= self._next_orphans:
            self._next_orphans = time.monotonic() + max(_ORPHANS_EVERY_S, self._config.keep_old_files)
            for entry in self._store.list(""):
                if _OURS.match(entry.path) and entry.path not in kept and entry.modified <= too_old:
                    self._store.delete(entry.path)

    @staticmethod
    def _named(state: TableState) -> set[str]:
        """Files that the newest version reads."""
        named = set(state.files)
        for file in state.files.values():
            vector = getattr(file, "vector", None)
            if vector is not None:
                named.add(vector_path(vector))
        return named
