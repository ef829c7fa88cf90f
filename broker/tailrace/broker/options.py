"""The broker's options by name: one table that serves the file, the flags, `--help` and DescribeConfigs.

The table is BrokerConfig itself: each field is made with `option(name, default, documentation)`.  Names are
those of Kafka's `server.properties` where Kafka has the option, `tailrace.…` where it has not.
"""

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar

from tailrace.changes.errors import ConfigError

_Value = TypeVar("_Value")
_METADATA = "tailrace.option"
_LARGEST_INT = 2**31 - 1


class ConfigType(IntEnum):
    """Types of DescribeConfigs (Kafka's ConfigResponse.ConfigType)."""

    BOOLEAN = 1
    STRING = 2
    INT = 3
    LONG = 5
    DOUBLE = 6
    LIST = 7
    PASSWORD = 9


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its `name` in files and on the wire, the `field` of BrokerConfig and what a value is.

    `secret`: the value is never shown, neither in DescribeConfigs nor in a log.
    """

    name: str
    field: str
    kind: type
    default: Any
    documentation: str
    secret: bool = False

    @property
    def config_type(self) -> ConfigType:
        """The type that DescribeConfigs tells."""
        if self.secret:
            return ConfigType.PASSWORD
        return _CONFIG_TYPES[self.kind]

    @property
    def default_text(self) -> str:
        """The default for people; empty where there is none."""
        return "" if self.default is dataclasses.MISSING else self.text(self.default)

    def read(self, value: object) -> Any:
        """The field's value for what a file or a flag says.  Raises ValueError with the rule that it breaks."""
        if value is None:
            raise ValueError("has no value")
        return _READERS[self.kind](value)

    def text(self, value: object) -> str:
        """A field's value as Kafka writes it."""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, tuple):
            return ",".join(map(str, value))
        return "" if value is None else str(value)


def option(name: str, default: _Value, documentation: str, *, secret: bool = False) -> _Value:
    """A field of BrokerConfig that is the option `name`.

    Its annotation says what a value is: bool, int, float, str, Path, tuple[str, ...], or one of them `| None`.
    """
    metadata = about(name, documentation, secret=secret)
    return dataclasses.field(default=default, metadata=metadata, repr=not secret)


def about(name: str, documentation: str, *, secret: bool = False) -> dict[str, Any]:
    """Metadata of a field without a default that is the option `name`."""
    return {_METADATA: (name, documentation, secret)}


def options_of(config_type: type) -> dict[str, Option]:
    """The options of a dataclass, by name, in the order of its fields."""
    annotations = typing.get_type_hints(config_type)
    found = {}
    for field in dataclasses.fields(config_type):
        if _METADATA in field.metadata:
            name, documentation, secret = field.metadata[_METADATA]
            kind = _kind(annotations[field.name])
            found[name] = Option(name, field.name, kind, field.default, documentation, secret)
    return found


def read_options(options: Mapping[str, Option], given: Mapping[str, object]) -> dict[str, Any]:
    """Fields for options given by name.  Raises ConfigError for an unknown name or a value of another type."""
    fields = {}
    for name, value in given.items():
        known = options.get(name)
        if known is None:
            raise ConfigError(f"the broker has no option {name}", fix="list them: tailrace broker --help")
        try:
            fields[known.field] = known.read(value)
        except ValueError as error:
            raise ConfigError(f"the broker's option {name} {error}") from None
    return fields


def whole_number(text: str) -> int:
    """What Kafka reads as an int.  Raises ValueError in Kafka's words."""
    if not re.fullmatch(r"[+-]?[0-9]+", text.strip()) or abs(value := int(text)) > _LARGEST_INT:
        raise ValueError("Not a number of type INT")
    return value


def items(text: str) -> tuple[str, ...]:
    """The items of a list."""
    return tuple(item for item in (item.strip() for item in text.split(",")) if item)


def _kind(annotation: Any) -> type:
    if isinstance(annotation, types.UnionType):
        (annotation,) = [member for member in typing.get_args(annotation) if member is not type(None)]
    origin: type = typing.get_origin(annotation) or annotation
    return origin


def _read_bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() not in ("true", "false"):
        raise ValueError("is neither true nor false")
    return str(value).lower() == "true"


def _read_int(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        if isinstance(value, str):
            return int(value)
    except ValueError:
        pass
    raise ValueError("is not a whole number")


def _read_float(value: object) -> float:
    try:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return float(value)
    except ValueError:
        pass
    raise ValueError("is not a number")


def _read_text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        raise ValueError("is not text")
    return str(value)


def _read_list(value: object) -> tuple[str, ...]:
    items = value if isinstance(value, list | tuple) else _read_text(value).split(",")
    return tuple(item for item in (_read_text(item).strip() for item in items) if item)


_READERS: dict[type, Any] = {
    bool: _read_bool,
    int: _read_int,
    float: _read_float,
    str: _read_text,
    Path: lambda value: Path(_read_text(value)),
    tuple: _read_list,
}
_CONFIG_TYPES = {
    bool: ConfigType.BOOLEAN,
    int: ConfigType.LONG,
    float: ConfigType.DOUBLE,
    str: ConfigType.STRING,
    Path: ConfigType.STRING,
    tuple: ConfigType.LIST,
}
