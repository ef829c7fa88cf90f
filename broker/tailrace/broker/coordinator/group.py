"""One consumer group of the classic protocol: its members, its state and what they vote for.

    EMPTY --join--> PREPARING --all joined or time over--> COMPLETING --leader's assignment--> STABLE
      ^                 ^  |                                   |                                 |
      |                 |  +-- nobody joined --> EMPTY         +------- join, leave, expiry -----+
      +--- DEAD (deleted)                                                 back to PREPARING

Rules: Kafka's classic group protocol with KIP-345 (static members) and KIP-394 (member id required).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tailrace.broker.protocol import ErrorCode

Protocols = tuple[tuple[str, bytes], ...]

_CONSUMER = "consumer"


class GroupState(StrEnum):
    """States under the names that DescribeGroups and ListGroups give to clients."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"
    COMPLETING = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """JoinGroup, without its wire form; `member_id` empty: a new member."""

    group_id: str
    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocol_type: str
    protocols: Protocols
    require_known_member_id: bool  # v4+: hand out an id first (KIP-394)
    can_skip_assignment: bool  # v9+: a returning static leader may be told so (KIP-814)


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """SyncGroup; `assignments` only from the leader."""

    group_id: str
    generation: int
    member_id: str
    instance_id: str | None
    protocol_type: str | None
    protocol: str | None
    assignments: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class JoinedMember:
    """What the leader is told about each member."""

    member_id: str
    instance_id: str | None
    metadata: bytes


@dataclass(frozen=True, slots=True)
class JoinResult:
    """Answer to JoinGroup."""

    error: ErrorCode
    member_id: str
    generation: int = -1
    protocol_type: str | None = None
    protocol: str | None = None
    leader: str = ""
    skip_assignment: bool = False
    members: tuple[JoinedMember, ...] = ()


@dataclass(frozen=True, slots=True)
class SyncResult:
    """Answer to SyncGroup."""

    error: ErrorCode
    protocol_type: str | None = None
    protocol: str | None = None
    assignment: bytes = b""


JoinReply = Callable[[JoinResult], None]
SyncReply = Callable[[SyncResult], None]


@dataclass(slots=True)
class Member:
    """One member; `join_reply` and `sync_reply` are set while its request is parked."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    protocols: Protocols
    assignment: bytes = b""
    join_reply: JoinReply | None = None
    sync_reply: SyncReply | None = None
    expires_at_ms: int = 0
    is_new: bool = False

    def expired(self, now_ms: int) -> bool:
        """Whether the session is over; a parked request keeps a member alive, a new one only so long."""
        parked = self.join_reply is not None or self.sync_reply is not None
        return now_ms >= self.expires_at_ms and (self.is_new or not parked)

    def metadata_of(self, protocol: str) -> bytes:
        """The member's opaque metadata (its subscription) for one protocol; empty if it does not offer it."""
        return next((metadata for name, metadata in self.protocols if name == protocol), b"")

    def answer_join(self, result: JoinResult) -> None:
        """Answer the parked join, if there is one."""
        reply, self.join_reply = self.join_reply, None
        if reply is not None:
            reply(result)

    def answer_sync(self, result: SyncResult) -> None:
        """Answer the parked sync, if there is one."""
        reply, self.sync_reply = self.sync_reply, None
        if reply is not None:
            reply(result)


@dataclass(slots=True)
class Group:
    """State of one group.  Members keep the order in which they came: the eldest leads."""

    group_id: str
    state: GroupState = GroupState.EMPTY
    since_ms: int = 0  # when the state was entered
    protocol_type: str | None = None
    protocol: str | None = None
    generation: int = 0
    leader: str | None = None
    members: dict[str, Member] = field(default_factory=dict)
    static_members: dict[str, str] = field(default_factory=dict)  # instance id -> member id
    pending_joins: dict[str, int] = field(default_factory=dict)  # member id handed out -> when it expires
    pending_syncs: set[str] = field(default_factory=set)
    sync_deadline_ms: int = 0
    join_deadline_ms: int = 0
    initial_remaining_ms: int | None = None  # not None: in the initial delay, and how far it may still grow
    initial_newcomer: bool = False

    def move(self, state: GroupState, now_ms: int) -> None:
        """Enter `state`."""
        self.state, self.since_ms = state, now_ms

    def add(self, member: Member) -> None:
        """Take a member in; the first one leads and sets the protocol type."""
        self.members[member.member_id] = member
        if member.instance_id is not None:
            self.static_members[member.instance_id] = member.member_id
        if self.leader is None:
            self.leader = member.member_id
        self.pending_joins.pop(member.member_id, None)

    def remove(self, member: Member, error: ErrorCode = ErrorCode.UNKNOWN_MEMBER_ID) -> None:
        """Let a member go; its parked requests are answered with `error`."""
        self.members.pop(member.member_id, None)
        if member.instance_id is not None and self.static_members.get(member.instance_id) == member.member_id:
            del self.static_members[member.instance_id]
        self.pending_syncs.discard(member.member_id)
        if self.leader == member.member_id:
            self.leader = next(iter(self.members), None)
        member.answer_join(JoinResult(error, ""))
        member.answer_sync(SyncResult(error))

    def release(self, error: ErrorCode) -> None:
        """Answer every parked request with `error`."""
        for member in self.members.values():
            member.answer_join(JoinResult(error, member.member_id))
            member.answer_sync(SyncResult(error))

    def rename(self, old: Member, member_id: str) -> Member:
        """Give a static member its new id; the old process is fenced."""
        old.answer_join(JoinResult(ErrorCode.FENCED_INSTANCE_ID, old.member_id))
        old.answer_sync(SyncResult(ErrorCode.FENCED_INSTANCE_ID))
        self.members = {
            (member_id if key == old.member_id else key): member for key, member in self.members.items()
        }
        if old.member_id in self.pending_syncs:
            self.pending_syncs.discard(old.member_id)
            self.pending_syncs.add(member_id)
        if self.leader == old.member_id:
            self.leader = member_id
        old.member_id = member_id
        if old.instance_id is not None:
            self.static_members[old.instance_id] = member_id
        return old

    def supports(self, protocol_type: str, names: Sequence[str]) -> bool:
        """Whether a member that offers `names` can join: one of them must be known to every member."""
        if not self.members:
            return bool(protocol_type) and bool(names)
        return protocol_type == self.protocol_type and not self._common_protocols().isdisjoint(names)

    def vote(self) -> str:
        """The protocol of the next generation: the one that most members prefer among the common ones."""
        common = self._common_protocols()
        votes: dict[str, int] = {}
        for member in self.members.values():
            choice = next(name for name, _ in member.protocols if name in common)
            votes[choice] = votes.get(choice, 0) + 1
        return max(votes, key=votes.__getitem__)

    def rebalance_timeout_ms(self) -> int:
        """The longest rebalance timeout of the members."""
        return max((member.rebalance_timeout_ms for member in self.members.values()), default=0)

    def all_joined(self) -> bool:
        """Whether every member is parked in a join and nobody holds a member id without having joined."""
        return not self.pending_joins and all(m.join_reply is not None for m in self.members.values())

    def accepts(self, member_id: str, instance_id: str | None, max_size: int) -> bool:
        """Whether one more may join, or this one again, without the group growing beyond `max_size`."""
        if self.state is GroupState.EMPTY or instance_id in self.static_members:
            return True
        member = self.members.get(member_id)
        if self.state is GroupState.PREPARING:  # who is late for a group that shrank is let go
            waiting = sum(1 for other in self.members.values() if other.join_reply is not None)
            return (member is not None and member.join_reply is not None) or waiting < max_size
        return member is not None or len(self.members) < max_size

    def subscribed_topics(self) -> set[str] | None:
        """Topics that the members of a consumer group read; None where that cannot be known."""
        if self.protocol_type != _CONSUMER:
            return None
        if self.members and self.protocol is None:
            return None
        topics: set[str] = set()
        for member in self.members.values():
            named = read_subscription(member.metadata_of(self.protocol or ""))
            if named is None:
                return None
            topics |= named
        return topics

    def is_subscribed(self, topic: str) -> bool:
        """Whether a member may be reading `topic`; where it cannot be known, any consumer may."""
        topics = self.subscribed_topics()
        return self.protocol_type == _CONSUMER if topics is None else topic in topics

    def joined_members(self) -> tuple[JoinedMember, ...]:
        """What the leader needs to assign partitions."""
        protocol = self.protocol or ""
        return tuple(
            JoinedMember(m.member_id, m.instance_id, m.metadata_of(protocol)) for m in self.members.values()
        )

    def join_result(self, member: Member, *, skip_assignment: bool = False) -> JoinResult:
        """The answer of the current generation for `member`."""
        leads = member.member_id == self.leader
        return JoinResult(
            ErrorCode.NONE,
            member.member_id,
            self.generation,
            self.protocol_type,
            self.protocol,
            self.leader or "",
            skip_assignment,
            self.joined_members() if leads else (),
        )

    def _common_protocols(self) -> set[str]:
        offers = [{name for name, _ in member.protocols} for member in self.members.values()]
        return set.intersection(*offers) if offers else set()


def read_subscription(metadata: bytes) -> set[str] | None:
    """Topics of a consumer's subscription (ConsumerProtocolSubscription: int16 version, array of string, ..).

    None when it is something else.
    """
    count = int.from_bytes(metadata[2:6], "big", signed=True)
    topics: set[str] = set()
    at = 6
    for _ in range(count):
        end = at + 2 + int.from_bytes(metadata[at : at + 2], "big")
        if at + 2 > len(metadata) or end > len(metadata):
            return None
        topics.add(metadata[at + 2 : end].decode(errors="replace"))
        at = end
    return topics if count >= 0 and len(metadata) >= 6 else None
