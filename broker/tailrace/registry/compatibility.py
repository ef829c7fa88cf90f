"""Compatibility of Avro schemas: which change a subject accepts.

`avro.compatibility` decides resolution of a writer's schema by a reader's (Avro specification, "Schema
Resolution").  It ignores logical types, so a second rule of ours refuses a change of meaning under
the same physical type (decimal scale, milliseconds to microseconds).
"""

import json
from enum import StrEnum
from typing import Any

from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.errors import AvroException
from avro.schema import Schema, parse

from tailrace.registry.errors import RegistryError, RegistryErrorCode


class Level(StrEnum):
    """What a new version is checked against; the TRANSITIVE levels check every version."""

    NONE = "NONE"
    BACKWARD = "BACKWARD"
    BACKWARD_TRANSITIVE = "BACKWARD_TRANSITIVE"
    FORWARD = "FORWARD"
    FORWARD_TRANSITIVE = "FORWARD_TRANSITIVE"
    FULL = "FULL"
    FULL_TRANSITIVE = "FULL_TRANSITIVE"

    @property
    def transitive(self) -> bool:
        """Whether all versions count, not only the newest."""
        return self.value.endswith("_TRANSITIVE")


def parse_schema(text: str) -> Schema:
    """Parse an Avro schema; raise RegistryError 42201 when it is not one."""
    try:
        return parse(text)
    except RecursionError:
        raise RegistryError(
            RegistryErrorCode.INVALID_SCHEMA, "Invalid schema: it is nested too deep"
        ) from None
    except (AvroException, json.JSONDecodeError, TypeError, KeyError, AttributeError, ValueError) as error:
        raise RegistryError(RegistryErrorCode.INVALID_SCHEMA, f"Invalid schema: {error}") from error


def problems(new: str, existing: list[str], level: Level) -> list[str]:
    """Say why `new` may not follow `existing` (oldest first); empty when it may."""
    if level is Level.NONE or not existing:
        return []
    candidates = existing if level.transitive else existing[-1:]
    parsed = parse_schema(new)
    found: list[str] = []
    for text in reversed(candidates):
        old = parse_schema(text)
        if level.name.startswith(("BACKWARD", "FULL")):
            found += _unreadable(reader=parsed, writer=old)
        if level.name.startswith(("FORWARD", "FULL")):
            found += _unreadable(reader=old, writer=parsed)
        found += _meaning_changes(json.loads(text), json.loads(new), "")
    return list(dict.fromkeys(found))


def _unreadable(*, reader: Schema, writer: Schema) -> list[str]:
    result = ReaderWriterCompatibilityChecker().get_compatibility(reader, writer)
    if result.compatibility is SchemaCompatibilityType.compatible:
        return []
    places = ", ".join(sorted(result.locations)) or "/"
    return [f"at {places}: {message}" for message in sorted(result.messages)] or [
        f"at {places}: incompatible"
    ]


def _meaning_changes(old: Any, new: Any, path: str) -> list[str]:
    """Find fields of the same name whose logical type changed."""
    old, new = _without_null(old), _without_null(new)
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return []
    if old.get("type") == "record" and new.get("type") == "record":
        new_fields = {field["name"]: field for field in new["fields"]}
        return [
            problem
            for field in old["fields"]
            if field["name"] in new_fields
            for problem in _meaning_changes(
                field["type"], new_fields[field["name"]]["type"], f"{path}/{field['name']}"
            )
        ]
    if old.get("type") == "array" and new.get("type") == "array":
        return _meaning_changes(old["items"], new["items"], f"{path}/items")
    before = tuple(old.get(name) for name in ("logicalType", "scale"))
    after = tuple(new.get(name) for name in ("logicalType", "scale"))
    if before == after or old.get("type") != new.get("type"):
        return []
    return [f"at {path or '/'}: logical type changed from {_render(before)} to {_render(after)}"]


def _without_null(schema: Any) -> Any:
    if isinstance(schema, list):
        rest = [branch for branch in schema if branch != "null"]
        return rest[0] if len(rest) == 1 else schema
    return schema


def _render(logical: tuple[Any, ...]) -> str:
    name, scale = logical
    return f"{name} (scale {scale})" if scale is not None else str(name)
