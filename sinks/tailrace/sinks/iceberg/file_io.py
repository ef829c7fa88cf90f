"""A FileIO whose local files survive a power cut: file and folder are synced before a write counts.

pyiceberg's own local writes are not synced, so a catalog could point at metadata that is not there.
Other schemes go to pyiceberg's PyArrowFileIO: an object store's put is durable when it returns.
"""

import io
import os
from pathlib import Path
from typing import Any, cast

from pyiceberg.io import OutputStream
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

from tailrace.sinks.folder import make_durably, sync_folder, unwritable


class DurableFileIO(PyArrowFileIO):
    """PyArrowFileIO with synced local writes; named in the catalog's `py-io-impl`."""

    def new_output(self, location: str) -> PyArrowFile:
        """A file to write at `location`."""
        scheme, netloc, path = self.parse_location(location, self.properties)
        if scheme != "file":
            return super().new_output(location)
        return _LocalFile(location, path, self.fs_by_scheme(scheme, netloc))


class _LocalFile(PyArrowFile):
    def __init__(self, location: str, path: str, filesystem: Any) -> None:
        super().__init__(location, path, filesystem)
        self._local = Path(path)

    def create(self, overwrite: bool = False) -> OutputStream:
        try:
            make_durably(self._local.parent)
            stream = _SyncedFile(self._local, "wb" if overwrite else "xb")
        except OSError as error:
            raise unwritable(self._local, error) from error
        return cast(OutputStream, stream)


class _SyncedFile(io.FileIO):
    """Written whole by each `write`, synced by `close`."""

    def __init__(self, path: Path, mode: str) -> None:
        super().__init__(path, mode)
        self._path = path

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view):
                done += cast(int, super().write(view[done:]))
        except OSError as error:
            raise unwritable(self._path, error) from error
        return done

    def close(self) -> None:
        if not self.closed:
            os.fsync(self.fileno())
            super().close()
            sync_folder(self._path.parent)
