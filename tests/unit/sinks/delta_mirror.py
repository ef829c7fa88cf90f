"""Delta tables in a test's folder."""

from pathlib import Path
from typing import Any

from tailrace.sinks.delta.sink import DeltaSink
from tailrace.sinks.mirror import MirrorWriter
from tailrace.sinks.sink import SinkPlace, Target
from tailrace.sinks.testing import ModelSource


def open_mirror(folder: Path, source: ModelSource, **options: Any) -> MirrorWriter:
    config = DeltaSink.Config(path="lake", **{"checkpoint_every": 5, "keep_old_files": 0.0, **options})
    sink = DeltaSink(config, SinkPlace("shop/lake", folder / "cache", folder))
    writer = sink.open_table(Target("orders", source.table, "mirror"))
    assert isinstance(writer, MirrorWriter)
    return writer


def commit(writer: MirrorWriter, source: ModelSource, changes: int = 40) -> None:
    writer.stage(source.transaction(changes))
    writer.commit({}, source.lsn)
