"""`metadata/version-hint.text`: which metadata file is current, for readers that are given a folder and no catalog.

DuckDB's `iceberg_scan(folder)` and pyiceberg's `StaticTable.from_metadata(folder)` read it.  The catalog is the
truth: after a kill the hint may name an older version until the next commit.
"""

from pathlib import Path
from urllib.parse import urlsplit

from pyiceberg.table import Table

from tailrace.changes.whole_file import replace_file

_SUFFIX = ".metadata.json"


def write_version_hint(table: Table) -> None:
    """Point the hint of a local table to its current metadata file; nothing to do in an object store."""
    parts = urlsplit(table.metadata_location)
    if parts.scheme not in ("", "file"):
        return
    metadata = Path(parts.path)
    version = metadata.name.removesuffix(_SUFFIX).encode()
    replace_file(metadata.parent / "version-hint.text", [version], durable=True)
