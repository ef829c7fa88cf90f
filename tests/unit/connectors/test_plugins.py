"""Sources are found by entry point, and a wrong name is answered with the right ones."""

import pytest

from tailrace.changes import ConfigError
from tailrace.connectors.plugins import load_source, source_types
from tailrace.connectors.postgres.source import PostgresSource


def test_the_postgres_source_is_found_by_its_entry_point() -> None:
    assert "postgres" in source_types()
    assert load_source("postgres") is PostgresSource


def test_an_unknown_type_is_answered_with_the_nearest_and_the_list() -> None:
    with pytest.raises(ConfigError, match="there is no source type 'postgre'") as caught:
        load_source("postgre")
    assert caught.value.fix.startswith("did you mean 'postgres'? installed here: ")
