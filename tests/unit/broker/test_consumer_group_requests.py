"""What the broker answers about groups of the consumer protocol (KIP-848), over the wire."""

from typing import Any
from uuid import UUID

import pytest
from tests.fixtures.broker import BrokerFactory
from tests.fixtures.wire import WireClient, create
from tests.unit.broker.coordinator.consumer_group.classic_client import assignment, subscription

from tailrace.broker.protocol import ApiKey, ErrorCode
from tailrace.broker.protocol import messages as m
from tailrace.changes.errors import ConfigError

NOBODY = -1


def heartbeat(
    wire: WireClient, member_id: str, epoch: int = 0, **said: Any
) -> m.ConsumerGroupHeartbeatResponse:
    if epoch == 0:
        first = {"rebalance_timeout_ms": 60_000, "subscribed_topic_names": ["t"], "topic_partitions": []}
        said = {**first, **said}
    request = m.ConsumerGroupHeartbeatRequest("g", member_id, epoch, **said)
    answer: m.ConsumerGroupHeartbeatResponse = wire.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, request)
    return answer


def topic_id(wire: WireClient, name: str) -> bytes:
    (topic,) = wire.ask(ApiKey.METADATA, m.MetadataRequest([m.MetadataRequestTopic(name=name)])).topics
    found: bytes = topic.topic_id
    return found


def commit(wire: WireClient, epoch: int, member_id: str = "", version: int = 9, partition: int = 0) -> int:
    topic = m.OffsetCommitRequestTopic("t", partitions=[m.OffsetCommitRequestPartition(partition, 7)])
    request = m.OffsetCommitRequest("g", epoch, member_id, topics=[topic])
    answer = wire.ask(ApiKey.OFFSET_COMMIT, request, version)
    code: int = answer.topics[0].partitions[0].error_code
    return code


def join_classic(wire: WireClient, member_id: str = "", metadata: bytes = b"") -> m.JoinGroupResponse:
    protocols = [m.JoinGroupRequestProtocol("range", metadata)]
    request = m.JoinGroupRequest("g", 10_000, 10_000, member_id, None, "consumer", protocols)
    answer: m.JoinGroupResponse = wire.ask(ApiKey.JOIN_GROUP, request)
    return answer


def test_a_member_joins_is_described_and_leaves(wire: WireClient) -> None:
    create(wire, "t", 2)
    joined = heartbeat(wire, "a", rack_id="r", server_assignor="range")
    assert (joined.error_code, joined.member_id, joined.member_epoch) == (0, "a", 1)
    assert joined.heartbeat_interval_ms == 5_000
    places = [m.ConsumerGroupTopicPartitions(topic_id(wire, "t"), [0, 1])]
    assert joined.assignment == m.ConsumerGroupAssignment(places)
    asked = m.ConsumerGroupDescribeRequest(["g", "none"], include_authorized_operations=True)
    found, none = wire.ask(ApiKey.CONSUMER_GROUP_DESCRIBE, asked).groups
    assert (found.group_state, found.group_epoch, found.assignment_epoch) == ("Stable", 1, 1)
    assert (found.assignor_name, found.authorized_operations != -(2**31)) == ("range", True)
    (member,) = found.members
    assert (member.member_id, member.rack_id, member.member_epoch, member.member_type) == ("a", "r", 1, 1)
    named = m.NamedAssignment([m.NamedTopicPartitions(topic_id(wire, "t"), "t", [0, 1])])
    assert (member.assignment, member.target_assignment) == (named, named)
    assert (none.error_code, none.error_message) == (ErrorCode.GROUP_ID_NOT_FOUND, "Group none not found.")
    assert heartbeat(wire, "a", -1).member_epoch == -1


def test_each_list_and_description_knows_its_own_kind_of_group(wire: WireClient) -> None:
    create(wire, "t")
    heartbeat(wire, "a")
    commit_elsewhere = m.OffsetCommitRequestTopic("t", partitions=[m.OffsetCommitRequestPartition(0, 7)])
    wire.ask(ApiKey.OFFSET_COMMIT, m.OffsetCommitRequest("classic", topics=[commit_elsewhere]), 9)

    def listed(**filters: list[str]) -> list[tuple[str, str, str, str]]:
        groups = wire.ask(ApiKey.LIST_GROUPS, m.ListGroupsRequest(**filters)).groups
        return [(g.group_id, g.group_type, g.group_state, g.protocol_type) for g in groups]

    mine, other = ("g", "consumer", "Stable", "consumer"), ("classic", "classic", "Empty", "")
    assert listed() == [other, mine]
    assert listed(types_filter=["Consumer"]) == listed(states_filter=["stable"]) == [mine]
    assert listed(types_filter=["classic"]) == [other]
    (described,) = wire.ask(ApiKey.DESCRIBE_GROUPS, m.DescribeGroupsRequest(["g"])).groups
    assert (described.error_code, described.group_state) == (ErrorCode.GROUP_ID_NOT_FOUND, "Dead")
    assert described.error_message == "Group g is not a classic group."
    (described,) = wire.ask(ApiKey.DESCRIBE_GROUPS, m.DescribeGroupsRequest(["g"]), 5).groups
    assert (described.error_code, described.group_state) == (0, "Dead")
    asked = m.ConsumerGroupDescribeRequest(["classic"])
    (described,) = wire.ask(ApiKey.CONSUMER_GROUP_DESCRIBE, asked).groups
    assert described.error_message == "Group classic is not a consumer group."


def test_commits_are_judged_by_member_and_epoch_and_by_version(wire: WireClient) -> None:
    create(wire, "t", 2)
    heartbeat(wire, "a")
    assert commit(wire, 1, "a") == ErrorCode.NONE
    assert commit(wire, 1, "a", version=8) == ErrorCode.UNSUPPORTED_VERSION
    assert commit(wire, 2, "a") == ErrorCode.STALE_MEMBER_EPOCH
    assert commit(wire, 0, "a") == ErrorCode.STALE_MEMBER_EPOCH
    assert commit(wire, 1, "b") == ErrorCode.UNKNOWN_MEMBER_ID
    assert commit(wire, NOBODY) == ErrorCode.UNKNOWN_MEMBER_ID
    heartbeat(wire, "a", -1)
    assert commit(wire, NOBODY, version=2) == ErrorCode.NONE


def test_offsets_are_committed_and_fetched_by_topic_id(wire: WireClient) -> None:
    create(wire, "t", 2)
    heartbeat(wire, "a")
    mine, unknown = topic_id(wire, "t"), UUID(int=5).bytes

    def commit_by_id(of: bytes) -> int:
        topic = m.OffsetCommitRequestTopic("", of, [m.OffsetCommitRequestPartition(1, 42)])
        request = m.OffsetCommitRequest("g", 1, "a", topics=[topic])
        answer = wire.ask(ApiKey.OFFSET_COMMIT, request, 10).topics[0]
        assert answer.topic_id == of
        code: int = answer.partitions[0].error_code
        return code

    assert commit_by_id(mine) == ErrorCode.NONE
    assert commit_by_id(unknown) == commit_by_id(bytes(16)) == ErrorCode.UNKNOWN_TOPIC_ID

    def fetch(member_id: str | None, epoch: int, *ids: bytes) -> m.OffsetFetchResponseGroup:
        topics = [m.OffsetFetchRequestTopics("", of, [1]) for of in ids]
        group = m.OffsetFetchRequestGroup("g", member_id, epoch, topics or None)
        (answer,) = wire.ask(ApiKey.OFFSET_FETCH, m.OffsetFetchRequest(groups=[group]), 10).groups
        found: m.OffsetFetchResponseGroup = answer
        return found

    for answer in (fetch("a", 1, mine), fetch(None, -1)):
        assert [
            (t.topic_id, [(p.committed_offset, p.error_code) for p in t.partitions]) for t in answer.topics
        ] == [(mine, [(42, 0)])]
    (topic,) = fetch("a", 1, unknown).topics
    assert topic.partitions[0].error_code == ErrorCode.UNKNOWN_TOPIC_ID
    assert fetch("a", 2, mine).error_code == ErrorCode.STALE_MEMBER_EPOCH
    assert fetch("b", 1, mine).error_code == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_transaction_commits_offsets_only_for_a_current_member(wire: WireClient) -> None:
    create(wire, "t", 2)
    heartbeat(wire, "a")
    made = wire.ask(ApiKey.INIT_PRODUCER_ID, m.InitProducerIdRequest("tx", 60_000))
    who = ("tx", made.producer_id, made.producer_epoch)
    assert wire.ask(ApiKey.ADD_OFFSETS_TO_TXN, m.AddOffsetsToTxnRequest(*who, "g")).error_code == 0

    def commit_in_transaction(epoch: int, member_id: str) -> int:
        topic = m.TxnOffsetCommitRequestTopic("t", [m.TxnOffsetCommitRequestPartition(0, 9)])
        request = m.TxnOffsetCommitRequest("tx", "g", *who[1:], epoch, member_id, topics=[topic])
        code: int = wire.ask(ApiKey.TXN_OFFSET_COMMIT, request).topics[0].partitions[0].error_code
        return code

    assert commit_in_transaction(1, "a") == ErrorCode.NONE
    assert commit_in_transaction(NOBODY, "") == ErrorCode.NONE
    assert commit_in_transaction(2, "a") == commit_in_transaction(0, "a") == ErrorCode.ILLEGAL_GENERATION
    assert commit_in_transaction(1, "b") == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_classic_member_joins_a_consumer_group_and_is_told_what_it_has(wire: WireClient) -> None:
    create(wire, "t", 2)
    heartbeat(wire, "a")
    assert join_classic(wire).error_code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL  # it says not what it reads
    pending = join_classic(wire, metadata=subscription(["t"]))
    assert pending.error_code == ErrorCode.MEMBER_ID_REQUIRED
    joined = join_classic(wire, pending.member_id, subscription(["t"]))
    assert (joined.error_code, joined.generation_id, joined.leader, joined.members) == (0, 2, "", [])
    assert (joined.protocol_type, joined.protocol_name) == ("consumer", "range")
    me = ("g", 2, pending.member_id)
    synced = wire.ask(ApiKey.SYNC_GROUP, m.SyncGroupRequest(*me, None, "consumer", "range"))
    assert (synced.error_code, synced.assignment) == (0, assignment([]))  # all is still `a`'s
    assert wire.ask(ApiKey.HEARTBEAT, m.HeartbeatRequest(*me)).error_code == 0
    heartbeat(wire, "a", 1, topic_partitions=[m.ConsumerGroupTopicPartitions(topic_id(wire, "t"), [0, 1])])
    told = heartbeat(
        wire, "a", 1, topic_partitions=[m.ConsumerGroupTopicPartitions(topic_id(wire, "t"), [0])]
    )
    assert (told.error_code, told.member_epoch) == (0, 2)
    assert wire.ask(ApiKey.HEARTBEAT, m.HeartbeatRequest(*me)).error_code == ErrorCode.REBALANCE_IN_PROGRESS
    assert join_classic(wire, pending.member_id, subscription(["t"])).generation_id == 2
    synced = wire.ask(ApiKey.SYNC_GROUP, m.SyncGroupRequest(*me, None, "consumer", "range"))
    assert (synced.error_code, synced.assignment) == (0, assignment([("t", 1)]))
    (group,) = wire.ask(ApiKey.CONSUMER_GROUP_DESCRIBE, m.ConsumerGroupDescribeRequest(["g"])).groups
    assert {one.member_id: one.member_type for one in group.members} == {"a": 1, pending.member_id: 0}
    assert commit(wire, 2, pending.member_id, 8, partition=1) == ErrorCode.NONE
    assert commit(wire, 1, pending.member_id, 8, partition=1) == ErrorCode.ILLEGAL_GENERATION
    wrong = m.SyncGroupRequest(*me, None, "consumer", "roundrobin")
    assert wire.ask(ApiKey.SYNC_GROUP, wrong).error_code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    strange = m.SyncGroupRequest("g", 2, "a")
    assert wire.ask(ApiKey.SYNC_GROUP, strange).error_code == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_classic_group_with_members_is_not_turned_where_the_policy_says_so(
    broker_factory: BrokerFactory,
) -> None:
    broker = broker_factory(group_consumer_migration_policy="Disabled")
    with WireClient(broker.bootstrap) as wire:
        create(wire, "t")
        pending = join_classic(wire, metadata=subscription(["t"]))
        assert join_classic(wire, pending.member_id, subscription(["t"])).error_code == 0
        refused = heartbeat(wire, "a")
        assert (refused.error_code, refused.error_message) == (
            ErrorCode.GROUP_ID_NOT_FOUND,
            "Group g is not a consumer group.",
        )


def test_members_and_groups_and_offsets_are_removed_by_operators(wire: WireClient) -> None:
    create(wire, "t")
    create(wire, "other")
    heartbeat(wire, "a")
    heartbeat(wire, "s", instance_id="i")
    assert commit(wire, 1, "a") == ErrorCode.NONE

    def delete_offset(name: str) -> int:
        topic = m.OffsetDeleteRequestTopic(name, [m.OffsetDeleteRequestPartition(0)])
        code: int = (
            wire.ask(ApiKey.OFFSET_DELETE, m.OffsetDeleteRequest("g", [topic]))
            .topics[0]
            .partitions[0]
            .error_code
        )
        return code

    def delete_group() -> int:
        (result,) = wire.ask(ApiKey.DELETE_GROUPS, m.DeleteGroupsRequest(["g"])).results
        code: int = result.error_code
        return code

    assert (delete_offset("t"), delete_offset("other")) == (ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC, 0)
    assert delete_group() == ErrorCode.NON_EMPTY_GROUP
    leaving = [m.LeaveGroupMember("", "i"), m.LeaveGroupMember("a"), m.LeaveGroupMember("nobody")]
    left = wire.ask(ApiKey.LEAVE_GROUP, m.LeaveGroupRequest("g", members=leaving))
    assert [member.error_code for member in left.members] == [0, 0, ErrorCode.UNKNOWN_MEMBER_ID]
    assert heartbeat(wire, "a", 1).error_code == ErrorCode.UNKNOWN_MEMBER_ID
    assert (delete_group(), delete_group()) == (0, ErrorCode.GROUP_ID_NOT_FOUND)
    assert heartbeat(wire, "a", 1).error_code == ErrorCode.GROUP_ID_NOT_FOUND


def test_the_options_of_the_consumer_protocol_are_obeyed(broker_factory: BrokerFactory) -> None:
    broker = broker_factory(
        group_consumer_heartbeat_interval_ms=50,
        group_consumer_session_timeout_ms=51,
        group_consumer_max_size=1,
        group_consumer_assignors=("range",),
    )
    with WireClient(broker.bootstrap) as wire:
        create(wire, "t")
        assert heartbeat(wire, "a", server_assignor="uniform").error_code == ErrorCode.UNSUPPORTED_ASSIGNOR
        assert heartbeat(wire, "a").heartbeat_interval_ms == 50
        while (second := heartbeat(wire, "b")).error_code == ErrorCode.GROUP_MAX_SIZE_REACHED:
            pass  # until the first one's session is over
        assert second.error_code == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"group_consumer_session_timeout_ms": 5_000}, "must be smaller than"),
        ({"group_consumer_assignors": ("sticky",)}, "names sticky"),
        ({"group_consumer_assignors": ()}, "names no assignor"),
        ({"group_consumer_min_session_timeout_ms": 60_001}, "is greater than group.consumer.max.session"),
        ({"group_consumer_migration_policy": "sometimes"}, "bidirectional, upgrade, downgrade, disabled"),
        ({"group_consumer_max_size": 0}, "group.consumer.max.size must be greater than 0"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(
    broker_factory: BrokerFactory, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        broker_factory(**options)
