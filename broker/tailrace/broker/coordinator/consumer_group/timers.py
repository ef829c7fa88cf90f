"""What time does to the members of one group.  It is not in the log: a restart gives every member all of its time again."""

from dataclasses import dataclass, field

from tailrace.broker.coordinator.consumer_group.group import ConsumerGroup
from tailrace.broker.coordinator.consumer_group.member import MemberState


@dataclass(slots=True)
class Timers:
    """Until when each member of a group has to do what."""

    sessions: dict[str, int] = field(default_factory=dict)  # member id -> when it ends
    revocations: dict[str, tuple[int, int]] = field(default_factory=dict)  # -> (epoch, until when)
    rejoins: dict[str, int] = field(
        default_factory=dict
    )  # classic member -> until when it must join, or sync
    seen_version: int | None = None  # of the catalog

    def keep_alive(self, group: ConsumerGroup, member_id: str, now_ms: int, session_timeout_ms: int) -> None:
        """Start a member's session anew; one of the classic protocol has brought its own timeout."""
        classic = group.subscriptions[member_id].classic
        self.sessions[member_id] = now_ms + (classic.session_timeout_ms if classic else session_timeout_ms)

    def watch_revocation(self, group: ConsumerGroup, member_id: str, now_ms: int) -> None:
        """A member that must give partitions up has its rebalance timeout for it; a classic one must rejoin then."""
        progress, said = group.progress_of(member_id), group.subscriptions[member_id]
        if progress.state is MemberState.UNREVOKED and said.classic is None:
            self.revocations[member_id] = (progress.epoch, now_ms + said.rebalance_timeout_ms)
        else:
            self.revocations.pop(member_id, None)

    def expect_rejoin(self, group: ConsumerGroup, member_id: str, now_ms: int) -> None:
        """A classic member is told to join again: from the first time on it has its rebalance timeout for it."""
        self.rejoins.setdefault(member_id, now_ms + group.subscriptions[member_id].rebalance_timeout_ms)

    def expect_sync(self, group: ConsumerGroup, member_id: str, now_ms: int) -> None:
        """A classic member has joined: it has its rebalance timeout to fetch its assignment."""
        self.rejoins[member_id] = now_ms + group.subscriptions[member_id].rebalance_timeout_ms

    def forget_all_but(self, group: ConsumerGroup) -> None:
        """Drop the timers of who is no member any more."""
        for member_id in self.sessions.keys() - group.subscriptions.keys():
            self.sessions.pop(member_id)
            self.revocations.pop(member_id, None)
            self.rejoins.pop(member_id, None)

    def late(self, group: ConsumerGroup, now_ms: int) -> list[str]:
        """Members whose session is over, or that did not do in time what they were told."""
        late = {member_id for member_id, until in self.sessions.items() if now_ms >= until}
        late |= {member_id for member_id, until in self.rejoins.items() if now_ms >= until}
        for member_id, (epoch, until) in self.revocations.items():
            if now_ms >= until and group.progress_of(member_id).epoch == epoch:
                late.add(member_id)
        return sorted(late)
