"""The topic catalog: durable creation, deletion, growth, configs, ids."""

import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.broker.log import LogError, LogManager
from tailrace.broker.log.config import TOPIC_OPTIONS, TopicConfig, read_topic_config
from tailrace.broker.protocol.errors import ErrorCode
from tailrace.broker.records.record import Record, encode_batch
from tailrace.broker.topics import Topics
from tailrace.changes.errors import ConfigError, TailraceError


class Catalog:
    """Topics and their logs on one directory; `crash` leaves everything as a killed process would."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.open()

    def open(self) -> None:
        self.logs = LogManager(self.data_dir)
        self.topics = Topics(self.data_dir, self.logs)

    def stop(self) -> None:
        self.logs.close()
        self.topics.close()

    def crash(self) -> None:
        for log in self.logs.partitions():
            log.close()
        self.logs._lock.release()
        self.topics.close()

    def crash_and_open(self) -> None:
        self.crash()
        self.open()


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog(tmp_path)
    yield catalog
    catalog.stop()


def refused(code: ErrorCode) -> "pytest.RaisesExc[LogError]":
    return pytest.raises(LogError, check=lambda error: error.code is code)


def test_a_created_topic_is_there_after_a_crash(catalog: Catalog) -> None:
    made = catalog.topics.create("orders", 3, {"retention.ms": "1000", "segment.bytes": None})
    assert made.configs == {"retention.ms": "1000"}
    catalog.crash_and_open()
    assert catalog.topics.get("orders") == made
    assert catalog.topics.by_id(made.topic_id) == made
    assert [catalog.topics.log("orders", p).config.retention_ms for p in range(3)] == [1000] * 3
    with refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION):
        catalog.topics.log("orders", 3)


def test_the_cluster_id_never_changes(catalog: Catalog) -> None:
    first = catalog.topics.cluster_id
    catalog.crash_and_open()
    assert catalog.topics.cluster_id == first and len(first) == 22


def test_producer_ids_are_never_given_out_twice_over_crashes(catalog: Catalog) -> None:
    given_out = []
    for _ in range(3):
        given_out += [catalog.topics.allocate_producer_id() for _ in range(1500)]
        catalog.crash_and_open()
    assert len(set(given_out)) == len(given_out)


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "x" * 250, "ü", "a\n"])
def test_a_name_that_is_no_directory_name_is_refused(catalog: Catalog, name: str) -> None:
    with refused(ErrorCode.INVALID_TOPIC_EXCEPTION):
        catalog.topics.create(name, 1, {})


def test_wrong_creations_are_refused_and_leave_nothing(catalog: Catalog) -> None:
    catalog.topics.create("orders", 1, {})
    before = sorted(catalog.data_dir.iterdir())
    with refused(ErrorCode.TOPIC_ALREADY_EXISTS):
        catalog.topics.create("orders", 1, {})
    with refused(ErrorCode.INVALID_PARTITIONS):
        catalog.topics.create("more", 0, {})
    with refused(ErrorCode.INVALID_CONFIG):
        catalog.topics.create("more", 1, {"retention.ms": "soon"})
    assert sorted(catalog.data_dir.iterdir()) == before
    assert [topic.name for topic in catalog.topics.all()] == ["orders"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cleanup.policy", "squash"),
        ("cleanup.policy", ""),
        ("compression.type", "zstd"),
        ("message.timestamp.type", "createtime"),
        ("retention.ms", "-2"),
        ("retention.bytes", "1.5"),
        ("segment.bytes", "10"),
        ("segment.bytes", str(1 << 31)),
        ("segment.ms", "0"),
        ("min.compaction.lag.ms", "-1"),
        ("delete.retention.ms", "-1"),
        ("max.message.bytes", "-1"),
        ("unclean.leader.election.enable", "true"),
        ("min.insync.replicas", "2"),
        ("flush.messages", "1"),
    ],
)
def test_a_config_that_would_not_be_obeyed_is_refused(catalog: Catalog, name: str, value: str) -> None:
    catalog.topics.create("orders", 1, {"retention.ms": "5"})
    with refused(ErrorCode.INVALID_CONFIG):
        catalog.topics.set_configs("orders", {name: value})
    assert catalog.topics.get("orders").configs == {"retention.ms": "5"}


def test_every_config_is_described_with_its_source_and_changes_the_log_at_once(catalog: Catalog) -> None:
    catalog.topics.create("orders", 1, {"retention.ms": "5"})
    log = catalog.topics.log("orders", 0)
    wanted = {
        "cleanup.policy": "compact,delete",
        "compression.type": "producer",
        "delete.retention.ms": "7",
        "max.message.bytes": "8",
        "message.timestamp.type": "LogAppendTime",
        "min.compaction.lag.ms": "9",
        "retention.bytes": "10",
        "retention.ms": "11",
        "segment.bytes": "2000",
        "segment.ms": "13",
    }
    catalog.topics.set_configs("orders", wanted)
    assert {entry.name: entry.value for entry in catalog.topics.describe_configs("orders")} == wanted
    assert log.config == TopicConfig(True, True, 11, 10, 2000, 13, 9, 7, 8, True)
    catalog.topics.set_configs("orders", {"retention.ms": None})
    assert log.config == TopicConfig()
    assert {entry.source for entry in catalog.topics.describe_configs("orders")} == {5}


def test_the_documented_defaults_are_the_ones_in_force() -> None:
    assert (
        read_topic_config({name: option.default for name, option in TOPIC_OPTIONS.items()}) == TopicConfig()
    )


@given(st.dictionaries(st.sampled_from(sorted(TOPIC_OPTIONS)), st.text(max_size=20)))
def test_any_text_is_either_obeyed_or_refused(configs: Mapping[str, str]) -> None:
    try:
        read_topic_config(configs)
    except LogError as error:
        assert error.code is ErrorCode.INVALID_CONFIG


def append(catalog: Catalog, topic: str, partition: int, value: bytes) -> int:
    batch = encode_batch([Record(None, value, 1_790_000_000_000)])
    log = catalog.topics.log(topic, partition)
    return log.append(batch, now_ms=0, leader_epoch=catalog.logs.leader_epoch).base_offset


def test_a_topic_made_again_under_the_same_name_starts_empty_with_a_new_id(catalog: Catalog) -> None:
    first = catalog.topics.create("orders", 2, {})
    for _ in range(10):
        append(catalog, "orders", 1, b"old")
    catalog.crash_and_open()
    assert catalog.topics.log("orders", 1).log_end_offset == 10
    catalog.topics.delete("orders")
    assert catalog.topics.find("orders") is None
    with refused(ErrorCode.UNKNOWN_TOPIC_ID):
        catalog.topics.by_id(first.topic_id)
    second = catalog.topics.create("orders", 2, {})
    assert second.topic_id != first.topic_id
    assert append(catalog, "orders", 1, b"new") == 0
    catalog.crash_and_open()
    assert catalog.topics.log("orders", 1).log_end_offset == 1
    assert not catalog.logs.offline()


def test_a_log_held_over_a_deletion_refuses_to_write(catalog: Catalog) -> None:
    catalog.topics.create("orders", 1, {})
    stale = catalog.topics.log("orders", 0)
    catalog.topics.delete("orders")
    catalog.topics.create("orders", 1, {})
    with refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION):
        stale.append(encode_batch([Record(None, b"x", 1)]), now_ms=0, leader_epoch=0)
    with refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION):
        stale.read(0, 100, upper=0)
    assert catalog.topics.log("orders", 0).log_end_offset == 0


def test_partitions_can_only_be_added(catalog: Catalog) -> None:
    catalog.topics.create("orders", 2, {})
    append(catalog, "orders", 0, b"kept")
    assert catalog.topics.add_partitions("orders", 4).partitions == 4
    for wrong in (1, 4, 10_001):
        with refused(ErrorCode.INVALID_PARTITIONS):
            catalog.topics.add_partitions("orders", wrong)
    catalog.crash_and_open()
    assert catalog.topics.get("orders").partitions == 4
    assert [catalog.topics.log("orders", p).log_end_offset for p in range(4)] == [1, 0, 0, 0]


def test_a_creation_that_a_crash_cut_short_is_finished(catalog: Catalog) -> None:
    made = catalog.topics.create("orders", 3, {})
    catalog.crash()
    for path in (catalog.data_dir / "orders-2").iterdir():
        path.unlink()
    (catalog.data_dir / "orders-2").rmdir()
    (catalog.data_dir / "orders-1" / "partition.metadata").unlink()
    with sqlite3.connect(catalog.data_dir / "metadata.db") as db:
        db.execute("UPDATE topics SET created_partitions = 0")
    db.close()
    catalog.open()
    assert catalog.topics.get("orders") == made and not catalog.logs.offline()
    assert [append(catalog, "orders", p, b"x") for p in range(3)] == [0, 0, 0]


def test_a_deletion_that_a_crash_cut_short_is_finished(catalog: Catalog) -> None:
    made = catalog.topics.create("orders", 2, {})
    append(catalog, "orders", 0, b"old")
    catalog.crash()
    with sqlite3.connect(catalog.data_dir / "metadata.db") as db:
        db.execute("INSERT INTO deleted_topics VALUES (?, 'orders', 2)", (made.topic_id.bytes,))
        db.execute("DELETE FROM topics")
    db.close()
    catalog.open()
    assert not (catalog.data_dir / "orders-0").exists() and not (catalog.data_dir / "orders-1").exists()
    catalog.topics.create("orders", 1, {})
    assert catalog.topics.log("orders", 0).log_end_offset == 0


def test_a_vanished_directory_is_offline_not_empty(catalog: Catalog) -> None:
    catalog.topics.create("orders", 2, {})
    append(catalog, "orders", 0, b"acked")
    catalog.crash()
    (catalog.data_dir / "orders-0").rename(catalog.data_dir / "elsewhere")
    catalog.open()
    with refused(ErrorCode.KAFKA_STORAGE_ERROR):
        catalog.topics.log("orders", 0)
    assert catalog.topics.log("orders", 1).log_end_offset == 0
    assert "missing" in catalog.logs.offline()["orders", 0]


def test_a_directory_of_another_topic_is_offline_not_mixed_in(catalog: Catalog) -> None:
    made = catalog.topics.create("orders", 1, {})
    catalog.crash()
    (catalog.data_dir / "orders-0" / "partition.metadata").write_text("version: 0\ntopic_id: other\n")
    catalog.open()
    with refused(ErrorCode.KAFKA_STORAGE_ERROR):
        catalog.topics.log(made.name, 0)


def test_a_second_broker_on_the_directory_is_refused(catalog: Catalog) -> None:
    with pytest.raises(ConfigError, match="another broker uses"):
        LogManager(catalog.data_dir)


def test_a_database_of_a_later_release_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    other = tmp_path / "other"
    logs = LogManager(other)
    with sqlite3.connect(other / "metadata.db") as db:
        db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(TailraceError, match="has version 2"):
        Topics(other, logs)
    logs.close()


def test_ids_are_random_uuids(catalog: Catalog) -> None:
    ids = {catalog.topics.create(f"t{n}", 1, {}).topic_id for n in range(5)}
    assert len(ids) == 5 and UUID(int=0) not in ids
