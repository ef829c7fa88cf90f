"""A spec resolved: every part with its topics and tables, and nothing left to guess.  Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailrace.broker.client import PLAINTEXT, ClientSecurity
from tailrace.changes import ConfigError, TableId
from tailrace.connectors.service import SourcePartConfig
from tailrace.flink.config import FlinkPartConfig, TransformConfig, UdfConfig
from tailrace.pipeline.load import LoadedSpec, raw_topic, sink_inputs
from tailrace.pipeline.load_cluster import ClusterLogin
from tailrace.pipeline.spec import PipelineSpec, SinkSpec
from tailrace.registry.login import RegistryLogin
from tailrace.sinks.service import CommitPolicy, SinkInput, SinkPartConfig

BROKER, SOURCE, TRANSFORM = "broker", "source", "transform"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the broker and the registry answer, and how to log in there."""

    bootstrap: str
    registry_url: str
    security: ClientSecurity = PLAINTEXT
    registry_login: RegistryLogin | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run of the pipeline will do."""

    file: Path
    spec: PipelineSpec
    topics: dict[TableId, str]
    """Raw topic of each source table."""
    sql_lines: Mapping[str, int]
    """Line of the file where a transform's SQL begins."""
    cluster: ClusterLogin
    """How to log in to an external broker and registry."""

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.spec.name

    @property
    def control_topic(self) -> str:
        """Positions and barriers of the source."""
        return f"_tailrace.{self.name}.control"

    @property
    def embedded(self) -> bool:
        """Whether the run brings its own broker."""
        return self.spec.broker.mode == "embedded"

    def default_data_dir(self) -> Path:
        """Where a run keeps its state unless told otherwise: beside the pipeline file."""
        return self.file.parent / ".tailrace" / self.name

    def parts(self) -> tuple[str, ...]:
        """The parts that run as processes, in the order in which data flows."""
        broker = (BROKER,) if self.embedded else ()
        transform = (TRANSFORM,) if self.spec.transforms else ()
        return (*broker, SOURCE, *transform, *(f"sink.{name}" for name in self.spec.sinks))

    def resolve(self, wanted: str) -> str:
        """The topic behind a name of the file: a source table, a transform or a topic itself."""
        for table, topic in self.topics.items():
            if wanted in (str(table), topic):
                return topic
        for name, transform in self.spec.transforms.items():
            if wanted in (name, transform.to):
                return transform.to
        raise ConfigError(f"there is no table or topic '{wanted}'")

    def source_config(self, data_dir: Path, endpoints: Endpoints) -> SourcePartConfig:
        """What the source process is told."""
        defaults = self.spec.topics.defaults
        return SourcePartConfig(
            pipeline=self.name,
            source_type=self.spec.source.type,
            options=self.spec.source.options,
            topics=dict(self.topics),
            control_topic=self.control_topic,
            bootstrap=endpoints.bootstrap,
            registry_url=endpoints.registry_url,
            security=endpoints.security,
            registry_login=endpoints.registry_login,
            data_dir=data_dir,
            tables_needing_keys=self.tables_needing_keys(),
            transformed_tables=self.transformed_tables(),
            partitions=defaults.partitions,
            retention_ms=defaults.retention,
        )

    def flink_config(self, data_dir: Path, endpoints: Endpoints) -> FlinkPartConfig:
        """What the transform process is told."""
        return FlinkPartConfig(
            pipeline=self.name,
            transforms=tuple(
                TransformConfig(
                    name=name,
                    inputs={alias: self.resolve(wanted) for alias, wanted in transform.inputs.items()},
                    to=transform.to,
                    key=tuple(transform.key),
                    sql=transform.sql,
                    udfs=tuple(
                        UdfConfig(name=udf_name, python=udf.python, returns=udf.returns, batch=udf.batch)
                        for udf_name, udf in transform.udfs.items()
                    ),
                    base_dir=self.file.parent,
                    file=str(self.file),
                    line=self.sql_lines[name],
                )
                for name, transform in self.spec.transforms.items()
            ),
            bootstrap=endpoints.bootstrap,
            registry_url=endpoints.registry_url,
            security=endpoints.security,
            registry_login=endpoints.registry_login,
            data_dir=data_dir,
            checkpoint_interval_s=self.spec.flink.checkpoint / 1000,
            parallelism=self.spec.flink.parallelism,
            requirements=tuple(self.spec.flink.requirements),
            udf_mode=self.spec.flink.udf_mode,
        )

    def sink_config(self, name: str, data_dir: Path, endpoints: Endpoints) -> SinkPartConfig:
        """What one sink process is told."""
        sink = self.spec.sinks[name]
        inputs = self.sink_inputs(sink)
        return SinkPartConfig(
            pipeline=self.name,
            sink=name,
            type=sink.type,
            options=sink.options,
            inputs=inputs,
            control_topic=self.control_topic if any(item.table for item in inputs) else None,
            bootstrap=endpoints.bootstrap,
            registry_url=endpoints.registry_url,
            security=endpoints.security,
            registry_login=endpoints.registry_login,
            data_dir=data_dir,
            base_dir=self.file.parent,
            commit=CommitPolicy(every=sink.commit.every / 1000, max_rows=sink.commit.max_rows),
        )

    def sink_inputs(self, sink: SinkSpec) -> tuple[SinkInput, ...]:
        """The topics that a sink reads and the table names that they get."""
        tables = {topic: table for table, topic in self.topics.items()}
        transforms = {transform.to: name for name, transform in self.spec.transforms.items()}
        found = []
        for wanted in sink_inputs(sink.inputs, tuple(self.topics)):
            topic = self.resolve(wanted)
            table = tables.get(topic)
            found.append(
                SinkInput(
                    topic=topic,
                    table=table,
                    key=tuple(sink.key) if sink.key else None,
                    target=table.name if table else transforms[topic],
                    mode=sink.mode,
                )
            )
        return tuple(found)

    def tables_needing_keys(self) -> frozenset[TableId]:
        """Tables that somebody mirrors or transforms: these must have a key."""
        mirrored = {
            item.topic
            for sink in self.spec.sinks.values()
            if sink.mode == "mirror"
            for item in self.sink_inputs(sink)
        }
        return frozenset(self.transformed_tables()) | {
            table for table, topic in self.topics.items() if topic in mirrored
        }

    def transformed_tables(self) -> dict[TableId, str]:
        """Tables that transforms read, each with the SQL of those that read it."""
        found: dict[TableId, str] = {}
        for transform in self.spec.transforms.values():
            read = {self.resolve(wanted) for wanted in transform.inputs.values()}
            for table, topic in self.topics.items():
                if topic in read:
                    found[table] = f"{found.get(table, '')}\n{transform.sql}"
        return found

    def as_json(self) -> dict[str, Any]:
        """The plan as plain data: no options, since they may hold secrets."""
        return {
            "pipeline": self.name,
            "file": str(self.file),
            "parts": list(self.parts()),
            "control_topic": self.control_topic,
            "tables": {str(table): topic for table, topic in self.topics.items()},
            "transforms": {
                name: {
                    "from": {alias: self.resolve(wanted) for alias, wanted in transform.inputs.items()},
                    "to": transform.to,
                    "key": transform.key,
                }
                for name, transform in self.spec.transforms.items()
            },
            "sinks": {
                name: {
                    "type": sink.type,
                    "mode": sink.mode,
                    "tables": {item.topic: item.target for item in self.sink_inputs(sink)},
                }
                for name, sink in self.spec.sinks.items()
            },
        }


def make_plan(loaded: LoadedSpec) -> Plan:
    """Resolve a checked spec."""
    topics = {table: raw_topic(loaded.spec, table) for table in loaded.tables}
    return Plan(loaded.file, loaded.spec, topics, loaded.sql_lines, loaded.cluster)
