"""Files of one table: a local folder, or a prefix of an object store.

`create` is put-if-absent, the compare-and-set that a Delta log needs: a link on a local disk, a conditional
put on S3, GCS and Azure (no lock table).  Both kinds are durable when they return; on a local disk that
takes a sync of file and folder, which object_store's own local store leaves out.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import from_url

from tailrace.changes import ConfigError, TailraceError
from tailrace.sinks.backend import CommitConflict
from tailrace.sinks.folder import make_durably, sync_folder, unwritable


@dataclass(frozen=True, slots=True)
class Entry:
    """A file: path relative to the table, bytes, time of the last change in seconds since the epoch."""

    path: str
    size: int
    modified: float


class TableStore(Protocol):
    """What the Delta back end needs of a place."""

    url: str
    options: dict[str, str]
    folder: Path | None
    """The folder on the local disk; None for an object store."""

    def put(self, path: str, data: Any) -> None:
        """Write a file under a name that nobody else uses."""

    def create(self, path: str, data: bytes) -> None:
        """Write a file that must not exist yet; CommitConflict when it does or the outcome is unknown."""

    def get(self, path: str) -> bytes:
        """The whole file; FileNotFoundError when there is none."""

    def source(self, path: str) -> Any:
        """Something that pyarrow can open and read in parts."""

    def list(self, prefix: str) -> Iterator[Entry]:
        """Files whose path starts with the folder `prefix` ("" for all), by path."""

    def delete(self, path: str) -> None:
        """Remove a file; nothing happens when there is none."""


def open_store(url: str, options: dict[str, str], base_dir: Path) -> TableStore:
    """The store of a local path (a relative one starts from `base_dir`), a file:// or an object store's URL."""
    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        return LocalStore(base_dir / Path(parts.path if parts.scheme else url).expanduser())
    try:
        return ObjectStore(url, options, from_url(url, **cast(Any, options)))
    except (BaseError, ValueError) as error:
        raise ConfigError(f"cannot use '{url}' as a place for tables: {error}") from error


class LocalStore:
    """A folder; made when the first file is written."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self.folder: Path | None = self._root
        self.url = str(self._root)
        self.options: dict[str, str] = {}

    def put(self, path: str, data: Any) -> None:
        target = self._root / path
        with _local_errors(target):
            temporary = self._write(target, data)
            temporary.replace(target)
            sync_folder(target.parent)

    def create(self, path: str, data: bytes) -> None:
        target = self._root / path
        with _local_errors(target):
            temporary = self._write(target, data)
            try:
                os.link(temporary, target)
            except FileExistsError:
                raise CommitConflict(path) from None
            finally:
                temporary.unlink()
        try:
            sync_folder(target.parent)
        except OSError as error:
            raise TailraceError(
                f"cannot sync {target.parent}: {error.strerror}; {target.name} is there, but may not survive a power "
                "cut",
                fix="check the disk, then start again: the table itself says what was committed",
            ) from error

    def get(self, path: str) -> bytes:
        return (self._root / path).read_bytes()

    def source(self, path: str) -> Any:
        return str(self._root / path)

    def list(self, prefix: str) -> Iterator[Entry]:
        found = []
        for folder, _folders, names in os.walk(self._root / prefix):
            for name in names:
                path = Path(folder) / name
                try:
                    info = path.stat()
                except FileNotFoundError:
                    continue
                found.append(Entry(path.relative_to(self._root).as_posix(), info.st_size, info.st_mtime))
        return iter(sorted(found, key=lambda entry: entry.path))

    def delete(self, path: str) -> None:
        (self._root / path).unlink(missing_ok=True)

    def _write(self, target: Path, data: Any) -> Path:
        """A synced file beside the target; removed again when it cannot be written whole."""
        make_durably(target.parent)
        temporary = target.parent / f".{uuid.uuid4()}.tmp"
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        return temporary


class ObjectStore:
    """A prefix of an object store, through obstore."""

    def __init__(self, url: str, options: dict[str, str], store: Any) -> None:
        self._store = store
        self.folder: Path | None = None
        self.url = url
        self.options = options

    def put(self, path: str, data: Any) -> None:
        try:
            obstore.put(self._store, path, bytes(data))
        except (BaseError, OSError) as error:
            raise self._failed(path, error) from error

    def create(self, path: str, data: bytes) -> None:
        try:
            obstore.put(self._store, path, data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            raise CommitConflict(path) from None
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise self._failed(path, error) from error
        except (BaseError, OSError) as error:
            # The request may have landed: only reading the log again can tell.
            raise CommitConflict(f"{path}: {error}") from error

    def get(self, path: str) -> bytes:
        return bytes(obstore.get(self._store, path).bytes())

    def source(self, path: str) -> Any:
        return obstore.open_reader(self._store, path)

    def list(self, prefix: str) -> Iterator[Entry]:
        found = [
            Entry(item["path"], item["size"], item["last_modified"].timestamp())
            for page in obstore.list(self._store, prefix or None)
            for item in page
        ]
        return iter(sorted(found, key=lambda entry: entry.path))

    def delete(self, path: str) -> None:
        try:
            obstore.delete(self._store, path)
        except FileNotFoundError:
            return

    def _failed(self, path: str, error: Exception) -> TailraceError:
        return TailraceError(f"cannot write {self.url}/{path}: {error}")


@contextmanager
def _local_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of a local write into a TailraceError that names the path."""
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error
