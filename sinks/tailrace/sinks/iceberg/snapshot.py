"""Writing one snapshot: manifests, manifest list, summary (Iceberg table specification, "Snapshots", version 2).

pyiceberg's own producers rebase and retry, and cannot write delete files; here a snapshot is put together
from entries in memory and handed to the catalog as plain updates, with the head it was built on as requirement.
"""

import itertools
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pyiceberg.io import OutputFile
from pyiceberg.manifest import (
    DataFile,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    ManifestWriterV2,
    write_manifest_list,
)
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot, Summary

_CODEC: Literal["deflate"] = "deflate"


class _DeleteManifestWriter(ManifestWriterV2):
    """pyiceberg 0.12 writes data manifests only."""

    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


@dataclass(slots=True)
class SnapshotWriter:
    """Files of one new snapshot on top of `table`'s head; nothing is visible before the catalog commits."""

    table: Table
    schema: Schema
    snapshot_id: int = field(init=False)
    sequence_number: int = field(init=False)
    _uuid: uuid.UUID = field(init=False, default_factory=uuid.uuid4)
    _numbers: "itertools.count[int]" = field(init=False, default_factory=itertools.count)
    _written: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.snapshot_id = self.table.metadata.new_snapshot_id()
        self.sequence_number = self.table.metadata.next_sequence_number()

    def added(self, file: DataFile) -> ManifestEntry:
        """The entry of a file that this snapshot brings; its sequence number is the snapshot's."""
        return ManifestEntry.from_args(
            status=ManifestEntryStatus.ADDED,
            snapshot_id=self.snapshot_id,
            sequence_number=None,
            file_sequence_number=None,
            data_file=file,
        )

    def settled(self, entry: ManifestEntry) -> ManifestEntry:
        """An added entry as a reader of the committed snapshot sees it."""
        return ManifestEntry.from_args(
            status=ManifestEntryStatus.ADDED,
            snapshot_id=self.snapshot_id,
            sequence_number=self.sequence_number,
            file_sequence_number=self.sequence_number,
            data_file=entry.data_file,
        )

    def manifest(self, entries: Sequence[ManifestEntry], content: ManifestContent) -> ManifestFile:
        """Write one manifest."""
        name = f"{self._uuid}-m{next(self._numbers)}.avro"
        writer_class = _DeleteManifestWriter if content is ManifestContent.DELETES else ManifestWriterV2
        writer = writer_class(self.table.spec(), self.schema, self._output(name), self.snapshot_id, _CODEC)
        with writer:
            for entry in entries:
                writer.add_entry(entry)
        return writer.to_manifest_file()

    def snapshot(
        self, manifests: Sequence[ManifestFile], operation: Operation, summary: Mapping[str, str]
    ) -> Snapshot:
        """Write the manifest list and describe the snapshot."""
        head = self.table.metadata.current_snapshot_id
        output = self._output(f"snap-{self.snapshot_id}-0-{self._uuid}.avro")
        with write_manifest_list(2, output, self.snapshot_id, head, self.sequence_number, _CODEC) as writer:
            writer.add_manifests(list(manifests))
        return Snapshot(
            snapshot_id=self.snapshot_id,
            parent_snapshot_id=head,
            sequence_number=self.sequence_number,
            timestamp_ms=max(int(time.time() * 1000), self.table.metadata.last_updated_ms),
            manifest_list=output.location,
            summary=Summary(operation=operation, **summary),
            schema_id=self.schema.schema_id,
        )

    def discard(self) -> None:
        """Remove the metadata files of a snapshot that will never be committed."""
        for location in self._written:
            self.table.io.delete(location)

    def _output(self, name: str) -> OutputFile:
        location = self.table.location_provider().new_metadata_location(name)
        self._written.append(location)
        return self.table.io.new_output(location)


def totals(data: Sequence[DataFile], deletes: Sequence[DataFile], deleted_rows: int) -> dict[str, str]:
    """The running totals of a snapshot summary."""
    return {
        "total-data-files": str(len(data)),
        "total-records": str(sum(file.record_count for file in data)),
        "total-files-size": str(sum(file.file_size_in_bytes for file in (*data, *deletes))),
        "total-delete-files": str(len(deletes)),
        "total-position-deletes": str(deleted_rows),
        "total-equality-deletes": "0",
    }
