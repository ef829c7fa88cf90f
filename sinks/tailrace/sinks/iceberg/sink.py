"""The Iceberg sink: one table of a catalog per target."""

from typing import Any, ClassVar

from pydantic import BaseModel
from pyiceberg.catalog import Catalog

from tailrace.sinks.append import AppendWriter
from tailrace.sinks.iceberg.catalog import open_catalog
from tailrace.sinks.iceberg.config import IcebergConfig
from tailrace.sinks.iceberg.table import IcebergTable
from tailrace.sinks.mirror import MirrorWriter
from tailrace.sinks.sink import SinkPlace, TableWriter, Target


class IcebergSink:
    """Plugin `iceberg` of the entry point group `tailrace.sinks`."""

    Config: ClassVar[type[BaseModel]] = IcebergConfig

    def __init__(self, config: Any, place: SinkPlace) -> None:
        self._config: IcebergConfig = config
        self._place = place
        self._catalog: Catalog | None = None

    def open_table(self, target: Target) -> TableWriter:
        """Open the table of a target; see `Sink.open_table`."""
        backend = self._backend(target.name)
        if target.mode == "append":
            return AppendWriter(backend, target)
        return MirrorWriter(backend, target, self._place)

    def close(self) -> None:
        """Let go of the catalog's connections."""
        if self._catalog is not None:
            self._catalog.close()

    def _backend(self, target: str) -> IcebergTable:
        if self._catalog is None:
            self._catalog = open_catalog(self._config)
        identifier = tuple(self._config.table.replace("{table}", target).split("."))
        return IcebergTable(self._catalog, identifier, self._place.owner, self._config)
