"""Every API that the broker serves, asked by who may not: Kafka's refusal, and no word about what exists.

The list of APIs is the broker's own dispatch table: one that is added there without a guard, or without a row that
says what Kafka answers, fails here.
"""

import asyncio
import dataclasses
import re
import struct
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from tests.fixtures.sasl import log_in
from tests.fixtures.wire import WireClient, batch, create, produce_request, produced
from tests.unit.security.refusals import CLUSTER, OPEN, ROWS, Need, Row, Target, resource

from tailrace.broker.config import BrokerConfig
from tailrace.broker.gate import LOGIN_APIS
from tailrace.broker.guards import GUARDS
from tailrace.broker.guards.answers import DENIED
from tailrace.broker.handlers import HANDLERS
from tailrace.broker.protocol import APIS, ApiKey, ErrorCode
from tailrace.broker.protocol import messages as m
from tailrace.broker.server import BrokerServer
from tailrace.security.acls import Acl, Operation, PatternType, Permission, ResourceType
from tailrace.security.authorizer import Authorizer

ADMIN, CLERK, PASSWORD = "admin", "clerk", "pw"
SERVED = [row for row in ROWS if row.api in ApiKey.__members__ and ApiKey[row.api] in HANDLERS]
AUTHORIZATION = {int(error) for error in DENIED.values()}


class Place:
    """A broker in this process with an authorizer: a listener that anybody enters, and one for logins."""

    def __init__(self, server: BrokerServer, loop: asyncio.AbstractEventLoop) -> None:
        self._server, self._loop = server, loop
        self.open, self.secured = (f"127.0.0.1:{door.port}" for door in server.doors)
        self.admin = WireClient(self.secured)
        log_in(self.admin, ADMIN, PASSWORD)

    @property
    def authorizer(self) -> Authorizer:
        found = self._server.broker.security.authorizer
        assert found is not None
        return found

    def set_rules(self, name: str, *needs: Need) -> None:
        """The clerk may do exactly this to the resources `name`."""

        async def change() -> None:
            self.authorizer.remove(list(self.authorizer._all()))
            self.authorizer.add(
                Acl(
                    need[0],
                    PatternType.LITERAL,
                    resource(need, name),
                    f"User:{CLERK}",
                    "*",
                    need[1],
                    Permission.ALLOW,
                )
                for need in needs
            )

        asyncio.run_coroutine_threadsafe(change(), self._loop).result(20)

    def furnish(self, name: str) -> Target:
        """A topic with a record, a group with an offset and a transactional id with an open transaction, all `name`."""
        topic_id = create(self.admin, name)
        assert produced(self.admin.ask(ApiKey.PRODUCE, produce_request(name, batch(b"x"))))[0] == 0
        commit = m.OffsetCommitRequestTopic(
            name, partitions=[m.OffsetCommitRequestPartition(0, 0, committed_metadata="")]
        )
        self.admin.ask(ApiKey.OFFSET_COMMIT, m.OffsetCommitRequest(name, topics=[commit]), 9)
        made = self.admin.ask(ApiKey.INIT_PRODUCER_ID, m.InitProducerIdRequest(name, 60_000))
        identity = (name, made.producer_id, made.producer_epoch)
        added = m.AddPartitionsToTxnRequest([], *identity, [m.AddPartitionsToTxnTopic(name, [0])])
        self.admin.ask(ApiKey.ADD_PARTITIONS_TO_TXN, added)
        self.admin.ask(ApiKey.ADD_OFFSETS_TO_TXN, m.AddOffsetsToTxnRequest(*identity, name))
        return Target(0, {name: topic_id}, made.producer_id, made.producer_epoch)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    config = BrokerConfig(
        tmp_path_factory.mktemp("guarded"),
        listeners=("PLAINTEXT://127.0.0.1:0", "SASL_PLAINTEXT://127.0.0.1:0"),
        authorizer_class_name="StandardAuthorizer",
        super_users=f"User:{ADMIN}",
        scram_users=(f"{ADMIN}={PASSWORD}", f"{CLERK}={PASSWORD}"),
        auto_create_topics=False,
        group_initial_rebalance_delay_ms=0,
    )
    ready: list[tuple[BrokerServer, asyncio.AbstractEventLoop]] = []
    is_ready = threading.Event()

    async def serve() -> None:
        server = BrokerServer(config)
        await server.start()
        ready.append((server, asyncio.get_running_loop()))
        is_ready.set()
        await server.run_until_stopped()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert is_ready.wait(60)
    made = Place(*ready[0])
    yield made
    made.admin.close()
    ready[0][1].call_soon_threadsafe(ready[0][0].stop)
    thread.join(60)


def errors_in(answer: Any) -> set[int]:
    """Every error code in an answer but NONE."""
    found: set[int] = set()
    if isinstance(answer, list):
        for item in answer:
            found |= errors_in(item)
    elif dataclasses.is_dataclass(answer):
        for field in dataclasses.fields(answer):
            value = getattr(answer, field.name)
            found |= {value} if field.name.endswith("error_code") else errors_in(value)
    return found - {0}


def errors_by_name(answer: Any, names: set[str]) -> dict[str, set[int]]:
    """The error codes in each part of an answer that bears one of the names."""
    found: dict[str, set[int]] = {}
    if isinstance(answer, list):
        parts = answer
    elif dataclasses.is_dataclass(answer):
        values = [getattr(answer, field.name) for field in dataclasses.fields(answer)]
        named = [value for value in values if isinstance(value, str) and value in names]
        if named:
            return {named[0]: errors_in(answer)}
        parts = values
    else:
        return {}
    for part in parts:
        for name, errors in errors_by_name(part, names).items():
            found[name] = found.get(name, set()) | errors
    return found


def versions(row: Row) -> range:
    served = APIS[ApiKey[row.api]].served
    return range(max(served.first, row.first), min(served.last, row.last) + 1)


def ask(wire: WireClient, row: Row, names: list[str], target: Target, version: int) -> Any:
    request = row.make(names, dataclasses.replace(target, version=version))
    return wire.ask(ApiKey[row.api], request, version)


def refusal(row: Row, missing: Need, version: int) -> set[int]:
    """What Kafka answers where `missing` is the first of what the row needs that is not allowed."""
    if row.hidden or version <= row.silent_until:
        return set()
    return {row.refused_as or DENIED[missing[0]]}


def shown(answer: Any) -> str:
    """An answer as text; where its buffers lie does not matter."""
    return re.sub(r"<memory at \w+>", "<memory>", repr(answer))


def fresh() -> str:
    return f"vault-{uuid.uuid4().hex[:12]}"


# -- the dispatch table --------------------------------------------------------------------------------


@pytest.mark.parametrize("key", HANDLERS, ids=lambda key: key.name)
def test_an_api_that_is_served_has_a_guard_and_a_row_in_the_table_of_refusals(key: ApiKey) -> None:
    assert key in GUARDS, f"{key.name} has no guard: it is not served where an authorizer is on"
    rows = {row.api for row in ROWS} | OPEN
    assert key.name in rows, f"{key.name} has no row: say in refusals.py what Kafka answers to whom"


def test_a_guard_is_for_an_api_that_is_served() -> None:
    assert GUARDS.keys() <= HANDLERS.keys()


def test_an_api_without_a_guard_is_not_served_to_anybody(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(GUARDS, ApiKey.LIST_GROUPS)
    place.admin.ask(ApiKey.DESCRIBE_CLUSTER, m.DescribeClusterRequest())
    with WireClient(place.secured) as wire:
        log_in(wire, ADMIN, PASSWORD)  # not even to a super user
        wire.send(ApiKey.LIST_GROUPS, m.ListGroupsRequest())
        assert wire.is_closed_by_broker()


# -- nobody --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [key for key in HANDLERS if key not in LOGIN_APIS], ids=lambda key: key.name)
def test_who_has_not_logged_in_is_hung_up_on_before_the_request_is_read(place: Place, key: ApiKey) -> None:
    with WireClient(place.secured) as wire:
        nonsense = struct.pack(">hhih", key, APIS[key].served.last, 1, -1) + b"\xff" * 40
        wire.send_bytes(struct.pack(">i", len(nonsense)) + nonsense)
        assert wire.is_closed_by_broker()


# -- somebody without rights ---------------------------------------------------------------------------


@pytest.mark.parametrize("row", SERVED, ids=str)
def test_who_has_no_rule_gets_exactly_kafkas_refusal_in_every_version(place: Place, row: Row) -> None:
    name = fresh()
    target = place.furnish(name)
    place.set_rules(name)
    with WireClient(place.open) as anonymous, WireClient(place.secured) as clerk:
        log_in(clerk, CLERK, PASSWORD)
        for version in versions(row):
            for wire in (anonymous, clerk):
                answer = ask(wire, row, [name], target, version)
                assert errors_in(answer) == refusal(row, row.needs[0], version), f"v{version}: {answer}"
                if row.hidden or version <= row.silent_until:
                    assert name not in repr(answer)


@pytest.mark.parametrize("row", [row for row in SERVED if row.needs[0][0] is not CLUSTER], ids=str)
def test_a_refusal_says_the_same_of_what_exists_and_of_what_does_not(place: Place, row: Row) -> None:
    there, absent = fresh(), fresh()
    target = place.furnish(there)
    place.set_rules(there)
    target.topic_ids[absent] = uuid.uuid4().bytes
    with WireClient(place.open) as wire:
        for version in versions(row):
            known = ask(wire, row, [there], target, version)
            unknown = ask(wire, row, [absent], target, version)
            if errors_in(known) == {ErrorCode.TOPIC_AUTHORIZATION_FAILED} and errors_in(unknown) == {
                ErrorCode.UNKNOWN_TOPIC_ID
            }:
                continue  # Kafka's answer: who has the random id of a topic knows that it exists
            ids = (repr(target.topic_ids[there]), repr(target.topic_ids[absent]))
            assert shown(known).replace(there, absent).replace(*ids) == shown(unknown), f"v{version}"


# -- somebody with rights ------------------------------------------------------------------------------


@pytest.mark.parametrize("row", SERVED, ids=str)
def test_exactly_the_rules_of_the_row_are_enough_and_each_is_needed(place: Place, row: Row) -> None:
    for version in {versions(row)[0], versions(row)[-1]}:
        name = fresh()
        target = place.furnish(name)
        with WireClient(place.secured) as clerk:
            log_in(clerk, CLERK, PASSWORD)
            for missing in row.needs:
                place.set_rules(name, *(need for need in row.needs if need != missing))
                answer = ask(clerk, row, [name], target, version)
                assert errors_in(answer) >= refusal(row, missing, version), (
                    f"v{version} without {missing}: {answer}"
                )
                if row.hidden:
                    assert name not in repr(answer)
            place.set_rules(name, *row.needs)
            answer = ask(clerk, row, [name], target, version)
            assert not errors_in(answer) & AUTHORIZATION, f"v{version}: {answer}"
            if row.hidden:
                assert name in repr(answer)


@pytest.mark.parametrize("row", SERVED, ids=str)
def test_other_operations_and_other_names_do_not_help(place: Place, row: Row) -> None:
    name = fresh()
    target = place.furnish(name)
    kind, operation = row.needs[0]
    implied = {
        Operation.DESCRIBE: {Operation.READ, Operation.WRITE, Operation.DELETE, Operation.ALTER},
        Operation.DESCRIBE_CONFIGS: {Operation.ALTER_CONFIGS},
    }.get(operation, set())
    helping = {operation, *implied, *row.enough}
    others = [o for o in Operation if o > Operation.ALL and o not in helping]
    version = versions(row)[-1]
    with WireClient(place.secured) as clerk:
        log_in(clerk, CLERK, PASSWORD)
        place.set_rules(name, *((kind, other) for other in others))
        answer = ask(clerk, row, [name], target, version)
        expected = refusal(row, row.needs[0], version)
        assert errors_in(answer) == expected, answer
        if row.hidden:
            assert name not in repr(answer)
        if kind is not CLUSTER and row.about != "idempotence by a topic":
            place.set_rules(name + "x", *row.needs)
            assert errors_in(ask(clerk, row, [name], target, version)) == expected


@pytest.mark.parametrize("row", [row for row in SERVED if row.many], ids=str)
def test_of_several_names_each_is_answered_for_itself(place: Place, row: Row) -> None:
    mine, theirs = fresh(), fresh()
    target = place.furnish(mine)
    target.topic_ids.update(place.furnish(theirs).topic_ids)
    place.set_rules(mine, *row.needs)
    with WireClient(place.secured) as clerk:
        log_in(clerk, CLERK, PASSWORD)
        for version in versions(row):
            for names in ([mine, theirs], [theirs, mine]):
                answer = ask(clerk, row, names, target, version)
                found = errors_by_name(answer, set(names))
                if not found:  # ids instead of names
                    assert errors_in(answer) >= refusal(row, row.needs[0], version)
                    continue
                assert found[theirs] == refusal(row, row.needs[0], version), f"v{version}: {answer}"
                assert not found[mine] & AUTHORIZATION, f"v{version}: {answer}"
            # the same name twice is the client's mistake; it is answered, and the connection stays
            ask(clerk, row, [theirs, mine, mine, theirs], target, version)


# -- traps of their own --------------------------------------------------------------------------------


def test_a_topic_is_found_by_id_or_by_name_and_never_authorized_as_one_and_served_as_the_other(
    place: Place,
) -> None:
    mine, theirs = fresh(), fresh()
    ids = place.furnish(mine).topic_ids | place.furnish(theirs).topic_ids
    place.set_rules(
        mine, *((row.needs[0][0], o) for row in SERVED[:1] for o in Operation if o > Operation.ALL)
    )
    both = m.DeleteTopicState(mine, ids[theirs])
    with WireClient(place.secured) as clerk:
        log_in(clerk, CLERK, PASSWORD)
        (answer,) = clerk.ask(ApiKey.DELETE_TOPICS, m.DeleteTopicsRequest([both])).responses
        assert answer.error_code in (ErrorCode.TOPIC_AUTHORIZATION_FAILED, ErrorCode.INVALID_REQUEST)
        wanted = m.FetchTopic(mine, ids[theirs], [m.FetchPartition(0, partition_max_bytes=1000)])
        for version in (12, 13):  # by name, by id
            fetched = clerk.ask(
                ApiKey.FETCH, m.FetchRequest(max_wait_ms=0, max_bytes=99, topics=[wanted]), version
            )
            expected = {ErrorCode.TOPIC_AUTHORIZATION_FAILED} if version == 13 else set()
            assert errors_in(fetched) == expected
    asked = m.MetadataRequest([m.MetadataRequestTopic(bytes(16), theirs)])
    assert not errors_in(place.admin.ask(ApiKey.METADATA, asked))  # it is still there


def test_records_that_may_not_be_written_with_acks_0_end_the_connection_and_are_not_there(
    place: Place,
) -> None:
    name = fresh()
    target = place.furnish(name)
    with WireClient(place.open) as wire:
        wire.send(ApiKey.PRODUCE, produce_request(name, batch(b"y"), acks=0))
        assert wire.is_closed_by_broker()
    end = m.ListOffsetsRequest(topics=[m.ListOffsetsTopic(name, [m.ListOffsetsPartition(0, timestamp=-1)])])
    (topic,) = place.admin.ask(ApiKey.LIST_OFFSETS, end).topics
    assert topic.partitions[0].offset == 1
    assert target.topic_ids


def test_a_client_that_calls_itself_a_replica_may_not_fetch_more(place: Place) -> None:
    name = fresh()
    target = place.furnish(name)
    place.set_rules(name)
    wanted = m.FetchTopic(name, target.topic_ids[name], [m.FetchPartition(0, partition_max_bytes=1000)])
    with WireClient(place.open) as wire:
        for version, request in (
            (12, m.FetchRequest(replica_id=7, max_bytes=999, topics=[wanted])),
            (17, m.FetchRequest(replica_state=m.ReplicaState(7, 1), max_bytes=999, topics=[wanted])),
        ):
            answer = wire.ask(ApiKey.FETCH, request, version)
            assert errors_in(answer) == {ErrorCode.TOPIC_AUTHORIZATION_FAILED}


def test_a_topic_is_not_created_on_the_way_by_who_may_only_describe(place: Place) -> None:
    name = fresh()
    with WireClient(place.open) as wire:
        asked = m.MetadataRequest([m.MetadataRequestTopic(bytes(16), name)], allow_auto_topic_creation=True)
        assert errors_in(wire.ask(ApiKey.METADATA, asked)) == {ErrorCode.TOPIC_AUTHORIZATION_FAILED}
    assert name not in repr(place.admin.ask(ApiKey.METADATA, m.MetadataRequest(None)))


def test_a_super_user_is_refused_nothing(place: Place) -> None:
    for row in SERVED:
        name = fresh()
        target = place.furnish(name)
        place.set_rules(name)
        answer = ask(place.admin, row, [name], target, versions(row)[-1])
        assert not errors_in(answer) & AUTHORIZATION, row


def test_operations_that_are_told_are_those_that_are_allowed(place: Place) -> None:
    name = fresh()
    place.furnish(name)
    place.set_rules(name, (SERVED[0].needs[0][0], Operation.READ))
    asked = m.MetadataRequest([m.MetadataRequestTopic(bytes(16), name)], False, True, True)
    with WireClient(place.secured) as clerk:
        log_in(clerk, CLERK, PASSWORD)
        answer = clerk.ask(ApiKey.METADATA, asked, 10)
        told = answer.topics[0].topic_authorized_operations
        assert told == 1 << Operation.READ | 1 << Operation.DESCRIBE
        assert answer.cluster_authorized_operations == 0


def test_members_of_a_consumer_group_are_told_only_to_who_may_see_their_topics(place: Place) -> None:
    name = fresh()
    place.furnish(name)
    said = m.ConsumerGroupHeartbeatRequest(
        name, "m", 0, rebalance_timeout_ms=1000, subscribed_topic_names=[name], topic_partitions=[]
    )
    assert place.admin.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, said).error_code == 0
    seeing_group = (ResourceType.GROUP, Operation.DESCRIBE)
    seeing_topic = (ResourceType.TOPIC, Operation.DESCRIBE)
    with WireClient(place.secured) as clerk:
        log_in(clerk, CLERK, PASSWORD)
        for rules, error in (
            ((seeing_group,), ErrorCode.TOPIC_AUTHORIZATION_FAILED),
            ((seeing_group, seeing_topic), 0),
        ):
            place.set_rules(name, *rules)
            asked = m.ConsumerGroupDescribeRequest([name])
            (group,) = clerk.ask(ApiKey.CONSUMER_GROUP_DESCRIBE, asked).groups
            assert (group.error_code, len(group.members)) == (error, 0 if error else 1)


def test_a_pattern_subscribes_only_to_topics_that_the_member_may_see(place: Place) -> None:
    mine, theirs = fresh(), fresh()
    ids = place.furnish(mine).topic_ids
    place.furnish(theirs)
    place.set_rules(mine, (ResourceType.GROUP, Operation.READ), (ResourceType.TOPIC, Operation.DESCRIBE))
    said = m.ConsumerGroupHeartbeatRequest(
        mine, "m", 0, rebalance_timeout_ms=1000, subscribed_topic_regex="vault-.*", topic_partitions=[]
    )
    with WireClient(place.secured) as clerk:
        log_in(clerk, CLERK, PASSWORD)
        assignment = clerk.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, said).assignment
    assert [topic.topic_id for topic in assignment.topic_partitions] == [ids[mine]]
