"""The file of `tailrace broker --config FILE`: Kafka's names, one a line, checked like a pipeline file.

log.dir: /var/lib/tailrace
tailrace.listen: 127.0.0.1:9092
num.partitions: 4
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tailrace.broker.config import OPTIONS
from tailrace.broker.options import Option, option, options_of, read_options
from tailrace.changes import ConfigError
from tailrace.changes.logs import LogFormat
from tailrace.pipeline.diagnostics import SpecPath, did_you_mean
from tailrace.pipeline.document import Document, load_document


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """Options of the process around the broker."""

    listen: str = option("tailrace.listen", "127.0.0.1:9092", "Address for clients, host:port.")
    registry_listen: str = option(
        "tailrace.registry.listen",
        "127.0.0.1:8081",
        "Address of the schema registry: host:port, or https://host:port with the broker's certificate.",
    )
    registry_login: Path | None = option(
        "tailrace.registry.command.config",
        None,
        "Properties file by which the registry logs in to a broker with TLS or SASL, as --command-config has it.",
    )
    log_format: str = option("tailrace.log.format", "text", "How the log is written: text or json.")

    def __post_init__(self) -> None:
        if self.log_format not in ("text", "json"):
            raise ConfigError(f"tailrace.log.format is {self.log_format}", fix="write text or json")


@dataclass(frozen=True, slots=True)
class BrokerOptions:
    """What `tailrace broker` was told; `broker` holds fields of BrokerConfig, without data_dir."""

    data_dir: Path
    service: ServiceOptions
    broker: Mapping[str, Any]

    @property
    def log_format(self) -> LogFormat:
        """The style of the log."""
        return cast(LogFormat, self.service.log_format)


_SERVICE = options_of(ServiceOptions)
_OF_THE_RUN = ("log.dir", "listeners", "advertised.listeners")


def all_options() -> Mapping[str, Option]:
    """Every option that a file or a flag may name."""
    return _SERVICE | OPTIONS


def run_options() -> Mapping[str, Option]:
    """Options of the broker that a run brings: where it lies and listens is up to the run."""
    return {name: known for name, known in OPTIONS.items() if name not in _OF_THE_RUN}


def read_broker_options(
    file: Path | None, flags: Mapping[str, object], settings: tuple[str, ...] = ()
) -> BrokerOptions:
    """Options of a file, overridden by `settings` (NAME=VALUE), overridden by flags that are not None.

    Raises SpecError with every mistake of the file, ConfigError for one outside of it.
    """
    fields = _of_file(file) if file is not None else {}
    for setting in settings:
        name, given, value = setting.partition("=")
        if not given:
            raise ConfigError(f"'{setting}' is not NAME=VALUE", fix="write it like num.partitions=4")
        if name not in all_options():
            raise ConfigError(f"the broker has no option {name}", fix=did_you_mean(name, all_options()))
        fields |= read_options(all_options(), {name: value})
    fields |= read_options(all_options(), {name: value for name, value in flags.items() if value is not None})
    data_dir = fields.pop("data_dir", None)
    if data_dir is None:
        raise ConfigError(
            "the broker is not told where its log lives", fix="give --data-dir DIR, or log.dir in the file"
        )
    service = {known.field: fields.pop(known.field) for known in _SERVICE.values() if known.field in fields}
    return BrokerOptions(data_dir.resolve(), ServiceOptions(**service), fields)


def read_at(
    document: Document, path: SpecPath, named: Mapping[str, object], known: Mapping[str, Option]
) -> dict[str, Any]:
    """Fields for the options that a file names at `path`; each mistake is reported at its place."""
    fields: dict[str, Any] = {}
    for name, value in named.items():
        found = known.get(name)
        if found is None:
            document.report("E202", (*path, name), f"'{name}' is not known here", did_you_mean(name, known))
            continue
        try:
            fields[found.field] = found.read(value)
        except ValueError as error:
            document.report("E203", (*path, name), f"{name} {error}")
    return fields


def _of_file(file: Path) -> dict[str, Any]:
    document = load_document(file, kind="broker file", example="num.partitions: 1")
    fields = read_at(document, (), document.data, all_options())
    document.raise_problems()
    for path in {"data_dir", "registry_login"} & fields.keys():  # like every path of a file: relative to it
        fields[path] = file.resolve().parent / fields[path]
    return fields
