"""Carry the source commit time through a query: add a hidden column to every SELECT of it.

The column of a SELECT is the greatest of the commit times of the tables that it reads; of a grouped SELECT, the
maximum over the group.  The query is parsed by Flink's own parser and changed as text, right behind the word SELECT:

    SELECT t.id, c.name FROM t LEFT JOIN c ON ...
    SELECT GREATEST(COALESCE(t.`__commit_time`, <epoch>), COALESCE(c.`__commit_time`, <epoch>)) AS `__commit_time_1`,
           t.id, c.name FROM t LEFT JOIN c ON ...

Where a hidden column could change the result (DISTINCT, set operations but UNION ALL, NATURAL JOIN, column lists) or
the query has a form that is not known here, Untraceable is raised: the result then carries the time of writing.
"""

from dataclasses import dataclass, field
from typing import Any

from py4j.java_gateway import get_field  # type: ignore[import-not-found]

COLUMN = "__commit_time"
EPOCH = "TO_TIMESTAMP_LTZ(0, 3)"
AGGREGATES = frozenset(
    [
        "AVG",
        "COUNT",
        "SUM",
        "MAX",
        "MIN",
        "STDDEV_POP",
        "STDDEV_SAMP",
        "STDDEV",
        "VAR_POP",
        "VAR_SAMP",
        "VARIANCE",
        "COLLECT",
        "LISTAGG",
        "ARRAY_AGG",
        "FIRST_VALUE",
        "LAST_VALUE",
        "JSON_OBJECTAGG",
        "JSON_ARRAYAGG",
        "APPROX_COUNT_DISTINCT",
    ]
)


class Untraceable(Exception):
    """The query cannot carry the commit time; the message says why."""


@dataclass
class Tracing:
    """One query being changed: where to insert what, and the column that each named result carries."""

    sql: str
    columns: dict[str, str]
    """Name of a table or WITH item -> its commit time column."""
    inserts: list[tuple[int, str]] = field(default_factory=list)
    made: int = 0

    def query(self, node: Any) -> str:
        """Change a query; return the name of its commit time column."""
        kind = _kind(node)
        if kind == "SqlOrderBy":
            return self.query(get_field(node, "query"))
        if kind == "SqlWith":
            return self._with(node)
        if kind == "SqlSelect":
            return self._select(node)
        if kind == "SqlBasicCall" and node.getOperator().getName() == "UNION ALL":
            names = {self.query(operand) for operand in node.getOperandList()}
            # the branches are matched by position, and the first one names the column
            return min(names, key=_number)
        raise Untraceable(f"it has a {kind}")

    def text(self) -> str:
        """The changed query."""
        changed = self.sql
        for at, insert in sorted(self.inserts, reverse=True):
            changed = changed[:at] + insert + changed[at:]
        return changed

    def _with(self, node: Any) -> str:
        for item in get_field(node, "withList").getList():
            if get_field(item, "columnList") is not None:
                raise Untraceable("a WITH item lists its columns")
            self.columns[get_field(item, "name").getSimple()] = self.query(get_field(item, "query"))
        return self.query(get_field(node, "body"))

    def _select(self, node: Any) -> str:
        if node.isDistinct():
            raise Untraceable("it is a SELECT DISTINCT")
        relations = self._relations(node.getFrom())
        if not relations:
            raise Untraceable("a SELECT reads no topic")
        if len(relations) == 1:
            expression = relations[0]
        else:
            expression = f"GREATEST({', '.join(f'COALESCE({relation}, {EPOCH})' for relation in relations)})"
        if node.getGroup() is not None or any(_aggregates(item) for item in node.getSelectList().getList()):
            expression = f"MAX({expression})"
        self.made += 1
        column = f"{COLUMN}_{self.made}"
        self.inserts.append((self._behind_select(node), f" {expression} AS `{column}`,"))
        return column

    def _relations(self, node: Any, alias: str | None = None) -> list[str]:
        """The commit time columns of what a FROM clause names."""
        kind = _kind(node) if node is not None else "no FROM"
        if kind == "SqlJoin":
            if node.isNatural():
                raise Untraceable("it has a NATURAL JOIN")
            return self._relations(node.getLeft()) + self._relations(node.getRight())
        if kind == "SqlIdentifier":
            name = str(get_field(node, "names")[-1])
            column = self.columns.get(name)
            return [] if column is None else [f"`{alias or name}`.`{column}`"]
        if kind in ("SqlTableRef", "SqlSnapshot"):
            return self._relations(node.getOperandList()[0], alias)
        if kind == "SqlBasicCall":
            return self._call(node, alias)
        if alias is not None:
            return [f"`{alias}`.`{self.query(node)}`"]
        raise Untraceable(f"its FROM clause has a {kind} without a name")

    def _call(self, node: Any, alias: str | None) -> list[str]:
        operator = node.getOperator().getName()
        operands = node.getOperandList()
        if operator == "AS":
            if operands.size() > 2:
                raise Untraceable("an alias lists its columns")
            return self._relations(operands[0], operands[1].getSimple())
        if operator in ("UNNEST", "LATERAL"):
            return []
        if operator == "UNION ALL" and alias is not None:
            return [f"`{alias}`.`{self.query(node)}`"]
        raise Untraceable(f"its FROM clause has a {operator}")

    def _behind_select(self, node: Any) -> int:
        position = node.getParserPosition()
        lines = self.sql.split("\n")
        at = sum(len(line) + 1 for line in lines[: position.getLineNum() - 1]) + position.getColumnNum() - 1
        if self.sql[at : at + 6].upper() != "SELECT" or self.sql[at + 6 :].lstrip().upper().startswith(
            ("ALL ", "/*+")
        ):
            raise Untraceable("its SELECT has a form that is not known")
        return int(at) + 6


def trace(node: Any, sql: str, tables: list[str]) -> tuple[str, str]:
    """Return the changed query and the name of its commit time column; `node` is its syntax tree."""
    tracing = Tracing(sql, dict.fromkeys(tables, COLUMN))
    column = tracing.query(node)
    return tracing.text(), column


def _number(column: str) -> int:
    return int(column.rpartition("_")[2])


def _kind(node: Any) -> str:
    return str(node.getClass().getSimpleName())


def _aggregates(node: Any) -> bool:
    """Whether an expression aggregates rows (an aggregate with OVER does not)."""
    if node is None or _kind(node) in ("SqlSelect", "SqlOrderBy", "SqlWith"):
        return False
    if _kind(node) == "SqlNodeList":
        return any(_aggregates(item) for item in node.getList())
    if not _is_call(node):
        return False
    name = str(node.getOperator().getName()).upper()
    if name == "OVER":
        return False
    return name in AGGREGATES or any(_aggregates(operand) for operand in node.getOperandList())


def _is_call(node: Any) -> bool:
    """Whether the node is an operator with operands; Calcite is in a class loader of its own, so by name."""
    java_class = node.getClass()
    while java_class is not None:
        if java_class.getSimpleName() == "SqlCall":
            return True
        java_class = java_class.getSuperclass()
    return False
