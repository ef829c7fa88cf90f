"""Which keys of a table changed after a fence: read from the raw topic, keys only."""

import pyarrow as pa

from tailrace.broker.client import LATEST, Client, Fetcher
from tailrace.changes import Lsn, TableId
from tailrace.pipeline.plan import Endpoints
from tailrace.pipeline.verify.canonical import as_text
from tailrace.registry.client import RegistryClient
from tailrace.registry.envelope import ChangeDecoder


def changed_keys(
    endpoints: Endpoints,
    topic: str,
    table: TableId,
    key: tuple[str, ...],
    *,
    after: Lsn,
    through: Lsn,
    since_ms: int,
) -> set[tuple[str, ...]]:
    """Keys (canonical text) of changes with after < LSN <= through; `since_ms` bounds how far back to read."""
    client = Client(endpoints.bootstrap, client_id="tailrace-verify", security=endpoints.security)
    registry = RegistryClient(endpoints.registry_url, login=endpoints.registry_login)
    try:
        partitions = client.metadata([topic])[topic].partitions
        starts = client.list_offsets(partitions, since_ms)
        ends = client.list_offsets(partitions, LATEST, isolation="read_committed")
        positions = {place: starts[place] for place in partitions if 0 <= starts[place] < ends[place]}
        decoder = ChangeDecoder(registry, topic, table)
        found: set[tuple[str, ...]] = set()
        fetcher = Fetcher(client, positions)
        while any(fetcher.positions[place] < ends[place] for place in positions):
            for fetched in fetcher.poll():
                for decoded in decoder.decode(fetched.batches, partition=fetched.partition.partition):
                    lsn = decoded.batch.lsn
                    wanted = (lsn > after) & (lsn <= through)
                    rows = (
                        pa.Table.from_batches([decoded.batch.rows]).select(list(key)).filter(pa.array(wanted))
                    )
                    found.update(tuple(row.values()) for row in as_text(rows).to_pylist())
        return found
    finally:
        registry.close()
        client.close()
