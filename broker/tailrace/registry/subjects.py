"""The registry's state: subjects, versions, ids, levels and modes; pure, rebuilt by replaying its records.

Every operation returns the records that make it durable and changes nothing; `apply` changes the state
and is the only way to do so.  So live state equals replayed state by construction, and the caller
writes before it applies.  Records have Confluent's `_schemas` form: another registry can take over.
"""

import itertools
import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from tailrace.registry.compatibility import Level, parse_schema, problems
from tailrace.registry.errors import RegistryError, RegistryErrorCode

Record = tuple[dict[str, Any], dict[str, Any] | None]
"""Key and value of a `_schemas` record, before JSON."""

MODES = ("READWRITE", "READONLY", "IMPORT")

MOST_SCHEMA_BYTES = 1_000_000
"""Of a schema in its record: the topic takes records of 1 MiB."""

MOST_LEVELS = 128
"""Of nesting in the JSON of a schema: about thirty records inside each other."""

MOST_OBJECTS = 5_000
"""In the JSON of a schema; Postgres has at most 1,600 columns, and checks of compatibility take quadratic time."""

LONGEST_SUBJECT = 512

_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"?', re.S)  # the end is optional: else linear time is lost
_BRACKETS = re.compile(r"[\[\]{}]")


@dataclass(slots=True)
class Version:
    """One version of a subject."""

    subject: str
    version: int
    id: int
    schema: str
    deleted: bool = False


@dataclass(slots=True)
class Subjects:
    """All state of a registry."""

    versions: dict[str, dict[int, Version]] = field(default_factory=dict)
    schemas: dict[int, str] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    levels: dict[str | None, Level] = field(default_factory=dict)
    modes: dict[str | None, str] = field(default_factory=dict)
    last_id: int = 0

    # -- look-ups -------------------------------------------------------------------------------

    def names(self, *, prefix: str = "", deleted: bool = False) -> list[str]:
        """Subjects with a live version, sorted; with `deleted` also soft-deleted ones."""
        return sorted(
            name
            for name, versions in list(self.versions.items())  # a copy: writers run in other threads
            if name.startswith(prefix) and versions and (deleted or self._live(name))
        )

    def live(self, subject: str, *, deleted: bool = False) -> list[Version]:
        """Versions of a subject, oldest first; raise 40401 when there is none."""
        found = sorted(self.versions.get(subject, {}).values(), key=lambda v: v.version)
        if not deleted:
            found = [version for version in found if not version.deleted]
        if not found:
            raise RegistryError(RegistryErrorCode.SUBJECT_NOT_FOUND, f"Subject '{subject}' not found.")
        return found

    def version(self, subject: str, wanted: str, *, deleted: bool = False) -> Version:
        """The version named by a number, `latest` or `-1`."""
        found = self.live(subject, deleted=deleted)
        if wanted in ("latest", "-1"):
            return found[-1]
        asked = number(wanted)
        if not asked:
            raise RegistryError(
                RegistryErrorCode.INVALID_VERSION,
                f"The specified version '{wanted}' is not a valid version id. Allowed values are between "
                '[1, 2^31-1] and the string "latest"',
            )
        for version in found:
            if version.version == asked:
                return version
        raise RegistryError(RegistryErrorCode.VERSION_NOT_FOUND, f"Version {wanted} not found.")

    def find(self, subject: str, schema: str, *, deleted: bool = False) -> Version:
        """The version of the subject that holds this very schema; raise 40403 when none does."""
        text = canonical(schema)
        for version in reversed(self.live(subject, deleted=deleted)):
            if version.schema == text:
                return version
        raise RegistryError(RegistryErrorCode.SCHEMA_NOT_FOUND, "Schema not found")

    def schema(self, schema_id: int) -> str:
        """The schema of a global id; raise 40403 when the id was never given out."""
        if schema_id not in self.schemas:
            raise RegistryError(RegistryErrorCode.SCHEMA_NOT_FOUND, f"Schema {schema_id} not found")
        return self.schemas[schema_id]

    def users_of(self, schema_id: int) -> list[str]:
        """The subjects that have, or had until they were soft-deleted, a version with this schema."""
        return [
            name
            for name, versions in list(self.versions.items())
            if any(version.id == schema_id for version in list(versions.values()))
        ]

    def only(self, names: Collection[str]) -> "Subjects":
        """The state as it would be if there were no other subjects: what somebody sees who may see these."""
        versions = {name: dict(found) for name in names if (found := self.versions.get(name))}
        ids = {version.id for found in versions.values() for version in found.values()}
        asked: list[str | None] = [None, *names]
        return Subjects(
            versions=versions,
            schemas={schema_id: self.schemas[schema_id] for schema_id in ids},
            levels={name: self.levels[name] for name in asked if name in self.levels},
            modes={name: self.modes[name] for name in asked if name in self.modes},
        )

    def level(self, subject: str | None) -> Level:
        """The level in force: the subject's own, else the global one."""
        return self.levels.get(subject, self.levels.get(None, Level.BACKWARD))

    def mode(self, subject: str | None) -> str:
        """The mode in force: the subject's own, else the global one."""
        return self.modes.get(subject, self.modes.get(None, "READWRITE"))

    def incompatibilities(self, subject: str, schema: str, wanted: str | None = None) -> list[str]:
        """Why `schema` may not join the subject, against its level or one version of it."""
        text = canonical(schema)
        if wanted is not None:
            return problems(text, [self.version(subject, wanted).schema], self._one_version_level(subject))
        return problems(text, [version.schema for version in self._live(subject)], self.level(subject))

    # -- operations: what to write --------------------------------------------------------------

    def register(self, subject: str, schema: str) -> tuple[int, list[Record]]:
        """Give the schema an id under a subject; no record when it is there already."""
        _require_name(subject)
        text = canonical(schema)
        for version in self._live(subject):
            if version.schema == text:
                return version.id, []
        self._require_writable(subject)
        wrong = self.incompatibilities(subject, text)
        if wrong:
            raise RegistryError(
                RegistryErrorCode.INCOMPATIBLE_SCHEMA,
                "Schema being registered is incompatible with an earlier schema for subject "
                f'"{subject}", details: {wrong}',
            )
        schema_id = self.ids.get(text, self.last_id + 1)
        number = max(self.versions.get(subject, {}), default=0) + 1
        return schema_id, [_schema_record(Version(subject, number, schema_id, text))]

    def delete_version(self, subject: str, wanted: str, *, permanent: bool) -> tuple[int, list[Record]]:
        """Soft-delete a version, or remove a soft-deleted one for good."""
        self._require_writable(subject)
        version = self.version(subject, wanted, deleted=permanent)
        if permanent and not version.deleted:
            raise RegistryError(
                RegistryErrorCode.VERSION_NOT_SOFT_DELETED,
                f"Subject '{subject}' Version {version.version} was not deleted first before being permanently deleted",
            )
        gone = Version(subject, version.version, version.id, version.schema, deleted=True)
        key, value = _schema_record(gone)
        return version.version, [(key, None if permanent else value)]

    def delete_subject(self, subject: str, *, permanent: bool) -> tuple[list[int], list[Record]]:
        """Soft-delete every version of a subject, or remove a soft-deleted subject for good."""
        self._require_writable(subject)
        if permanent and self._live(subject):
            raise RegistryError(
                RegistryErrorCode.SUBJECT_NOT_SOFT_DELETED,
                f"Subject '{subject}' was not deleted first before being permanently deleted",
            )
        if not permanent and self.versions.get(subject) and not self._live(subject):
            raise RegistryError(
                RegistryErrorCode.SUBJECT_SOFT_DELETED,
                f"Subject '{subject}' was soft deleted. Set permanent=true to delete permanently",
            )
        versions = self.live(subject, deleted=permanent)
        records: list[Record] = []
        for version in versions:
            gone = Version(subject, version.version, version.id, version.schema, deleted=True)
            key, value = _schema_record(gone)
            records.append((key, None if permanent else value))
        return [version.version for version in versions], records

    def set_level(self, subject: str | None, level: str) -> list[Record]:
        """Set a compatibility level; raise 42203 for a word that is none."""
        _require_name(subject)
        if level.upper() not in Level.__members__:
            raise RegistryError(
                RegistryErrorCode.INVALID_COMPATIBILITY,
                "Invalid compatibility level. Valid values are " + ", ".join(item.lower() for item in Level),
            )
        return [
            ({"keytype": "CONFIG", "subject": subject, "magic": 0}, {"compatibilityLevel": level.upper()})
        ]

    def clear_level(self, subject: str | None) -> list[Record]:
        """Take a level back; raise 40408 for a subject without one of its own."""
        if subject is not None and subject not in self.levels:
            raise RegistryError(
                RegistryErrorCode.SUBJECT_COMPATIBILITY_NOT_FOUND,
                f"Subject '{subject}' does not have subject-level compatibility configured",
            )
        return [({"keytype": "CONFIG", "subject": subject, "magic": 0}, None)]

    def set_mode(self, subject: str | None, mode: str | None) -> list[Record]:
        """Set a mode, or take it back with None."""
        _require_name(subject)
        if mode is not None and mode not in MODES:
            raise RegistryError(
                RegistryErrorCode.INVALID_MODE, "Invalid mode. Valid values are " + ", ".join(MODES)
            )
        if mode is None and subject not in self.modes:
            raise RegistryError(
                RegistryErrorCode.SUBJECT_MODE_NOT_FOUND,
                f"Subject '{subject}' does not have subject-level mode configured",
            )
        return [({"keytype": "MODE", "subject": subject, "magic": 0}, {"mode": mode} if mode else None)]

    # -- replay ---------------------------------------------------------------------------------

    def apply(self, key: dict[str, Any], value: dict[str, Any] | None) -> None:
        """Change the state by one record of `_schemas`; unknown key types are left alone."""
        kind, subject = key.get("keytype"), key.get("subject")
        if kind == "SCHEMA":
            self._apply_schema(key, value)
        elif kind == "CONFIG":
            self.levels.pop(subject, None)
            if value is not None:
                self.levels[subject] = Level(value["compatibilityLevel"])
        elif kind == "MODE":
            self.modes.pop(subject, None)
            if value is not None:
                self.modes[subject] = value["mode"]
        elif kind == "DELETE_SUBJECT" and value is not None:  # written by Confluent's registry, not by us
            for version in self.versions.get(value["subject"], {}).values():
                version.deleted = version.deleted or version.version <= value["version"]

    def _apply_schema(self, key: dict[str, Any], value: dict[str, Any] | None) -> None:
        subject, number = key["subject"], key["version"]
        if value is None:
            versions = self.versions.get(subject, {})
            versions.pop(number, None)
            if not versions:
                self.versions.pop(subject, None)
            return
        if value.get("schemaType", "AVRO") != "AVRO":
            raise RegistryError(
                RegistryErrorCode.INVALID_SCHEMA, f"Subject '{subject}' holds a schema that is not Avro"
            )
        version = Version(subject, number, value["id"], value["schema"], value.get("deleted", False))
        self.versions.setdefault(subject, {})[number] = version
        self.schemas[version.id] = version.schema
        self.ids.setdefault(version.schema, version.id)
        self.last_id = max(self.last_id, version.id)

    def _live(self, subject: str) -> list[Version]:
        versions = self.versions.get(subject, {})
        return [versions[number] for number in sorted(versions) if not versions[number].deleted]

    def _require_writable(self, subject: str) -> None:
        if self.mode(subject) == "READONLY":
            raise RegistryError(
                RegistryErrorCode.OPERATION_NOT_PERMITTED, f"Subject {subject} is in read-only mode"
            )

    def _one_version_level(self, subject: str) -> Level:
        return Level(self.level(subject).value.removesuffix("_TRANSITIVE"))


def canonical(schema: str) -> str:
    """One text for one schema: parsed, checked and printed without blanks, properties kept."""
    _require_moderate(schema)
    parse_schema(schema)
    text = json.dumps(json.loads(schema), separators=(",", ":"), ensure_ascii=False)
    if len(json.dumps(text)) > MOST_SCHEMA_BYTES:
        raise _too_much(f"its record would be larger than {MOST_SCHEMA_BYTES} bytes")
    return text


def number(text: str) -> int | None:
    """A version or an id as a path has it; None for what is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 else None


def _require_moderate(schema: str) -> None:
    """Refuse what would keep the parser and the compatibility check busy, or use up the stack: in linear time."""
    brackets = _BRACKETS.findall(_STRINGS.sub("", schema))
    depths = itertools.accumulate(1 if bracket in "[{" else -1 for bracket in brackets)
    if max(depths, default=0) > MOST_LEVELS:
        raise _too_much(f"it is nested more than {MOST_LEVELS} levels deep")
    if brackets.count("{") > MOST_OBJECTS:
        raise _too_much(f"it has more than {MOST_OBJECTS} fields and types")


def _too_much(why: str) -> RegistryError:
    return RegistryError(RegistryErrorCode.INVALID_SCHEMA, f"Invalid schema: {why}")


def _require_name(subject: str | None) -> None:
    if subject is not None and (len(subject) > LONGEST_SUBJECT or not subject.isprintable()):
        raise RegistryError(
            RegistryErrorCode.INVALID_SUBJECT,
            f"The specified subject is not valid: at most {LONGEST_SUBJECT} printable characters",
        )


def _schema_record(version: Version) -> Record:
    key = {"keytype": "SCHEMA", "subject": version.subject, "version": version.version, "magic": 1}
    value = {
        "subject": version.subject,
        "version": version.version,
        "id": version.id,
        "schema": version.schema,
        "deleted": version.deleted,
    }
    return key, value
