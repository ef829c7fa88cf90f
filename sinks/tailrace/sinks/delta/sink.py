"""The Delta sink: one folder per table."""

from collections.abc import Sequence
from typing import Any, ClassVar

import deltalake
import pyarrow as pa
from pydantic import BaseModel

from tailrace.sinks.append import AppendWriter
from tailrace.sinks.checkpoint import Checkpoint, from_transactions
from tailrace.sinks.delta.arrow_types import arrow_schema
from tailrace.sinks.delta.config import DeltaConfig
from tailrace.sinks.delta.log import read_log
from tailrace.sinks.delta.store import TableStore, open_store
from tailrace.sinks.delta.table import DeltaTable
from tailrace.sinks.evolve import conform
from tailrace.sinks.folder import require_writable
from tailrace.sinks.mirror import MirrorWriter
from tailrace.sinks.sink import SinkPlace, TableReading, TableWriter, Target


class DeltaSink:
    """Plugin `delta` of the entry point group `tailrace.sinks`."""

    Config: ClassVar[type[BaseModel]] = DeltaConfig

    def __init__(self, config: Any, place: SinkPlace) -> None:
        self._config: DeltaConfig = config
        self._place = place

    def check(self, names: Sequence[str]) -> None:
        """Whether each table's folder can be made; of an object store only the options are looked at."""
        for name in names:
            folder = self._store(name).folder
            if folder is not None:
                require_writable(folder)

    def open_table(self, target: Target) -> TableWriter:
        """Open the table in its folder; see `Sink.open_table`."""
        backend = DeltaTable(self._store(target.name), self._place.owner, self._config)
        if target.mode == "append":
            return AppendWriter(backend, target)
        return MirrorWriter(backend, target, self._place)

    def table_checkpoint(self, name: str) -> Checkpoint | None:
        """The checkpoint in the table's newest version."""
        log = read_log(self._store(name))
        return None if log is None else from_transactions(self._place.owner, log.transactions)

    def read_table(self, name: str) -> TableReading | None:
        """The newest version, read by deltalake."""
        store = self._store(name)
        log = read_log(store)
        if log is None:
            return None
        table = deltalake.DeltaTable(store.url, version=log.version, storage_options=store.options or None)
        rows = pa.table(deltalake.QueryBuilder().register("t", table).execute("SELECT * FROM t"))
        schema = arrow_schema(log.metadata["schemaString"])
        checkpoint = from_transactions(self._place.owner, log.transactions)
        return TableReading(log.version, checkpoint, conform(rows, schema))

    def close(self) -> None:
        """Nothing is held open."""

    def _store(self, name: str) -> TableStore:
        return open_store(self._config.table_path(name), self._config.storage_options, self._place.base_dir)
