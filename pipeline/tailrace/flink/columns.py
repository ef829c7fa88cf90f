"""Avro schemas of topics <-> columns of Flink tables.

Read (`from_avro`): the column is NOT NULL exactly where the Avro field is no union with null; `tables` drops that
for keyed topics, whose deletes are rows with nothing but the key.

    Avro                                   Flink                       Avro                     Flink
    boolean                                BOOLEAN                     string, uuid, enum       STRING
    int with connect.type int16            SMALLINT                    bytes, fixed             BYTES
    int                                    INT                         decimal(p, s)            DECIMAL(p, s)
    long                                   BIGINT                      date                     DATE
    float, double                          FLOAT, DOUBLE               array of T               ARRAY<T>
    (local-)timestamp-micros, -millis      TIMESTAMP(6) / (3)          record                   ROW<...>
    timestamp-micros, -millis              TIMESTAMP_LTZ(6) / (3)      map                      MAP<STRING, T>
    time-micros                            BIGINT, microseconds since midnight

time-micros is a BIGINT because Flink keeps a TIME in milliseconds and would drop the rest.  A Postgres interval is
ROW<months INT, days INT, micros BIGINT>; a uuid is its text.

Write (`to_avro`): the same table backwards.  Every timestamp is written in microseconds, a SMALLINT keeps its
`connect.type`, null comes first in a union and is its default.  TIME, MAP and intervals of Flink have no counterpart
in ARCHITECTURE.md's table and are refused: cast them.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from tailrace.changes.errors import ConfigError

COMMIT_TIME = "__commit_time"
"""The column that carries the source commit time from a record's timestamp to the result's."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a Flink table: `type` as SQL writes it, without NOT NULL."""

    name: str
    type: str
    nullable: bool

    @property
    def ddl(self) -> str:
        """The column as CREATE TABLE wants it."""
        return f"{quoted(self.name)} {self.type}{'' if self.nullable else ' NOT NULL'}"


def quoted(name: str) -> str:
    """An identifier in Flink's back-ticks."""
    return "`" + name.replace("`", "``") + "`"


def literal(text: str) -> str:
    """A string literal of Flink SQL."""
    return "'" + text.replace("'", "''") + "'"


def from_avro(schema: str, topic: str) -> tuple[Column, ...]:
    """The columns of a record schema; ConfigError for what Flink cannot hold."""
    document = json.loads(schema)
    if not isinstance(document, dict) or document.get("type") != "record":
        raise ConfigError(
            f"the schema of topic {topic} is not an Avro record", fix="a transform reads records only"
        )
    names: dict[str, Any] = {}
    columns = []
    for field in document["fields"]:
        nullable, kind = _unwrapped(field["type"], f"{topic}.{field['name']}")
        columns.append(Column(field["name"], _flink_type(kind, names, f"{topic}.{field['name']}"), nullable))
    return tuple(columns)


def _unwrapped(kind: Any, where: str) -> tuple[bool, Any]:
    """Split a union with null into (nullable, the other branch)."""
    if not isinstance(kind, list):
        return kind == "null", kind
    others = [branch for branch in kind if branch != "null"]
    if len(others) != 1:
        raise ConfigError(
            f"{where} is a union of {len(others)} types", fix="leave the column out of the topic"
        )
    return len(others) < len(kind), others[0]


_SCALARS = {
    "null": "STRING",
    "boolean": "BOOLEAN",
    "int": "INT",
    "long": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "bytes": "BYTES",
    "fixed": "BYTES",
    "string": "STRING",
    "enum": "STRING",
}
_LOGICAL = {
    ("int", "date"): "DATE",
    ("long", "timestamp-micros"): "TIMESTAMP_LTZ(6)",
    ("long", "timestamp-millis"): "TIMESTAMP_LTZ(3)",
    ("long", "local-timestamp-micros"): "TIMESTAMP(6)",
    ("long", "local-timestamp-millis"): "TIMESTAMP(3)",
}


def _flink_type(kind: Any, names: dict[str, Any], where: str) -> str:
    if isinstance(kind, str):
        if kind in names:
            return _flink_type(names[kind], names, where)
        kind = {"type": kind}
    base = kind["type"]
    if isinstance(base, (dict, list)):
        return _flink_type(base, names, where)
    if "name" in kind:
        names[kind["name"]] = kind
        names[f"{kind.get('namespace', '')}.{kind['name']}"] = kind
    logical = kind.get("logicalType")
    if logical == "decimal":
        return f"DECIMAL({kind['precision']}, {kind.get('scale', 0)})"
    if (base, logical) in _LOGICAL:
        return _LOGICAL[base, logical]
    if kind.get("connect.type") == "int16":
        return "SMALLINT"
    if base == "array":
        return f"ARRAY<{_nested(kind['items'], names, where)}>"
    if base == "map":
        return f"MAP<STRING, {_nested(kind['values'], names, where)}>"
    if base == "record":
        fields = [f"{quoted(f['name'])} {_nested(f['type'], names, where)}" for f in kind["fields"]]
        return f"ROW<{', '.join(fields)}>"
    try:
        return _SCALARS[base]
    except KeyError:
        raise ConfigError(f"{where} has the Avro type {base}, which Flink cannot hold") from None


def _nested(kind: Any, names: dict[str, Any], where: str) -> str:
    nullable, inner = _unwrapped(kind, where)
    return _flink_type(inner, names, where) + ("" if nullable else " NOT NULL")


def to_avro(columns: tuple[Column, ...], record: str, namespace: str) -> str:
    """The schema that `RowEncoder.java` writes rows of these columns with."""
    fields = []
    for column in columns:
        kind = _TypeText(column.type, f"{record}_{column.name}").parse(column.name)
        if column.nullable:
            fields.append({"name": column.name, "type": ["null", kind], "default": None})
        else:
            fields.append({"name": column.name, "type": kind})
    return json.dumps({"type": "record", "name": record, "namespace": namespace, "fields": fields})


def record_name(topic: str) -> tuple[str, str]:
    """(name, namespace) of the Avro record of a topic: `enriched.orders` is orders in tailrace.enriched."""
    parts = [
        re.sub(r"^(?=\d)", "_", re.sub(r"\W", "_", part, flags=re.ASCII)) for part in topic.split(".") if part
    ]
    return parts[-1], ".".join(["tailrace", *parts[:-1]])


_AVRO: dict[str, Any] = {
    "BOOLEAN": "boolean",
    "TINYINT": {"type": "int", "connect.type": "int16"},
    "SMALLINT": {"type": "int", "connect.type": "int16"},
    "INT": "int",
    "INTEGER": "int",
    "BIGINT": "long",
    "FLOAT": "float",
    "DOUBLE": "double",
    "DATE": {"type": "int", "logicalType": "date"},
    "CHAR": "string",
    "VARCHAR": "string",
    "STRING": "string",
    "BINARY": "bytes",
    "VARBINARY": "bytes",
    "BYTES": "bytes",
    "TIMESTAMP": {"type": "long", "logicalType": "local-timestamp-micros"},
    "TIMESTAMP_LTZ": {"type": "long", "logicalType": "timestamp-micros"},
}


class _TypeText:
    """A recursive-descent reader of Flink's type text, as `LogicalType.asSerializableString` writes it."""

    _TOKEN = re.compile(r"\s*(`(?:[^`]|``)*`|\w+|[<>(),])")

    def __init__(self, text: str, name: str) -> None:
        self._text = text
        self._tokens = self._TOKEN.findall(text)
        self._at = 0
        self._name = name

    def parse(self, column: str) -> Any:
        """The Avro type of the whole text; ConfigError names the column when it has none."""
        try:
            return self._type(self._name)
        except (KeyError, ValueError, IndexError):
            raise ConfigError(
                f"column {column} of the result has the type {self._text}, which no topic can carry",
                fix="cast it to a type that one can, such as STRING or BIGINT",
            ) from None

    def _type(self, name: str) -> Any:
        word = self._take()
        numbers = self._numbers()
        if word == "TIMESTAMP" and self._skip("WITH", "LOCAL", "TIME", "ZONE"):
            word = "TIMESTAMP_LTZ"
        if word == "DECIMAL":
            precision, scale = (*numbers, 10, 0)[:2] if numbers else (10, 0)
            return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}
        if word == "ARRAY":
            self._expect("<")
            items = self._element(f"{name}_item")
            self._expect(">")
            return {"type": "array", "items": items}
        if word == "ROW":
            return self._row(name)
        return _AVRO[word]

    def _row(self, name: str) -> Any:
        self._expect("<")
        fields = []
        while True:
            field = self._take()[1:-1].replace("``", "`")
            kind = self._element(f"{name}_{field}")
            default = {"default": None} if isinstance(kind, list) else {}
            fields.append({"name": field, "type": kind, **default})
            if self._take() == ">":
                return {"type": "record", "name": name, "fields": fields}

    def _element(self, name: str) -> Any:
        kind = self._type(name)
        return kind if self._skip("NOT", "NULL") else ["null", kind]

    def _numbers(self) -> tuple[int, ...]:
        if self._peek() != "(":
            return ()
        self._take()
        numbers = []
        while (token := self._take()) != ")":
            if token != ",":
                numbers.append(int(token))
        return tuple(numbers)

    def _skip(self, *words: str) -> bool:
        if tuple(self._tokens[self._at : self._at + len(words)]) != words:
            return False
        self._at += len(words)
        return True

    def _peek(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _take(self) -> str:
        token = self._tokens[self._at]
        self._at += 1
        return str(token)

    def _expect(self, token: str) -> None:
        if self._take() != token:
            raise KeyError(self._text)
