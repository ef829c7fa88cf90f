"""Every Python client writes while the broker is killed: nothing acknowledged is lost, nothing aborted is read."""

import pytest
from tests.interop import writers
from tests.interop.other_process import in_other_process
from tests.interop.writers import BackgroundWriter, Writer, read_all

from tailrace.broker.embedded import EmbeddedBroker

KILLS = 3


@pytest.mark.parametrize(
    "writer",
    [
        pytest.param(writers.confluent_idempotent, id="confluent-kafka, idempotent"),
        pytest.param(writers.confluent_transactions, id="confluent-kafka, transactional"),
        pytest.param(in_other_process(writers.kafka_python_idempotent), id="kafka-python, idempotent"),
        pytest.param(in_other_process(writers.kafka_python_transactions), id="kafka-python, transactional"),
        pytest.param(writers.aiokafka_idempotent, id="aiokafka, idempotent"),
        pytest.param(writers.aiokafka_transactions, id="aiokafka, transactional"),
    ],
)
def test_nothing_acknowledged_is_lost_and_nothing_aborted_is_read(
    broker: EmbeddedBroker, writer: Writer
) -> None:
    background = BackgroundWriter(writer, broker.bootstrap)
    try:
        for _ in range(KILLS):
            background.progress.wait_for_more(20)
            broker.kill()
            broker.restart()
        background.progress.wait_for_more(20)
    finally:
        background.finish()
    assert background.ledger.acknowledged
    background.ledger.check(read_all(broker))
