"""The consumer protocol, one promise at a time: joins, revocations, epochs, fences, patterns."""

import pytest
from tests.unit.broker.coordinator.consumer_group.world import (
    GROUP,
    REBALANCE_MS,
    SESSION_MS,
    Client,
    World,
    settle,
    state_of,
)

from tailrace.broker.coordinator.consumer_group.coordinator import ConsumerGroupLimits, Timings
from tailrace.broker.coordinator.consumer_group.group import ConsumerGroupState
from tailrace.broker.log import LogError
from tailrace.broker.protocol import ErrorCode

FIRST = {"topics": frozenset({"t"}), "rebalance_timeout_ms": REBALANCE_MS, "owned": frozenset()}


def joined(world: World, *names: str) -> list[Client]:
    clients = [Client(world, name, "t") for name in names]
    for client in clients:
        assert client.join().error is ErrorCode.NONE
    settle(clients)
    return clients


def test_the_first_member_gets_every_partition_with_its_join() -> None:
    world = World(t=3)
    answer = Client(world, "a", "t").join()
    assert (answer.epoch, answer.assignment) == (1, world.topics.places("t"))
    assert world.group.state is ConsumerGroupState.STABLE


def test_a_partition_moves_only_after_its_member_says_that_it_gave_it_up() -> None:
    world = World(t=4)
    (first,) = joined(world, "a")
    second = Client(world, "b", "t")
    assert second.join().assignment == frozenset()
    told = first.beat()
    assert told.assignment is not None
    assert len(told.assignment) == 2
    assert told.epoch == 1  # it stays behind until it has acknowledged
    assert first.owned == world.topics.places("t")
    assert second.beat().assignment is None
    assert first.beat().epoch == 1
    first.give_up()
    assert first.beat().epoch == 2
    assert second.beat().assignment == world.topics.places("t") - first.owned
    assert world.group.state is ConsumerGroupState.STABLE


def test_a_heartbeat_without_owned_partitions_acknowledges_nothing() -> None:
    world = World(t=4)
    (first,) = joined(world, "a")
    Client(world, "b", "t").join()
    first.beat()
    assert world.beat("a", 1).epoch == 1
    assert world.group.state is ConsumerGroupState.RECONCILING


def test_the_assignment_is_told_only_when_it_changes_or_the_member_says_everything() -> None:
    world = World(t=1)
    joined(world, "a")
    places = world.topics.places("t")
    assert world.beat("a", 1).assignment is None
    assert world.beat("a", 1, owned=places).assignment is None
    full = {**FIRST, "owned": places}
    assert world.beat("a", 1, **full).assignment == places


def test_a_steady_heartbeat_writes_nothing() -> None:
    world = World(t=4)
    clients = joined(world, "a", "b")
    written = len(world.log)
    settle(clients)
    assert len(world.log) == written


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"member_id": ""}, ErrorCode.INVALID_REQUEST),
        ({"rebalance_timeout_ms": -1}, ErrorCode.INVALID_REQUEST),
        ({"owned": None}, ErrorCode.INVALID_REQUEST),
        ({"owned": frozenset({(bytes(16), 0)})}, ErrorCode.INVALID_REQUEST),
        ({"topics": None}, ErrorCode.INVALID_REQUEST),
        ({"instance_id": " "}, ErrorCode.INVALID_REQUEST),
        ({"rack_id": ""}, ErrorCode.INVALID_REQUEST),
        ({"epoch": -3}, ErrorCode.INVALID_REQUEST),
        ({"epoch": -2}, ErrorCode.INVALID_REQUEST),
        ({"assignor": "sticky"}, ErrorCode.UNSUPPORTED_ASSIGNOR),
        ({"pattern": "(", "topics": None}, ErrorCode.INVALID_REGULAR_EXPRESSION),
        ({"pattern": "(a)\\1", "topics": None}, ErrorCode.INVALID_REGULAR_EXPRESSION),
        ({"epoch": 5}, ErrorCode.GROUP_ID_NOT_FOUND),
        ({"epoch": -1}, ErrorCode.GROUP_ID_NOT_FOUND),
    ],
    ids=str,
)
def test_a_heartbeat_that_kafka_refuses_is_refused_and_makes_no_group(
    said: dict[str, object], error: ErrorCode
) -> None:
    world = World(t=1)
    answer = world.beat(**{"member_id": "a", "epoch": 0, **FIRST, **said})  # type: ignore[arg-type]
    assert (answer.error, answer.text is not None) == (error, True)
    assert world.log == []
    assert world.groups.get(GROUP) is None


def test_before_version_1_the_broker_names_the_member() -> None:
    answer = World(t=1).beat("", 0, **FIRST, names_itself=False)
    assert len(answer.member_id) == 36


def test_who_is_no_member_is_told_so() -> None:
    world = World(t=1)
    joined(world, "a")
    assert world.beat("b", 1).error is ErrorCode.UNKNOWN_MEMBER_ID
    assert world.beat("b", -1).error is ErrorCode.UNKNOWN_MEMBER_ID


def test_another_epoch_fences_but_the_one_before_is_taken_for_a_lost_answer() -> None:
    world = World(t=2, u=1)
    (client,) = joined(world, "a")
    before = client.owned
    world.topics.put("t", 3)
    assert client.beat(lost=True).epoch == 2
    assert world.beat("a", 3).error is ErrorCode.FENCED_MEMBER_EPOCH
    assert world.beat("a", 1).error is ErrorCode.FENCED_MEMBER_EPOCH  # it does not say what it owns
    foreign = before | world.topics.places("u")
    assert world.beat("a", 1, owned=foreign).error is ErrorCode.FENCED_MEMBER_EPOCH
    assert client.beat().epoch == 2


def test_a_member_may_join_again_at_any_time_and_keeps_its_partitions() -> None:
    world = World(t=4)
    (first, second) = joined(world, "a", "b")
    had = first.owned
    assert first.join().assignment == had
    settle([first, second])
    assert first.owned == had


def test_a_group_that_is_full_takes_nobody_more() -> None:
    world = World(ConsumerGroupLimits(max_size=1), t=1)
    (client,) = joined(world, "a")
    assert world.beat("b", 0, **FIRST).error is ErrorCode.GROUP_MAX_SIZE_REACHED
    assert client.beat().error is ErrorCode.NONE


def test_a_silent_member_is_out_after_the_session_timeout_and_the_others_share() -> None:
    world = World(t=4)
    (first, second) = joined(world, "a", "b")
    world.wait(SESSION_MS - 1)
    second.beat()
    world.wait(1)
    assert set(world.group.subscriptions) == {"b"}
    assert world.group.state is ConsumerGroupState.ASSIGNING
    settle([second])
    assert second.owned == world.topics.places("t")
    assert first.beat().error is ErrorCode.UNKNOWN_MEMBER_ID


def test_a_session_lasts_as_long_as_its_group_says_when_the_member_was_heard() -> None:
    world = World(t=1)
    (first,) = joined(world, "a")
    world.timings[GROUP] = Timings(session_timeout_ms=SESSION_MS + 2)
    world.wait(SESSION_MS - 1)
    first.beat()
    world.wait(SESSION_MS + 1)
    assert set(world.group.subscriptions) == {"a"}
    world.restart()
    world.wait(SESSION_MS + 1)
    assert set(world.group.subscriptions) == {"a"}
    world.wait(1)
    assert not world.group.subscriptions


def test_a_member_that_does_not_give_up_in_time_is_fenced() -> None:
    world = World(t=4)
    (first,) = joined(world, "a")
    second = Client(world, "b", "t")
    second.join()
    first.beat()
    for _ in range(2):
        world.wait(REBALANCE_MS // 2 - 1)
        assert first.beat().error is ErrorCode.NONE
        second.beat()
    world.wait(2)
    assert first.beat().error is ErrorCode.UNKNOWN_MEMBER_ID
    settle([second])
    assert second.owned == world.topics.places("t")


def test_who_gave_up_in_time_is_not_fenced_later() -> None:
    world = World(t=4)
    (first, second) = joined(world, "a", "b")
    for _ in range(4):
        world.wait(REBALANCE_MS - 1)
        assert first.beat().error is second.beat().error is ErrorCode.NONE


def test_a_leaving_member_frees_its_partitions_at_once() -> None:
    world = World(t=4)
    (first, second) = joined(world, "a", "b")
    assert first.leave().epoch == -1
    second.beat()
    assert second.owned == world.topics.places("t")


def test_an_empty_group_stays_with_its_epoch() -> None:
    world = World(t=1)
    (client,) = joined(world, "a")
    client.leave()
    assert (world.group.state, world.group.epoch) == (ConsumerGroupState.EMPTY, 2)
    assert client.join().epoch == 3


@pytest.mark.parametrize("change", ["grow", "make", "delete"])
def test_topics_that_come_grow_and_go_make_a_new_epoch(change: str) -> None:
    world = World(t=2)
    client = Client(world, "a", "t", "later")
    client.join()
    if change == "grow":
        world.topics.put("t", 5)
    elif change == "make":
        world.topics.put("later", 1)
    else:
        world.topics.remove("t")
    settle([client])
    assert client.epoch == 2
    assert client.owned == world.topics.places("t", "later")


def test_topics_that_nobody_reads_change_nothing() -> None:
    world = World(t=2)
    clients = joined(world, "a")
    written = len(world.log)
    world.topics.put("other", 1)
    settle(clients)
    assert (world.group.epoch, len(world.log)) == (1, written)


def test_a_topic_made_again_is_another_topic() -> None:
    world = World(t=1)
    (client,) = joined(world, "a")
    old = client.owned
    world.topics.remove("t")
    world.topics.put("t", 1)
    settle([client])
    assert client.owned == world.topics.places("t") != old


def test_a_changed_subscription_moves_what_it_changes() -> None:
    world = World(t=2, u=2)
    (first, second) = joined(world, "a", "b")
    first.subscribe("u")
    settle([first, second])
    assert (first.owned, second.owned) == (world.topics.places("u"), world.topics.places("t"))


def test_a_pattern_finds_topics_as_a_whole_and_follows_them() -> None:
    world = World(orders=1, orders_eu=1, reorders=1, hidden_orders=1)
    client = Client(world, "a", pattern="(hidden_)?orders.*", may_see=lambda name: name != "hidden_orders")
    client.join()
    assert client.owned == world.topics.places("orders", "orders_eu")
    world.topics.put("orders_us", 1)
    world.topics.remove("orders_eu")
    settle([client])
    assert client.owned == world.topics.places("orders", "orders_us")


def test_a_pattern_that_lost_a_topic_gives_it_to_who_still_reads_it() -> None:
    world = World(t=2, u=1)
    hidden: set[str] = set()
    watcher = Client(world, "a", pattern="t|u", may_see=lambda name: name not in hidden)
    reader = Client(world, "b", "t", "u")
    for client in (watcher, reader):
        client.join()
    settle([watcher, reader])
    hidden.add("t")
    world.topics.put("unrelated", 1)
    settle([watcher, reader])
    assert reader.owned >= world.topics.places("t")
    assert watcher.owned <= world.topics.places("u")
    assert world.group.state is ConsumerGroupState.STABLE


def test_a_pattern_that_nobody_has_any_more_is_forgotten() -> None:
    world = World(t=1, u=1)
    first, second = Client(world, "a", pattern="t"), Client(world, "b", pattern="t")
    for client in (first, second):
        client.join()
    assert first.beat(pattern="u").error is ErrorCode.NONE
    assert set(world.group.patterns) == {"t", "u"}
    second.leave()
    assert set(world.group.patterns) == {"u"}
    first.said.clear()
    assert first.beat(pattern="", topics=frozenset({"t"})).error is ErrorCode.NONE
    settle([first])
    assert (world.group.patterns, first.owned) == ({}, world.topics.places("t"))


def test_the_assignor_is_the_one_that_most_members_ask_for() -> None:
    world = World(t=1)
    clients = [Client(world, name, "t", assignor=name[1:]) for name in ("1range", "2range", "3uniform")]
    for client in clients:
        client.join()
    assert world.group.assignor("uniform") == "range"


def test_a_write_that_fails_has_not_happened() -> None:
    world = World(t=4)
    (first,) = joined(world, "a")
    before = state_of(world.groups)
    world.disk_full = True
    with pytest.raises(LogError):
        Client(world, "b", "t").join()
    world.wait(SESSION_MS)
    assert state_of(world.groups) == before
    world.disk_full = False
    world.wait(1)
    assert first.beat().error is ErrorCode.UNKNOWN_MEMBER_ID


def test_a_restart_gives_members_their_whole_session_again() -> None:
    world = World(t=4)
    (first, second) = joined(world, "a", "b")
    world.wait(SESSION_MS - 1)
    world.restart()
    world.wait(SESSION_MS - 1)
    assert first.beat().error is ErrorCode.NONE
    world.wait(1)
    assert second.beat().error is ErrorCode.UNKNOWN_MEMBER_ID


def test_operators_remove_members_by_either_id() -> None:
    world = World(t=4)
    static = Client(world, "s", "t", instance_id="i")
    static.join()
    joined(world, "a", "b")
    leaving: list[tuple[str, str | None]] = [("a", None), ("", "i"), ("x", None), ("", "j"), ("b", "i")]
    errors = world.groups.leave(GROUP, leaving)
    assert errors == [
        ErrorCode.NONE,
        ErrorCode.NONE,
        ErrorCode.UNKNOWN_MEMBER_ID,
        ErrorCode.UNKNOWN_MEMBER_ID,
        ErrorCode.FENCED_INSTANCE_ID,
    ]
    assert set(world.group.subscriptions) == {"b"}


def test_only_a_current_member_commits_and_only_what_was_its_own_in_the_epoch_it_names() -> None:
    world = World(t=2)
    (first, second) = joined(world, "a", "b")
    epoch, (mine,), (other,) = first.epoch, first.owned, second.owned
    check = world.groups.check_commit
    assert check(GROUP, "a", None, epoch, transactional=False) is ErrorCode.NONE
    assert check(GROUP, "a", None, epoch + 1, transactional=False) is ErrorCode.STALE_MEMBER_EPOCH
    assert check(GROUP, "x", None, epoch, transactional=False) is ErrorCode.UNKNOWN_MEMBER_ID
    assert check(GROUP, "", None, -1, transactional=False) is ErrorCode.UNKNOWN_MEMBER_ID
    assert check(GROUP, "", None, -1, transactional=True) is ErrorCode.NONE
    world.topics.put("t", 3)
    settle([first, second])
    place = world.groups.check_place
    assert first.epoch == epoch + 1
    assert place(GROUP, "a", epoch, mine) is ErrorCode.NONE  # its own since before that epoch
    assert place(GROUP, "a", epoch, other) is ErrorCode.STALE_MEMBER_EPOCH
    assert place(GROUP, "a", epoch - 2, mine) is ErrorCode.STALE_MEMBER_EPOCH
    for client in (first, second):
        client.leave()
    assert check(GROUP, "", None, -1, transactional=False) is ErrorCode.NONE


def test_offsets_are_told_to_current_members_and_to_who_is_none() -> None:
    world = World(t=2)
    (client,) = joined(world, "a")
    check = world.groups.check_fetch
    assert check(GROUP, "a", client.epoch) is ErrorCode.NONE
    assert check(GROUP, None, -1) is ErrorCode.NONE
    assert check(GROUP, "a", client.epoch + 1) is ErrorCode.STALE_MEMBER_EPOCH
    assert check(GROUP, "x", client.epoch) is ErrorCode.UNKNOWN_MEMBER_ID
