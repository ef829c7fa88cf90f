"""What the Flink stage of a pipeline is told: one object, made by the runner from the YAML file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tailrace.broker.client import PLAINTEXT, ClientSecurity
from tailrace.registry.login import RegistryLogin


@dataclass(frozen=True, slots=True)
class UdfConfig:
    """A Python function that SQL may call.

    `python` is `<file>:<function>`, the file relative to the pipeline's YAML file.  `returns` is a Flink SQL
    type (`DOUBLE`, `DECIMAL(12, 2)`).  `batch`: `rows` calls the function once per row with Python values,
    `arrow` once per batch with a pandas Series per argument.
    """

    name: str
    python: str
    returns: str
    batch: Literal["rows", "arrow"] = "rows"


@dataclass(frozen=True, slots=True)
class TransformConfig:
    """One `transforms:` entry: SQL over topics, written to a topic.

    `inputs` maps the table name used in the SQL to a topic.  `key` names the columns of the result by which
    the target topic is keyed; empty for a result that only ever appends.  `file` and `line` say where the SQL's
    stands in the YAML file, for error messages.
    """

    name: str
    inputs: Mapping[str, str]
    to: str
    key: tuple[str, ...]
    sql: str
    udfs: tuple[UdfConfig, ...] = ()
    base_dir: Path = Path()
    file: str = ""
    line: int = 1


@dataclass(frozen=True, slots=True)
class FlinkPartConfig:
    """The whole stage: all transforms of a pipeline run as one Flink job.

    `transaction_timeout_s` is the longest time that the job may be down without its last results being
    aborted by the broker; it must not exceed the broker's `transaction.max.timeout.ms`.  `requirements` are
    pip requirement lines of the user's functions.  `udf_mode`: `thread` calls Python functions inside the JVM, `process`
    in worker processes, which Flink serves over ports that are not limited to loopback; functions with `batch: arrow`
    always run there.  `security`: how to connect to the brokers.  `registry_login`: how to get into the registry.
    """

    pipeline: str
    transforms: tuple[TransformConfig, ...]
    bootstrap: str
    registry_url: str
    data_dir: Path
    checkpoint_interval_s: float = 1.0
    transaction_timeout_s: float = 900.0
    parallelism: int = 1
    requirements: tuple[str, ...] = ()
    udf_mode: Literal["process", "thread"] = "thread"
    security: ClientSecurity = PLAINTEXT
    registry_login: RegistryLogin | None = None
