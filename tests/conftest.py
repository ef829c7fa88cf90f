"""Only the list of fixture modules."""

pytest_plugins = [
    "tests.fixtures.postgres",
    "tests.fixtures.broker",
    "tests.fixtures.registry",
    "tests.fixtures.flink",
    "tests.fixtures.tables",
]
