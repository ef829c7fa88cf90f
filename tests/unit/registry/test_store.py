"""The registry's topic, against a real broker: a lost answer leaves memory and log alike."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tailrace.broker.client import BrokerUnavailableError, Client, TopicPartition
from tailrace.broker.embedded import EmbeddedBroker
from tailrace.registry.store import Store


def test_no_id_is_given_twice_after_a_lost_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedBroker(tmp_path) as broker, Client(broker.bootstrap, client_id="test") as client:
        store = Store(client)
        store.open()
        send = store._producer.send

        def lose(items: Sequence[tuple[TopicPartition, bytearray]]) -> Any:
            send(items)
            raise BrokerUnavailableError("the answer was lost")

        with monkeypatch.context() as patch:
            patch.setattr(store._producer, "send", lose)
            with pytest.raises(BrokerUnavailableError):
                store.write(lambda state: state.register("first", '"int"'))
        other = store.write(lambda state: state.register("second", '"long"'))
        again = Store(client)
        again.open()
        assert again.subjects == store.subjects
        assert again.subjects.schema(other) == '"long"'
        assert again.write(lambda state: state.register("third", '"int"')) != other
