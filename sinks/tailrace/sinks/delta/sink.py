"""The Delta sink: one folder per table."""

from typing import Any, ClassVar

from pydantic import BaseModel

from tailrace.sinks.append import AppendWriter
from tailrace.sinks.delta.config import DeltaConfig
from tailrace.sinks.delta.store import open_store
from tailrace.sinks.delta.table import DeltaTable
from tailrace.sinks.mirror import MirrorWriter
from tailrace.sinks.sink import SinkPlace, TableWriter, Target


class DeltaSink:
    """Plugin `delta` of the entry point group `tailrace.sinks`."""

    Config: ClassVar[type[BaseModel]] = DeltaConfig

    def __init__(self, config: Any, place: SinkPlace) -> None:
        self._config: DeltaConfig = config
        self._place = place

    def open_table(self, target: Target) -> TableWriter:
        """Open the table in its folder; see `Sink.open_table`."""
        url = self._config.table_path(target.name)
        store = open_store(url, self._config.storage_options, self._place.base_dir)
        backend = DeltaTable(store, self._place.owner, self._config)
        if target.mode == "append":
            return AppendWriter(backend, target)
        return MirrorWriter(backend, target, self._place)

    def close(self) -> None:
        """Nothing is held open."""
