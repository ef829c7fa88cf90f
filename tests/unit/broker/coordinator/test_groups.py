"""The classic group protocol, told by time and callbacks alone."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tailrace.broker.coordinator.group import (
    Group,
    GroupState,
    JoinRequest,
    JoinResult,
    SyncRequest,
    SyncResult,
)
from tailrace.broker.coordinator.groups import GroupCoordinator
from tailrace.broker.coordinator.rebalance import NEW_MEMBER_JOIN_TIMEOUT_MS, GroupLimits
from tailrace.broker.coordinator.schemas import GroupMetadata
from tailrace.broker.protocol import ErrorCode

SESSION_MS = 10_000
REBALANCE_MS = 60_000


class Groups:
    """A coordinator with a clock, a log that can be held back, and what was answered."""

    def __init__(self, **limits: int) -> None:
        self.now_ms = 1_000_000
        self.stored: dict[str, GroupMetadata] = {}
        self.hold_log = self.full = False
        self.held: list[Callable[[bool], None]] = []
        self.coordinator = GroupCoordinator(GroupLimits(**limits), self._persist)

    def _persist(self, group_id: str, value: GroupMetadata, done: Callable[[bool], None]) -> None:
        if self.hold_log:
            self.held.append(done)
        elif not self.full:
            done(True)
        if self.full:
            done(False)
        else:
            self.stored[group_id] = value

    @property
    def group(self) -> Group:
        group = self.coordinator.get("g")
        assert group is not None
        return group

    def join(self, member_id: str = "", **changes: Any) -> list[JoinResult]:
        """Join; the answers appear in the returned list."""
        request = JoinRequest(
            group_id="g",
            member_id=member_id,
            instance_id=None,
            client_id="client",
            client_host="/127.0.0.1",
            session_timeout_ms=SESSION_MS,
            rebalance_timeout_ms=REBALANCE_MS,
            protocol_type="consumer",
            protocols=(("range", b"topics"),),
            require_known_member_id=False,
            can_skip_assignment=True,
        )
        answers: list[JoinResult] = []
        self.coordinator.join(dataclasses.replace(request, **changes), self.now_ms, answers.append)
        return answers

    def sync(
        self,
        member_id: str,
        generation: int,
        assignments: Mapping[str, bytes] | None = None,
        instance_id: str | None = None,
    ) -> list[SyncResult]:
        answers: list[SyncResult] = []
        request = SyncRequest("g", generation, member_id, instance_id, None, None, assignments or {})
        self.coordinator.sync(request, self.now_ms, answers.append)
        return answers

    def heartbeat(self, member_id: str, generation: int) -> ErrorCode:
        return self.coordinator.heartbeat("g", generation, member_id, None, self.now_ms)

    def leave(self, *member_ids: str) -> list[ErrorCode]:
        return self.coordinator.leave("g", [(member_id, None) for member_id in member_ids], self.now_ms)

    def advance(self, ms: int) -> None:
        self.now_ms += ms
        self.coordinator.tick(self.now_ms)

    def stable_pair(self) -> tuple[str, str]:
        """Two members in a STABLE group of generation 2; the first leads."""
        (first,) = self.join()
        second_answers = self.join()
        (rejoined,) = self.join(first.member_id)
        (second,) = second_answers
        assert rejoined.generation == second.generation == 2
        waiting = self.sync(second.member_id, 2)
        self.sync(first.member_id, 2, {first.member_id: b"a", second.member_id: b"b"})
        assert waiting[0].assignment == b"b"
        return first.member_id, second.member_id


@pytest.fixture
def groups() -> Groups:
    return Groups()


def test_a_lone_member_leads_and_gets_its_assignment(groups: Groups) -> None:
    (joined,) = groups.join()
    assert (joined.error, joined.generation, joined.leader) == (ErrorCode.NONE, 1, joined.member_id)
    assert [member.metadata for member in joined.members] == [b"topics"]
    (synced,) = groups.sync(joined.member_id, 1, {joined.member_id: b"mine"})
    assert (synced.error, synced.assignment) == (ErrorCode.NONE, b"mine")
    assert groups.group.state is GroupState.STABLE


def test_since_v4_a_new_member_is_given_an_id_and_must_come_again(groups: Groups) -> None:
    (refused,) = groups.join(require_known_member_id=True)
    assert refused.error is ErrorCode.MEMBER_ID_REQUIRED
    (joined,) = groups.join(refused.member_id, require_known_member_id=True)
    assert (joined.error, joined.member_id) == (ErrorCode.NONE, refused.member_id)


def test_a_rebalance_waits_for_a_member_that_was_given_an_id(groups: Groups) -> None:
    (refused,) = groups.join(require_known_member_id=True)
    waiting = groups.join()
    assert not waiting
    groups.advance(SESSION_MS)
    assert waiting[0].generation == 1
    assert groups.join(refused.member_id)[0].error is ErrorCode.UNKNOWN_MEMBER_ID


def test_a_second_member_makes_the_first_one_join_again(groups: Groups) -> None:
    (first,) = groups.join()
    groups.sync(first.member_id, 1, {})
    second = groups.join()
    assert not second
    assert groups.heartbeat(first.member_id, 1) is ErrorCode.REBALANCE_IN_PROGRESS
    (again,) = groups.join(first.member_id)
    assert {member.member_id for member in again.members} == {first.member_id, second[0].member_id}
    assert (again.leader, second[0].leader, second[0].members) == (first.member_id, first.member_id, ())


def test_nobody_learns_an_assignment_before_it_is_durable(groups: Groups) -> None:
    (joined,) = groups.join()
    groups.hold_log = True
    answers = groups.sync(joined.member_id, 1, {joined.member_id: b"mine"})
    assert not answers
    assert groups.stored["g"].members[0].assignment == b"mine"
    groups.held[0](True)
    assert answers[0].assignment == b"mine"


def test_an_assignment_that_became_durable_too_late_is_dropped(groups: Groups) -> None:
    (joined,) = groups.join()
    groups.hold_log = True
    answers = groups.sync(joined.member_id, 1, {joined.member_id: b"old"})
    groups.join()
    assert answers[0].error is ErrorCode.REBALANCE_IN_PROGRESS
    groups.held[0](True)
    assert groups.group.state is GroupState.PREPARING


def test_a_silent_member_is_expired_and_the_others_rebalance(groups: Groups) -> None:
    first, second = groups.stable_pair()
    groups.advance(SESSION_MS - 1)
    assert groups.heartbeat(first, 2) is ErrorCode.NONE
    groups.advance(1)
    assert groups.heartbeat(second, 2) is ErrorCode.UNKNOWN_MEMBER_ID
    (alone,) = groups.join(first)
    assert (alone.generation, len(alone.members)) == (3, 1)


def test_a_session_that_is_over_counts_no_more_before_the_next_tick(groups: Groups) -> None:
    (joined,) = groups.join()
    groups.sync(joined.member_id, joined.generation, {joined.member_id: b"a"})
    states = []
    for late_ms in (-1, 0):
        groups.coordinator.settle("g", groups.now_ms + SESSION_MS + late_ms)
        states.append(groups.group.state)
    assert states == [GroupState.STABLE, GroupState.EMPTY]
    groups.coordinator.settle("unknown", groups.now_ms)


def test_members_that_do_not_come_back_in_time_are_dropped(groups: Groups) -> None:
    first, second = groups.stable_pair()
    waiting = groups.join(second, protocols=(("range", b"other topics"),))
    for _ in range(REBALANCE_MS // (SESSION_MS // 2)):
        groups.heartbeat(first, 2)
        groups.advance(SESSION_MS // 2)
    assert (waiting[0].leader, [m.member_id for m in waiting[0].members]) == (second, [second])


def test_a_member_that_joined_and_never_synced_is_dropped(groups: Groups) -> None:
    groups.join()
    groups.coordinator.get("g")
    (member_id,) = groups.group.members
    for _ in range(REBALANCE_MS // (SESSION_MS // 2)):
        groups.heartbeat(member_id, 1)
        groups.advance(SESSION_MS // 2)
    assert groups.group.state is GroupState.EMPTY


def test_a_parked_member_lives_on_but_a_new_one_only_so_long(groups: Groups) -> None:
    (refused,) = groups.join(require_known_member_id=True, session_timeout_ms=30 * 60_000)
    waiting = groups.join(rebalance_timeout_ms=2 * NEW_MEMBER_JOIN_TIMEOUT_MS)
    groups.advance(NEW_MEMBER_JOIN_TIMEOUT_MS - 1)
    assert not waiting
    groups.advance(1)
    assert waiting[0].error is ErrorCode.UNKNOWN_MEMBER_ID
    assert refused.member_id in groups.group.pending_joins


def test_rejoining_a_stable_group_disturbs_nobody_unless_the_leader_does_it(groups: Groups) -> None:
    first, second = groups.stable_pair()
    (follower,) = groups.join(second)
    assert (follower.generation, groups.group.state) == (2, GroupState.STABLE)
    assert not groups.join(first)
    assert groups.group.state is GroupState.PREPARING


def test_the_protocol_is_the_one_that_most_members_prefer_and_all_know(groups: Groups) -> None:
    (first,) = groups.join(protocols=(("range", b""), ("sticky", b"")))
    groups.join(protocols=(("sticky", b""), ("range", b"")))
    groups.join(protocols=(("sticky", b""), ("range", b""), ("own", b"")))
    (joined,) = groups.join(first.member_id, protocols=(("range", b""), ("sticky", b"")))
    assert joined.protocol == "sticky"
    assert groups.join(protocols=(("own", b""),))[0].error is ErrorCode.INCONSISTENT_GROUP_PROTOCOL


def test_leaving_rebalances_at_once_and_the_last_one_leaves_an_empty_group(groups: Groups) -> None:
    first, second = groups.stable_pair()
    assert groups.leave(second) == [ErrorCode.NONE]
    assert groups.heartbeat(first, 2) is ErrorCode.REBALANCE_IN_PROGRESS
    assert groups.leave(first) == [ErrorCode.NONE]
    assert groups.group.state is GroupState.EMPTY
    assert groups.stored["g"].members == ()
    assert groups.leave(first) == [ErrorCode.UNKNOWN_MEMBER_ID]


def test_a_static_member_comes_back_without_a_rebalance(groups: Groups) -> None:
    (joined,) = groups.join(instance_id="i")
    groups.sync(joined.member_id, 1, {joined.member_id: b"mine"}, "i")
    (back,) = groups.join(instance_id="i")
    assert back.member_id != joined.member_id
    assert (back.generation, back.skip_assignment, back.leader) == (1, True, back.member_id)
    assert groups.group.state is GroupState.STABLE
    assert groups.sync(back.member_id, 1, None, "i")[0].assignment == b"mine"
    fenced = groups.coordinator.heartbeat("g", 1, joined.member_id, "i", groups.now_ms)
    assert fenced is ErrorCode.FENCED_INSTANCE_ID


def test_an_old_client_that_comes_back_as_static_leader_is_made_a_follower(groups: Groups) -> None:
    (joined,) = groups.join(instance_id="i")
    groups.sync(joined.member_id, 1, {joined.member_id: b"mine"}, "i")
    (back,) = groups.join(instance_id="i", can_skip_assignment=False)
    assert (back.leader, back.members, back.skip_assignment) == (joined.member_id, (), False)


def test_the_parked_request_of_a_replaced_static_member_is_fenced(groups: Groups) -> None:
    groups.join(require_known_member_id=True)  # keeps the rebalance open
    parked = groups.join(instance_id="i")
    groups.join(instance_id="i")
    assert parked[0].error is ErrorCode.FENCED_INSTANCE_ID


def test_static_members_survive_a_rebalance_that_they_miss(groups: Groups) -> None:
    (kept,) = groups.join(instance_id="i", session_timeout_ms=10 * REBALANCE_MS)
    groups.sync(kept.member_id, 1, {}, "i")
    waiting = groups.join(session_timeout_ms=10 * REBALANCE_MS)
    groups.advance(REBALANCE_MS)
    assert waiting[0].leader == waiting[0].member_id
    assert {m.instance_id for m in waiting[0].members} == {"i", None}


def test_the_first_rebalance_waits_as_long_as_members_keep_coming() -> None:
    groups = Groups(initial_rebalance_delay_ms=3_000)
    first = groups.join()
    groups.advance(2_000)
    second = groups.join()
    groups.advance(1_000)
    assert not first
    groups.advance(3_000)
    assert first[0].generation == second[0].generation == 1


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"group_id": ""}, ErrorCode.INVALID_GROUP_ID),
        ({"session_timeout_ms": 5_999}, ErrorCode.INVALID_SESSION_TIMEOUT),
        ({"session_timeout_ms": 30 * 60_000 + 1}, ErrorCode.INVALID_SESSION_TIMEOUT),
        ({"member_id": "stranger"}, ErrorCode.UNKNOWN_MEMBER_ID),
        ({"protocols": ()}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
    ],
)
def test_a_join_that_cannot_be_is_refused_and_leaves_no_group(
    changes: dict[str, Any], error: ErrorCode
) -> None:
    groups = Groups()
    assert groups.join(**changes)[0].error is error
    assert list(groups.coordinator) == []


def test_a_full_group_takes_nobody_new() -> None:
    groups = Groups(max_size=1)
    (first,) = groups.join()
    assert groups.join()[0].error is ErrorCode.GROUP_MAX_SIZE_REACHED
    assert groups.join(first.member_id)[0].error is ErrorCode.NONE


def test_commits_are_allowed_to_current_members_and_to_anyone_on_an_empty_group(groups: Groups) -> None:
    def check(member_id: str, generation: int, *, transactional: bool = False) -> ErrorCode:
        return groups.coordinator.check_commit(
            "g", member_id, None, generation, groups.now_ms, transactional=transactional
        )

    assert check("", -1) is ErrorCode.NONE
    assert check("someone", 3) is ErrorCode.ILLEGAL_GENERATION
    first, _ = groups.stable_pair()
    assert check(first, 2) is ErrorCode.NONE
    assert check(first, 1) is ErrorCode.ILLEGAL_GENERATION
    assert check("stranger", 2) is ErrorCode.UNKNOWN_MEMBER_ID
    assert check("", -1) is ErrorCode.UNKNOWN_MEMBER_ID
    assert check("", -1, transactional=True) is ErrorCode.NONE


def test_while_an_assignment_is_awaited_only_transactions_commit(groups: Groups) -> None:
    (joined,) = groups.join()
    arguments = ("g", joined.member_id, None, 1, groups.now_ms)
    assert groups.coordinator.check_commit(*arguments, transactional=False) is ErrorCode.REBALANCE_IN_PROGRESS
    assert groups.coordinator.check_commit(*arguments, transactional=True) is ErrorCode.NONE


def test_a_restored_group_goes_on_where_it_was(groups: Groups) -> None:
    first, second = groups.stable_pair()
    restarted = Groups()
    restarted.coordinator.restore("g", groups.stored["g"], restarted.now_ms)
    assert restarted.heartbeat(first, 2) is ErrorCode.NONE
    assert restarted.sync(second, 2)[0].assignment == b"b"
    assert restarted.group.leader == first
    restarted.advance(SESSION_MS)
    assert restarted.group.state is GroupState.EMPTY


def test_stopping_sends_every_parked_member_elsewhere(groups: Groups) -> None:
    groups.stable_pair()
    parked = groups.join()
    groups.coordinator.release_parked()
    assert parked[0].error is ErrorCode.NOT_COORDINATOR


def test_an_assignment_that_no_disk_takes_is_told_to_nobody(groups: Groups) -> None:
    (joined,) = groups.join()
    groups.full = True
    (refused,) = groups.sync(joined.member_id, 1, {joined.member_id: b"mine"})
    assert (refused.error, refused.assignment) == (ErrorCode.COORDINATOR_NOT_AVAILABLE, b"")
    groups.full = False
    (again,) = groups.join(joined.member_id)
    assert again.generation == 2
    assert groups.sync(joined.member_id, 2, {joined.member_id: b"mine"})[0].assignment == b"mine"


def test_a_static_member_whose_return_no_disk_takes_is_the_old_one(groups: Groups) -> None:
    (joined,) = groups.join(instance_id="i")
    groups.sync(joined.member_id, 1, {joined.member_id: b"mine"}, "i")
    groups.full = True
    (refused,) = groups.join(instance_id="i", protocols=(("range", b"more topics"),))
    assert refused.error is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert groups.coordinator.heartbeat("g", 1, joined.member_id, "i", groups.now_ms) is ErrorCode.NONE
    (member,) = groups.group.members.values()
    assert member.protocols == (("range", b"topics"),)


def test_members_that_leave_together_cause_one_rebalance(groups: Groups) -> None:
    (first,) = groups.join()
    second, third = groups.join(), groups.join()
    groups.join(first.member_id)
    joined = [first.member_id, second[0].member_id, third[0].member_id]
    waiting = [groups.sync(member_id, 2) for member_id in joined[1:]]
    groups.sync(joined[0], 2, {})
    assert all(answers[0].error is ErrorCode.NONE for answers in waiting)
    parked = groups.join(joined[1], protocols=(("range", b"other"),))
    assert groups.leave(joined[0], "stranger", joined[2]) == [
        ErrorCode.NONE,
        ErrorCode.UNKNOWN_MEMBER_ID,
        ErrorCode.NONE,
    ]
    assert (parked[0].generation, len(parked[0].members)) == (3, 1)


def test_a_member_that_was_given_an_id_can_leave_before_it_joins(groups: Groups) -> None:
    (refused,) = groups.join(require_known_member_id=True)
    waiting = groups.join()
    assert groups.leave(refused.member_id) == [ErrorCode.NONE]
    assert waiting[0].generation == 1


def test_a_static_member_that_missed_the_rebalance_and_never_syncs_is_dropped(groups: Groups) -> None:
    (kept,) = groups.join(instance_id="i", session_timeout_ms=20 * REBALANCE_MS)
    groups.sync(kept.member_id, 1, {}, "i")
    waiting = groups.join(session_timeout_ms=20 * REBALANCE_MS)
    groups.advance(REBALANCE_MS)
    groups.sync(waiting[0].member_id, 2, {})
    assert groups.group.state is GroupState.STABLE
    groups.advance(REBALANCE_MS)
    assert list(groups.group.members) == [waiting[0].member_id]


def test_a_member_that_rejoins_a_shrunken_group_too_late_is_let_go() -> None:
    groups = Groups()
    first, second = groups.stable_pair()
    groups.coordinator = _with_limit(groups, 1)
    waiting = groups.join(second)
    assert not waiting or waiting[0].generation == 2
    parked = groups.join(second, protocols=(("range", b"changed"),))
    assert groups.join(first)[0].error is ErrorCode.GROUP_MAX_SIZE_REACHED
    assert [m.member_id for m in parked[0].members] == [second]


def _with_limit(groups: Groups, max_size: int) -> GroupCoordinator:
    coordinator = GroupCoordinator(GroupLimits(max_size=max_size), groups._persist)
    coordinator.restore("g", groups.stored["g"], groups.now_ms)
    return coordinator


def subscription(*topics: str) -> bytes:
    names = b"".join(len(topic).to_bytes(2, "big") + topic.encode() for topic in topics)
    return b"\0\0" + len(topics).to_bytes(4, "big") + names + b"\xff\xff\xff\xff"


def test_the_topics_of_a_consumer_group_are_those_of_its_members(groups: Groups) -> None:
    (joined,) = groups.join(protocols=(("range", subscription("a", "b")),))
    assert groups.group.subscribed_topics() == {"a", "b"}
    assert groups.group.is_subscribed("a")
    assert not groups.group.is_subscribed("c")
    groups.leave(joined.member_id)
    assert groups.group.subscribed_topics() == set()


@pytest.mark.parametrize(
    "metadata", [b"", b"\0\0\x7f\xff\xff\xff", b"\0\0\0\0\0\1\0\xffa", b"\0\0\xff\xff\xff\xff"]
)
def test_a_subscription_that_cannot_be_read_may_be_to_anything(groups: Groups, metadata: bytes) -> None:
    groups.join(protocols=(("range", metadata),))
    assert groups.group.subscribed_topics() is None
    assert groups.group.is_subscribed("a")
