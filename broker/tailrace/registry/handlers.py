"""What each route of the registry does, and what somebody must be allowed to do for it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.responses import PlainTextResponse

from tailrace.registry.access import Reads
from tailrace.registry.call import MEDIA_TYPE, Body, Call
from tailrace.registry.errors import RegistryError, RegistryErrorCode
from tailrace.registry.store import Store
from tailrace.registry.subjects import Subjects
from tailrace.security.acls import Operation

Reader = Callable[[Subjects, Call], Any]
Writer = Callable[[Store, Call], Any]


@dataclass(frozen=True, slots=True)
class Read:
    """A route that answers from the state, as far as its caller may see it."""

    handler: Reader
    reads: Reads


@dataclass(frozen=True, slots=True)
class Change:
    """A route that writes: its caller needs this operation on the subject's topic, see `access`."""

    handler: Writer
    needs: Operation


def _said(answer: Any) -> Read:
    return Read(lambda subjects, call: answer, Reads.NOTHING)


def _schema_by_id(subjects: Subjects, call: Call) -> Any:
    return {"schema": subjects.schema(call.schema_id)}


def _schema_text_by_id(subjects: Subjects, call: Call) -> Any:
    return PlainTextResponse(subjects.schema(call.schema_id), media_type=MEDIA_TYPE)


def _uses(subjects: Subjects, call: Call) -> list[tuple[str, int]]:
    schema_id = call.schema_id
    subjects.schema(schema_id)
    return [
        (version.subject, version.version)
        for versions in list(subjects.versions.values())  # copies: writers run in other threads
        for version in list(versions.values())
        if version.id == schema_id and (call.switch("deleted") or not version.deleted)
    ]


def _subjects_of_id(subjects: Subjects, call: Call) -> Any:
    return sorted({subject for subject, _ in _uses(subjects, call)})


def _versions_of_id(subjects: Subjects, call: Call) -> Any:
    return [{"subject": subject, "version": version} for subject, version in _uses(subjects, call)]


def _subjects(subjects: Subjects, call: Call) -> Any:
    prefix = call.text("subjectPrefix").removeprefix(":*:").removeprefix(":.:")
    deleted = call.switch("deleted") or call.switch("deletedOnly")
    names = subjects.names(prefix=prefix, deleted=deleted)
    if call.switch("deletedOnly"):
        live = set(subjects.names(prefix=prefix))
        names = [name for name in names if name not in live]
    return call.page(names)


def _look_up(subjects: Subjects, call: Call) -> Any:
    found = subjects.find(call.subject, call.schema, deleted=call.switch("deleted"))
    return {"subject": found.subject, "id": found.id, "version": found.version, "schema": found.schema}


def _delete_subject(store: Store, call: Call) -> Any:
    return store.write(lambda state: state.delete_subject(call.subject, permanent=call.switch("permanent")))


def _versions(subjects: Subjects, call: Call) -> Any:
    return call.page(
        [version.version for version in subjects.live(call.subject, deleted=call.switch("deleted"))]
    )


def _register(store: Store, call: Call) -> Any:
    schema = call.schema
    schema_id = store.write(lambda state: state.register(call.subject, schema))
    found = store.subjects.find(call.subject, schema)
    return {"id": schema_id, "version": found.version, "schemaType": "AVRO", "schema": found.schema}


def _version(subjects: Subjects, call: Call) -> Any:
    found = subjects.version(call.subject, call.path("version"), deleted=call.switch("deleted"))
    return {"subject": found.subject, "version": found.version, "id": found.id, "schema": found.schema}


def _version_schema(subjects: Subjects, call: Call) -> Any:
    found = subjects.version(call.subject, call.path("version"), deleted=call.switch("deleted"))
    return PlainTextResponse(found.schema, media_type=MEDIA_TYPE)


def _referenced_by(subjects: Subjects, call: Call) -> Any:
    subjects.version(call.subject, call.path("version"))
    return []


def _delete_version(store: Store, call: Call) -> Any:
    return store.write(
        lambda state: state.delete_version(
            call.subject, call.path("version"), permanent=call.switch("permanent")
        )
    )


def _check_all(subjects: Subjects, call: Call) -> Any:
    return _verdict(subjects.incompatibilities(call.subject, call.schema), call)


def _check_one(subjects: Subjects, call: Call) -> Any:
    return _verdict(subjects.incompatibilities(call.subject, call.schema, call.path("version")), call)


def _verdict(problems: list[str], call: Call) -> Body:
    answer: Body = {"is_compatible": not problems}
    if call.switch("verbose"):
        answer["messages"] = problems
    return answer


def _get_config(subjects: Subjects, call: Call) -> Any:
    subject = call.own_subject
    if subject is not None and subject not in subjects.levels and not call.switch("defaultToGlobal"):
        raise RegistryError(
            RegistryErrorCode.SUBJECT_COMPATIBILITY_NOT_FOUND,
            f"Subject '{subject}' does not have subject-level compatibility configured",
        )
    return {"compatibilityLevel": subjects.level(subject)}


def _put_config(store: Store, call: Call) -> Any:
    level = str(call.body.get("compatibility", ""))
    store.write(lambda state: (None, state.set_level(call.own_subject, level)))
    return {"compatibility": level.upper()}


def _delete_config(store: Store, call: Call) -> Any:
    before = store.subjects.level(call.own_subject)
    store.write(lambda state: (None, state.clear_level(call.own_subject)))
    return {"compatibilityLevel": before}


def _get_mode(subjects: Subjects, call: Call) -> Any:
    subject = call.own_subject
    if subject is not None and subject not in subjects.modes and not call.switch("defaultToGlobal"):
        raise RegistryError(
            RegistryErrorCode.SUBJECT_MODE_NOT_FOUND,
            f"Subject '{subject}' does not have subject-level mode configured",
        )
    return {"mode": subjects.mode(subject)}


def _put_mode(store: Store, call: Call) -> Any:
    mode = str(call.body.get("mode", "")).upper()
    store.write(lambda state: (None, state.set_mode(call.own_subject, mode)))
    return {"mode": mode}


def _delete_mode(store: Store, call: Call) -> Any:
    before = store.subjects.mode(call.own_subject)
    store.write(lambda state: (None, state.set_mode(call.own_subject, None)))
    return {"mode": before}


def _named(name: str) -> tuple[tuple[str, str, Read | Change], ...]:
    """The routes of the level and the mode, of one subject and of all."""
    get, put, delete = _SETTINGS[name]
    routes: list[tuple[str, str, Read | Change]] = []
    for path, reads in ((f"/{name}", Reads.GLOBALS), (f"/{name}/{{subject}}", Reads.SUBJECT)):
        routes += [
            ("GET", path, Read(get, reads)),
            ("PUT", path, Change(put, Operation.ALTER_CONFIGS)),
            ("DELETE", path, Change(delete, Operation.ALTER_CONFIGS)),
        ]
    return tuple(routes)


_SETTINGS: dict[str, tuple[Reader, Writer, Writer]] = {
    "config": (_get_config, _put_config, _delete_config),
    "mode": (_get_mode, _put_mode, _delete_mode),
}
_OF_SUBJECT, _OF_SCHEMA = "/subjects/{subject}", "/schemas/ids/{id}"

ROUTES: tuple[tuple[str, str, Read | Change], ...] = (
    ("GET", "/", _said({})),
    ("GET", "/v1/metadata/id", _said({"scope": {"path": [], "clusters": {}}, "id": "tailrace"})),
    ("GET", "/v1/metadata/version", _said({"version": "7.9.0", "commitId": "tailrace"})),
    ("GET", "/contexts", _said(["."])),
    ("GET", "/schemas/types", _said(["AVRO"])),
    ("GET", _OF_SCHEMA, Read(_schema_by_id, Reads.SCHEMA)),
    ("GET", f"{_OF_SCHEMA}/schema", Read(_schema_text_by_id, Reads.SCHEMA)),
    ("GET", f"{_OF_SCHEMA}/subjects", Read(_subjects_of_id, Reads.SCHEMA)),
    ("GET", f"{_OF_SCHEMA}/versions", Read(_versions_of_id, Reads.SCHEMA)),
    ("GET", "/subjects", Read(_subjects, Reads.SUBJECTS)),
    ("POST", _OF_SUBJECT, Read(_look_up, Reads.SUBJECT)),
    ("DELETE", _OF_SUBJECT, Change(_delete_subject, Operation.DELETE)),
    ("GET", f"{_OF_SUBJECT}/versions", Read(_versions, Reads.SUBJECT)),
    ("POST", f"{_OF_SUBJECT}/versions", Change(_register, Operation.WRITE)),
    ("GET", f"{_OF_SUBJECT}/versions/{{version}}", Read(_version, Reads.SUBJECT)),
    ("DELETE", f"{_OF_SUBJECT}/versions/{{version}}", Change(_delete_version, Operation.DELETE)),
    ("GET", f"{_OF_SUBJECT}/versions/{{version}}/schema", Read(_version_schema, Reads.SUBJECT)),
    ("GET", f"{_OF_SUBJECT}/versions/{{version}}/referencedby", Read(_referenced_by, Reads.SUBJECT)),
    ("POST", f"/compatibility{_OF_SUBJECT}/versions", Read(_check_all, Reads.SUBJECT)),
    ("POST", f"/compatibility{_OF_SUBJECT}/versions/{{version}}", Read(_check_one, Reads.SUBJECT)),
    *_named("config"),
    *_named("mode"),
)
"""Verb, path, and what is done and asked for there: a route cannot be written without its rule."""
