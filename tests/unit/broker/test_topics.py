"""The topic catalog: durable creation, deletion, growth, configs, ids."""

import asyncio
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.broker.log import LogError, LogManager
from tailrace.broker.log.config import TopicConfig, read_topic_config
from tailrace.broker.log.topic_options import TOPIC_OPTIONS
from tailrace.broker.protocol.errors import ErrorCode
from tailrace.broker.records.compression import Codec
from tailrace.broker.records.record import Record, encode_batch
from tailrace.broker.topics import Topics
from tailrace.changes.errors import ConfigError, TailraceError

NOW_MS = 1_790_000_000_000


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
    made = catalog.topics.create("orders", 3, {"retention.ms": "1000"})
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
        ("cleanup.policy", "delete,"),
        ("compression.type", "ZSTD"),
        ("compression.type", "none"),
        ("compression.gzip.level", "0"),
        ("compression.lz4.level", "18"),
        ("compression.zstd.level", "23"),
        ("min.cleanable.dirty.ratio", "1.1"),
        ("min.cleanable.dirty.ratio", "nan"),
        ("max.compaction.lag.ms", "0"),
        ("message.timestamp.after.max.ms", "-1"),
        ("segment.index.bytes", "3"),
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
        ("flush.messages", "often"),
        ("segment.jitter.ms", "1"),
        ("preallocate", "true"),
        ("remote.storage.enable", "true"),
        ("index.interval.bytes", "100"),
        ("file.delete.delay.ms", "-1"),
        ("message.downconversion.enable", "true"),
    ],
)
def test_a_config_that_would_not_be_obeyed_is_refused(catalog: Catalog, name: str, value: str) -> None:
    catalog.topics.create("orders", 1, {"retention.ms": "5"})
    with refused(ErrorCode.INVALID_CONFIG):
        catalog.topics.set_configs("orders", {name: value})
    assert catalog.topics.get("orders").configs == {"retention.ms": "5"}


def test_a_topic_whose_cleanup_policy_is_empty_keeps_everything(catalog: Catalog) -> None:
    catalog.topics.create("orders", 1, {"cleanup.policy": ""})
    config = catalog.topics.log("orders", 0).config
    assert (config.compact, config.delete) == (False, False)


OBEYED: dict[str, tuple[str, dict[str, object]]] = {
    "cleanup.policy": ("compact,delete", {"compact": True, "delete": True}),
    "compression.type": ("lz4", {"codec": Codec.LZ4}),
    "compression.gzip.level": ("9", {"gzip_level": 9}),
    "compression.lz4.level": ("1", {"lz4_level": 1}),
    "compression.zstd.level": ("-5", {"zstd_level": -5}),
    "delete.retention.ms": ("7", {"delete_retention_ms": 7}),
    "file.delete.delay.ms": ("12", {"file_delete_delay_ms": 12}),
    "flush.messages": ("1", {}),  # everything is flushed before it is acknowledged: any bound is kept
    "flush.ms": ("1", {}),
    "max.compaction.lag.ms": ("14", {"max_compaction_lag_ms": 14}),
    "max.message.bytes": ("8", {"max_message_bytes": 8}),
    "message.timestamp.after.max.ms": ("15", {"timestamp_after_max_ms": 15}),
    "message.timestamp.before.max.ms": ("16", {"timestamp_before_max_ms": 16}),
    "message.timestamp.type": ("LogAppendTime", {"log_append_time": True}),
    "min.cleanable.dirty.ratio": ("0.25", {"min_cleanable_dirty_ratio": 0.25}),
    "min.compaction.lag.ms": ("9", {"min_compaction_lag_ms": 9}),
    "retention.bytes": ("10", {"retention_bytes": 10}),
    "retention.ms": ("11", {"retention_ms": 11}),
    "segment.bytes": ("2000", {"segment_bytes": 2000}),
    "segment.index.bytes": ("800", {"segment_index_bytes": 800}),
    "segment.ms": ("13", {"segment_ms": 13}),
}


def test_every_config_that_can_be_set_changes_the_log_at_once(catalog: Catalog) -> None:
    catalog.topics.create("orders", 1, {"retention.ms": "5"})
    log = catalog.topics.log("orders", 0)
    wanted = {name: text for name, (text, _) in OBEYED.items()}
    catalog.topics.set_configs("orders", wanted)
    fields: dict[str, object] = {}
    for _, found in OBEYED.values():
        fields |= found
    assert log.config == TopicConfig(**fields)  # type: ignore[arg-type]
    described = {entry.name: entry for entry in catalog.topics.describe_configs("orders")}
    assert {name: entry.value for name, entry in described.items() if name in wanted} == wanted
    assert {name for name, entry in described.items() if not entry.read_only} == set(OBEYED)
    assert {described[name].source for name in OBEYED} == {1}
    catalog.topics.set_configs("orders", {})
    assert log.config == TopicConfig()
    described = {entry.name: entry for entry in catalog.topics.describe_configs("orders")}
    assert {name for name, entry in described.items() if entry.source != 5} == {"min.insync.replicas"}


def test_a_config_that_cannot_be_obeyed_is_read_only_and_takes_the_value_that_holds(catalog: Catalog) -> None:
    fixed = {name: option.default for name, option in TOPIC_OPTIONS.items() if option.fixed}
    assert fixed["min.insync.replicas"] == "1" and fixed["unclean.leader.election.enable"] == "false"
    catalog.topics.create("orders", 1, fixed)
    assert catalog.topics.log("orders", 0).config == TopicConfig()


def test_all_configs_of_kafka_are_known() -> None:
    assert set(TOPIC_OPTIONS) == {
        *OBEYED,
        *("index.interval.bytes", "min.insync.replicas", "preallocate"),
        *("follower.replication.throttled.replicas", "leader.replication.throttled.replicas"),
        *("local.retention.bytes", "local.retention.ms", "remote.storage.enable"),
        *("remote.log.copy.disable", "remote.log.delete.on.disable"),
        *("segment.jitter.ms", "unclean.leader.election.enable"),
    }


def test_the_two_compaction_lags_must_leave_a_time_between_them(catalog: Catalog) -> None:
    with refused(ErrorCode.INVALID_CONFIG):
        catalog.topics.create("orders", 1, {"min.compaction.lag.ms": "10", "max.compaction.lag.ms": "9"})
    lags = {"cleanup.policy": "compact", "max.compaction.lag.ms": "9"}
    catalog.topics.create("orders", 1, lags)
    assert catalog.topics.log("orders", 0).config.segment_ms == 9  # else the newest segment would be late
    catalog.topics.create("more", 1, {"max.compaction.lag.ms": "9"})
    assert catalog.topics.log("more", 0).config.segment_ms == TopicConfig().segment_ms


def test_defaults_set_on_the_broker_are_obeyed_by_topics_that_say_nothing_else(catalog: Catalog) -> None:
    topics = catalog.topics
    topics.create("own", 1, {"retention.ms": "5"})
    topics.create("__state", 1, {}, internal=True)
    topics.set_broker_configs("", {"log.retention.ms": "7", "message.max.bytes": "8"})
    topics.set_broker_configs("1", {"log.retention.ms": "6"})
    topics.create("new", 1, {})

    def configs() -> list[tuple[int, int]]:
        logs = [catalog.topics.log(name, 0).config for name in ("own", "new", "__state")]
        return [(config.retention_ms, config.max_message_bytes) for config in logs]

    default = TopicConfig()
    expected = [(5, 8), (6, 8), (default.retention_ms, default.max_message_bytes)]
    assert configs() == expected
    catalog.crash_and_open()
    assert configs() == expected
    entry = next(e for e in catalog.topics.describe_configs("own") if e.name == "retention.ms")
    assert [(s.name, s.value, s.source) for s in entry.synonyms] == [
        ("retention.ms", "5", 1),
        ("log.retention.ms", "6", 2),
        ("log.retention.ms", "7", 3),
        ("log.retention.ms", "604800000", 5),
    ]
    assert [(e.name, e.value, e.source) for e in catalog.topics.describe_broker_configs("")] == [
        ("message.max.bytes", "8", 3),
        ("min.insync.replicas", "1", 3),
        ("log.retention.ms", "7", 3),
    ]
    catalog.topics.set_broker_configs("1", {})
    assert configs()[1] == (7, 8)


def test_a_default_that_some_topic_could_not_obey_is_refused(catalog: Catalog) -> None:
    catalog.topics.create("orders", 1, {"min.compaction.lag.ms": "10"})
    for configs in (
        {"log.cleaner.max.compaction.lag.ms": "9"},
        {"log.retention.ms": "soon"},
        {"num.io.threads": "2"},
        {"min.insync.replicas": "2"},
    ):
        with refused(ErrorCode.INVALID_CONFIG):
            catalog.topics.set_broker_configs("", configs)
    assert [e.name for e in catalog.topics.describe_broker_configs("")] == ["min.insync.replicas"]


def test_names_that_metrics_cannot_tell_apart_are_refused(catalog: Catalog) -> None:
    catalog.topics.create("a.b", 1, {})
    with refused(ErrorCode.INVALID_TOPIC_EXCEPTION):
        catalog.topics.create("a_b", 1, {})
    catalog.topics.delete("a.b")
    catalog.topics.create("a_b", 1, {})


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
    batch = encode_batch([Record(None, value, NOW_MS)])
    log = catalog.topics.log(topic, partition)
    return log.append(batch, now_ms=NOW_MS, leader_epoch=catalog.logs.leader_epoch).base_offset


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
        stale.append(encode_batch([Record(None, b"x", 1)]), now_ms=NOW_MS, leader_epoch=0)
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
    asyncio.run(catalog.logs.maintain())
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
    with pytest.raises(ConfigError, match="another broker"):
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
