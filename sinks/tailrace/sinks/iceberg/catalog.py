"""Opening a catalog; by default SQLite beside the warehouse, whose commit is a compare-and-set."""

from pathlib import Path
from urllib.parse import urlsplit

from pyiceberg.catalog import Catalog, load_catalog

from tailrace.changes import ConfigError
from tailrace.sinks.iceberg.config import IcebergConfig

FILE_IO = "tailrace.sinks.iceberg.file_io.DurableFileIO"
_LOCK_WAIT_S = 30


def open_catalog(config: IcebergConfig, base_dir: Path) -> Catalog:
    """The catalog of a sink, a relative warehouse in `base_dir`; ConfigError when it cannot be opened."""
    properties = {"py-io-impl": FILE_IO, **config.catalog}
    folder = local_folder(config.warehouse, base_dir)
    properties.setdefault("warehouse", f"file://{folder}" if folder else config.warehouse)
    if "type" not in properties and "uri" not in properties:
        if folder is None:
            raise ConfigError(
                f"a warehouse at {config.warehouse} needs a catalog",
                fix="add catalog: {type: rest, uri: ...}",
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cannot use {folder} as a warehouse: {error.strerror}",
                fix="choose a folder that can be written",
            ) from error
        properties |= {"type": "sql", "uri": f"sqlite:///{folder / 'catalog.db'}?timeout={_LOCK_WAIT_S}"}
    try:
        return load_catalog("tailrace", **properties)
    except Exception as error:
        raise ConfigError(
            f"cannot open the Iceberg catalog of {config.warehouse}: {str(error).splitlines()[0]}",
            fix="check the sink's `warehouse` and `catalog`",
        ) from error


def local_folder(warehouse: str, base_dir: Path) -> Path | None:
    """The folder of a local warehouse, None for an object store."""
    parts = urlsplit(warehouse)
    if parts.scheme not in ("", "file"):
        return None
    return (base_dir / Path(parts.path if parts.scheme else warehouse).expanduser()).absolute()
