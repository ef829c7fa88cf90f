"""The tests that every sink and every table back end must pass; for authors of plugins too.

Inherit, name the class `Test...`, and give the fixtures that the class names::

    class TestDeltaBackend(BackendContract):
        @pytest.fixture
        def make_backend(self, tmp_path): ...

A "crash" here is dropping the writer without `close` and opening another one on the same table, which is all
that a killed process leaves; kills at named points in a real process are `tests/crash/test_sinks.py`.
"""

from tailrace.sinks.testing.backend import BackendContract
from tailrace.sinks.testing.model import EVENTS, ORDERS, ModelSource
from tailrace.sinks.testing.rows import assert_mirrors, rows_by_key
from tailrace.sinks.testing.sink import SinkContract

__all__ = [
    "EVENTS",
    "ORDERS",
    "BackendContract",
    "ModelSource",
    "SinkContract",
    "assert_mirrors",
    "rows_by_key",
]
