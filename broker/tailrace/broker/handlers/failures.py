"""What a client is told when its request fails for a reason that its API has no error for."""

import dataclasses
from typing import Any

from tailrace.broker.protocol import APIS, ApiKey, ErrorCode
from tailrace.broker.protocol.fields import FieldSpec, wire_fields

_ERROR_FIELDS = ("error_code", "partition_error_code")
# an item of a response names what it is about under another name than the request does
_OTHER_NAMES = {
    "partition_index": ("partition", "index"),
    "name": ("topic",),
    "group_id": (),
}


def failure_answer(
    api_key: ApiKey, version: int, request: Any, error: ErrorCode = ErrorCode.UNKNOWN_SERVER_ERROR
) -> Any | None:
    """The response that carries `error` for the whole request, or None where this version cannot say it.

    Where the error stands with each item (a partition, a topic, a group), the items are those of the request.
    """
    cls = APIS[api_key].response
    fields = _fields(cls, version)
    if any(spec.name in _ERROR_FIELDS for spec in fields):
        return cls(error_code=error)
    items = next((spec for spec in fields if _tells_errors(spec, version)), None)
    if items is None:
        return None
    answers = _answers(items, request, version, error)
    return cls(**{items.name: answers}) if answers else None


def _answers(spec: FieldSpec, request: Any, version: int, error: ErrorCode) -> list[Any]:
    """One response item for each item of every array in the request."""
    asked = [
        item
        for source in _fields(type(request), version)
        if source.is_array
        for item in getattr(request, source.name) or ()
    ]
    assert isinstance(spec.item, type)
    return [_answer(spec.item, item, version, error) for item in asked]


def _answer(cls: type, asked: Any, version: int, error: ErrorCode) -> Any:
    answer = cls()
    fields = _fields(cls, version)
    codes = [spec.name for spec in fields if spec.name in _ERROR_FIELDS]
    for name in codes:
        setattr(answer, name, error)
    if not dataclasses.is_dataclass(asked):
        named = next(s for s in fields if s.item in ("string", "int32") and s.name not in codes)
        setattr(answer, named.name, asked)
        return answer
    for spec in fields:
        if spec.is_array and not isinstance(spec.item, str):
            if not codes:
                setattr(answer, spec.name, _answers(spec, asked, version, error))
        elif spec.name not in codes:
            for name in (spec.name, *_OTHER_NAMES.get(spec.name, ())):
                if hasattr(asked, name):
                    setattr(answer, spec.name, getattr(asked, name))
                    break
    return answer


def _fields(cls: type, version: int) -> list[FieldSpec]:
    return [spec for spec in wire_fields(cls) if version in spec.versions and spec.tag is None]


def _tells_errors(spec: FieldSpec, version: int) -> bool:
    """Whether the items of an array, or items in them, have an error code."""
    if not spec.is_array or isinstance(spec.item, str):
        return False
    inner = _fields(spec.item, version)
    return any(field.name in _ERROR_FIELDS or _tells_errors(field, version) for field in inner)
