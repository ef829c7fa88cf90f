"""Looking into a broker from the command line: topics, offsets, schemas and records."""

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro

from tailrace.broker.client import Fetcher
from tailrace.broker.records.columnar_parse import parse_batches
from tailrace.changes import ConfigError
from tailrace.pipeline.admin import topics as admin
from tailrace.pipeline.admin.cluster import open_client
from tailrace.pipeline.admin.places import offsets_at, parse_start
from tailrace.pipeline.plan import Endpoints
from tailrace.pipeline.status import is_running
from tailrace.registry.client import RegistryClient

_DEPTHS = ("", "*/", "*/*/")


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
    found = {path.parent: json.loads(path.read_text()) for path in files if is_running(path.parent)}
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


def describe_topic(endpoints: Endpoints, topic: str) -> dict[str, Any]:
    """What the cluster knows of a topic, and the newest key and value schema."""
    with open_client(endpoints) as client:
        found = admin.describe_topic(client, topic)
    found["schemas"] = schemas = {}
    if endpoints.registry_url:
        registry = RegistryClient(endpoints.registry_url, login=endpoints.registry_login)
        for subject in (f"{topic}-key", f"{topic}-value"):
            newest = registry.latest(subject)
            if newest is not None:
                schemas[subject] = {"id": newest[0], "schema": json.loads(newest[1])}
        registry.close()
    return found


def read_topic(endpoints: Endpoints, topic: str, start: str, count: int | None) -> Iterator[dict[str, Any]]:
    """Committed records, oldest first per partition; with a count of None the topic is followed."""
    where = parse_start(start)
    client = open_client(endpoints)
    decode = _Decoder(endpoints)
    try:
        places = admin.find_topic(client, topic).partitions
        earliest, latest = admin.ends(client, places)
        starts = offsets_at(client, places, where, earliest, latest)
        fetcher = Fetcher(client, starts)
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

    def __init__(self, endpoints: Endpoints) -> None:
        url, login = endpoints.registry_url, endpoints.registry_login
        self._registry = RegistryClient(url, login=login) if url else None
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
