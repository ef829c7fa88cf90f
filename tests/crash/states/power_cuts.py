"""Every state that a power cut may leave behind after some steps of a trace.

Until its file is synced a write may be lost, kept, torn at any byte, or kept as zeros (the size reached the
disk, the data did not); until its folder is synced a change of names may be lost or kept.  One that came
later may be kept where an earlier one is lost (ALICE, OSDI 2014: file systems differ).
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.crash.states.memory_disk import (
    Names,
    Step,
    Sync,
    SyncFolder,
    Tree,
    Truncate,
    Write,
    apply_names,
    cut,
    put,
)

_Change = Write | Truncate
LOST, KEPT = 0, -1


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one pending write: LOST, KEPT, or how many bytes of it; the rest may read as zeros."""

    kept: int
    zeros: bool = False


Fates = Callable[[int], Fate]  # by number in the trace
Named = Callable[[int], bool]
_KEPT = Fate(KEPT)
_LOST = Fate(LOST)


def all_kept(_: int) -> Fate:
    return _KEPT


def all_lost(_: int) -> Fate:
    return _LOST


def all_zeros(_: int) -> Fate:
    return Fate(LOST, zeros=True)


def _but(others: Fate, one: int, fate: Fate) -> Fates:
    return lambda number: fate if number == one else others


def _all_named(_: int) -> bool:
    return True


def _named_before(end: int) -> Named:
    return lambda number: number < end


def _named_but(lost: int) -> Named:
    return lambda number: number != lost


class PoweredDisk:
    """What is durable after the steps so far, and what is still pending."""

    def __init__(self, start: Tree) -> None:
        self._folders = {number: dict(entries) for number, entries in start.folders.items()}
        self._files = dict(start.files)
        self.writes: dict[int, list[tuple[int, _Change]]] = {}  # by file
        self.names: list[tuple[int, Names]] = []
        self._count = 0

    def advance(self, step: Step) -> None:
        """One step further."""
        if isinstance(step, Write | Truncate):
            self.writes.setdefault(step.file, []).append((self._count, step))
        elif isinstance(step, Names):
            self.names.append((self._count, step))
        elif isinstance(step, Sync):
            self._files[step.file] = _content(
                self._files.get(step.file, b""), self.writes.pop(step.file, []), all_kept
            )
        elif isinstance(step, SyncFolder):
            for entry in [e for e in self.names if any(c[0] == step.folder for c in e[1].changes)]:
                apply_names(self._folders, entry[1].changes)
                self.names.remove(entry)
        self._count += 1

    def after(self, fates: Fates, named: Named) -> Tree:
        """What the next process finds when the pending steps end like this."""
        folders = {number: dict(entries) for number, entries in self._folders.items()}
        for number, change in self.names:
            if named(number):
                apply_names(folders, change.changes)
        files = dict(self._files)
        for file, pending in self.writes.items():
            files[file] = _content(self._files.get(file, b""), pending, fates)
        for entries in folders.values():
            for number in entries.values():
                if number > 0:
                    files.setdefault(number, b"")
        return Tree(folders, files)

    def states(self, samples: int, seed: int) -> Iterator[Tree]:
        """The states after the last step: the regular ones, and `samples` at random."""
        writes = [entry for pending in self.writes.values() for entry in pending]
        numbers = [number for number, _ in self.names]
        for fates in (all_kept, all_lost, all_zeros):
            for cut_at in (*numbers, self._count):  # journals keep names in order: any number of the first
                yield self.after(fates, _named_before(cut_at))
            for lost in numbers:
                yield self.after(fates, _named_but(lost))
        for one, _ in writes:
            yield self.after(_but(_KEPT, one, _LOST), _all_named)
            yield self.after(_but(_LOST, one, _KEPT), _all_named)
        if writes and writes[-1][0] == self._count - 1 and isinstance(writes[-1][1], Write):
            yield from self._torn(self._count - 1, len(writes[-1][1].content), samples, seed)
        chance = random.Random(f"{seed} {self._count}")
        for _ in range(samples if writes or numbers else 0):
            yield self._random(chance, writes, numbers)

    def _torn(self, last: int, size: int, samples: int, seed: int) -> Iterator[Tree]:
        """The last write torn at `samples` of its bytes (at each byte when there are fewer)."""
        chance = random.Random(f"{seed} {last} torn")
        places = range(1, size) if size <= samples + 1 else sorted(chance.sample(range(1, size), samples))
        for kept in places:
            for zeros in (False, True):
                yield self.after(_but(_KEPT, last, Fate(kept, zeros)), _all_named)

    def _random(self, chance: random.Random, writes: list[tuple[int, _Change]], names: list[int]) -> Tree:
        fates: dict[int, Fate] = {}
        share = chance.random()
        for number, change in writes:
            if chance.random() < share:
                fates[number] = _KEPT
            elif isinstance(change, Write) and chance.random() < 0.5:
                fates[number] = Fate(chance.randrange(len(change.content) + 1), chance.random() < 0.5)
            else:
                fates[number] = _LOST
        kept = {number for number in names if chance.random() < share}
        return self.after(fates.__getitem__, kept.__contains__)


def _content(durable: bytes, pending: list[tuple[int, _Change]], fates: Fates) -> bytes:
    if not pending:
        return durable
    content = bytearray(durable)
    for number, change in pending:
        fate = fates(number)
        if isinstance(change, Truncate):
            if fate.kept:
                cut(content, change.size)
        elif fate.kept == KEPT:
            put(content, change.at, change.content)
        else:
            if fate.zeros:
                put(content, change.at, bytes(len(change.content)))
            if fate.kept:
                put(content, change.at, change.content[: fate.kept])
    return bytes(content)
