"""What the verbs share that talk to a cluster: its address, how to log in, and tables for people."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tailrace.changes.errors import ConfigError

if TYPE_CHECKING:
    from tailrace.broker.client import Client
    from tailrace.pipeline.plan import Endpoints

BOOTSTRAP = click.option(
    "--bootstrap", metavar="H:P", help="Broker; by default the one of the pipeline that runs under .tailrace."
)
RUN_DIR = click.option(
    "--data-dir", type=click.Path(path_type=Path), help="State of the run whose broker is meant."
)


COMMAND_CONFIG = click.option(
    "--command-config",
    "command_config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Properties of TLS and login, like security.protocol and sasl.username.",
)


class Cluster:
    """The cluster that a command line means; connected when asked."""

    def __init__(self, bootstrap: str | None, data_dir: Path | None, command_config: Path | None) -> None:
        self._bootstrap, self._data_dir, self._command_config = bootstrap, data_dir, command_config

    def endpoints(self, registry_url: str | None = None) -> "Endpoints":
        """Addresses of broker and registry, and how to log in there."""
        from tailrace.pipeline.topics import find_endpoints

        found = find_endpoints(self._bootstrap, registry_url, self._data_dir)
        if self._command_config is None:
            return found
        from tailrace.pipeline.command_config import read_command_config

        login = read_command_config(self._command_config)
        return replace(found, security=login.security, registry_login=login.registry_login)

    @contextmanager
    def client(self) -> Iterator["Client"]:
        """A client that is closed at the end."""
        from tailrace.pipeline.admin.cluster import open_client

        with open_client(self.endpoints()) as client:
            yield client


def with_cluster(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """Give a verb the options that say which cluster is meant, as one `Cluster`."""

    @BOOTSTRAP
    @COMMAND_CONFIG
    @RUN_DIR
    @wraps(function)
    def run(
        *args: Any, bootstrap: str | None, command_config: Path | None, data_dir: Path | None, **kwargs: Any
    ) -> int | None:
        return function(Cluster(bootstrap, data_dir, command_config), *args, **kwargs)

    return run


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of the same keys as aligned columns under a heading; nothing for no rows."""
    if not rows:
        return
    cells = [list(rows[0])] + [["-" if cell is None else str(cell) for cell in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def assignments(texts: Sequence[str]) -> dict[str, str]:
    """`name=value` each.  Raises ConfigError."""
    found = {}
    for text in texts:
        name, given, value = text.partition("=")
        if not given:
            raise ConfigError(f"'{text}' is not NAME=VALUE", fix="write it like retention.ms=3600000")
        found[name] = value
    return found
