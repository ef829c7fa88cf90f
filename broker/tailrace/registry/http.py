"""Confluent's Schema Registry REST API over the registry's state (Confluent API reference, "Schema Registry API").

Reads answer from memory; writes go through `Store.write`, which answers once the record is durable in
`_schemas`.  Handlers run in Starlette's thread pool; one lock orders the writers.
"""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tailrace.registry.errors import RegistryError, RegistryErrorCode
from tailrace.registry.store import Store

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"

Body = dict[str, Any]
Handler = Callable[[Store, "Call"], Any]


class Call:
    """One request: path parameters, query switches and the JSON body, ready to use in a thread."""

    def __init__(self, request: Request, body: Body) -> None:
        self.body = body
        self._path = request.path_params
        self._query = request.query_params

    def path(self, name: str) -> str:
        """A path parameter, percent-decoded."""
        return unquote(str(self._path[name]))

    @property
    def subject(self) -> str:
        """The subject in the path."""
        return self.path("subject")

    @property
    def own_subject(self) -> str | None:
        """The subject in the path, None for a global route."""
        return self.subject if "subject" in self._path else None

    def switch(self, name: str) -> bool:
        """A boolean query parameter, false when absent."""
        return self._query.get(name, "false").lower() == "true"

    def text(self, name: str, default: str = "") -> str:
        """A query parameter."""
        return self._query.get(name, default)

    def page(self, items: list[Any]) -> list[Any]:
        """The part of a list that `offset` and `limit` ask for."""
        try:
            offset, limit = int(self.text("offset", "0")), int(self.text("limit", "-1"))
        except ValueError:
            raise RegistryError(
                RegistryErrorCode.INVALID_VERSION, "offset and limit must be numbers"
            ) from None
        return items[offset:] if limit < 0 else items[offset : offset + limit]

    @property
    def schema(self) -> str:
        """The schema of the body; only Avro without references is known here."""
        if self.body.get("schemaType", "AVRO") != "AVRO":
            raise RegistryError(
                RegistryErrorCode.INVALID_SCHEMA,
                f"Invalid schema type {self.body['schemaType']}: only AVRO is served",
            )
        if self.body.get("references"):
            raise RegistryError(RegistryErrorCode.INVALID_SCHEMA, "Invalid schema: references are not served")
        schema = self.body.get("schema")
        if not isinstance(schema, str) or not schema.strip():
            raise RegistryError(RegistryErrorCode.INVALID_SCHEMA, "Invalid schema: empty")
        return schema


def create_app(store: Store) -> Starlette:
    """Build the application; subjects may hold any character, percent-encoded in the path."""
    subject = "{subject}"
    routes: list[tuple[str, str, Handler]] = [
        ("GET", "/", lambda store, call: {}),
        (
            "GET",
            "/v1/metadata/id",
            lambda store, call: {"scope": {"path": [], "clusters": {}}, "id": "tailrace"},
        ),
        ("GET", "/v1/metadata/version", lambda store, call: {"version": "7.9.0", "commitId": "tailrace"}),
        ("GET", "/contexts", lambda store, call: ["."]),
        ("GET", "/schemas/types", lambda store, call: ["AVRO"]),
        ("GET", "/schemas/ids/{id}", _schema_by_id),
        ("GET", "/schemas/ids/{id}/schema", _schema_text_by_id),
        ("GET", "/schemas/ids/{id}/subjects", _subjects_of_id),
        ("GET", "/schemas/ids/{id}/versions", _versions_of_id),
        ("GET", "/subjects", _subjects),
        ("POST", f"/subjects/{subject}", _look_up),
        ("DELETE", f"/subjects/{subject}", _delete_subject),
        ("GET", f"/subjects/{subject}/versions", _versions),
        ("POST", f"/subjects/{subject}/versions", _register),
        ("GET", f"/subjects/{subject}/versions/{{version}}", _version),
        ("DELETE", f"/subjects/{subject}/versions/{{version}}", _delete_version),
        ("GET", f"/subjects/{subject}/versions/{{version}}/schema", _version_schema),
        ("GET", f"/subjects/{subject}/versions/{{version}}/referencedby", _referenced_by),
        ("POST", f"/compatibility/subjects/{subject}/versions", _check_all),
        ("POST", f"/compatibility/subjects/{subject}/versions/{{version}}", _check_one),
        *((verb, path, handler) for path in ("/config", f"/config/{subject}") for verb, handler in _CONFIG),
        *((verb, path, handler) for path in ("/mode", f"/mode/{subject}") for verb, handler in _MODE),
    ]
    return Starlette(
        middleware=[Middleware(_RawPath)],
        routes=[Route(path, _endpoint(store, handler), methods=[verb]) for verb, path, handler in routes],
        exception_handlers={404: _not_found, 405: _not_found, Exception: _crashed},
    )


class _RawPath:
    """Routes on the path as it was sent, so that a subject may hold an encoded slash."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("raw_path"):
            scope = {**scope, "path": scope["raw_path"].decode("ascii", "replace")}
        await self._app(scope, receive, send)


def _endpoint(store: Store, handler: Handler) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        raw = await request.body()
        try:
            body = json.loads(raw) if raw else {}
            if not isinstance(body, dict):
                raise ValueError("the body must be a JSON object")
        except ValueError as error:
            return _error(RegistryError(RegistryErrorCode.INVALID_SCHEMA, f"Invalid JSON body: {error}"))
        try:
            answer = await run_in_threadpool(handler, store, Call(request, body))
        except RegistryError as error:
            return _error(error)
        if isinstance(answer, Response):
            return answer
        return JSONResponse(answer, media_type=MEDIA_TYPE)

    return endpoint


def _error(error: RegistryError) -> Response:
    return JSONResponse(
        {"error_code": int(error.code), "message": error.message},
        status_code=error.status,
        media_type=MEDIA_TYPE,
    )


async def _not_found(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return JSONResponse(
        {"error_code": status, "message": f"HTTP {status}"}, status_code=status, media_type=MEDIA_TYPE
    )


async def _crashed(request: Request, error: Exception) -> Response:
    return _error(RegistryError(RegistryErrorCode.STORE_FAILED, f"Error in the backend data store: {error}"))


def _schema_id(call: Call) -> int:
    text = call.path("id")
    if not text.isdigit():
        raise RegistryError(RegistryErrorCode.SCHEMA_NOT_FOUND, f"Schema {text} not found")
    return int(text)


def _schema_by_id(store: Store, call: Call) -> Any:
    return {"schema": store.subjects.schema(_schema_id(call))}


def _schema_text_by_id(store: Store, call: Call) -> Any:
    return PlainTextResponse(store.subjects.schema(_schema_id(call)), media_type=MEDIA_TYPE)


def _uses(store: Store, call: Call) -> list[tuple[str, int]]:
    schema_id = _schema_id(call)
    store.subjects.schema(schema_id)
    return [
        (version.subject, version.version)
        for versions in store.subjects.versions.values()
        for version in versions.values()
        if version.id == schema_id and (call.switch("deleted") or not version.deleted)
    ]


def _subjects_of_id(store: Store, call: Call) -> Any:
    return sorted({subject for subject, _ in _uses(store, call)})


def _versions_of_id(store: Store, call: Call) -> Any:
    return [{"subject": subject, "version": version} for subject, version in _uses(store, call)]


def _subjects(store: Store, call: Call) -> Any:
    prefix = call.text("subjectPrefix").removeprefix(":*:").removeprefix(":.:")
    deleted = call.switch("deleted") or call.switch("deletedOnly")
    names = store.subjects.names(prefix=prefix, deleted=deleted)
    if call.switch("deletedOnly"):
        live = set(store.subjects.names(prefix=prefix))
        names = [name for name in names if name not in live]
    return call.page(names)


def _look_up(store: Store, call: Call) -> Any:
    found = store.subjects.find(call.subject, call.schema, deleted=call.switch("deleted"))
    return {"subject": found.subject, "id": found.id, "version": found.version, "schema": found.schema}


def _delete_subject(store: Store, call: Call) -> Any:
    return store.write(lambda state: state.delete_subject(call.subject, permanent=call.switch("permanent")))


def _versions(store: Store, call: Call) -> Any:
    return call.page(
        [version.version for version in store.subjects.live(call.subject, deleted=call.switch("deleted"))]
    )


def _register(store: Store, call: Call) -> Any:
    schema = call.schema
    schema_id = store.write(lambda state: state.register(call.subject, schema))
    found = store.subjects.find(call.subject, schema)
    return {"id": schema_id, "version": found.version, "schemaType": "AVRO", "schema": found.schema}


def _version(store: Store, call: Call) -> Any:
    found = store.subjects.version(call.subject, call.path("version"), deleted=call.switch("deleted"))
    return {"subject": found.subject, "version": found.version, "id": found.id, "schema": found.schema}


def _version_schema(store: Store, call: Call) -> Any:
    found = store.subjects.version(call.subject, call.path("version"), deleted=call.switch("deleted"))
    return PlainTextResponse(found.schema, media_type=MEDIA_TYPE)


def _referenced_by(store: Store, call: Call) -> Any:
    store.subjects.version(call.subject, call.path("version"))
    return []


def _delete_version(store: Store, call: Call) -> Any:
    return store.write(
        lambda state: state.delete_version(
            call.subject, call.path("version"), permanent=call.switch("permanent")
        )
    )


def _check_all(store: Store, call: Call) -> Any:
    return _verdict(store.subjects.incompatibilities(call.subject, call.schema), call)


def _check_one(store: Store, call: Call) -> Any:
    return _verdict(store.subjects.incompatibilities(call.subject, call.schema, call.path("version")), call)


def _verdict(problems: list[str], call: Call) -> Body:
    answer: Body = {"is_compatible": not problems}
    if call.switch("verbose"):
        answer["messages"] = problems
    return answer


def _get_config(store: Store, call: Call) -> Any:
    subject = call.own_subject
    if subject is not None and subject not in store.subjects.levels and not call.switch("defaultToGlobal"):
        raise RegistryError(
            RegistryErrorCode.SUBJECT_COMPATIBILITY_NOT_FOUND,
            f"Subject '{subject}' does not have subject-level compatibility configured",
        )
    return {"compatibilityLevel": store.subjects.level(subject)}


def _put_config(store: Store, call: Call) -> Any:
    level = str(call.body.get("compatibility", ""))
    store.write(lambda state: (None, state.set_level(call.own_subject, level)))
    return {"compatibility": level.upper()}


def _delete_config(store: Store, call: Call) -> Any:
    before = store.subjects.level(call.own_subject)
    store.write(lambda state: (None, state.clear_level(call.own_subject)))
    return {"compatibilityLevel": before}


def _get_mode(store: Store, call: Call) -> Any:
    subject = call.own_subject
    if subject is not None and subject not in store.subjects.modes and not call.switch("defaultToGlobal"):
        raise RegistryError(
            RegistryErrorCode.SUBJECT_MODE_NOT_FOUND,
            f"Subject '{subject}' does not have subject-level mode configured",
        )
    return {"mode": store.subjects.mode(subject)}


def _put_mode(store: Store, call: Call) -> Any:
    mode = str(call.body.get("mode", "")).upper()
    store.write(lambda state: (None, state.set_mode(call.own_subject, mode)))
    return {"mode": mode}


def _delete_mode(store: Store, call: Call) -> Any:
    before = store.subjects.mode(call.own_subject)
    store.write(lambda state: (None, state.set_mode(call.own_subject, None)))
    return {"mode": before}


_CONFIG: tuple[tuple[str, Handler], ...] = (
    ("GET", _get_config),
    ("PUT", _put_config),
    ("DELETE", _delete_config),
)
_MODE: tuple[tuple[str, Handler], ...] = (("GET", _get_mode), ("PUT", _put_mode), ("DELETE", _delete_mode))
