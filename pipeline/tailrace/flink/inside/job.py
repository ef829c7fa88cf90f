"""The job's process: a table environment with an in-process Flink cluster, told what to do over a pipe.

    python -P job.py <settings.json> <answers fd>

One JSON object per line on stdin, one answer per line on the answers fd:

    {"do": "plan", "transform", "tables", "views", "functions", "sql"}
        -> {"columns": [[name, type, nullable]...], "append_only", "commit_time", "untraceable"}
    {"do": "explain", "inserts"} -> {"plan"}
    {"do": "start", "inserts": [{"database", "table", "statement"}...]} -> {"job_id", "rest"}
    {"do": "stop", "folder"} -> {"savepoint"}

A request that fails is answered with {"error": <stack trace>}.  When a started job ends, {"ended": <stack trace, empty
for a clean end>} follows unasked.  When stdin closes (our parent is gone) the whole process group dies at
once: an orphan must never commit beside its successor.
"""

import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

import commit_time  # type: ignore[import-not-found]
import functions  # type: ignore[import-not-found]
from pyflink.common import Configuration
from pyflink.java_gateway import get_gateway
from pyflink.table import EnvironmentSettings, ExplainDetail, TableEnvironment


class Job:
    """Plans queries and runs the one job that all of them make up."""

    def __init__(self, settings: dict[str, str]) -> None:
        configuration = Configuration()
        for name, value in settings.items():
            configuration.set_string(name, value)
        made = (
            EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(configuration).build()
        )
        self._tables = TableEnvironment.create(made)
        self._tables.execute_sql("CREATE DATABASE topics")
        self._client: Any = None

    def plan(self, request: dict[str, Any]) -> dict[str, Any]:
        """Plan one transform in a database of its own, named like it."""
        database = request["transform"]
        for ddl in request["tables"]:
            self._tables.execute_sql(ddl)
        self._tables.execute_sql(f"CREATE DATABASE `{database}`")
        self._tables.use_database(database)
        self._view_inputs(request["views"], hidden=False)
        functions.register(self._tables, database, request["functions"])
        sql = request["sql"]
        table = self._tables.sql_query(sql)
        columns = _columns(table)
        answer = {
            "columns": columns,
            "append_only": self._append_only(table),
            "untraceable": None,
            "commit_time": None,
        }
        self._view_inputs(request["views"], hidden=True)
        try:
            sql, answer["commit_time"] = self._traced(sql, list(request["views"]), columns)
        except commit_time.Untraceable as reason:
            self._view_inputs(request["views"], hidden=False)
            answer["untraceable"] = str(reason)
        self._tables.create_temporary_view("__result", self._tables.sql_query(sql))
        return answer

    def explain(self, request: dict[str, Any]) -> dict[str, Any]:
        """The execution plan of all planned transforms together, as `start` would run it."""
        text = str(self._statements(request).explain())
        return {"plan": text[text.index("== Optimized Execution Plan ==") :]}

    def start(self, request: dict[str, Any]) -> dict[str, Any]:
        """Start the job of all planned transforms."""
        result = self._statements(request).execute()
        self._client = result.get_job_client()
        assert self._client is not None
        return {"job_id": str(self._client.get_job_id()), "rest": _rest_address(self._client)}

    def _statements(self, request: dict[str, Any]) -> Any:
        statements = self._tables.create_statement_set()
        for insert in request["inserts"]:
            self._tables.use_database(insert["database"])
            self._tables.execute_sql("DROP TABLE IF EXISTS `__target`")
            self._tables.execute_sql(insert["table"])
            statements.add_insert_sql(insert["statement"])
        return statements

    def stop(self, folder: str) -> dict[str, Any]:
        """Stop with a savepoint: returns when everything that the job read is committed."""
        if self._client is None:
            return {"savepoint": None}
        native = get_gateway().jvm.org.apache.flink.core.execution.SavepointFormatType.NATIVE
        return {"savepoint": str(self._client._j_job_client.stopWithSavepoint(False, folder, native).get())}

    def wait(self) -> None:
        """Return when the started job has ended; raise what ended it."""
        self._client.get_job_execution_result().result()

    def _view_inputs(self, views: dict[str, dict[str, Any]], *, hidden: bool) -> None:
        for alias, view in views.items():
            columns = [*view["columns"], commit_time.COLUMN] if hidden else view["columns"]
            names = ", ".join("`" + column.replace("`", "``") + "`" for column in columns)
            self._tables.execute_sql(f"DROP TEMPORARY VIEW IF EXISTS `{alias}`")
            self._tables.execute_sql(
                f"CREATE TEMPORARY VIEW `{alias}` AS SELECT {names} FROM topics.`{view['topic']}`"
            )

    def _traced(self, sql: str, tables: list[str], columns: list[list[Any]]) -> tuple[str, str]:
        """The query with its commit time column; it must give the very columns of the plain one beside it."""
        changed, column = commit_time.trace(self._parse(sql), sql, tables)
        try:
            traced = _columns(self._tables.sql_query(changed))
        except Exception as error:
            raise commit_time.Untraceable(
                f"Flink refuses the changed query: {_described(error).splitlines()[0]}"
            ) from error
        if [c for c in traced if not c[0].startswith(commit_time.COLUMN)] != columns:
            raise commit_time.Untraceable("the hidden column would change its columns")
        return changed, column

    def _parse(self, sql: str) -> Any:
        """Calcite's syntax tree, from the parser that the planner itself uses."""
        parser = self._tables._j_tenv.getPlanner().getParser()
        supplier = _private(parser, "calciteParserSupplier")
        get = get_gateway().jvm.Class.forName("java.util.function.Supplier").getMethod("get", _array("Class"))
        return get.invoke(supplier, _array("Object")).parse(sql)

    def _append_only(self, table: Any) -> bool:
        """Ask the planner: only a result without updates and deletes can become an append stream."""
        text = str(table.explain(ExplainDetail.CHANGELOG_MODE))
        root = text[text.index("== Optimized Physical Plan ==") :].split("\n")[1]
        return root.endswith("changelogMode=[I])")


def _columns(table: Any) -> list[list[Any]]:
    """[name, type text without NOT NULL, nullable] of every column."""
    columns = []
    for column in table._j_table.getResolvedSchema().getColumns():
        logical = column.getDataType().getLogicalType()
        text = logical.copy(True).asSerializableString()
        columns.append([str(column.getName()), str(text), bool(logical.isNullable())])
    return columns


def _private(obj: Any, name: str) -> Any:
    field = obj.getClass().getDeclaredField(name)
    field.setAccessible(True)
    return field.get(obj)


def _array(class_name: str) -> Any:
    gateway = get_gateway()
    return gateway.new_array(getattr(gateway.jvm.java.lang, class_name), 0)


def _rest_address(client: Any) -> str:
    """Where the in-process cluster answers on loopback (its port is chosen by the kernel)."""
    cluster = _private(client._j_job_client, "miniCluster")
    return str(cluster.getRestAddress().get().toString())


def _described(error: BaseException) -> str:
    """A Java error as its stack trace is printed; a Python error as `python.<class>: <message>`."""
    thrown = getattr(error, "java_exception", None)
    if thrown is not None:
        return str(get_gateway().jvm.org.apache.flink.util.ExceptionUtils.stringifyException(thrown))
    cause = getattr(error, "cause", None)  # PyFlink's own wrappers keep the Java text there
    return f"python.{type(error).__name__}: {error}" + (f"\n{cause}" if cause else "")


def serve(settings: dict[str, str], answers: Any) -> None:
    """Answer requests until stdin closes."""
    requests: queue.Queue[dict[str, Any]] = queue.Queue()
    lock = threading.Lock()

    def answer(document: dict[str, Any]) -> None:
        with lock:
            answers.write(json.dumps(document) + "\n")
            answers.flush()

    def read() -> None:
        for line in sys.stdin:
            requests.put(json.loads(line))
        os.killpg(0, signal.SIGKILL)

    def watch() -> None:
        try:
            job.wait()
            answer({"ended": ""})
        except Exception as error:  # noqa: BLE001 (told to the parent)
            answer({"ended": _described(error)})

    threading.Thread(target=read, daemon=True).start()
    job = Job(settings)
    answer({"ready": True})
    while True:
        request = requests.get()
        try:
            if request["do"] == "plan":
                answer(job.plan(request))
            elif request["do"] == "explain":
                answer(job.explain(request))
            elif request["do"] == "start":
                answer(job.start(request))
                threading.Thread(target=watch, daemon=True).start()
            else:
                answer(job.stop(request["folder"]))
        except Exception as error:  # noqa: BLE001 (told to the parent)
            answer({"error": _described(error)})


if __name__ == "__main__":
    with open(int(sys.argv[2]), "w") as pipe:  # noqa: PTH123 (a file descriptor)
        serve(json.loads(Path(sys.argv[1]).read_text()), pipe)
