"""Idempotent sends without a transaction: each batch is in the log once, and durable when `send` returns."""

from collections.abc import Sequence

from tailrace.broker.client.client import Client
from tailrace.broker.client.errors import raise_for
from tailrace.broker.client.partition import TopicPartition
from tailrace.broker.client.sequencing import SequencedSender
from tailrace.broker.protocol import ApiKey, messages


class IdempotentProducer:
    """For control paths that write a record at a time.  Not thread-safe."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._sender = SequencedSender(client, None)
        self._ready = False

    def send(self, items: Sequence[tuple[TopicPartition, bytearray]]) -> list[int]:
        """Append whole record batches; their base offsets, in the order given.

        The batches' producer fields and CRC are filled in here, in place.  Returns when all are durable.  After an
        error any of them may be in the log; the next call starts with a new producer id.
        """
        if not self._ready:
            self._client.retrying("init producer id", self._init)
        self._ready = False
        offsets = self._sender.send(items)
        self._ready = True
        return offsets

    def _init(self) -> None:
        request = messages.InitProducerIdRequest(
            transactional_id=None, transaction_timeout_ms=60_000, producer_id=-1, producer_epoch=-1
        )
        response = self._client.ask(self._client.connection(), ApiKey.INIT_PRODUCER_ID, request)
        raise_for(response.error_code, "init producer id")
        self._sender.reset(response.producer_id, response.producer_epoch)
