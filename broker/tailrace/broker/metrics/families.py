"""A snapshot as Prometheus metrics, under the names that the JMX exporter gives to Kafka's own.

`kafka_consumergroup_*` are the names of kafka_exporter, which dashboards know too.  What Kafka has no name for
is `tailrace_*`.  Counters count from the start of the process.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from tailrace.broker.metrics.histogram import Histogram
from tailrace.broker.metrics.snapshot import PartitionNumbers, Snapshot
from tailrace.broker.protocol import ApiKey, ErrorCode

_PARTITION = ("topic", "partition")
_GROUP = ("consumergroup", *_PARTITION)

_GAUGES: tuple[tuple[str, str, Callable[[PartitionNumbers], float]], ...] = (
    ("kafka_log_log_size", "Bytes of the partition on disk.", lambda p: p.size),
    ("kafka_log_log_numlogsegments", "Segments of the partition.", lambda p: p.segments),
    ("kafka_log_log_logstartoffset", "First offset that may be read.", lambda p: p.log_start),
    ("kafka_log_log_logendoffset", "Offset of the next record.", lambda p: p.log_end),
    ("tailrace_partition_high_watermark", "End of what is fsynced.", lambda p: p.high_watermark),
    (
        "kafka_cluster_partition_laststableoffsetlag",
        "Fsynced records that read_committed consumers may not see yet.",
        lambda p: p.high_watermark - p.last_stable,
    ),
    (
        "tailrace_partition_last_stable_offset_age_seconds",
        "Since when the oldest open transaction holds the last stable offset back; 0: none does.",
        lambda p: p.unstable_for_s,
    ),
    (
        "tailrace_partition_unflushed_records",
        "Records that are appended and not fsynced yet.",
        lambda p: p.log_end - p.high_watermark,
    ),
)
_BY_TOPIC: tuple[tuple[str, str, Callable[[PartitionNumbers], int]], ...] = (
    ("kafka_server_brokertopicmetrics_bytesin", "Bytes of appended record batches.", lambda p: p.bytes_in),
    ("kafka_server_brokertopicmetrics_bytesout", "Bytes of fetched record batches.", lambda p: p.bytes_out),
    ("kafka_server_brokertopicmetrics_messagesin", "Appended records.", lambda p: p.records_in),
)


def families(snapshot: Snapshot) -> Iterator[Metric]:
    """Every metric with its samples."""
    yield from _topics(snapshot.partitions)
    yield from _partitions(snapshot.partitions)
    yield from _requests(snapshot)
    yield from _groups(snapshot)
    yield from _broker(snapshot)
    yield from ProcessCollector(registry=None).collect()


def api_name(api_key: int) -> str:
    """Kafka's name of an API: `DescribeLogDirs` for DESCRIBE_LOG_DIRS."""
    return "".join(word.capitalize() for word in ApiKey(api_key).name.split("_"))


def _topics(partitions: Iterable[PartitionNumbers]) -> Iterator[Metric]:
    for name, documentation, of in _BY_TOPIC:
        totals: Counter[str] = Counter()
        for partition in partitions:
            totals[partition.topic] += of(partition)
        family = CounterMetricFamily(name, documentation, labels=("topic",))
        for topic, total in totals.items():
            family.add_metric((topic,), total)
        yield family


def _partitions(partitions: Iterable[PartitionNumbers]) -> Iterator[Metric]:
    for name, documentation, of in _GAUGES:
        family = GaugeMetricFamily(name, documentation, labels=_PARTITION)
        for partition in partitions:
            family.add_metric((partition.topic, str(partition.partition)), of(partition))
        yield family


def _requests(snapshot: Snapshot) -> Iterator[Metric]:
    prefix = "kafka_network_requestmetrics_"
    requests = CounterMetricFamily(
        prefix + "requests", "Requests that were answered.", labels=("request", "version")
    )
    errors = CounterMetricFamily(
        prefix + "errors",
        "Error codes in answers; an answer without any counts as NONE.",
        labels=("request", "error"),
    )
    times = HistogramMetricFamily(
        prefix + "totaltimems", "From the request to its answer, in milliseconds.", labels=("request",)
    )
    throttled = CounterMetricFamily(
        "tailrace_throttle_milliseconds", "Throttle time that clients were told.", labels=("request",)
    )
    of_api: dict[str, Histogram] = {}
    codes: dict[str, Counter[str]] = {}
    throttled_ms: Counter[str] = Counter()
    for numbers in snapshot.requests:
        name = api_name(numbers.api_key)
        requests.add_metric((name, str(numbers.version)), numbers.times.count)
        of_api.setdefault(name, Histogram(numbers.times.bounds)).add(numbers.times)
        throttled_ms[name] += numbers.throttled_ms
        counted = codes.setdefault(name, Counter())
        counted["NONE"] += numbers.without_error
        for code, count in numbers.errors.items():
            counted[ErrorCode.of(code).name] += count
    for name, histogram in of_api.items():
        times.add_metric((name,), list(histogram.cumulative()), histogram.total)
        throttled.add_metric((name,), throttled_ms[name])
        for error, count in codes[name].items():
            errors.add_metric((name, error), count)
    yield from (requests, errors, times, throttled)


def _groups(snapshot: Snapshot) -> Iterator[Metric]:
    lag = GaugeMetricFamily(
        "kafka_consumergroup_lag", "Fsynced records behind the committed offset.", labels=_GROUP
    )
    current = GaugeMetricFamily("kafka_consumergroup_current_offset", "Committed offset.", labels=_GROUP)
    members = GaugeMetricFamily(
        "kafka_consumergroup_members", "Members of the group.", labels=("consumergroup", "state")
    )
    ends = {(log.topic, log.partition): log.high_watermark for log in snapshot.partitions}
    for group in snapshot.groups:
        members.add_metric((group.group, group.state), group.members)
        for (topic, partition), offset in group.offsets.items():
            labels = (group.group, topic, str(partition))
            current.add_metric(labels, offset)
            if (topic, partition) in ends:
                lag.add_metric(labels, max(0, ends[topic, partition] - offset))
    yield from (lag, current, members)


def _broker(snapshot: Snapshot) -> Iterator[Metric]:
    def gauge(name: str, documentation: str, value: float) -> Metric:
        return GaugeMetricFamily(name, documentation, value=value)

    online, offline = len(snapshot.partitions), len(snapshot.offline)
    yield gauge("kafka_server_replicamanager_partitioncount", "Partitions that are online.", online)
    yield gauge(
        "kafka_server_replicamanager_leadercount", "Partitions led here: all that are online.", online
    )
    yield gauge("kafka_server_replicamanager_offlinereplicacount", "Partitions that are offline.", offline)
    yield gauge(
        "kafka_controller_kafkacontroller_offlinepartitionscount", "Partitions that are offline.", offline
    )
    yield gauge("kafka_controller_kafkacontroller_globaltopiccount", "Topics.", snapshot.topics)
    yield gauge(
        "kafka_server_socket_server_metrics_connection_count", "Open connections.", snapshot.connections
    )
    yield CounterMetricFamily(
        "tailrace_network_received_bytes", "Bytes from clients.", value=snapshot.network_bytes_in
    )
    yield CounterMetricFamily(
        "tailrace_network_sent_bytes", "Bytes to clients.", value=snapshot.network_bytes_out
    )
    flush = HistogramMetricFamily(
        "kafka_log_logflushstats_logflushrateandtimems", "Rounds of fdatasync, in milliseconds."
    )
    flush.add_metric((), list(snapshot.flush_ms.cumulative()), snapshot.flush_ms.total)
    yield flush
    yield gauge(
        "tailrace_flush_backlog_partitions",
        "Partitions that wait for fdatasync.",
        snapshot.flush_backlog_partitions,
    )
    yield gauge(
        "tailrace_flush_backlog_age_seconds",
        "Age of the round of fdatasync that runs; 0: none does.",
        snapshot.flush_backlog_s,
    )
    states = GaugeMetricFamily("tailrace_transactions", "Transactional ids by state.", labels=("state",))
    for state, count in snapshot.transactions.items():
        states.add_metric((state,), count)
    yield states
    yield gauge(
        "tailrace_oldest_open_transaction_age_seconds",
        "Age of the oldest transaction without an outcome; 0: there is none.",
        snapshot.oldest_transaction_s,
    )
