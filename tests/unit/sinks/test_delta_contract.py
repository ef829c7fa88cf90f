"""The Delta back end and the Delta sink keep the contracts."""

from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.tables import scan_delta

from tailrace.sinks.delta.config import DeltaConfig
from tailrace.sinks.delta.sink import DeltaSink
from tailrace.sinks.delta.store import open_store
from tailrace.sinks.delta.table import DeltaTable
from tailrace.sinks.sink import SinkPlace
from tailrace.sinks.testing import BackendContract, SinkContract

OPTIONS = {"checkpoint_every": 7, "keep_old_files": 0.0}


class TestDeltaTable(BackendContract):
    @pytest.fixture
    def make_backend(self, tmp_path: Path) -> Any:
        config = DeltaConfig(path="unused", **OPTIONS)
        return lambda: DeltaTable(open_store("orders", {}, tmp_path), "shop/lake", config)

    @pytest.fixture
    def scan(self) -> Any:
        return scan_delta


class _DeltaContract(SinkContract):
    write = ""

    @pytest.fixture
    def make_sink(self, tmp_path: Path) -> Any:
        config = DeltaSink.Config(path="lake/{table}", write=self.write, **OPTIONS)
        return lambda: DeltaSink(config, SinkPlace("shop/lake", tmp_path / "cache", tmp_path))

    @pytest.fixture
    def scan(self) -> Any:
        return scan_delta


class TestDeltaMergeOnRead(_DeltaContract):
    write = "merge_on_read"


class TestDeltaCopyOnWrite(_DeltaContract):
    write = "copy_on_write"
