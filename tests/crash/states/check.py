"""Recover a state of the disk and compare what the logs know with what they must know."""

from collections.abc import Iterator

from tests.crash.states.history import Expectation, Key, LogHistory
from tests.crash.states.log_state import KnownProducer, LogState, difference, last_of, state_of
from tests.crash.states.memory_disk import Flat, MemoryDisk, Tree
from tests.crash.states.power_cuts import PoweredDisk, all_lost
from tests.crash.states.recorder import open_logs
from tests.unit.broker.log.harness import NOW_MS, ManualClock

from tailrace.broker.log import LogManager
from tailrace.broker.records.batch import iterate_batches
from tailrace.broker.records.record import decode_records

_CHANGES = ("/data/leader-epoch", "/data/.lock")  # what every start writes anew
_Fold = dict[bytes | None, tuple[int, bytes | None]]
States = dict[Key, LogState]


def states_of(logs: LogManager, expected: Expectation) -> States:
    """The state of every log that the catalog names.  Raises LogError when one is offline."""
    return {
        (spec.topic_id, spec.partition): state_of(logs.get(spec.topic, spec.partition))
        for spec in expected.catalog.specs()
    }


class Checker:
    """Remembers what it has found good, so that states which recover to the same logs cost little."""

    def __init__(self) -> None:
        self._good: set[int] = set()

    def problems(self, flat: Flat, expected: Expectation) -> list[str]:
        """What is wrong after a start on this disk; nothing, if all is well."""
        clock = ManualClock(NOW_MS)
        disk = MemoryDisk.of(flat)
        before = _tree_of(disk)
        try:
            logs = open_logs(disk, expected.catalog, clock)
            found = states_of(logs, expected)
        except Exception as error:  # noqa: BLE001 - whatever it is, the broker does not serve
            return [f"the start failed: {error}"]
        problems = []
        for key, state in found.items():
            history = expected.logs.get(key) or LogHistory()
            known = hash((key, history.told(), state))
            if known in self._good:
                continue
            topic = next(row for row in expected.catalog.topics if row.topic_id == key[0])
            wrong = list(_compare(state, history, compact=topic.config.compact))
            if not wrong:
                self._good.add(known)
            problems += [f"{topic.name}-{key[1]}: {problem}" for problem in wrong]
        return problems or self._again(before, disk, found, expected)

    def _again(self, before: Tree, disk: MemoryDisk, found: States, expected: Expectation) -> list[str]:
        """A second start, after a kill and after a power cut right behind the first one."""
        powered = PoweredDisk(before)
        for step in disk.trace:
            powered.advance(step)
        killed = disk.tree().flat()
        cut = powered.after(all_lost, lambda _: False).flat()
        told = tuple(found.items())
        for what, flat in (("kill", killed), ("power cut", cut)):
            known = hash((_stable_part(flat), told))
            if known in self._good:
                continue
            again = MemoryDisk.of(flat)
            try:
                logs = open_logs(again, expected.catalog, ManualClock(NOW_MS))
                states = states_of(logs, expected)
            except Exception as error:  # noqa: BLE001 - as above
                return [f"the start after a start and a {what} failed: {error}"]
            for key, state in states.items():
                if state != found[key]:
                    return [f"a start after a start and a {what}: {difference(state, found[key])}"]
            if what == "kill" and _stable_part(again.tree().flat()) != _stable_part(killed):
                names = {e[0] for e in set(_stable_part(again.tree().flat())) ^ set(_stable_part(killed))}
                return [f"a second start changes {sorted(names)}"]
            self._good.add(known)
        return []


def _tree_of(disk: MemoryDisk) -> Tree:
    folders = {number: dict(entries) for number, entries in disk.folders.items()}
    return Tree(folders, {number: bytes(content) for number, content in disk.files.items()})


def _stable_part(flat: Flat) -> Flat:
    """Without what every start after a kill makes anew: the indexes of the newest segment among it."""
    newest: dict[str, str] = {}
    for path, _ in flat:
        if path.endswith(".log"):
            newest[path.rpartition("/")[0]] = path.removesuffix(".log")
    rebuilt = {stem + suffix for stem in newest.values() for suffix in (".index", ".timeindex")}
    return tuple(entry for entry in flat if entry[0] not in _CHANGES and entry[0] not in rebuilt)


def _compare(state: LogState, history: LogHistory, *, compact: bool) -> Iterator[str]:
    if state.end < history.acked:
        yield f"ends at {state.end}, and {history.acked} was acknowledged"
    if not history.deleted_to <= state.start <= history.may_start:
        yield f"starts at {state.start}, not in [{history.deleted_to}, {history.may_start}]"
    model = history.model(state.end)
    if model.end != state.end:
        yield f"ends at {state.end}, in the middle of a batch"
        return
    if state.stable != model.last_stable_offset(state.end):
        yield f"last stable offset {state.stable}, not {model.last_stable_offset(state.end)}"
    expected = tuple(
        KnownProducer(
            producer_id,
            producer.epoch,
            tuple(producer.batches),
            -1 if producer.open_since is None else producer.open_since,
        )
        for producer_id, producer in sorted(model.producers.items())
    )
    found = state.producers
    if compact:  # only the last batch of a producer is sure to be known
        expected, found = tuple(map(last_of, expected)), tuple(map(last_of, found))
    if found != expected:
        yield f"producers {found}, not {expected}"
    ends = dict(state.epochs)
    for epoch, first in _epochs(history, state).items():
        if ends.get(epoch) != first:
            yield f"leader epoch {epoch} begins at {ends.get(epoch)}, not {first}"
    if compact:
        yield from _compare_records(state, history)
        return
    if state.content != history.content(state.start, state.end):
        yield f"holds other batches than were sent in [{state.start}, {state.end})"
    aborted = [(e.producer_id, e.first) for e in model.ended if not e.commit and e.marker >= state.start]
    if sorted(state.aborted) != sorted(aborted):
        yield f"aborted transactions {state.aborted}, not {aborted}"


def _epochs(history: LogHistory, state: LogState) -> dict[int, int]:
    first: dict[int, int] = {}
    for event in history.events:
        if event.base >= state.end:
            break
        if event.last >= state.start:
            first.setdefault(event.leader_epoch, max(event.base, state.start))
    return first


def _compare_records(state: LogState, history: LogHistory) -> Iterator[str]:
    """A compacted log: nothing that was not sent, in order, and of every key the latest committed record."""
    sent = {record[0]: record[1:] for record in _records(history.content(0, state.end))}
    found = list(_records(state.content))
    offsets = [record[0] for record in found]
    if offsets != sorted(set(offsets)):
        yield f"its offsets are not ascending: {offsets}"
    strange = [record[0] for record in found if sent.get(record[0]) != record[1:]]
    if strange:
        yield f"holds records that were not sent, at {strange}"
    model = history.model(state.end)
    aborted = [(e.producer_id, e.first, e.marker) for e in model.ended if not e.commit]
    is_open = {p: m.open_since for p, m in model.producers.items() if m.open_since is not None}
    everything = _latest(_records(history.content(0, state.end)), aborted, is_open)
    kept = _latest(iter(found), aborted, is_open)
    for key, latest in everything.items():
        if kept.get(key) != latest and not (latest[1] is None and key not in kept):
            yield f"of key {key!r} it knows {kept.get(key)}, not {latest}"
    for key in kept.keys() - everything.keys():
        yield f"knows key {key!r}"


_SentRecord = tuple[int, bytes | None, bytes | None, int, bool]


def _records(content: bytes) -> Iterator[_SentRecord]:
    for header, batch in iterate_batches(memoryview(content)):
        if not header.is_control and header.record_count:
            for record in decode_records(batch):
                yield record.offset, record.key, record.value, header.producer_id, header.is_transactional


def _latest(
    records: Iterator[_SentRecord], aborted: list[tuple[int, int, int]], is_open: dict[int, int]
) -> _Fold:
    latest: _Fold = {}
    for offset, key, value, producer_id, transactional in records:
        if transactional and (
            any(p == producer_id and first <= offset <= marker for p, first, marker in aborted)
            or is_open.get(producer_id, offset + 1) <= offset
        ):
            continue
        latest[key] = (offset, value)
    return latest
