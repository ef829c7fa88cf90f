"""The options of a Postgres source, as they stand under `source:` in a pipeline file."""

import re
from typing import Annotated, Literal

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from tailrace.changes import TableId, TailraceError

_NAME_LIMIT = 63  # NAMEDATALEN - 1
_SECRET_PARAMETERS = ("password", "sslpassword", "oauth_client_secret")


class TableOptions(BaseModel):
    """What a pipeline says about one table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    exclude: tuple[str, ...] = ()
    """Columns that never leave the connector."""
    as_text: tuple[str, ...] = ()
    """Columns carried as Postgres' own text, for values that the column's plan cannot hold."""
    key: tuple[str, ...] = ()
    """Key columns of a table without a primary key; the replica identity must cover them."""


class SnapshotOptions(BaseModel):
    """How the rows that exist at the start are read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["initial", "never"] = "initial"
    """never: begin with changes only; the tables miss what existed before."""
    workers: Annotated[int, Field(ge=1, le=64)] = 2
    """Parallel COPY connections."""


class PostgresConfig(BaseModel):
    """A Postgres database and the tables to read from it."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    dsn: SecretStr
    """libpq connection string or URI; environment variables and a password file work as in psql."""
    tables: Annotated[dict[str, TableOptions], Field(min_length=1)]
    """namespace.table -> options."""
    slot: str | None = None
    """Replication slot; by default tailrace_<pipeline>."""
    publication: str | None = None
    """Publication; by default tailrace_<pipeline>."""
    snapshot: SnapshotOptions = SnapshotOptions()
    queue_mb: Annotated[int, Field(ge=1, le=4096)] = 64
    """Received WAL held in memory before reading stops (back-pressure), megabytes."""

    @field_validator("dsn")
    @classmethod
    def _dsn_is_readable(cls, dsn: SecretStr) -> SecretStr:
        try:
            parameters = conninfo_to_dict(dsn.get_secret_value())
        except ProgrammingError:
            # libpq's message may quote the string, and with it a password
            raise ValueError(
                "not a libpq connection string; write host=... dbname=... or postgresql://..."
            ) from None
        if parameters.get("gssencmode") == "require":
            raise ValueError("gssencmode=require is not supported; use sslmode=require for encryption")
        return dsn

    @field_validator("tables", mode="before")
    @classmethod
    def _bare_table_has_no_options(cls, tables: object) -> object:
        """`public.orders:` with nothing behind it is a table with default options."""
        if isinstance(tables, dict):
            return {name: {} if options is None else options for name, options in tables.items()}
        return tables

    @field_validator("tables")
    @classmethod
    def _table_names_are_qualified(cls, tables: dict[str, TableOptions]) -> dict[str, TableOptions]:
        for name in tables:
            try:
                TableId.parse(name)
            except TailraceError as error:
                raise ValueError(str(error)) from None
        return tables

    @field_validator("slot")
    @classmethod
    def _slot_name_is_valid(cls, slot: str | None) -> str | None:
        if slot is not None and not re.fullmatch(r"[a-z0-9_]{1,63}", slot):
            raise ValueError("a slot name has 1 to 63 of a-z, 0-9 and _")
        return slot

    @field_validator("publication")
    @classmethod
    def _publication_name_fits(cls, publication: str | None) -> str | None:
        if publication is not None and not 1 <= len(publication.encode()) <= _NAME_LIMIT:
            raise ValueError("a publication name has 1 to 63 bytes")
        return publication

    def table_options(self) -> dict[TableId, TableOptions]:
        """The tables by id, in the order of the file."""
        return {TableId.parse(name): options for name, options in self.tables.items()}

    def slot_name(self, pipeline: str) -> str:
        """The slot of this pipeline."""
        return self.slot or derived_name(pipeline)

    def publication_name(self, pipeline: str) -> str:
        """The publication of this pipeline."""
        return self.publication or derived_name(pipeline)


def derived_name(pipeline: str) -> str:
    """tailrace_<pipeline> within the alphabet and the length of a slot name."""
    return ("tailrace_" + re.sub(r"[^a-z0-9_]", "_", pipeline.lower()))[:_NAME_LIMIT]


def redacted(dsn: SecretStr) -> str:
    """The connection string without its secrets, for messages."""
    parameters = conninfo_to_dict(dsn.get_secret_value())
    return " ".join(
        f"{k}={v}" for k, v in parameters.items() if v is not None and k not in _SECRET_PARAMETERS
    )
