"""Compiled loops that read numeric: to decimal128, exactly, or to the text that Postgres prints.

Binary form (numeric_send): Int16 count of digits | Int16 weight of the first | Int16 sign | Int16 dscale |
base-10000 digits, Int16 each; the value is the sum of digit[i] * 10000^(weight - i).  Text form: numeric_out.
"""

import numpy as np
import numpy.typing as npt

from tailrace.changes.compiled import kernel
from tailrace.connectors.postgres.cells import GOOD, Reason
from tailrace.connectors.postgres.decode_binary import bad
from tailrace.connectors.postgres.wire import Bytes, Lengths, Offsets, read_i16, read_u8, read_u16

_NOT_FINITE, _TOO_MANY_DIGITS = int(Reason.NOT_FINITE), int(Reason.TOO_MANY_DIGITS)
_MALFORMED = int(Reason.MALFORMED)

_NUMERIC_HEADER = 8
_NUMERIC_NEGATIVE, _NUMERIC_SPECIAL = 0x4000, 0xC000  # 0xC000 NaN, 0xD000 +inf, 0xF000 -inf
_NUMERIC_NAN, _NUMERIC_MINUS_INFINITY = 0xC000, 0xF000
_LIMB = 0xFFFFFFFF
_MINUS, _POINT, _ZERO, _NINE = ord("-"), ord("."), ord("0"), ord("9")

SPECIAL_NUMBERS = np.frombuffer(b"NaN-Infinity", np.uint8)
"""The parameter `special` of `numeric_texts`: NaN, -Infinity and Infinity overlap in it."""


@kernel
def decimal_digits(value: int) -> int:
    """How many decimal digits a base-10000 digit has; 0 for 0."""
    if value >= 100:
        return 4 if value >= 1000 else 3
    if value >= 10:
        return 2
    return 1 if value > 0 else 0


@kernel
def store_decimal(
    w0: int, w1: int, w2: int, w3: int, negative: bool, out: npt.NDArray[np.int64], i: int
) -> None:
    """Four 32-bit limbs as the little-endian decimal128 number i."""
    low, high = w0 | w1 << 32, w2 | w3 << 32
    if negative:
        low, high = -low, ~high + (1 if low == 0 else 0)
    out[2 * i] = low
    out[2 * i + 1] = high


@kernel
def decimals(
    data: Bytes, start: Offsets, length: Lengths, precision: int, scale: int, out: npt.NDArray[np.int64]
) -> int:
    """Binary form -> decimal128(precision, scale), exact."""
    for i in range(length.size):
        if length[i] < 0:
            out[2 * i] = out[2 * i + 1] = 0
            continue
        at = start[i]
        count = read_u16(data, at) if length[i] >= _NUMERIC_HEADER else -1
        if length[i] != _NUMERIC_HEADER + 2 * count:
            return bad(i, _MALFORMED)
        weight, sign = read_i16(data, at + 2), read_u16(data, at + 4)
        if sign >= _NUMERIC_SPECIAL:
            return bad(i, _NOT_FINITE)
        at += _NUMERIC_HEADER
        exponent = (weight - count + 1) * 4 + scale  # of the last digit, in units of the scale
        if count > 0 and (
            4 * weight + decimal_digits(read_u16(data, at)) > precision - scale or exponent <= -4
        ):
            return bad(i, _TOO_MANY_DIGITS)
        w0 = w1 = w2 = w3 = 0
        steps = count + ((exponent + 3) // 4 if exponent > 0 and count > 0 else 0)
        for j in range(steps):
            digit = read_u16(data, at + 2 * j) if j < count else 0
            factor = 10000
            last = exponent if j == count - 1 and exponent < 0 else 0
            if j == steps - 1 and exponent > 0:
                last = -((4 - exponent % 4) % 4)
            while last < 0:
                if digit % 10 != 0:
                    return bad(i, _TOO_MANY_DIGITS)
                digit //= 10
                factor //= 10
                last += 1
            if w1 == 0 and w2 == 0 and w3 == 0:
                carry = w0 * factor + digit
                w0 = carry & _LIMB
                w1 = carry >> 32
                continue
            carry = w0 * factor + digit
            w0 = carry & _LIMB
            carry = w1 * factor + (carry >> 32)
            w1 = carry & _LIMB
            carry = w2 * factor + (carry >> 32)
            w2 = carry & _LIMB
            w3 = w3 * factor + (carry >> 32)
        store_decimal(w0, w1, w2, w3, sign == _NUMERIC_NEGATIVE, out, i)
    return GOOD


@kernel
def numeric_text_offsets(data: Bytes, start: Offsets, length: Lengths, offsets: npt.NDArray[np.int64]) -> int:
    """How long each number is as numeric_out prints it."""
    total = 0
    for i in range(length.size):
        offsets[i] = total
        if length[i] < 0:
            continue
        at = start[i]
        count = read_u16(data, at) if length[i] >= _NUMERIC_HEADER else -1
        if length[i] != _NUMERIC_HEADER + 2 * count:
            return bad(i, _MALFORMED)
        weight, sign, dscale = read_i16(data, at + 2), read_u16(data, at + 4), read_u16(data, at + 6)
        if sign >= _NUMERIC_SPECIAL:
            total += 3 if sign == _NUMERIC_NAN else 9 if sign == _NUMERIC_MINUS_INFINITY else 8
            continue
        whole = 1
        if count > 0 and weight >= 0:
            whole = 4 * weight + decimal_digits(read_u16(data, at + _NUMERIC_HEADER))
        total += whole + (dscale + 1 if dscale > 0 else 0) + (1 if sign == _NUMERIC_NEGATIVE else 0)
    offsets[length.size] = total
    return GOOD


@kernel
def numeric_digit(data: Bytes, at: int, count: int, weight: int, place: int) -> int:
    """The decimal digit worth 10^place."""
    group = place // 4
    index = weight - group
    if index < 0 or index >= count:
        return 0
    value = read_u16(data, at + 2 * index)
    for _ in range(place - 4 * group):
        value //= 10
    return value % 10


@kernel
def numeric_texts(
    data: Bytes,
    start: Offsets,
    length: Lengths,
    offsets: npt.NDArray[np.int64],
    special: Bytes,
    out: Bytes,
) -> None:
    """Print numbers as numeric_out does; `special` holds "NaN-Infinity"."""
    for i in range(length.size):
        if length[i] < 0:
            continue
        at, target = start[i], offsets[i]
        count, weight = read_u16(data, at), read_i16(data, at + 2)
        sign, dscale = read_u16(data, at + 4), read_u16(data, at + 6)
        if sign >= _NUMERIC_SPECIAL:
            first = 0 if sign == _NUMERIC_NAN else 3 if sign == _NUMERIC_MINUS_INFINITY else 4
            for j in range(offsets[i + 1] - target):
                out[target + j] = special[first + j]
            continue
        at += _NUMERIC_HEADER
        if sign == _NUMERIC_NEGATIVE:
            out[target] = 45
            target += 1
        whole = 1
        if count > 0 and weight >= 0:
            whole = 4 * weight + decimal_digits(read_u16(data, at))
        for place in range(whole - 1, -1, -1):
            out[target] = 48 + numeric_digit(data, at, count, weight, place)
            target += 1
        if dscale > 0:
            out[target] = 46
            for place in range(1, dscale + 1):
                out[target + place] = 48 + numeric_digit(data, at, count, weight, -place)


@kernel
def decimals_from_text(
    data: Bytes, start: Offsets, length: Lengths, precision: int, scale: int, out: npt.NDArray[np.int64]
) -> int:
    """Text -> decimal128(precision, scale), exact."""
    for i in range(length.size):
        if length[i] < 0:
            out[2 * i] = out[2 * i + 1] = 0
            continue
        at, end = start[i], start[i] + length[i]
        negative = at < end and data[at] == _MINUS
        if negative:
            at += 1
        if at == end:
            return bad(i, _MALFORMED)
        w0 = w1 = w2 = w3 = digits = 0
        places = -1  # after the point, once it was seen
        while at < end or places < scale:
            digit = 0
            if at < end:
                byte = read_u8(data, at)
                at += 1
                if byte == _POINT and places < 0:
                    places = 0
                    continue
                if byte < _ZERO or byte > _NINE:
                    return bad(i, _NOT_FINITE if byte > _NINE else _MALFORMED)
                digit = byte - _ZERO
            elif places < 0:
                places = 0
                continue
            if places >= 0:
                places += 1
                if places > scale:
                    if digit != 0:
                        return bad(i, _TOO_MANY_DIGITS)
                    continue
            digits += 1 if digits > 0 or digit > 0 else 0
            if digits > precision:
                return bad(i, _TOO_MANY_DIGITS)
            carry = w0 * 10 + digit
            w0 = carry & _LIMB
            carry = w1 * 10 + (carry >> 32)
            w1 = carry & _LIMB
            carry = w2 * 10 + (carry >> 32)
            w2 = carry & _LIMB
            w3 = w3 * 10 + (carry >> 32)
        store_decimal(w0, w1, w2, w3, negative, out, i)
    return GOOD
