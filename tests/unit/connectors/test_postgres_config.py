"""Options of the Postgres source: what is refused, and that secrets never show."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tailrace.changes import TableId
from tailrace.connectors.postgres.config import PostgresConfig, derived_name, redacted

SECRET = "hunter2"


def config(**options: Any) -> PostgresConfig:
    return PostgresConfig.model_validate(
        {
            "dsn": f"postgresql://me:{SECRET}@db.example:6543/shop",
            "tables": {"public.orders": None},
            **options,
        }
    )


def test_a_table_without_options_has_the_defaults() -> None:
    [(table, options)] = config().table_options().items()
    assert table == TableId("public", "orders")
    assert (options.exclude, options.as_text, options.key) == ((), (), ())


@pytest.mark.parametrize("dsn", ["postgresql://me:hunter2@db/shop", "host=db password=hunter2 dbname=shop"])
def test_the_password_never_shows(dsn: str) -> None:
    made = config(dsn=dsn)
    assert SECRET not in repr(made) + str(made) + redacted(made.dsn) + made.model_dump_json()
    assert "host=db" in redacted(made.dsn)


@pytest.mark.parametrize(
    "options",
    [
        {"tables": {}},
        {"tables": {"orders": {}}},
        {"tables": {"public.orders": {"columns": []}}},
        {"dsn": f"host=db password={SECRET} nonsense"},
        {"dsn": f"host=db password={SECRET} gssencmode=require"},
        {"slot": "Not-A-Slot"},
        {"slot": "s" * 64},
        {"publication": ""},
        {"snapshot": {"mode": "sometimes"}},
        {"snapshot": {"workers": 0}},
        {"queue_mb": 0},
        {"unknown": 1},
    ],
)
def test_a_wrong_option_is_refused_without_showing_the_password(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        config(**options)
    assert SECRET not in str(caught.value)


@given(st.text(min_size=1))
def test_any_pipeline_name_gives_a_valid_slot_name(pipeline: str) -> None:
    assert config(slot=derived_name(pipeline)).slot == config().slot_name(pipeline)
