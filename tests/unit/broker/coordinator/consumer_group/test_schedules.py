"""Whatever members, topics and time do: no partition has two members, and all get what they shall have."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.unit.broker.coordinator.consumer_group.world import (
    GROUP,
    REBALANCE_MS,
    SESSION_MS,
    Client,
    World,
    settle,
    state_of,
)

from tailrace.broker.coordinator.consumer_group.group import ConsumerGroupState
from tailrace.broker.coordinator.consumer_group.member import AWAY_EPOCH

NAMES = st.sampled_from(["a", "b", "c", "d"])
TOPICS = st.sampled_from(["t", "u", "v"])
SUBSCRIPTIONS = st.lists(TOPICS, min_size=1, unique=True)


class GroupMachine(RuleBasedStateMachine):
    """Members that come, stall, lose answers, crash and come back; a broker that restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.clients: dict[str, Client] = {}

    @initialize(t=st.integers(1, 5), u=st.integers(1, 5))
    def begin(self, t: int, u: int) -> None:
        self.world = World(t=t, u=u)

    # -- members ---------------------------------------------------------------------------------------

    @rule(name=NAMES, topics=SUBSCRIPTIONS, assignor=st.sampled_from([None, "range", "uniform"]))
    def join(self, name: str, topics: list[str], assignor: str | None) -> None:
        client = Client(self.world, name, *topics, assignor=assignor)
        self.clients[name] = client
        client.join()

    @rule(name=NAMES, pattern=st.sampled_from(["t|u", "[uv]", "nothing"]))
    def join_by_pattern(self, name: str, pattern: str) -> None:
        self.clients[name] = Client(self.world, name, pattern=pattern)
        self.clients[name].join()

    @rule(number=st.integers(0, 9), instance=st.sampled_from(["i", "j"]), topics=SUBSCRIPTIONS)
    def join_static(self, number: int, instance: str, topics: list[str]) -> None:
        name = f"{instance}{number}"
        client = Client(self.world, name, *topics, instance_id=instance)
        if name in self.clients and self.clients[name].is_in:
            client = self.clients[name]
        self.clients[name] = client
        client.join()

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), lost=st.booleans())
    def beat(self, data: st.DataObject, lost: bool) -> None:
        client = self.clients[data.draw(st.sampled_from(sorted(self.clients)))]
        if client.is_in:
            client.beat(lost=lost)

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        self.clients[data.draw(st.sampled_from(sorted(self.clients)))].give_up()

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), topics=SUBSCRIPTIONS)
    def subscribe(self, data: st.DataObject, topics: list[str]) -> None:
        client = self.clients[data.draw(st.sampled_from(sorted(self.clients)))]
        if client.is_in:
            client.subscribe(*topics)

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), away=st.booleans())
    def leave(self, data: st.DataObject, away: bool) -> None:
        client = self.clients[data.draw(st.sampled_from(sorted(self.clients)))]
        if client.is_in:
            client.leave(AWAY_EPOCH if away and "instance_id" in client.said else -1)

    # -- the world -------------------------------------------------------------------------------------

    @rule(topic=TOPICS, count=st.integers(1, 6))
    def put_topic(self, topic: str, count: int) -> None:
        shape = self.world.topics.shape(topic)
        if shape is None or shape[1] < count:
            self.world.topics.put(topic, count)

    @rule(topic=TOPICS)
    def remove_topic(self, topic: str) -> None:
        self.world.topics.remove(topic)

    @rule(ms=st.sampled_from([5_000, REBALANCE_MS, SESSION_MS]))
    def wait(self, ms: int) -> None:
        self.world.wait(ms)

    @rule()
    def restart(self) -> None:
        before = state_of(self.world.groups)
        self.world.restart()
        assert state_of(self.world.groups) == before

    # -- what must hold --------------------------------------------------------------------------------

    @invariant()
    def no_partition_has_two_members(self) -> None:
        group = self.world.groups.get(GROUP)
        if group is None:
            return
        assert group.progress.keys() <= group.subscriptions.keys()
        held = [p for member in group.progress.values() for p in (*member.assigned, *member.revoking)]
        assert len(held) == len(set(held))

    @invariant()
    def members_use_only_what_the_group_knows_to_be_theirs(self) -> None:
        group = self.world.groups.get(GROUP)
        for client in self.clients.values():
            # who is out but does not know yet is told by its next heartbeat, and cannot commit
            if group is not None and client.is_in and client.member_id in group.subscriptions:
                progress = group.progress_of(client.member_id)
                assert client.owned <= progress.assigned.keys() | progress.revoking.keys()

    def teardown(self) -> None:
        """In the end everybody gets the target."""
        members = list(self.clients.values())
        settle(members)
        for client in members:
            if not client.is_in and "instance_id" not in client.said:
                client.join()
        alive = [client for client in members if client.is_in]
        self.world.wait(SESSION_MS - 1)
        settle(alive)
        self.world.wait(1)
        settle(alive)
        group = self.world.groups.get(GROUP)
        if group is None:
            return
        assert set(group.subscriptions) == {client.member_id for client in alive}
        assert group.state is (ConsumerGroupState.STABLE if alive else ConsumerGroupState.EMPTY)
        for client in alive:
            assert client.is_in
            assert client.owned == group.targets[client.member_id]
        read = group.subscribed_topics()
        places = [place for client in alive for place in client.owned]
        assert len(places) == len(set(places))
        assert frozenset(places) == self.world.topics.places(*read)


TestSchedules = GroupMachine.TestCase
TestSchedules.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
