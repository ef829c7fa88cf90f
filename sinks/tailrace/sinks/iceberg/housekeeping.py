"""Removing files that no kept snapshot needs: replaced data, expired metadata, leftovers of a crash.

A file goes once this process has found it unneeded for `keep_old_files` seconds, so that a reader that planned
an expired snapshot still finds its files (a restart counts from the beginning), and never while it is young:
it may be written for the next commit.
"""

import os
import time
from pathlib import Path
from urllib.parse import urlsplit

from pyiceberg.table import Table

from tailrace.sinks.iceberg.config import IcebergConfig
from tailrace.sinks.iceberg.state import IcebergState

_EVERY_S = 300.0
_YOUNGEST_S = 600.0


class Housekeeping:
    """Sweeps the folder of one local table; object stores are left to the catalog's own maintenance."""

    def __init__(self, config: IcebergConfig) -> None:
        self._keep_s = config.keep_old_files
        self._unneeded: dict[str, float] = {}
        """Files that no kept snapshot needs, and since when (monotonic)."""
        self._due = time.monotonic() + _EVERY_S

    def run(self, state: IcebergState) -> None:
        """Sweep when due."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _EVERY_S
        self.sweep(state)

    def sweep(self, state: IcebergState) -> None:
        """Remove every file that has been unknown to all kept snapshots for long enough."""
        parts = urlsplit(state.table.location())
        if parts.scheme not in ("", "file"):
            return
        needed = referenced(state.table)
        young, now = time.time() - _YOUNGEST_S, time.monotonic()
        before, self._unneeded = self._unneeded, {}
        for folder, _folders, names in os.walk(parts.path):
            for name in names:
                path = Path(folder) / name
                if str(path) in needed:
                    continue
                since = self._unneeded[str(path)] = before.get(str(path), now)
                if now - since >= self._keep_s and path.stat().st_mtime < young:
                    path.unlink(missing_ok=True)


def referenced(table: Table) -> set[str]:
    """Local paths of every file that the table's metadata or a kept snapshot refers to."""
    found = {table.metadata_location, *(entry.metadata_file for entry in table.metadata.metadata_log)}
    manifests = {}
    for snapshot in table.metadata.snapshots:
        found.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            manifests[manifest.manifest_path] = manifest
    found.update(manifests)
    for manifest in manifests.values():
        found.update(
            entry.data_file.file_path
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
        )
    hint = f"{table.location()}/metadata/version-hint.text"
    return {urlsplit(location).path for location in (*found, hint)}
