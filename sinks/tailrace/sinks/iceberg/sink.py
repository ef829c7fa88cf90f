"""The Iceberg sink: one table of a catalog per target."""

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import BaseModel
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table

from tailrace.sinks.append import AppendWriter
from tailrace.sinks.checkpoint import Checkpoint, from_properties
from tailrace.sinks.folder import require_writable
from tailrace.sinks.iceberg.catalog import local_folder, open_catalog
from tailrace.sinks.iceberg.config import IcebergConfig
from tailrace.sinks.iceberg.table import IcebergTable
from tailrace.sinks.mirror import MirrorWriter
from tailrace.sinks.sink import SinkPlace, TableReading, TableWriter, Target


class IcebergSink:
    """Plugin `iceberg` of the entry point group `tailrace.sinks`."""

    Config: ClassVar[type[BaseModel]] = IcebergConfig

    def __init__(self, config: Any, place: SinkPlace) -> None:
        self._config: IcebergConfig = config
        self._place = place
        self._catalog: Catalog | None = None

    def check(self, names: Sequence[str]) -> None:
        """Whether a local warehouse can be written; a remote one is asked when it is opened."""
        folder = local_folder(self._config.warehouse, self._place.base_dir)
        if folder is not None:
            require_writable(folder)

    def open_table(self, target: Target) -> TableWriter:
        """Open the table of a target; see `Sink.open_table`."""
        backend = self._backend(target.name)
        if target.mode == "append":
            return AppendWriter(backend, target)
        return MirrorWriter(backend, target, self._place)

    def table_checkpoint(self, name: str) -> Checkpoint | None:
        """The checkpoint in the table's properties."""
        table = self._load(name)
        return None if table is None else from_properties(self._place.owner, table.metadata.properties)

    def read_table(self, name: str) -> TableReading | None:
        """The newest snapshot, read by pyiceberg."""
        table = self._load(name)
        if table is None:
            return None
        checkpoint = from_properties(self._place.owner, table.metadata.properties)
        return TableReading(table.metadata.current_snapshot_id or 0, checkpoint, table.scan().to_arrow())

    def close(self) -> None:
        """Let go of the catalog's connections."""
        if self._catalog is not None:
            self._catalog.close()

    def _backend(self, target: str) -> IcebergTable:
        return IcebergTable(self._opened(), self._identifier(target), self._place.owner, self._config)

    def _load(self, target: str) -> Table | None:
        try:
            return self._opened().load_table(self._identifier(target))
        except NoSuchTableError:
            return None

    def _identifier(self, target: str) -> tuple[str, ...]:
        return tuple(self._config.table.replace("{table}", target).split("."))

    def _opened(self) -> Catalog:
        if self._catalog is None:
            self._catalog = open_catalog(self._config, self._place.base_dir)
        return self._catalog
