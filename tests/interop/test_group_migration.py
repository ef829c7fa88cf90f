"""Groups of real clients roll from one protocol to the other, member by member, while they read."""

from contextlib import ExitStack

import confluent_kafka as ck
import pytest
from tests.fixtures.broker import BrokerFactory
from tests.interop.test_consumer_protocol import (
    PARTITIONS,
    TIMEOUT_S,
    consumer,
    kinds,
    make_topic,
    poll_until,
    produce,
    spread,
)

from tailrace.broker.embedded import EmbeddedBroker

SESSION = {"session_timeout_ms": "6000", "heartbeat_interval_ms": "200"}


@pytest.fixture
def quick_broker(broker_factory: BrokerFactory) -> EmbeddedBroker:
    return broker_factory(group_consumer_heartbeat_interval_ms=200)


class Fleet:
    """The members of one group; each can be replaced by one of another protocol."""

    def __init__(self, broker: EmbeddedBroker, strategy: str) -> None:
        self.broker = broker
        self.classic = {"partition_assignment_strategy": strategy, **SESSION}
        self.members: list[ck.Consumer] = []
        self._closers: list[ExitStack] = []
        self.taken: list[bytes] = []

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(self, *_: object) -> None:
        while self.members:
            self.leave()

    def join(self, protocol: str, **config: str) -> None:
        closer = ExitStack()
        config = {**(self.classic if protocol == "classic" else {}), **config}
        self.members.append(closer.enter_context(consumer(self.broker, "t", protocol, **config)))
        self._closers.append(closer)

    def leave(self) -> None:
        """The eldest member goes."""
        self.members.pop(0)
        self._closers.pop(0).close()

    def share(self, counts: list[int]) -> None:
        poll_until(
            self.members,
            lambda: sorted(len(member.assignment()) for member in self.members) == counts,
            self.taken,
        )
        owned = [place.partition for member in self.members for place in member.assignment()]
        assert sorted(owned) == list(range(PARTITIONS))

    def read(self, sent: set[bytes]) -> None:
        """Take everything, and commit it."""
        poll_until(self.members, lambda: sent <= set(self.taken), self.taken)
        for member in self.members:
            member.commit(asynchronous=False)  # each has a partition, and there was something in each


def become(broker: EmbeddedBroker, members: list[ck.Consumer], kind: str) -> None:
    """Wait until all members have got where they shall be, in a group of this kind."""
    poll_until(members, lambda: kinds(broker) == [("g", kind, "STABLE")])


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_a_group_rolls_to_the_consumer_protocol_and_back_while_it_reads(
    quick_broker: EmbeddedBroker, strategy: str
) -> None:
    make_topic(quick_broker, "t")
    sent = 0
    with Fleet(quick_broker, strategy) as fleet:
        for _ in range(2):
            fleet.join("classic")
        fleet.share([2, 2])
        for step, protocol in enumerate(["consumer", "consumer", "classic", "classic"]):
            fleet.join(protocol)
            fleet.share([1, 1, 2])
            fleet.read(produce(quick_broker, "t", range(sent, sent + 40)))
            sent += 40
            fleet.leave()
            fleet.share([2, 2])
            become(quick_broker, fleet.members, "classic" if step == 3 else "consumer")
        assert (
            len(fleet.taken) == len(set(fleet.taken)) == sent
        )  # nothing twice: offsets moved with partitions


def test_a_group_of_both_protocols_goes_on_over_a_sigkill(quick_broker: EmbeddedBroker) -> None:
    make_topic(quick_broker, "t")
    with Fleet(quick_broker, "range") as fleet:
        fleet.join("classic")
        fleet.share([PARTITIONS])
        fleet.join("consumer")
        fleet.share([2, 2])
        fleet.read(produce(quick_broker, "t", range(40)))
        owned = [{place.partition for place in member.assignment()} for member in fleet.members]
        quick_broker.kill()
        quick_broker.restart()
        fleet.read(produce(quick_broker, "t", range(40, 80)))
        fleet.share([2, 2])
        assert [{place.partition for place in member.assignment()} for member in fleet.members] == owned
        become(quick_broker, fleet.members, "consumer")
        committed = fleet.members[0].committed(
            [ck.TopicPartition("t", number) for number in range(PARTITIONS)], TIMEOUT_S
        )
        assert [place.offset for place in committed] == [20] * PARTITIONS


def test_a_static_member_comes_back_with_the_other_protocol_and_finds_its_partitions(
    quick_broker: EmbeddedBroker,
) -> None:
    make_topic(quick_broker, "t")
    with consumer(
        quick_broker, "t", "classic", partition_assignment_strategy="cooperative-sticky", **SESSION
    ) as other:
        for protocol in ("classic", "consumer", "classic"):
            extra = {} if protocol == "consumer" else {"partition_assignment_strategy": "cooperative-sticky"}
            with consumer(quick_broker, "t", protocol, group_instance_id="i", **extra) as static:
                spread([static, other], [2, 2])
                owned = [place.partition for reader in (static, other) for place in reader.assignment()]
                assert sorted(owned) == list(range(PARTITIONS))
                become(quick_broker, [static, other], protocol)


def test_where_no_way_is_open_the_group_stays_what_it_is(broker_factory: BrokerFactory) -> None:
    broker = broker_factory(
        group_consumer_heartbeat_interval_ms=200, group_consumer_migration_policy="disabled"
    )
    make_topic(broker, "t")
    with consumer(broker, "t", "classic", **SESSION) as old:
        spread([old], [PARTITIONS])
        with consumer(broker, "t") as new:
            told: list[object] = []

            def refused() -> bool:
                message = new.poll(0.05)
                if message is not None and message.error() is not None:
                    told.append(message.error())
                return bool(told)

            poll_until([old], refused)
            assert len(old.assignment()) == PARTITIONS
            assert kinds(broker) == [("g", "classic", "STABLE")]
