"""What the sink part refuses before it touches anything, and what its small parts promise."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.changes import ConfigError, TableId, TableSchema, TailraceError
from tailrace.sinks.checkpoint import (
    Checkpoint,
    from_properties,
    from_transactions,
    to_properties,
    to_transactions,
)
from tailrace.sinks.delta.arrow_types import stored_type as delta_type
from tailrace.sinks.evolve import conform, evolve, stored_schema
from tailrace.sinks.freshness import Freshness
from tailrace.sinks.plugins import load_sink_type, sink_types
from tailrace.sinks.service import SinkInput, SinkPartConfig, run

INPUT = SinkInput("raw.shop.orders", TableId("public", "orders"), None, "orders")

names = st.text("abc.-_0", min_size=1, max_size=6)
checkpoints = st.builds(
    Checkpoint,
    st.dictionaries(st.tuples(names, st.integers(0, 999)), st.integers(0, 2**63 - 1), max_size=4),
    st.integers(0, 2**63 - 1),
    st.integers(0, 1000),
    st.integers(0, 2**40),
)


def config(tmp_path: Path, **changes: Any) -> SinkPartConfig:
    fields: dict[str, Any] = {
        "pipeline": "shop",
        "sink": "lake",
        "type": "delta",
        "options": {"path": "lake"},
        "inputs": (INPUT,),
        "control_topic": None,
        "bootstrap": "127.0.0.1:1",
        "registry_url": "http://127.0.0.1:1",
        "data_dir": tmp_path,
        "base_dir": tmp_path,
    }
    return SinkPartConfig(**(fields | changes))


@given(checkpoints, names)
def test_checkpoints_come_back_from_both_stored_forms(checkpoint: Checkpoint, owner: str) -> None:
    owner = f"pipeline/{owner}"
    others = {"other/x/raw/0": 7, "pipeline//lsn": 3, f"{owner}x//lsn": 9}
    assert from_transactions(owner, to_transactions(owner, checkpoint) | others) == checkpoint
    assert from_properties(owner, to_properties(owner, checkpoint) | {"write.format": "x"}) == checkpoint


def test_a_table_of_another_owner_has_epoch_zero() -> None:
    stored = Checkpoint({("raw", 0): 5}, 7, 3, 9)
    assert from_transactions("a/b", to_transactions("a/c", stored)).epoch == 0
    assert from_properties("a/b", to_properties("a/c", stored)).epoch == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "parquet"}, "no sink type 'parquet'"),
        ({"options": {}}, "option 'path'"),
        ({"options": {"path": "x", "compress": 9}}, "option 'compress'"),
        ({"inputs": (INPUT, INPUT)}, "reads topic 'raw.shop.orders' twice"),
        ({"registry_url": "nowhere"}, "not a registry address"),
    ],
)
def test_a_wrong_option_is_a_configuration_error_that_names_it(
    tmp_path: Path, changes: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(config(tmp_path, **changes), threading.Event())
    assert not (tmp_path / "lake").exists()


def test_our_sinks_are_found_by_entry_point() -> None:
    assert {"delta", "iceberg"} <= set(sink_types())
    for name in ("delta", "iceberg"):
        assert load_sink_type(name).Config.model_json_schema()["type"] == "object"


@pytest.mark.parametrize(
    ("have", "wanted", "becomes"),
    [
        (pa.int16(), pa.int64(), pa.int64()),
        (pa.int64(), pa.int16(), pa.int64()),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.decimal128(10, 2), pa.decimal128(12, 2), pa.decimal128(12, 2)),
        (pa.decimal128(10, 2), pa.decimal128(12, 3), None),
        (pa.int32(), pa.float64(), None),
        (pa.int64(), pa.string(), None),
        (pa.timestamp("us"), pa.timestamp("us", "UTC"), None),
    ],
)
def test_types_widen_or_stop(have: pa.DataType, wanted: pa.DataType, becomes: pa.DataType | None) -> None:
    table, stream = pa.schema({"x": have}), pa.schema({"x": wanted})
    if becomes is None:
        with pytest.raises(TailraceError, match="'x'"):
            evolve(table, stream, location="lake/t")
        return
    change = evolve(table, stream, location="lake/t")
    assert (table if change is None else change.schema).field("x").type == becomes


def test_freshness_keeps_a_bounded_window() -> None:
    freshness = Freshness()
    assert freshness.percentiles() == (None, None)
    freshness.staged(np.zeros(1_000_000, np.int64))
    freshness.visible()
    p50, p99 = freshness.percentiles()
    assert p50 is not None
    assert p99 is not None
    assert p99 >= p50 > 0


def test_units_of_foreign_topics_become_microseconds() -> None:
    types: dict[str, pa.DataType] = {
        "at": pa.timestamp("ms", "UTC"),
        "local": pa.timestamp("ns"),
        "clock": pa.time32("ms"),
        "tiny": pa.int8(),
    }
    stream = TableSchema(TableId("shop", "enriched"), pa.schema(types), ())
    schema = stored_schema(stream, delta_type, keyed=False)
    values = {"at": [1_000], "local": [5_000], "clock": [7], "tiny": [-3]}
    rows = pa.table({name: pa.array(values[name], arrow) for name, arrow in types.items()})
    stored = conform(rows, schema)
    assert schema.types == [pa.timestamp("us", "UTC"), pa.timestamp("us"), pa.int64(), pa.int16()]
    found = [column.cast(pa.int64())[0].as_py() for column in stored.columns]
    assert found == [1_000_000, 5, 7_000, -3]
