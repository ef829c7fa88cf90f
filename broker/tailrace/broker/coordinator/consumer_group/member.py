"""One member of a consumer group: what it subscribes to, and how far it has got with its assignment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType

TopicId = bytes
"""The 16 raw bytes of a topic's UUID, as they travel."""

Place = tuple[TopicId, int]
"""One partition."""

JOINING_EPOCH = 0
LEAVING_EPOCH = -1
AWAY_EPOCH = -2
"""A static member that left for a while: its partitions wait for it."""

NOTHING: Mapping[Place, int] = MappingProxyType({})


class MemberState(IntEnum):
    """Numbers of the record ConsumerGroupCurrentMemberAssignment."""

    STABLE = 0
    UNREVOKED = 1  # must first acknowledge that it gave partitions up
    UNRELEASED = 2  # waits for partitions that others have not given up yet


@dataclass(frozen=True, slots=True)
class ClassicSide:
    """What else a member has that speaks the classic protocol; `protocols`: name and metadata, its favourite first."""

    session_timeout_ms: int
    protocols: tuple[tuple[str, bytes], ...]

    @property
    def favourite(self) -> str:
        """The assignor by whose name the member is answered; none is used."""
        return self.protocols[0][0]


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a member said about itself; it says only what changed.  `classic` None: it speaks the consumer protocol."""

    instance_id: str | None = None
    rack_id: str | None = None
    client_id: str = ""
    client_host: str = ""
    rebalance_timeout_ms: int = -1
    topics: frozenset[str] = frozenset()
    pattern: str | None = None
    assignor: str | None = None
    classic: ClassicSide | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a member stands.

    `assigned` is what it may use, `revoking` what it must give up first; both name since which member epoch a
    partition is the member's (KIP-1251).  No two members ever have the same partition in either.
    """

    epoch: int = JOINING_EPOCH
    previous_epoch: int = JOINING_EPOCH
    state: MemberState = MemberState.STABLE
    assigned: Mapping[Place, int] = field(default_factory=lambda: NOTHING)
    revoking: Mapping[Place, int] = field(default_factory=lambda: NOTHING)

    def reached(self, target_epoch: int) -> bool:
        """Whether nothing is left to do for this target."""
        return self.state is MemberState.STABLE and self.epoch == target_epoch
