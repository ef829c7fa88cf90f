"""The job's durable state on disk, and which of it a restart goes on from.

    <data_dir>/flink/checkpoints/<job id>/chk-<n>/_metadata      a Flink checkpoint; the file appears last, by rename
    <data_dir>/flink/checkpoints/savepoint-<id>/_metadata        written by a clean stop: nothing of it is uncommitted
    <data_dir>/flink/state.json                                  what the state belongs to: transforms and schemas

Checkpoint ids go on counting over restarts and savepoints, so the highest id is the newest state.  The id stands in
the metadata file (Flink's MetadataV3Serializer): int32 magic 0x4960672d, int32 version, int64 checkpoint id.
"""

import hashlib
import json
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tailrace.changes import crash_point
from tailrace.changes.errors import ConfigError, TailraceError
from tailrace.changes.whole_file import replace_json
from tailrace.flink.config import FlinkPartConfig, TransformConfig
from tailrace.flink.tables import TopicSchemas

_MAGIC = 0x4960672D


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A whole checkpoint or savepoint."""

    id: int
    path: Path
    by_clean_stop: bool
    made_at: float


class JobState:
    """The folder `<data_dir>/flink`."""

    def __init__(self, config: FlinkPartConfig) -> None:
        self._config = config
        self.root = config.data_dir / "flink"
        self.checkpoints = self.root / "checkpoints"
        self._file = self.root / "state.json"
        self.checkpoints.mkdir(parents=True, exist_ok=True)

    def newest(self) -> Checkpoint | None:
        """What a restart goes on from, None for a first start.

        Raises TailraceError when the results of that checkpoint may have been aborted by the broker meanwhile.
        """
        newest = max(self._whole(), key=lambda checkpoint: checkpoint.id, default=None)
        if newest is None or newest.by_clean_stop:
            return newest
        age = time.time() - newest.made_at
        if age > self._config.transaction_timeout_s:
            raise TailraceError(
                f"the Flink job was down for {age / 60:.0f} minutes, longer than its transaction timeout of "
                f"{self._config.transaction_timeout_s / 60:.0f}: the broker may have aborted its last results",
                fix=f"remove {self.checkpoints} to compute the results again from the start of the topics",
            )
        return newest

    def pinned_schemas(self) -> dict[str, TopicSchemas]:
        """The schemas of the topics that the state was computed with; ConfigError when a transform was changed since.

        A column added to a topic later must not change the layout of the state, so a restart reads with these.
        """
        try:
            document = json.loads(self._file.read_text())
        except FileNotFoundError:
            return {}
        changed = [
            t.name for t in self._config.transforms if document["transforms"].get(t.name) != fingerprint(t)
        ]
        gone = set(document["transforms"]) - {t.name for t in self._config.transforms}
        if changed or gone:
            raise ConfigError(
                f"transform {', '.join([*changed, *sorted(gone)])} was changed, and the state of the job does not fit it",
                fix=f"change it back, or remove {self.checkpoints} to compute the results again from the start",
            )
        return {topic: TopicSchemas(topic, both[0], both[1]) for topic, both in document["topics"].items()}

    def pin(self, schemas: Sequence[TopicSchemas]) -> None:
        """Write down what the state of a first start belongs to; durable on return."""
        document = {
            "transforms": {transform.name: fingerprint(transform) for transform in self._config.transforms},
            "topics": {schema.topic: [schema.key, schema.value] for schema in schemas},
        }
        crash_point("flink.before_state_file")
        replace_json(self._file, document, durable=True)
        crash_point("flink.after_state_file")

    def prune(self) -> None:
        """Remove the empty folders of former jobs (their files were deleted by the jobs that took them over)."""
        for folder in self.checkpoints.glob("*/*"):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        for folder in self.checkpoints.iterdir():
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def _whole(self) -> Iterator[Checkpoint]:
        for pattern in ("*/chk-*/_metadata", "savepoint-*/_metadata"):
            for metadata in self.checkpoints.glob(pattern):
                number = _checkpoint_id(metadata)
                if number is not None:
                    clean = metadata.parent.name.startswith("savepoint-")
                    yield Checkpoint(number, metadata.parent, clean, metadata.stat().st_mtime)


def fingerprint(transform: TransformConfig) -> str:
    """Changes with everything that lays out the state of a transform."""
    laid_out: list[object] = [transform.sql, dict(transform.inputs), transform.to, list(transform.key)]
    laid_out.append([[udf.name, udf.returns, udf.batch] for udf in transform.udfs])
    return hashlib.sha256(json.dumps(laid_out, sort_keys=True).encode()).hexdigest()


def _checkpoint_id(metadata: Path) -> int | None:
    """The id in the file's head, None for a file that is not whole."""
    with metadata.open("rb") as file:
        head = file.read(16)
    if len(head) < 16:
        return None
    magic, _, number = struct.unpack(">iiq", head)
    return int(number) if magic == _MAGIC else None
