"""Every Python client writes while the broker is killed: nothing acknowledged is lost, nothing aborted is read."""

import pytest
from tests.interop import writers
from tests.interop.writers import BackgroundWriter, Writer, read_all

from tailrace.broker.embedded import EmbeddedBroker

KILLS = 3

pytestmark = [
    pytest.mark.usefixtures("collect_left_sockets"),
    pytest.mark.filterwarnings("ignore:read_text is deprecated:DeprecationWarning"),
    # kafka-python leaves sockets to the garbage collector when its broker was killed
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


@pytest.mark.parametrize(
    "writer",
    [
        writers.confluent_idempotent,
        writers.confluent_transactions,
        writers.kafka_python_idempotent,
        writers.kafka_python_transactions,
        writers.aiokafka_idempotent,
        writers.aiokafka_transactions,
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
