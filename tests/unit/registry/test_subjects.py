"""The registry's state: ids, versions, levels, deletion; live state equals replayed state."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.registry.errors import RegistryError, RegistryErrorCode
from tailrace.registry.subjects import Record, Subjects, canonical


def record(*fields: dict[str, Any], name: str = "r") -> str:
    return json.dumps({"type": "record", "name": name, "fields": list(fields)})


ID = {"name": "id", "type": "long"}
NOTE = {"name": "note", "type": ["null", "string"], "default": None}
STRICT = {"name": "strict", "type": "string"}


def write(state: Subjects, records: list[Record]) -> None:
    for key, value in records:
        state.apply(key, value)


def register(state: Subjects, subject: str, schema: str) -> int:
    schema_id, records = state.register(subject, schema)
    write(state, records)
    return schema_id


def test_the_same_schema_keeps_its_id_in_every_subject() -> None:
    state = Subjects()
    first = register(state, "a-value", record(ID))
    assert register(state, "a-value", " " + record(ID)) == first
    assert register(state, "b-value", record(ID)) == first
    assert [v.version for v in state.live("a-value")] == [1]


def test_an_added_nullable_field_is_accepted_and_gets_the_next_id() -> None:
    state = Subjects()
    first = register(state, "s", record(ID))
    second = register(state, "s", record(ID, NOTE))
    assert second == first + 1
    assert [v.version for v in state.live("s")] == [1, 2]


def test_an_incompatible_schema_is_refused_with_409_and_changes_nothing() -> None:
    state = Subjects()
    register(state, "s", record(ID))
    with pytest.raises(RegistryError) as refused:
        state.register("s", record(ID, STRICT))
    assert refused.value.status == 409
    assert refused.value.code == RegistryErrorCode.INCOMPATIBLE_SCHEMA
    assert len(state.live("s")) == 1


def test_level_none_accepts_what_backward_refuses() -> None:
    state = Subjects()
    register(state, "s", record(ID))
    write(state, state.set_level("s", "none"))
    assert register(state, "s", record(ID, STRICT)) == 2


def test_a_decimal_of_another_scale_is_incompatible() -> None:
    def decimal(scale: int) -> str:
        return record(
            {
                "name": "n",
                "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": scale},
            }
        )

    state = Subjects()
    register(state, "s", decimal(2))
    assert state.incompatibilities("s", decimal(2)) == []
    assert "scale 3" in state.incompatibilities("s", decimal(3))[0]


def test_an_id_is_never_given_to_a_second_schema_after_deletion() -> None:
    state = Subjects()
    first = register(state, "s", record(ID))
    _, records = state.delete_subject("s", permanent=False)
    write(state, records)
    with pytest.raises(RegistryError) as missing:
        state.live("s")
    assert missing.value.code == RegistryErrorCode.SUBJECT_NOT_FOUND
    _, records = state.delete_subject("s", permanent=True)
    write(state, records)
    assert register(state, "s", record(ID, NOTE)) == first + 1
    assert state.schema(first) == canonical(record(ID))


def test_a_permanent_deletion_needs_a_soft_one_first() -> None:
    state = Subjects()
    register(state, "s", record(ID))
    with pytest.raises(RegistryError) as refused:
        state.delete_version("s", "1", permanent=True)
    assert refused.value.code == RegistryErrorCode.VERSION_NOT_SOFT_DELETED


def test_what_is_not_a_schema_is_refused_with_42201() -> None:
    for text in ("", "{", '{"type": "record"}', '"nothing"'):
        with pytest.raises(RegistryError) as refused:
            Subjects().register("s", text)
        assert refused.value.code == RegistryErrorCode.INVALID_SCHEMA


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["register", "soft", "hard", "level", "mode"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from([record(ID), record(ID, NOTE), record(NOTE)]),
        st.sampled_from(["NONE", "BACKWARD", "FULL_TRANSITIVE"]),
    ),
    max_size=20,
)


@given(STEPS)
@settings(max_examples=60)
def test_replaying_the_records_gives_the_live_state(steps: list[tuple[str, str, str, str]]) -> None:
    live, log = Subjects(), []
    for step, subject, schema, level in steps:
        try:
            if step == "register":
                _, records = live.register(subject, schema)
            elif step in ("soft", "hard"):
                _, records = live.delete_subject(subject, permanent=step == "hard")
            elif step == "level":
                records = live.set_level(subject, level)
            else:
                records = live.set_mode(subject, "READONLY" if level == "NONE" else "READWRITE")
        except RegistryError:
            continue
        write(live, records)
        log += [(json.loads(json.dumps(key)), json.loads(json.dumps(value))) for key, value in records]
    replayed = Subjects()
    write(replayed, log)
    assert replayed == live
