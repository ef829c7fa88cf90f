"""Kafka's own Java code reads the record batches that we build, and we read those that it builds."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fixtures.broker import BrokerFactory
from tests.fixtures.wire import WireClient, create, fetch_request
from tests.interop.kafka_tools import KafkaTools

from tailrace.broker.protocol import ApiKey
from tailrace.broker.records.batch import finish_batch, iterate_batches, set_base_offset
from tailrace.broker.records.columnar import BytesColumn, HeaderColumns
from tailrace.broker.records.columnar_build import build_batch
from tailrace.broker.records.compression import Codec
from tailrace.broker.records.record import Record, decode_records, encode_batch

pytestmark = [pytest.mark.java, pytest.mark.slow]
FEW = settings(  # each example starts a JVM
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TEXT = st.text("abcXYZ019_-", min_size=1, max_size=80)
ROW = st.tuples(st.none() | TEXT, st.none() | TEXT, st.integers(0, 1 << 42))
_LINE = re.compile(
    r"\| offset: (\d+) CreateTime: (\d+) keySize: (-?\d+) valueSize: (-?\d+) .*?headerKeys: \[(.*?)\]"
    r"(?: key: (\S+))?(?: payload: (\S+))?$"
)

Row = tuple[str | None, str | None, int]


def encoded(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def by_columns(rows: list[Row], limit: int) -> list[bytearray]:
    count = len(rows)
    numbers = np.arange(count, dtype=np.int64)
    headers = HeaderColumns(
        np.full(count, ord("u"), np.uint8), numbers, numbers, numbers, numbers,
        np.where(numbers % 3, -1, 0).astype(np.int16), (b'["note"]',), BytesColumn.from_strings([None] * count),
    )  # fmt: skip
    keys, values = (BytesColumn.from_strings([encoded(row[i]) for row in rows]) for i in (0, 1))  # type: ignore[arg-type]
    times = np.array([row[2] for row in rows], np.int64)
    batches, offset = [], 0
    for batch, records in build_batch(keys, values, headers, times, rows=numbers, limit=limit):
        finish_batch(batch, 7, 1, offset, transactional=True)
        set_base_offset(batch, offset, 0)
        batches.append(batch)
        offset += records
    return batches


def by_record(rows: list[Row], start: int, codec: Codec) -> bytes:
    records = [Record(encoded(key), encoded(value), at, headers=(("h", b"v"),)) for key, value, at in rows]
    return bytes(encode_batch(records, codec=codec, base_offset=start))


def as_java_prints(rows: list[Row], headers: Iterator[str]) -> list[tuple[str, ...]]:
    return [
        (str(at), str(-1 if key is None else len(key)), str(-1 if value is None else len(value)), names,
         key or "", value or "")
        for (key, value, at), names in zip(rows, headers, strict=True)
    ]  # fmt: skip


@FEW
@given(
    rows=st.lists(ROW, min_size=20, max_size=60),
    limit=st.sampled_from([200, 700, 1 << 20]),
    more=st.lists(ROW, min_size=1, max_size=10),
)
def test_java_reads_the_batches_that_we_build(
    kafka_tools: KafkaTools, tmp_path: Path, rows: list[Row], limit: int, more: list[Row]
) -> None:
    log = tmp_path / "00000000000000000000.log"
    packed = b"".join(
        by_record(more, len(rows) + number * len(more), codec) for number, codec in enumerate(Codec)
    )
    log.write_bytes(b"".join(by_columns(rows, limit)) + packed)
    printed = kafka_tools.run(
        "org.apache.kafka.tools.DumpLogSegments", "--files", str(log), "--deep-iteration", "--print-data-log"
    )
    assert "isvalid: true" in printed and "isvalid: false" not in printed
    found = [match.groups(default="") for match in map(_LINE.search, printed.splitlines()) if match]
    assert [int(line[0]) for line in found] == list(range(len(rows) + len(Codec) * len(more)))
    ours = ("op,lsn,seq,xid,ts" + ("" if number % 3 else ",unchanged") for number in range(len(rows)))
    expected = as_java_prints(rows, ours)
    expected += as_java_prints(more * len(Codec), iter(["h"] * len(more) * len(Codec)))
    assert [line[1:] for line in found] == expected


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_we_read_the_batches_that_java_builds(
    broker_factory: BrokerFactory, kafka_tools: KafkaTools, codec: str
) -> None:
    broker, numbers = broker_factory(), itertools.count()

    @FEW
    @given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=50, max_size=150))
    def write_and_read(lines: list[tuple[str, str, str]]) -> None:
        topic = f"t{next(numbers)}"
        with WireClient(broker.bootstrap) as wire:
            topic_id = create(wire, topic)
            kafka_tools.run(
                "org.apache.kafka.tools.ConsoleProducer",
                *("--bootstrap-server", broker.bootstrap, "--topic", topic, "--compression-codec", codec),
                *("--reader-property", "parse.key=true", "--reader-property", "parse.headers=true"),
                stdin="".join(f"h:{header}\t{key}\t{value}\n" for header, key, value in lines),
            )
            (fetched,) = wire.ask(ApiKey.FETCH, fetch_request(topic_id, max_bytes=1 << 24)).responses
            found = [
                record
                for header, batch in iterate_batches(fetched.partitions[0].records)
                for record in decode_records(batch)
            ]
        assert [(r.headers, r.key, r.value) for r in found] == [
            ((("h", header.encode()),), key.encode(), value.encode()) for header, key, value in lines
        ]

    write_and_read()
