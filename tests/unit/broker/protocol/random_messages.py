"""Messages with random content, made from the field tables; fast enough to cover every version of every API."""

from random import Random
from typing import Any

from tailrace.broker.protocol import ErrorCode
from tailrace.broker.protocol.fields import FieldSpec, wire_fields

_BITS = {"int8": 7, "int16": 15, "int32": 31, "int64": 63}
_TEXTS = ["", "a", "orders", "día ☂", "x" * 126, "y" * 127, "z" * 300]
_ERROR_CODES = [int(code) for code in ErrorCode]


def random_message(cls: type, version: int, rng: Random, *, short_times: bool = False) -> Any:
    """An instance of a message class whose fields are those of one version; the others keep their defaults.

    short_times  durations and times stay within what timedelta and datetime can hold.
    """
    return cls(
        **{
            spec.name: _value(spec, version, rng, short_times)
            for spec in wire_fields(cls)
            if version in spec.versions
        }
    )


def _value(spec: FieldSpec, version: int, rng: Random, short_times: bool) -> Any:
    if version in spec.nullable and rng.random() < 0.3:
        return None
    if spec.is_array:
        return [_item(spec, version, rng, short_times) for _ in range(rng.choice([0, 1, 2]))]
    return _item(spec, version, rng, short_times)


def _item(spec: FieldSpec, version: int, rng: Random, short_times: bool) -> Any:
    if not isinstance(spec.item, str):
        return random_message(spec.item, version, rng, short_times=short_times)
    if spec.name.endswith("error_code"):
        return rng.choice(_ERROR_CODES)
    if short_times and spec.item in ("int32", "int64") and spec.name.endswith(("_ms", "timestamp")):
        return rng.randrange(2**31)
    match spec.item:
        case "bool":
            return rng.random() < 0.5
        case "uint16":
            return rng.randrange(2**16)
        case "float64":
            return rng.choice([0.0, -0.0, 1.5, 1e300, float("inf")])
        case "string":
            return rng.choice(_TEXTS)
        case "bytes":
            return rng.randbytes(rng.choice([0, 1, 127, 200]))
        case "records":
            return rng.randbytes(rng.choice([0, 61, 1023, 1024, 3000]))
        case "uuid":
            return rng.randbytes(16)
    limit = 1 << _BITS[spec.item]
    return rng.choice([0, -1, 1, limit - 1, -limit, rng.randrange(-limit, limit)])
