"""One version of an Iceberg table in memory: enough to write the next snapshot without reading anything back.

Manifest entries are kept as pyiceberg has them, because a rewritten manifest must repeat every field and
the sequence numbers of what stays (Iceberg table specification, "Manifests").
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import IO, Any, cast

from pyarrow import parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile as EntryFile
from pyiceberg.manifest import ManifestEntry, ManifestEntryStatus, ManifestFile
from pyiceberg.table import Table
from pyroaring import BitMap

from tailrace.sinks.backend import DataFile, TableState


@dataclass(frozen=True, slots=True)
class IcebergFile(DataFile):
    """A data file with its manifest entry; `entry` is None until a snapshot holds the file."""

    described: EntryFile
    entry: ManifestEntry | None = None


@dataclass(frozen=True, slots=True)
class DeleteFile:
    """A position delete file and its manifest entry."""

    path: str
    entry: ManifestEntry


@dataclass(frozen=True, slots=True)
class IcebergState(TableState):
    """A version with what its snapshot consists of.

    table      pyiceberg's table at this version.
    manifests  the snapshot's manifests.
    deletes    its live position delete files.
    """

    table: Table = field(kw_only=True)
    manifests: tuple[ManifestFile, ...] = ()
    deletes: tuple[DeleteFile, ...] = ()


def read_entries(io: FileIO, manifests: Iterable[ManifestFile]) -> list[ManifestEntry]:
    """Live entries of some manifests."""
    return [
        entry for manifest in manifests for entry in manifest.fetch_manifest_entry(io, discard_deleted=True)
    ]


def read_deleted(io: FileIO, deletes: Iterable[DeleteFile], live: Iterable[str]) -> dict[str, BitMap]:
    """Deleted positions of the live data files, from position delete files."""
    wanted = set(live)
    found: dict[str, BitMap] = {}
    for delete in deletes:
        with io.new_input(delete.path).open() as stream:
            table = pq.read_table(cast(IO[Any], stream), columns=["file_path", "pos"])
        paths = table.column("file_path").combine_chunks().dictionary_encode()
        positions = table.column("pos").to_numpy()
        codes = paths.indices.to_numpy()
        for code, path in enumerate(paths.dictionary.to_pylist()):
            if path in wanted:
                found[path] = found.get(path, BitMap()) | BitMap(positions[codes == code].astype("uint32"))
    return found


def existing(entry: ManifestEntry) -> ManifestEntry:
    """The entry as a rewritten manifest repeats it."""
    return _with_status(entry, ManifestEntryStatus.EXISTING, entry.snapshot_id)


def gone(entry: ManifestEntry, snapshot_id: int) -> ManifestEntry:
    """The entry as the snapshot that removes the file states it."""
    return _with_status(entry, ManifestEntryStatus.DELETED, snapshot_id)


def _with_status(entry: ManifestEntry, status: ManifestEntryStatus, snapshot_id: int | None) -> ManifestEntry:
    return ManifestEntry.from_args(
        status=status,
        snapshot_id=snapshot_id,
        sequence_number=entry.sequence_number,
        file_sequence_number=entry.file_sequence_number,
        data_file=entry.data_file,
    )
