"""The cells of one column in a block of received bytes, before they are decoded."""

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import pyarrow as pa

from tailrace.connectors.postgres.wire import Bytes, Flags, Lengths, Offsets

NULL = -1
"""In `Cells.length`: the value is null (as COPY writes it)."""
UNCHANGED = -2
"""In `Cells.length`: a TOASTed value that the change did not touch, and that is not in the message."""

BINARY, TEXT = ord("b"), ord("t")


class Reason(IntEnum):
    """Why a value cannot be carried."""

    NOT_FINITE = 1
    TOO_MANY_DIGITS = 2
    INFINITE = 3
    OUT_OF_RANGE = 4
    END_OF_DAY = 5
    DIMENSIONS = 6
    BOUNDS = 7
    MALFORMED = 8

    @property
    def words(self) -> str:
        return _WORDS[self]


_WORDS = {
    Reason.NOT_FINITE: "NaN or infinity, which a decimal cannot hold",
    Reason.TOO_MANY_DIGITS: "a number with more digits than the decimal of its column",
    Reason.INFINITE: "'infinity', which has no place on a time line of microseconds",
    Reason.OUT_OF_RANGE: "a time that 64 bits of microseconds since 1970 cannot hold",
    Reason.END_OF_DAY: "24:00:00, which is no time of a day",
    Reason.DIMENSIONS: "an array of more than one dimension",
    Reason.BOUNDS: "an array whose first index is not 1",
    Reason.MALFORMED: "bytes that are not of its type",
}

GOOD = -1
"""What a kernel returns when all cells were decoded; else `bad(row, reason)`."""
_REASONS = 16


class BadCell(Exception):
    """A cell that the column's plan cannot hold."""

    def __init__(self, row: int, reason: Reason) -> None:
        super().__init__(reason.words)
        self.row = row
        self.reason = reason


def check(result: int) -> None:
    """Raise BadCell if a kernel's result says so."""
    if result != GOOD:
        raise BadCell(result // _REASONS, Reason(result % _REASONS))


@dataclass(frozen=True, slots=True)
class Cells:
    """n cells: `length[i]` bytes of `data` from `start[i]`, or no value where `length[i]` is negative.

    format   BINARY or TEXT for all of them.
    nulls    whether any length is negative.
    """

    data: Bytes
    start: Offsets
    length: Lengths
    format: int = TEXT
    nulls: bool = True

    def __len__(self) -> int:
        return self.length.size

    def valid(self) -> Flags:
        """Which cells hold a value."""
        return self.length >= 0

    def validity(self) -> pa.Buffer | None:
        """Arrow's bitmap of `valid`; None where all are."""
        return pa.py_buffer(np.packbits(self.valid(), bitorder="little").data) if self.nulls else None

    def in_format(self, wire_format: int) -> "Cells":
        return replace(self, format=wire_format)

    def where(self, chosen: Flags) -> "Cells":
        """The same cells with all but the chosen ones made null."""
        return replace(self, length=np.where(chosen, self.length, np.int32(NULL)), nulls=True)
