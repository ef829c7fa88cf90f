"""Compiled loops that read the text form of values, a whole column per call, like `decode_binary`.

The session prints with DateStyle ISO, IntervalStyle postgres and bytea_output hex (see `connection.py`).
PostgreSQL sources: the `*_out` functions of src/backend/utils/adt.
"""

import numpy as np
import numpy.typing as npt

from tailrace.changes.compiled import kernel
from tailrace.connectors.postgres.cells import GOOD, Reason
from tailrace.connectors.postgres.decode_binary import DAY_MICROS, INT64_MAX, bad
from tailrace.connectors.postgres.wire import Bytes, Lengths, Offsets, read_u8

_INFINITE, _OUT_OF_RANGE, _END_OF_DAY = int(Reason.INFINITE), int(Reason.OUT_OF_RANGE), int(Reason.END_OF_DAY)
_MALFORMED = int(Reason.MALFORMED)

_MINUS, _PLUS, _POINT, _COLON, _BLANK = ord("-"), ord("+"), ord("."), ord(":"), ord(" ")
_ZERO, _NINE = ord("0"), ord("9")
_LOWER_F, _LOWER_I, _LOWER_T, _UPPER_B = ord("f"), ord("i"), ord("t"), ord("B")
_YEAR, _MONTH, _DAY = ord("y"), ord("m"), ord("d")
_SECOND = 1_000_000
_BACKSLASH, _X = ord("\\"), ord("x")


@kernel
def bools(data: Bytes, start: Offsets, length: Lengths, out: npt.NDArray[np.bool_]) -> int:
    for i in range(length.size):
        out[i] = length[i] == 1 and data[start[i]] == _LOWER_T
        if length[i] >= 0 and (length[i] != 1 or (not out[i] and data[start[i]] != _LOWER_F)):
            return bad(i, _MALFORMED)
    return GOOD


@kernel
def integers(data: Bytes, start: Offsets, length: Lengths, out: npt.NDArray[np.int64]) -> int:
    """int2, int4 and int8; collected as negative numbers, because -2^63 has no positive twin."""
    for i in range(length.size):
        out[i] = 0
        if length[i] < 0:
            continue
        at, end = start[i], start[i] + length[i]
        negative = at < end and data[at] == _MINUS
        if negative:
            at += 1
        if at == end:
            return bad(i, _MALFORMED)
        value = 0
        for j in range(at, end):
            digit = read_u8(data, j) - _ZERO
            if digit < 0 or digit > 9:
                return bad(i, _MALFORMED)
            value = value * 10 - digit
        out[i] = value if negative else -value
    return GOOD


@kernel
def digits_end(data: Bytes, at: int, end: int) -> int:
    """Where the run of digits at `at` ends."""
    while at < end and _ZERO <= data[at] <= _NINE:
        at += 1
    return at


@kernel
def number(data: Bytes, at: int, end: int) -> int:
    value = 0
    for j in range(at, end):
        value = value * 10 + read_u8(data, j) - _ZERO
    return value


@kernel
def days_of(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the proleptic Gregorian calendar; year 0 is 1 BC."""
    shifted = year - 1 if month <= 2 else year
    era = shifted // 400
    of_era = shifted - era * 400
    of_year = (153 * (month + (9 if month <= 2 else -3)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


@kernel
def fraction(data: Bytes, at: int, end: int) -> int:
    """Digits after a decimal point as microseconds."""
    value = number(data, at, end)
    for _ in range(6 - (end - at)):
        value *= 10
    return value


@kernel
def clock(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """HH:MM:SS[.ffffff] -> microseconds and where it ends; -1 microseconds when it is none."""
    hours_end = digits_end(data, at, end)
    if hours_end == at or hours_end + 6 > end or data[hours_end] != _COLON or data[hours_end + 3] != _COLON:
        return -1, at
    seconds = (number(data, at, hours_end) * 60 + number(data, hours_end + 1, hours_end + 3)) * 60
    seconds += number(data, hours_end + 4, hours_end + 6)
    at = hours_end + 6
    micros = seconds * _SECOND
    if at < end and data[at] == _POINT:
        fraction_end = digits_end(data, at + 1, end)
        micros += fraction(data, at + 1, fraction_end)
        at = fraction_end
    return micros, at


@kernel
def offset_seconds(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """+HH[:MM[:SS]] -> seconds east of UTC and where it ends."""
    sign = -1 if data[at] == _MINUS else 1
    seconds, unit = number(data, at + 1, at + 3) * 3600, 60
    at += 3
    while at + 3 <= end and data[at] == _COLON:
        seconds += number(data, at + 1, at + 3) * unit
        unit //= 60
        at += 3
    return sign * seconds, at


@kernel
def moment(data: Bytes, at: int, end: int) -> tuple[int, int, int]:
    """YYYY-MM-DD [HH:MM:SS[.f][+TZ]] [BC] -> days, microseconds of the day (less the offset), reason or 0."""
    if at < end and (data[at] == _LOWER_I or (data[at] == _MINUS and end - at > 8)):
        return 0, 0, _INFINITE
    year_end = digits_end(data, at, end)
    if year_end == at or year_end + 6 > end:
        return 0, 0, _MALFORMED
    year, month = number(data, at, year_end), number(data, year_end + 1, year_end + 3)
    day = number(data, year_end + 4, year_end + 6)
    at, micros = year_end + 6, 0
    if at + 1 < end and data[at] == _BLANK and data[at + 1] != _UPPER_B:
        micros, at = clock(data, at + 1, end)
        if micros < 0:
            return 0, 0, _MALFORMED
        if at < end and (data[at] == _PLUS or data[at] == _MINUS):
            east, at = offset_seconds(data, at, end)
            micros -= east * _SECOND
    if at + 3 == end and data[at + 1] == _UPPER_B:
        year, at = 1 - year, end
    return days_of(year, month, day), micros, 0 if at == end else _MALFORMED


@kernel
def dates(data: Bytes, start: Offsets, length: Lengths, out: npt.NDArray[np.int32]) -> int:
    for i in range(length.size):
        out[i] = 0
        if length[i] < 0:
            continue
        days, _, reason = moment(data, start[i], start[i] + length[i])
        if reason:
            return bad(i, reason)
        out[i] = days
    return GOOD


@kernel
def times(data: Bytes, start: Offsets, length: Lengths, out: npt.NDArray[np.int64]) -> int:
    for i in range(length.size):
        out[i] = 0
        if length[i] < 0:
            continue
        end = start[i] + length[i]
        micros, at = clock(data, start[i], end)
        if micros < 0 or at != end:
            return bad(i, _MALFORMED)
        if micros >= DAY_MICROS:
            return bad(i, _END_OF_DAY)
        out[i] = micros
    return GOOD


@kernel
def timestamps(data: Bytes, start: Offsets, length: Lengths, out: npt.NDArray[np.int64]) -> int:
    for i in range(length.size):
        out[i] = 0
        if length[i] < 0:
            continue
        days, micros, reason = moment(data, start[i], start[i] + length[i])
        if reason == 0 and days >= INT64_MAX // DAY_MICROS:
            reason = _OUT_OF_RANGE
        if reason:
            return bad(i, reason)
        out[i] = days * DAY_MICROS + micros
    return GOOD


@kernel
def intervals(
    data: Bytes,
    start: Offsets,
    length: Lengths,
    months: npt.NDArray[np.int32],
    days: npt.NDArray[np.int32],
    micros: npt.NDArray[np.int64],
) -> int:
    """1 year 2 mons -3 days +04:05:06.789: every part has its own sign."""
    for i in range(length.size):
        m = d = u = 0
        at, end = start[i], start[i] + max(length[i], 0)
        while at < end:
            negative = data[at] == _MINUS
            if negative or data[at] == _PLUS:
                at += 1
            if at < end and data[at] == _LOWER_I:
                return bad(i, _INFINITE)
            stop = digits_end(data, at, end)
            if stop == at:
                return bad(i, _MALFORMED)
            if stop < end and data[stop] == _COLON:
                value, at = clock(data, at, end)
                u = -value if negative else value
                if value < 0 or at != end:
                    return bad(i, _MALFORMED)
                break
            value = number(data, at, stop)
            value = -value if negative else value
            unit = data[stop + 1] if stop + 1 < end else 0
            if unit == _YEAR:
                m += 12 * value
            elif unit == _MONTH:
                m += value
            elif unit == _DAY:
                d = value
            else:
                return bad(i, _MALFORMED)
            at = stop + 1
            while at < end and data[at] != _BLANK:
                at += 1
            at += 1
        months[i] = m
        days[i] = d
        micros[i] = u
    return GOOD


@kernel
def hex_offsets(data: Bytes, start: Offsets, length: Lengths, offsets: npt.NDArray[np.int64]) -> int:
    """Arrow offsets of bytea values printed as \\x0123."""
    total = 0
    for i in range(length.size):
        offsets[i] = total
        if length[i] < 0:
            continue
        if length[i] < 2 or length[i] % 2 or data[start[i]] != _BACKSLASH or data[start[i] + 1] != _X:
            return bad(i, _MALFORMED)
        total += (length[i] - 2) // 2
    offsets[length.size] = total
    return GOOD


@kernel
def nibble(byte: int) -> int:
    return byte - 48 if byte <= _NINE else byte - 87


@kernel
def from_hex(data: Bytes, start: Offsets, offsets: npt.NDArray[np.int64], out: Bytes) -> None:
    for i in range(start.size):
        source = start[i] + 2
        for target in range(offsets[i], offsets[i + 1]):
            out[target] = nibble(read_u8(data, source)) << 4 | nibble(read_u8(data, source + 1))
            source += 2
