"""The next step of one member towards its target: give up first, then be given, one epoch at a time.

    STABLE -------- must give up ------> UNREVOKED --- acknowledged --+
      ^  ^--------- nothing to do -------------------------------------+
      |                                                                |
      +--- all that was missing is free --- UNRELEASED <--- some is not

Source: KIP-848, "Reconciliation".
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from tailrace.broker.coordinator.consumer_group.member import NOTHING, MemberState, Place, Progress, TopicId


@dataclass(frozen=True, slots=True)
class Goal:
    """What a member is on the way to."""

    epoch: int
    places: frozenset[Place]
    subscribed: frozenset[TopicId]
    is_free: Callable[[Place], bool]  # nobody else has it or has yet to give it up


def next_step(
    progress: Progress, goal: Goal, owned: frozenset[Place] | None, *, resubscribed: bool
) -> Progress:
    """Where the member stands after this heartbeat; `owned` is what it says to have, None: it does not say.

    `resubscribed`: its subscription has changed just now, so it gives up at once what it no longer reads.
    """
    if progress.reached(goal.epoch) and not resubscribed:
        return progress
    waits_for_member = progress.state is MemberState.UNREVOKED and _owns(owned, progress.revoking)
    is_there = progress.state is MemberState.STABLE and progress.epoch == goal.epoch
    if waits_for_member or is_there:
        return _unsubscribe(progress, goal, owned) if resubscribed else progress
    return _advance(progress, goal, owned)


def _advance(progress: Progress, goal: Goal, owned: frozenset[Place] | None) -> Progress:
    target = frozenset(place for place in goal.places if place[0] in goal.subscribed)
    kept = {place: epoch for place, epoch in progress.assigned.items() if place in target}
    leaving = {place: epoch for place, epoch in progress.assigned.items() if place not in target}
    missing = target - kept.keys()
    if leaving and _owns(owned, leaving):
        return replace(
            progress,
            previous_epoch=progress.epoch,
            state=MemberState.UNREVOKED,
            assigned=kept,
            revoking=leaving,
        )
    arriving = {place for place in missing if goal.is_free(place)}
    return Progress(
        goal.epoch,
        progress.epoch,
        MemberState.STABLE if arriving == missing else MemberState.UNRELEASED,
        kept | dict.fromkeys(arriving, goal.epoch),
        NOTHING,
    )


def _unsubscribe(progress: Progress, goal: Goal, owned: frozenset[Place] | None) -> Progress:
    """Only take away what the member no longer reads; its epoch stays."""
    leaving = {place: epoch for place, epoch in progress.assigned.items() if place[0] not in goal.subscribed}
    if not leaving:
        return progress
    kept = {place: epoch for place, epoch in progress.assigned.items() if place not in leaving}
    if not _owns(owned, leaving):
        return replace(progress, previous_epoch=progress.epoch, assigned=kept)
    return replace(
        progress,
        previous_epoch=progress.epoch,
        state=MemberState.UNREVOKED,
        assigned=kept,
        revoking={**progress.revoking, **leaving},
    )


def _owns(owned: frozenset[Place] | None, places: Iterable[Place]) -> bool:
    """Whether the member may still use one of `places`: it does when it does not say."""
    return owned is None or not owned.isdisjoint(places)
