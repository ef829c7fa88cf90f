"""`metadata/version-hint.text`: which metadata file is current, for readers that are given a folder and no catalog.

DuckDB's `iceberg_scan(folder)` and pyiceberg's `StaticTable.from_metadata(folder)` read it.  The catalog is the
truth: after a kill the hint may name an older version until the next commit.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit

from pyiceberg.table import Table

_SUFFIX = ".metadata.json"


def write_version_hint(table: Table) -> None:
    """Point the hint of a local table to its current metadata file; nothing to do in an object store."""
    parts = urlsplit(table.metadata_location)
    if parts.scheme not in ("", "file"):
        return
    metadata = Path(parts.path)
    temporary = metadata.parent / ".version-hint.tmp"
    with temporary.open("w") as file:
        file.write(metadata.name.removesuffix(_SUFFIX))
        file.flush()
        os.fsync(file.fileno())  # a power cut must not leave an empty hint under the name
    temporary.replace(metadata.parent / "version-hint.text")
