"""Finding sources by entry point: ours are found like anybody else's.

A package offers a source with

    [project.entry-points."tailrace.sources"]
    mysource = "my_package.source:MySource"

The class is imported when a pipeline names it: a missing driver of one source never breaks another.
"""

import difflib
from importlib.metadata import entry_points

from tailrace.changes import ConfigError
from tailrace.connectors.source import Source

GROUP = "tailrace.sources"


def source_types() -> list[str]:
    """The names that `type:` of a source may have here, sorted."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def load_source(source_type: str) -> type[Source]:
    """The class behind `source_type`; ConfigError when it is unknown or cannot be imported."""
    points = list(entry_points(group=GROUP, name=source_type))
    if not points:
        known = source_types()
        near = difflib.get_close_matches(source_type, known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ConfigError(
            f"there is no source type '{source_type}'",
            fix=f"{hint}installed here: {', '.join(known) or 'none'}",
        )
    try:
        loaded: type[Source] = points[0].load()
    except ImportError as error:
        raise ConfigError(
            f"the source type '{source_type}' ({points[0].value}) cannot be imported: {error}",
            fix="install what its package asks for",
        ) from error
    return loaded
