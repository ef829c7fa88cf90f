"""Plan transforms with Flink's own planner: ask the job's process, derive the targets, create topics and subjects."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tailrace.broker.client import Client, NewTopic
from tailrace.changes import crash_point
from tailrace.changes.errors import ConfigError, TailraceError
from tailrace.flink.columns import COMMIT_TIME, Column, quoted
from tailrace.flink.config import FlinkPartConfig, TransformConfig
from tailrace.flink.failures import refused_sql
from tailrace.flink.process import JobProcess, RequestFailed
from tailrace.flink.security import client_properties
from tailrace.flink.tables import Sink, TopicSchemas, planned_sink, sink_ddl, source_ddl
from tailrace.registry.client import RegistryClient, RegistryRefusedError

# timestamps are those of the source's commits: its clock may be ahead of the broker's by any time
_ANY_CLOCK = {"message.timestamp.after.max.ms": str(2**63 - 1)}


@dataclass(frozen=True, slots=True)
class PlannedTransform:
    """What the planner says of a transform.

    `append_only`: rows are only ever added.  `commit_time`: the hidden column that carries the source commit time to
    the result's timestamp, None where the query cannot carry it, for the reason in `untraceable`.
    """

    transform: TransformConfig
    sink: Sink
    append_only: bool
    commit_time: str | None
    untraceable: str | None


def in_order(transforms: Sequence[TransformConfig]) -> list[TransformConfig]:
    """The transforms, each behind those whose results it reads; ConfigError for a circle."""
    by_topic = {transform.to: transform for transform in transforms}
    ordered: list[TransformConfig] = []
    entered: set[str] = set()

    def visit(transform: TransformConfig) -> None:
        if transform in ordered:
            return
        if transform.name in entered:
            raise ConfigError(f"transform {transform.name} reads its own result", fix="break the circle")
        entered.add(transform.name)
        for topic in transform.inputs.values():
            if topic in by_topic:
                visit(by_topic[topic])
        ordered.append(transform)

    for transform in transforms:
        visit(transform)
    return ordered


class Planner:
    """Plans transforms one after the other in a job's process."""

    def __init__(
        self,
        config: FlinkPartConfig,
        process: JobProcess,
        schemas_of: Callable[[str], TopicSchemas],
    ) -> None:
        """`schemas_of` gives the schemas of a topic that no transform of this job writes."""
        self._config = config
        self._process = process
        self._schemas_of = schemas_of
        self._known: dict[str, TopicSchemas] = {}
        self._declared: set[str] = set()

    def plan(self, transform: TransformConfig) -> PlannedTransform:
        """Plan one transform; ConfigError names the line that the planner refuses."""
        inputs = {alias: self._schemas(topic) for alias, topic in transform.inputs.items()}
        answer = self._ask(transform, inputs)
        columns = tuple(Column(name, kind, nullable) for name, kind, nullable in answer["columns"])
        if not transform.key and not answer["append_only"]:
            raise ConfigError(
                f"{transform.file}:{transform.line}: transform {transform.name} changes rows that it gave before, "
                "and has no key",
                fix=f"name the columns that identify a row of its result: key: [{columns[0].name}]",
            )
        try:
            sink = planned_sink(
                transform.to, columns, transform.key, commit_time=answer["commit_time"] is not None
            )
            self._known[transform.to] = TopicSchemas(transform.to, sink.key_schema, sink.value_schema)
        except ConfigError as error:
            raise ConfigError(f"transform {transform.name}: {error.what}", fix=error.fix) from None
        return PlannedTransform(
            transform, sink, answer["append_only"], answer["commit_time"], answer["untraceable"]
        )

    def inputs(self) -> list[TopicSchemas]:
        """The topics read so far that are not results of this job."""
        results = {transform.to for transform in self._config.transforms}
        return [schemas for topic, schemas in self._known.items() if topic not in results]

    def _schemas(self, topic: str) -> TopicSchemas:
        if topic not in self._known:
            self._known[topic] = self._schemas_of(topic)
        return self._known[topic]

    def _ask(self, transform: TransformConfig, inputs: Mapping[str, TopicSchemas]) -> dict[str, Any]:
        fresh = [schemas for schemas in inputs.values() if schemas.topic not in self._declared]
        self._declared.update(schemas.topic for schemas in fresh)
        ddl = {
            schemas.topic: source_ddl(
                schemas,
                bootstrap=self._config.bootstrap,
                security=client_properties(self._config.security),
                registry_url=self._config.registry_url,
                group=group_of(self._config.pipeline),
            )
            for schemas in fresh
        }
        request = {
            "do": "plan",
            "transform": transform.name,
            "tables": list(ddl.values()),
            "views": {
                alias: {"topic": schemas.topic, "columns": [column.name for column in schemas.columns]}
                for alias, schemas in inputs.items()
            },
            "functions": [
                {
                    "name": udf.name,
                    "file": str((transform.base_dir / udf.python.rpartition(":")[0]).resolve()),
                    "function": udf.python.rpartition(":")[2],
                    "returns": udf.returns,
                    "batch": udf.batch,
                }
                for udf in transform.udfs
            ],
            "sql": transform.sql.rstrip().rstrip(";"),
        }
        try:
            return self._process.ask(request)
        except RequestFailed as failure:
            raise refused_sql(transform, failure.causes) from None


def group_of(pipeline: str) -> str:
    """The consumer group whose committed offsets show how far the job is."""
    return f"tailrace.{pipeline}.transform"


def create_targets(
    config: FlinkPartConfig, planned: Sequence[PlannedTransform], client: Client, registry: RegistryClient
) -> list[dict[str, str]]:
    """Create target topics and subjects; return the inserts that `start` wants.

    Each step may be done again.  TailraceError when the registry refuses a changed result.
    """
    read = {topic for transform in config.transforms for topic in transform.inputs.values()}
    counts = [len(topic.leaders) for topic in client.metadata(read).values()]
    inserts = []
    for plan in planned:
        sink = plan.sink
        configs = dict(_ANY_CLOCK)
        if sink.key:
            configs["cleanup.policy"] = "compact"
        client.create_topics([NewTopic(sink.topic, partitions=max(counts, default=1), configs=configs)])
        crash_point("flink.after_target_topic")
        try:
            key_id = registry.register(f"{sink.topic}-key", sink.key_schema) if sink.key_schema else None
            value_id = registry.register(f"{sink.topic}-value", sink.value_schema)
        except RegistryRefusedError as error:
            raise TailraceError(f"transform {plan.transform.name}: {error.what}", fix=error.fix) from None
        crash_point("flink.after_target_subjects")
        table = sink_ddl(
            sink,
            quoted("__target"),
            bootstrap=config.bootstrap,
            security=client_properties(config.security),
            key_id=key_id,
            value_id=value_id,
            transactional_prefix=f"tailrace.{config.pipeline}.{plan.transform.name}",
            transaction_timeout_ms=round(config.transaction_timeout_s * 1000),
        )
        inserts.append({"database": plan.transform.name, "table": table, "statement": _insert(plan)})
    return inserts


def _insert(plan: PlannedTransform) -> str:
    columns = ", ".join(quoted(column.name) for column in plan.sink.columns)
    if plan.commit_time is None:
        return f"INSERT INTO `__target` ({columns}) SELECT {columns} FROM `__result`"
    hidden = quoted(COMMIT_TIME)
    return (
        f"INSERT INTO `__target` ({columns}, {hidden}) "
        f"SELECT {columns}, {quoted(plan.commit_time)} AS {hidden} FROM `__result`"
    )
