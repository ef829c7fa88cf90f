"""Options of an Iceberg sink."""

from pydantic import BaseModel, ConfigDict, Field


class IcebergConfig(BaseModel):
    """The `sinks.<name>` block of `type: iceberg`.

    warehouse        where data and metadata go: a local folder, or a URL that pyiceberg's FileIO knows.
    table            name of a table in the catalog, with at least one namespace; {table} is the target's name.
    catalog          properties of a pyiceberg catalog; by default an SQLite catalog in the warehouse folder.
    keep_snapshots   snapshots that stay for time travel.
    keep_old_files   seconds that files of no kept snapshot stay for readers that opened an older one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    warehouse: str = Field(min_length=1)
    table: str = Field(default="default.{table}", pattern=r"^[^.\s]+(\.[^.\s]+)+$")
    catalog: dict[str, str] = Field(default_factory=dict)
    keep_snapshots: int = Field(default=100, ge=1)
    keep_old_files: float = Field(default=3600.0, ge=0)
