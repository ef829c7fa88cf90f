"""Assignors: every partition to one subscriber, evenly, and nothing moves without need."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tailrace.broker.coordinator.consumer_group.assignors import ASSIGNORS, Wish, range_, uniform
from tailrace.broker.coordinator.consumer_group.member import Place

NAMES = [bytes([number]) * 16 for number in range(5)]
TOPICS = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 9), max_size=5)
MEMBERS = st.dictionaries(
    st.sampled_from([f"m{number}" for number in range(7)]), st.frozensets(st.sampled_from(NAMES)), min_size=1
)


def wishes(
    members: dict[str, frozenset[bytes]], before: dict[str, frozenset[Place]] | None = None
) -> dict[str, Wish]:
    return {name: Wish(topics, (before or {}).get(name, frozenset())) for name, topics in members.items()}


@settings(max_examples=200, deadline=None)
@given(MEMBERS, MEMBERS, TOPICS, TOPICS, st.sampled_from(sorted(ASSIGNORS)))
def test_every_partition_that_somebody_reads_goes_to_exactly_one_reader(
    members: dict[str, frozenset[bytes]],
    earlier: dict[str, frozenset[bytes]],
    topics: dict[bytes, int],
    topics_before: dict[bytes, int],
    name: str,
) -> None:
    assign = ASSIGNORS[name]
    before = assign(wishes(earlier), topics_before)
    assigned = assign(wishes(members, before), topics)
    assert assigned.keys() == members.keys()
    given_out = [place for places in assigned.values() for place in places]
    read = frozenset().union(*members.values())
    assert sorted(given_out) == sorted(
        (t, n) for t, count in topics.items() if t in read for n in range(count)
    )
    assert all(place[0] in members[member] for member, places in assigned.items() for place in places)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), TOPICS, TOPICS)
@example(  # the first topic's partition is held by who has enough, the second's by who has too much
    4, 3, {NAMES[0]: 1, NAMES[4]: 1, NAMES[1]: 4}, {NAMES[0]: 1, NAMES[4]: 1, NAMES[1]: 4, NAMES[2]: 2}
)
@example(  # nobody has too much, some have one more than the others, and a new member has none
    7, 6, dict(zip((NAMES[0], NAMES[1], NAMES[3], NAMES[4]), (2, 7, 3, 4), strict=True)),
    dict(zip((NAMES[0], NAMES[1], NAMES[3], NAMES[4]), (2, 7, 5, 7), strict=True)),
)  # fmt: skip
@example(6, 3, {NAMES[n]: (1, 4, 1, 1, 1)[n] for n in range(5)}, {NAMES[n]: (1, 6, 1)[n] for n in range(3)})
def test_uniform_gives_equal_subscribers_equally_many_and_moves_no_more_than_it_must(
    count: int, count_before: int, topics: dict[bytes, int], topics_before: dict[bytes, int]
) -> None:
    everything = frozenset(NAMES)
    before = uniform(wishes({f"m{n}": everything for n in range(count_before)}), topics_before)
    members = {f"m{n}": everything for n in range(count)}
    assigned = uniform(wishes(members, before), topics)
    sizes = [len(places) for places in assigned.values()]
    assert max(sizes) - min(sizes) <= 1
    total, quota = sum(sizes), max(sizes)
    there = {(topic, n) for topic, number in topics.items() for n in range(number)}
    kept = sum(len(assigned[name] & before.get(name, frozenset())) for name in members)
    could_stay = [len(before.get(name, frozenset()) & there) for name in members]
    fuller = total % count or count  # so many members may have `quota`, the others one less
    best = sorted((min(stay, quota) for stay in could_stay), reverse=True)
    assert kept == sum(best[:fuller]) + sum(min(stay, quota - 1) for stay in best[fuller:])


def test_range_cuts_topics_of_one_size_alike_and_puts_static_members_first() -> None:
    left, right = NAMES[:2]
    members = {
        "b": Wish(frozenset({left, right}), frozenset()),
        "a": Wish(frozenset({left, right}), frozenset()),
        "z": Wish(frozenset({left, right}), frozenset(), "instance"),
    }
    assigned = range_(members, {left: 5, right: 5})
    assert {name: sorted(n for topic, n in places if topic == left) for name, places in assigned.items()} == {
        "z": [0, 1],
        "a": [2, 3],
        "b": [4],
    }
    for places in assigned.values():
        assert {n for topic, n in places if topic == left} == {n for topic, n in places if topic == right}


def test_uniform_evens_out_what_overlapping_subscriptions_allow() -> None:
    left, right = NAMES[:2]
    members = {"a": frozenset({left}), "b": frozenset({left, right}), "c": frozenset({right})}
    assigned = uniform(wishes(members), {left: 3, right: 3})
    assert sorted(len(places) for places in assigned.values()) == [2, 2, 2]
