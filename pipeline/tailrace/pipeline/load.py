"""From a pipeline file to its checked spec: shape, references and the options of every plugin, all problems at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from tailrace.broker.client import PLAINTEXT
from tailrace.changes import ConfigError, TableId
from tailrace.connectors.plugins import load_source
from tailrace.flink.security import client_properties
from tailrace.pipeline.broker_file import read_at, run_options
from tailrace.pipeline.diagnostics import SpecPath, did_you_mean
from tailrace.pipeline.document import Document, load_document
from tailrace.pipeline.load_cluster import ClusterLogin, take_cluster_login
from tailrace.pipeline.spec import PipelineSpec
from tailrace.sinks.plugins import load_sink_type

_GENERIC_SINK_FIELDS = ("from", "mode", "key", "commit")
_GENERIC_SOURCE_FIELDS = ("topic",)


@dataclass(frozen=True, slots=True)
class LoadedSpec:
    """A pipeline file that holds together; plugin options are checked but still plain data."""

    file: Path
    spec: PipelineSpec
    tables: tuple[TableId, ...]
    sql_lines: Mapping[str, int]
    """Line of the file where a transform's SQL begins."""
    cluster: ClusterLogin
    """How to log in to an external broker and registry."""


def load_spec(file: Path, environment: Mapping[str, str] | None = None) -> LoadedSpec:
    """Read, interpolate and check a pipeline file; raise SpecError with every problem it has."""
    document = load_document(file, environment)
    _tables_as_map(document)
    cluster = take_cluster_login(document)
    spec = _validated(PipelineSpec, document.data, (), document)
    tables = _check_source(document)
    if isinstance(spec, PipelineSpec):
        _check_broker(spec, document)
        _check_transforms_login(spec, cluster, document)
        _check_references(spec, tables, document)
    _check_sinks(document)
    document.raise_problems()
    assert isinstance(spec, PipelineSpec)
    sql_lines = {name: _sql_line(document, name) for name in spec.transforms}
    return LoadedSpec(file.resolve(), spec, tables, sql_lines, cluster)


def _sql_line(document: Document, transform: str) -> int:
    """A block (`sql: |`) begins on the line after its key."""
    line, _ = document.places["transforms", transform, "sql"]
    return line + (document.text.splitlines()[line - 1].rstrip()[-1:] in ("|", ">", "-", "+"))


def _tables_as_map(document: Document) -> None:
    """`tables: [a.b, c.d]` is short for a map of tables without options."""
    source = document.data.get("source")
    if not isinstance(source, dict) or not isinstance(source.get("tables"), list):
        return
    tables: dict[str, Any] = {}
    for index, name in enumerate(source["tables"]):
        place = document.places.get(("source", "tables", index), (1, 1))
        if not isinstance(name, str):
            document.report("E203", ("source", "tables", index), "a table is named namespace.table")
        elif name in tables:
            document.report(
                "E204", ("source", "tables", index), f"the table {name} stands here twice", "remove one"
            )
        else:
            tables[name] = {}
            document.places["source", "tables", name] = place
    source["tables"] = tables


def _validated(model: type[BaseModel], data: Any, base: SpecPath, document: Document) -> BaseModel | None:
    """Validate; note each of pydantic's errors at its place, in words of the field."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False):
            _note(problem["type"], problem["msg"], problem["loc"], model, data, base, document)
        return None


def _note(
    kind: str,
    message: str,
    location: tuple[int | str, ...],
    model: type[BaseModel],
    data: Any,
    base: SpecPath,
    document: Document,
) -> None:
    path: list[str | int] = []
    node = data
    for step in location:  # pydantic's location also names union branches: follow only what the file has
        inside_map = isinstance(node, dict) and step in node
        inside_list = isinstance(node, list) and isinstance(step, int) and step < len(node)
        if inside_map or inside_list:
            node = node[step]
            path.append(step)
    where = (*base, *path)
    shown = ".".join(str(step) for step in (*base, *location))
    if kind == "missing":
        document.report("E201", where, f"'{shown}' is missing", f"add {location[-1]}: ...")
    elif kind == "extra_forbidden":
        known = _fields_at(model, location[:-1])
        document.report(
            "E202", where, f"'{location[-1]}' is not known here", did_you_mean(str(location[-1]), known)
        )
    else:
        document.report("E203", where, f"{shown}: {message.removeprefix('Value error, ')}")


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Names that the model allows at a location, for a hint; empty where it is not a plain model."""
    current: Any = model
    for step in location:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(step)) or next(
                (f for f in current.model_fields.values() if f.alias == step), None
            )
            current = field.annotation if field else None
        else:
            arguments = getattr(current, "__args__", ())
            current = arguments[-1] if arguments else None
    if isinstance(current, type) and issubclass(current, BaseModel):
        return [field.alias or name for name, field in current.model_fields.items()]
    return []


def _check_source(document: Document) -> tuple[TableId, ...]:
    source = document.data.get("source")
    if not isinstance(source, dict):
        return ()
    if isinstance(source.get("type"), str):
        try:
            plugin = load_source(source["type"])
        except ConfigError as error:
            document.report("E401", ("source", "type"), error.what, error.fix)
        else:
            options = {k: v for k, v in source.items() if k not in ("type", *_GENERIC_SOURCE_FIELDS)}
            _validated(plugin.Config, options, ("source",), document)
    tables = source.get("tables")
    found = []
    for name in tables if isinstance(tables, dict) else ():
        try:
            found.append(TableId.parse(name))
        except ConfigError:
            continue  # the plugin's model has said so, with the place
    return tuple(found)


def _check_sinks(document: Document) -> None:
    sinks = document.data.get("sinks")
    for name, sink in (sinks if isinstance(sinks, dict) else {}).items():
        if not isinstance(sink, dict) or not isinstance(sink.get("type"), str):
            continue
        try:
            plugin = load_sink_type(sink["type"])
        except ConfigError as error:
            document.report("E401", ("sinks", name, "type"), error.what, error.fix)
            continue
        options = {key: value for key, value in sink.items() if key not in ("type", *_GENERIC_SINK_FIELDS)}
        _validated(plugin.Config, options, ("sinks", name), document)


def _check_broker(spec: PipelineSpec, document: Document) -> None:
    read_at(document, ("broker", "config"), spec.broker.config, run_options())
    if spec.broker.mode == "external":
        if spec.broker.config:
            document.report(
                "E302",
                ("broker", "config"),
                "`config` belongs to mode: embedded",
                "configure the cluster itself",
            )
        if not spec.broker.bootstrap:
            document.report(
                "E301", ("broker",), "an external broker needs `bootstrap`", "add bootstrap: host:9092"
            )
        if not spec.registry.url:
            document.report(
                "E301",
                ("broker",),
                "an external broker needs a registry",
                "add registry: {url: http://host:8081}",
            )
    elif spec.broker.bootstrap:
        document.report(
            "E302",
            ("broker", "bootstrap"),
            "`bootstrap` belongs to mode: external",
            "add mode: external, or use listen:",
        )


def _check_transforms_login(spec: PipelineSpec, cluster: ClusterLogin, document: Document) -> None:
    """Flink's own Kafka clients do less than ours."""
    try:
        client_properties(cluster.security if spec.transforms else PLAINTEXT)
    except ConfigError as error:
        document.report("E302", ("broker", "sasl.mechanism"), error.what, error.fix)


def _check_references(spec: PipelineSpec, tables: tuple[TableId, ...], document: Document) -> None:
    produced = {transform.to: name for name, transform in spec.transforms.items()}
    topics = {raw_topic(spec, table): table for table in tables}
    known = [str(table) for table in tables] + list(topics) + list(produced) + list(spec.transforms)
    if len(topics) < len(tables):
        document.report(
            "E303",
            ("source",),
            "two tables would share one topic",
            "add {namespace} to source.topic: raw.{pipeline}.{namespace}.{table}",
        )
    for name, transform in spec.transforms.items():
        if transform.to in topics or list(produced).count(transform.to) > 1:
            document.report(
                "E304", ("transforms", name, "to"), f"the topic {transform.to} is written by somebody else"
            )
        for alias, wanted in transform.inputs.items():
            if wanted not in known:
                document.report(
                    "E305",
                    ("transforms", name, "from", alias),
                    f"there is no table or topic '{wanted}'",
                    did_you_mean(wanted, known),
                )
        for udf_name, udf in transform.udfs.items():
            script = document.file.parent / udf.python.rpartition(":")[0]
            if not script.is_file():
                document.report(
                    "E306", ("transforms", name, "udfs", udf_name, "python"), f"there is no file {script}"
                )
    for name, sink in spec.sinks.items():
        for wanted in sink_inputs(sink.inputs, tables):
            if wanted not in known:
                document.report(
                    "E305",
                    ("sinks", name, "from"),
                    f"there is no table or topic '{wanted}'",
                    did_you_mean(wanted, known),
                )


def sink_inputs(inputs: str | list[str] | None, tables: tuple[TableId, ...]) -> list[str]:
    """What a sink reads, as written: one name, several, or every source table."""
    if inputs is None:
        return [str(table) for table in tables]
    return [inputs] if isinstance(inputs, str) else inputs


def raw_topic(spec: PipelineSpec, table: TableId) -> str:
    """The raw topic of a source table."""
    try:
        return spec.source.topic.format(pipeline=spec.name, namespace=table.namespace, table=table.name)
    except (KeyError, IndexError, ValueError):
        raise ConfigError(
            f"source.topic '{spec.source.topic}' is not a template",
            fix="use {pipeline}, {namespace} and {table} only",
        ) from None
