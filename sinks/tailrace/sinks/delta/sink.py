"""The Delta sink: one folder per table under one path."""

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
        """Open `<path>/<target>`; see `Sink.open_table`."""
        store = open_store(f"{self._config.path.rstrip('/')}/{target.name}", self._config.storage_options)
        backend = DeltaTable(store, self._place.owner, self._config)
        if target.mode == "append":
            return AppendWriter(backend, target)
        return MirrorWriter(backend, target, self._place)

    def close(self) -> None:
        """Nothing is held open."""
