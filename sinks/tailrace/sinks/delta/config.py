"""Options of a Delta sink."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class DeltaConfig(BaseModel):
    """The `sinks.<name>` block of `type: delta`.

    path                where the tables go: a local folder or a URL that obstore knows.  `{table}` stands for the
                        table's name; without it each table gets a folder of its name in `path`.
    storage_options     keys of the object store as obstore and deltalake name them (`aws_region`, ...).
    write               `merge_on_read` marks old rows in deletion vectors; `copy_on_write` rewrites files,
                        for readers without deletion vectors (daft, pyarrow datasets, old engines).
    checkpoint_every    table commits between two Delta checkpoints.
    keep_old_files      seconds that replaced files stay for readers that opened an older version.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(min_length=1)
    storage_options: dict[str, str] = Field(default_factory=dict)
    write: Literal["merge_on_read", "copy_on_write"] = "merge_on_read"
    checkpoint_every: int = Field(default=50, ge=1)
    keep_old_files: float = Field(default=3600.0, ge=0)

    def table_path(self, table: str) -> str:
        """Folder or URL of one table."""
        if "{table}" in self.path:
            return self.path.replace("{table}", table)
        return f"{self.path.rstrip('/')}/{table}"
