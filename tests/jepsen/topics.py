"""Makes the topic of a key, and its second partition, when a client first meets them."""

from typing import Any

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic
from tests.jepsen.workload import topic_partition

_DONE = frozenset(
    {
        ck.KafkaError.TOPIC_ALREADY_EXISTS,
        ck.KafkaError.INVALID_PARTITIONS,  # it has as many already
    }
)


class Topics:
    """What this process knows to exist."""

    def __init__(self, settings: dict[str, Any], timeout_s: float) -> None:
        self._admin = AdminClient(settings)
        self._timeout_s = timeout_s
        self._known: set[str] = set()

    def ensure(self, key: str) -> bool:
        """Whether the key's partition exists now."""
        if key in self._known:
            return True
        topic, partition = topic_partition(key)
        done = self._try(self._admin.create_topics([NewTopic(topic, 1, 1)], request_timeout=self._timeout_s))
        if done and partition:
            grown = NewPartitions(topic, partition + 1)
            done = self._try(self._admin.create_partitions([grown], request_timeout=self._timeout_s))
        if done:
            self._known.add(key)
        return done

    def _try(self, futures: dict[str, Any]) -> bool:
        (future,) = futures.values()
        try:
            future.result(self._timeout_s + 1)
        except ck.KafkaException as error:
            return error.args[0].code() in _DONE
        except TimeoutError:
            return False
        return True
