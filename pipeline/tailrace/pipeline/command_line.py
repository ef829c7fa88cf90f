"""What every verb of the `tailrace` command is made with.  Imports nothing heavy: `--help` stays instant.

Exit codes: 0 done, 1 failed at run time, 2 wrong configuration, 3 tables differ (verify), 130 interrupted.
Standard output is data only; talk goes to standard error.
"""

import json
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import click

from tailrace.changes.errors import TailraceError, operating_system_error

_P = ParamSpec("_P")

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tailrace")
def main() -> None:
    """Keep lakehouse tables true to a Postgres database, exactly once."""


def command(
    name: str, group: click.Group = main, cls: type[click.Command] = click.Command
) -> Callable[[Callable[_P, int | None]], click.Command]:
    """Add a verb whose TailraceErrors become one paragraph and an exit code."""

    def decorate(function: Callable[_P, int | None]) -> click.Command:
        @wraps(function)
        def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
            try:
                code = function(*args, **kwargs)
            except TailraceError as error:
                click.echo(f"error: {error}", err=True)
                sys.exit(error.exit_code)
            except BrokenPipeError:  # the reader of our output has gone, as with `| head`
                sys.exit(0)
            except OSError as error:
                click.echo(f"error: {operating_system_error(error)}", err=True)
                sys.exit(1)
            except KeyboardInterrupt:
                sys.exit(130)
            sys.exit(code or 0)

        return group.command(name, cls=cls)(run)

    return decorate


def talk(line: str) -> None:
    """Say something to a person."""
    click.echo(line, err=True)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, indent=2, default=str))
