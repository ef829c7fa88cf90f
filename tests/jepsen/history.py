"""What clients asked for and were told: one JSON document a line, one file per client process.

Every line is written by one call of write(2) before the client goes on, so a client that is killed loses
nothing but the answer it never got: its last operation has an unknown outcome ("info").
Times are CLOCK_MONOTONIC in nanoseconds, which all processes of a machine share.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["ok", "fail", "info"]  # info: nobody knows
Kind = Literal["send", "poll", "txn", "assign", "subscribe"]

Records = Mapping[str, Sequence[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class Send:
    """Append `value` to `key`, which is one partition of one topic; `offset` where the client was told."""

    key: str
    value: int
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Poll:
    """One poll: (offset, value) of every record by key, in the order of arrival."""

    records: Records = field(default_factory=dict)


Step = Send | Poll


def reads_of(steps: Sequence[Step]) -> dict[str, list[tuple[int, int]]]:
    """(offset, value) read by key, over all polls among the steps in order; no key without any."""
    read: dict[str, list[tuple[int, int]]] = {}
    for step in steps:
        if isinstance(step, Poll):
            for key, records in step.records.items():
                if records:
                    read.setdefault(key, []).extend(records)
    return read


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One call of a client and its end; `completed_ns` is None for an outcome that nobody knows.

    `keys`: what was assigned or subscribed.  `rebalanced`: keys that came or went during the operation.
    `group`: whose offsets the transaction of a subscribed member has moved behind all that it read.
    """

    process: int
    kind: Kind
    outcome: Outcome
    steps: tuple[Step, ...] = ()
    invoked_ns: int = 0
    completed_ns: int | None = None
    keys: tuple[str, ...] = ()
    rebalanced: frozenset[str] = frozenset()
    group: str = ""
    error: str = ""

    def sends(self) -> Iterator[Send]:
        """Every send, in order."""
        return (step for step in self.steps if isinstance(step, Send))

    def reads(self) -> dict[str, list[tuple[int, int]]]:
        """(offset, value) read by key."""
        return reads_of(self.steps)

    def __str__(self) -> str:
        return f"{self.kind} of process {self.process} ({self.outcome}, invoked at {self.invoked_ns} ns)"


class Recorder:
    """The file of one client process."""

    def __init__(self, folder: Path, process: int) -> None:
        self._process = process
        self._file = os.open(folder / f"{process}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def invoke(self, kind: Kind, steps: Sequence[Step] = (), keys: Sequence[str] = ()) -> None:
        """The operation begins."""
        self._write("invoke", kind=kind, steps=[_encoded(step) for step in steps], keys=list(keys))

    def complete(
        self,
        outcome: Outcome,
        steps: Sequence[Step] = (),
        rebalanced: Sequence[str] = (),
        group: str = "",
        error: str = "",
    ) -> None:
        """The operation that began last has ended."""
        told = [_encoded(step) for step in steps]
        self._write(outcome, steps=told, rebalanced=list(rebalanced), group=group, error=error)

    def _write(self, event: str, **what: Any) -> None:
        line = {"event": event, "process": self._process, "ns": time.monotonic_ns(), **what}
        os.write(self._file, json.dumps(line).encode() + b"\n")


def read_history(folder: Path) -> list[Operation]:
    """The operations of all processes, by the time of their invocation."""
    operations = [found for path in sorted(folder.glob("*.jsonl")) for found in _operations(path)]
    return sorted(operations, key=lambda operation: operation.invoked_ns)


def _operations(path: Path) -> Iterator[Operation]:
    begun: dict[str, Any] | None = None
    *lines, _torn = path.read_bytes().split(b"\n")  # what has no line end was cut off by a kill
    for line in lines:
        document = json.loads(line)
        if document["event"] == "invoke":
            begun = document
            continue
        assert begun is not None, f"{path}: an answer without a question"
        yield _operation(begun, document)
        begun = None
    if begun is not None:
        yield _operation(begun, {"event": "info", "steps": begun["steps"], "error": "the client was killed"})


def _operation(begun: dict[str, Any], ended: dict[str, Any]) -> Operation:
    return Operation(
        process=begun["process"],
        kind=begun["kind"],
        outcome=ended["event"],
        steps=tuple(map(_decoded, ended["steps"])),
        invoked_ns=begun["ns"],
        completed_ns=None if ended["event"] == "info" else ended["ns"],
        keys=tuple(begun["keys"]),
        rebalanced=frozenset(ended.get("rebalanced", ())),
        group=ended.get("group", ""),
        error=ended["error"],
    )


def _encoded(step: Step) -> list[Any]:
    if isinstance(step, Send):
        return ["send", step.key, step.value, step.offset]
    return ["poll", {key: list(records) for key, records in step.records.items()}]


def _decoded(step: list[Any]) -> Step:
    if step[0] == "send":
        return Send(*step[1:])
    return Poll({key: [(offset, value) for offset, value in records] for key, records in step[1].items()})
