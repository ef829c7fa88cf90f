"""The plan of a table: what is nullable, what is the key, what an option may ask for."""

from dataclasses import replace

import pytest

from tailrace.changes import ConfigError, TableId
from tailrace.connectors.postgres.config import TableOptions
from tailrace.connectors.postgres.relation import Relation, RelationColumn
from tailrace.connectors.postgres.type_plan import CatalogColumn, TablePlan, plan_relation, plan_table

_TABLE = TableId("public", "t")


def column(name: str, type_oid: int = 25, **changed: object) -> CatalogColumn:
    """A nullable text column, or what `changed` makes of it."""
    storage = "x" if type_oid == 25 else "p"
    plain = CatalogColumn(1, "public", "t", "d", name, type_oid, -1, "text", False, storage, False, False)
    return replace(plain, **changed)  # type: ignore[arg-type]


ID = column("id", 23, pg_type="integer", not_null=True, in_primary_key=True)


def planned(*columns: CatalogColumn, **options: tuple[str, ...]) -> TablePlan:
    return plan_table(columns, {}, TableOptions(**options))


def nullable(plan: TablePlan) -> dict[str, bool]:
    return {field.name: field.nullable for field in plan.schema.arrow}


def test_a_field_is_nullable_when_the_column_is_or_when_it_may_be_toasted() -> None:
    plan = planned(
        ID,
        column("may_be_null", 23),
        column("never", 23, not_null=True),
        column("toasted", not_null=True),
        column("kept_inline", not_null=True, storage="p"),
        column("amount", 1700, not_null=True, storage="m", typmod=(12 << 16 | 2) + 4),
        column("unbounded", 1700, not_null=True, storage="m"),
    )
    assert nullable(plan) == {
        "id": False,
        "may_be_null": True,
        "never": False,
        "toasted": True,
        "kept_inline": False,
        "amount": False,
        "unbounded": True,
    }


def test_a_toastable_key_column_is_not_nullable() -> None:
    assert nullable(planned(column("k", not_null=True, in_primary_key=True))) == {"k": False}


@pytest.mark.parametrize(
    ("identity", "key"), [("d", ("id",)), ("f", ("id",)), ("n", ("id",)), ("i", ("code",))]
)
def test_the_key_is_what_a_delete_carries_or_the_primary_key(identity: str, key: tuple[str, ...]) -> None:
    code = column("code", not_null=True, in_identity_index=identity == "i")
    plan = planned(*(replace(found, replica_identity=identity) for found in (ID, code)))
    assert plan.schema.key == key


def test_a_configured_key_stands_over_identity_full() -> None:
    rows = [replace(found, replica_identity="f", in_primary_key=False) for found in (ID, column("v"))]
    assert planned(*rows).schema.key == ()
    assert planned(*rows, key=("v",)).schema.key == ("v",)


def test_a_published_column_list_leaves_the_others_out() -> None:
    plan = plan_table([ID, column("a"), column("b")], {}, TableOptions(), published=frozenset({"id", "b"}))
    assert plan.schema.arrow.names == ["id", "b"]


WRONG_OPTIONS: list[tuple[dict[str, tuple[str, ...]], str]] = [
    ({"exclude": ("nope",)}, "exclude of public.t names 'nope'"),
    ({"as_text": ("nope",)}, "as_text of public.t names 'nope'"),
    ({"key": ("nope",)}, "key of public.t names 'nope'"),
    ({"exclude": ("id",)}, "cannot exclude 'id': it is part of the key"),
    ({"key": ("v",)}, "'v', which a DELETE does not carry"),
]


@pytest.mark.parametrize(("options", "words"), WRONG_OPTIONS)
def test_an_option_that_cannot_be_obeyed_is_refused(options: dict[str, tuple[str, ...]], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        planned(ID, column("v"), **options)


def test_a_column_that_the_catalog_no_longer_has_keeps_what_was_known() -> None:
    before = planned(ID, column("n", 23, pg_type="integer", not_null=True))
    after = plan_relation(before.relation, [], {}, TableOptions(), before)
    assert after.schema == before.schema


def test_a_column_known_only_from_the_stream_is_nullable_and_carried() -> None:
    relation = Relation(
        1, _TABLE, "d", (RelationColumn("id", 23, -1, True), RelationColumn("x", 99999, -1, False))
    )
    plan = plan_relation(relation, [], {}, TableOptions())
    assert nullable(plan) == {"id": False, "x": True}
    assert not plan.binary
    (warning,) = plan.warnings
    assert warning.startswith(
        "public.t.x: type with OID 99999 has no columnar form, so it is carried as text"
    )
    assert '"x"' in plan.copy_columns


def test_an_identifier_is_quoted_for_copy() -> None:
    assert planned(ID, column('we"ird')).copy_columns == '"id", "we""ird"'
