"""Sinks by name: entry points of the group `tailrace.sinks`, imported only when asked for."""

from importlib.metadata import entry_points
from typing import cast

from tailrace.changes import ConfigError
from tailrace.sinks.sink import Sink

GROUP = "tailrace.sinks"


def sink_types() -> list[str]:
    """Names that `type:` of a sink may have, sorted; imports none of them."""
    return sorted(point.name for point in entry_points(group=GROUP))


def load_sink_type(name: str) -> type[Sink]:
    """The plugin class of a sink type; ConfigError when there is none or its libraries are missing."""
    found = [point for point in entry_points(group=GROUP) if point.name == name]
    if not found:
        known = ", ".join(sink_types()) or "none"
        raise ConfigError(f"there is no sink type '{name}'", fix=f"known types: {known}")
    try:
        return cast(type[Sink], found[0].load())
    except ImportError as error:
        missing = error.name or "a library"
        raise ConfigError(f"sink type '{name}' needs {missing}", fix=f"install {missing}") from error
