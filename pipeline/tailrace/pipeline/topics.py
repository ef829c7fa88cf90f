"""Looking into a broker from the command line: topics, offsets, schemas and records."""

import json
import re
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro

from tailrace.broker.client import EARLIEST, LATEST, Client, Fetcher, TopicPartition
from tailrace.broker.records.columnar_parse import parse_batches
from tailrace.changes import ConfigError, TailraceError
from tailrace.pipeline.plan import Endpoints
from tailrace.registry.client import RegistryClient

_DEPTHS = ("", "*/", "*/*/")
_PATIENCE_S = 10.0  # a person waits for the answer
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def find_endpoints(
    bootstrap: str | None, registry_url: str | None = None, data_dir: Path | None = None
) -> Endpoints:
    """Addresses given on the command line, else those of the pipeline running on `data_dir`.

    Without either, those of the one pipeline that runs under .tailrace here or up to two folders below.
    ConfigError when there is none or more than one.
    """
    if bootstrap and registry_url:
        return Endpoints(bootstrap, registry_url)
    if data_dir is not None:
        files = [data_dir / "endpoints.json"]
    else:
        files = [path for depth in _DEPTHS for path in Path.cwd().glob(f"{depth}.tailrace/*/endpoints.json")]
    found = {path.parent: json.loads(path.read_text()) for path in files if path.is_file()}
    if not bootstrap and len(found) != 1:
        running = ", ".join(map(str, sorted(found)))
        raise ConfigError(
            f"several pipelines run: {running}"
            if found
            else f"no pipeline runs under {data_dir or Path.cwd()}",
            fix="say which: --data-dir DIR, or --bootstrap host:port",
        )
    matching = [item for item in found.values() if bootstrap in (None, item["bootstrap"])]
    url = registry_url or (matching[0]["registry_url"] if matching else "")
    return Endpoints(bootstrap or matching[0]["bootstrap"], url)


def _client(bootstrap: str) -> Client:
    return Client(bootstrap, client_id="tailrace-cli", retry_for_s=_PATIENCE_S)


def list_topics(bootstrap: str) -> list[dict[str, Any]]:
    """Every topic with its partitions and the offsets between its ends."""
    client = _client(bootstrap)
    try:
        places = [place for _, topic in sorted(client.metadata().items()) for place in topic.partitions]
        earliest, latest = _ends(client, places)
        rows: dict[str, dict[str, Any]] = {}
        for place in places:
            row = rows.setdefault(place.topic, {"topic": place.topic, "partitions": 0, "records": 0})
            row["partitions"] += 1
            row["records"] += latest[place] - earliest[place]
        return list(rows.values())
    finally:
        client.close()


def describe_topic(endpoints: Endpoints, topic: str) -> dict[str, Any]:
    """Offsets of each partition and the newest key and value schema."""
    client = _client(endpoints.bootstrap)
    try:
        places = _partitions(client, topic)
        earliest, latest = _ends(client, places)
    finally:
        client.close()
    schemas = {}
    if endpoints.registry_url:
        registry = RegistryClient(endpoints.registry_url)
        for subject in (f"{topic}-key", f"{topic}-value"):
            found = registry.latest(subject)
            if found is not None:
                schemas[subject] = {"id": found[0], "schema": json.loads(found[1])}
        registry.close()
    return {
        "topic": topic,
        "partitions": [
            {"partition": place.partition, "earliest": earliest[place], "latest": latest[place]}
            for place in places
        ],
        "schemas": schemas,
    }


def read_topic(endpoints: Endpoints, topic: str, start: str, count: int | None) -> Iterator[dict[str, Any]]:
    """Committed records, oldest first per partition; with a count of None the topic is followed."""
    client = _client(endpoints.bootstrap)
    decode = _Decoder(endpoints.registry_url)
    try:
        places = _partitions(client, topic)
        starts = _start_positions(client, places, start)
        fetcher = Fetcher(client, starts)
        _, latest = _ends(client, places)
        left = count
        while left is None or left > 0:
            for fetched in fetcher.poll():
                records = parse_batches(fetched.batches, where=f"topic {topic}")
                for index in range(len(records)):
                    if records.offset[index] < starts[fetched.partition]:
                        continue  # a fetch begins with the whole batch that holds its offset
                    if left == 0:
                        return
                    yield {
                        "partition": fetched.partition.partition,
                        "offset": int(records.offset[index]),
                        "timestamp": int(records.timestamp_ms[index]),
                        "key": decode(records.key(index)),
                        "value": decode(records.value(index)),
                    }
                    left = None if left is None else left - 1
            if count is not None and all(fetcher.positions[place] >= latest[place] for place in places):
                return  # fewer records than asked for: do not wait for more
    finally:
        client.close()


class _Decoder:
    """Avro in Confluent's framing by the registry; JSON and text as they are; else hexadecimal."""

    def __init__(self, registry_url: str) -> None:
        self._registry = RegistryClient(registry_url) if registry_url else None
        self._schemas: dict[int, Any] = {}

    def __call__(self, data: bytes | None) -> Any:
        if data is None:
            return None
        if self._registry is not None and len(data) >= 5 and data[0] == 0:
            schema_id = int.from_bytes(data[1:5], "big")
            if schema_id not in self._schemas:
                self._schemas[schema_id] = fastavro.parse_schema(json.loads(self._registry.schema(schema_id)))
            return fastavro.schemaless_reader(BytesIO(data[5:]), self._schemas[schema_id], None)
        try:
            text = data.decode()
            return json.loads(text) if text[:1] in "{[" else text
        except ValueError:
            return data.hex()


def _partitions(client: Client, topic: str) -> list[TopicPartition]:
    found = client.metadata([topic])
    if topic not in found:
        raise TailraceError(f"there is no topic '{topic}'", fix="list them: tailrace topics list")
    return found[topic].partitions


def _ends(
    client: Client, places: list[TopicPartition]
) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
    latest = client.list_offsets(places, LATEST, isolation="read_committed")
    return client.list_offsets(places, EARLIEST), latest


def _start_positions(client: Client, places: list[TopicPartition], start: str) -> dict[TopicPartition, int]:
    earliest, latest = _ends(client, places)
    if start == "beginning":
        return earliest
    if start.isdigit():
        return {place: max(int(start), earliest[place]) for place in places}
    match = re.fullmatch(r"-(\d+)([smhd])", start)
    if match is None:
        raise ConfigError(
            f"'{start}' is no place to start", fix="write beginning, an offset, or an age like -1h"
        )
    since_ms = int((time.time() - int(match[1]) * _UNITS_S[match[2]]) * 1000)
    found = client.list_offsets(places, since_ms)
    return {place: found[place] if found[place] >= 0 else latest[place] for place in places}
