"""Static members (KIP-345) of the consumer protocol: an instance id keeps its partitions over a new process."""

from tests.unit.broker.coordinator.consumer_group.world import SESSION_MS, Client, World, settle

from tailrace.broker.protocol import ErrorCode


def static(world: World, member_id: str) -> Client:
    client = Client(world, member_id, "t", instance_id="i")
    client.join()
    return client


def test_an_instance_id_belongs_to_one_member_until_that_one_leaves() -> None:
    world = World(t=2)
    old = static(world, "old")
    assert Client(world, "new", "t", instance_id="i").join().error is ErrorCode.UNRELEASED_INSTANCE_ID
    assert world.beat("new", 1, instance_id="i").error is ErrorCode.FENCED_INSTANCE_ID
    assert world.beat("new", 1, instance_id="j").error is ErrorCode.UNKNOWN_MEMBER_ID
    assert world.beat("new", -1, instance_id="i").error is ErrorCode.FENCED_INSTANCE_ID
    old.leave()
    assert Client(world, "new", "t", instance_id="i").join().error is ErrorCode.NONE


def test_who_leaves_for_a_while_finds_its_partitions_again_and_nobody_else_moves() -> None:
    world = World(t=4)
    old, other = static(world, "old"), Client(world, "b", "t")
    other.join()
    settle([old, other])
    had, epoch = old.owned, world.group.epoch
    assert old.leave(-2).epoch == -2
    settle([other])
    assert len(other.owned) == 2
    new = static(world, "new")
    assert (new.owned, new.epoch, world.group.epoch) == (had, epoch, epoch)
    assert set(world.group.subscriptions) == {"new", "b"}
    assert old.world.beat("old", epoch, instance_id="i").error is ErrorCode.FENCED_INSTANCE_ID


def test_who_does_not_come_back_within_its_session_is_out() -> None:
    world = World(t=4)
    old, other = static(world, "old"), Client(world, "b", "t")
    other.join()
    settle([old, other])
    old.leave(-2)
    world.wait(SESSION_MS - 1)
    other.beat()
    world.wait(1)
    settle([other])
    assert other.owned == world.topics.places("t")


def test_what_was_being_given_up_is_free_when_the_member_leaves_for_a_while() -> None:
    world = World(t=4)
    old = static(world, "old")
    other = Client(world, "b", "t")
    other.join()
    old.beat()  # told to give two up
    old.leave(-2)
    settle([other])
    assert len(other.owned) == 2
    new = static(world, "new")
    settle([new, other])
    assert (len(new.owned), len(other.owned)) == (2, 2)
