"""kafka-configs.sh and kafka-client-metrics.sh."""

from tests.conformance.tool_cases.bench import Bench, Case, expect

_TOOL = "kafka.admin.ConfigCommand"


def topic(bench: Bench) -> None:
    """Set, described, taken back."""
    bench.create("configured")
    entity = ("--entity-type", "topics", "--entity-name", "configured")
    added = "retention.ms=5000,cleanup.policy=[compact,delete]"
    expect(bench.run(_TOOL, *entity, "--alter", "--add-config", added), "Completed updating config for topic")
    set_now = bench.run(_TOOL, *entity, "--describe")
    expect(set_now, r"retention.ms=5000 sensitive=false", "cleanup.policy=compact,delete")
    expect(bench.run(_TOOL, *entity, "--describe", "--all"), "segment.bytes=1073741824", "retention.ms=5000")
    bench.run(_TOOL, *entity, "--alter", "--delete-config", "retention.ms,cleanup.policy")
    assert "retention.ms" not in bench.run(_TOOL, *entity, "--describe")
    wrong = bench.run(_TOOL, *entity, "--alter", "--add-config", "retention.ms=soon", fails=True)
    expect(wrong, "retention.ms")


def broker(bench: Bench) -> None:
    """One broker's own."""
    entity = ("--entity-type", "brokers", "--entity-name", "1")
    every = bench.run(_TOOL, *entity, "--describe", "--all")
    expect(every, r"num.partitions=1 ", r"log.retention.hours=168|log.retention.ms=")
    bench.run(_TOOL, *entity, "--alter", "--add-config", "message.max.bytes=2000000")
    expect(bench.run(_TOOL, *entity, "--describe"), "message.max.bytes=2000000")
    bench.run(_TOOL, *entity, "--alter", "--delete-config", "message.max.bytes")


def brokers_default(bench: Bench) -> None:
    """What holds for every broker."""
    entity = ("--entity-type", "brokers", "--entity-default")
    bench.run(_TOOL, *entity, "--alter", "--add-config", "log.roll.ms=7000000")
    expect(bench.run(_TOOL, *entity, "--describe"), "log.roll.ms=7000000")
    bench.run(_TOOL, *entity, "--alter", "--delete-config", "log.roll.ms")


def user_quota(bench: Bench) -> None:
    """A user's, and the default of users."""
    for entity in (("--entity-name", "alice"), ("--entity-default",)):
        whom = ("--entity-type", "users", *entity)
        bench.run(_TOOL, *whom, "--alter", "--add-config", "producer_byte_rate=1024,consumer_byte_rate=2048")
        told = bench.run(_TOOL, *whom, "--describe")
        expect(told, r"producer_byte_rate=1024", r"consumer_byte_rate=2048")
        bench.run(_TOOL, *whom, "--alter", "--delete-config", "producer_byte_rate,consumer_byte_rate")
        assert "producer_byte_rate" not in bench.run(_TOOL, *whom, "--describe")


def request_quota(bench: Bench) -> None:
    """Time that a user's requests may take."""
    whom = ("--entity-type", "users", "--entity-name", "carol")
    bench.run(_TOOL, *whom, "--alter", "--add-config", "request_percentage=50")
    expect(bench.run(_TOOL, *whom, "--describe"), "request_percentage=50")


def client_quota(bench: Bench) -> None:
    """A client id's, alone and of one user."""
    for who in ((), ("--entity-type", "users", "--entity-name", "alice")):
        whom = (*who, "--entity-type", "clients", "--entity-name", "loader")
        bench.run(_TOOL, *whom, "--alter", "--add-config", "consumer_byte_rate=2048")
        expect(bench.run(_TOOL, *whom, "--describe"), r"client-id 'loader'.*consumer_byte_rate=2048")
        bench.run(_TOOL, *whom, "--alter", "--delete-config", "consumer_byte_rate")


def ip_quota(bench: Bench) -> None:
    """Connections of one address."""
    whom = ("--entity-type", "ips", "--entity-name", "127.0.0.9")
    bench.run(_TOOL, *whom, "--alter", "--add-config", "connection_creation_rate=10")
    expect(bench.run(_TOOL, *whom, "--describe"), "connection_creation_rate=10")


def scram_user(bench: Bench) -> None:
    """Made, described without the secret, removed."""
    whom = ("--entity-type", "users", "--entity-name", "bob")
    made = bench.run(_TOOL, *whom, "--alter", "--add-config", "SCRAM-SHA-256=[iterations=4096,password=pw]")
    expect(made, "Completed updating config for user bob")
    expect(bench.run(_TOOL, *whom, "--describe"), "SCRAM-SHA-256=iterations=4096")
    bench.run(_TOOL, *whom, "--alter", "--delete-config", "SCRAM-SHA-256")
    assert "SCRAM" not in bench.run(_TOOL, *whom, "--describe")


def broker_loggers(bench: Bench) -> None:
    """Log levels of the running broker."""
    whom = ("--entity-type", "broker-loggers", "--entity-name", "1")
    expect(bench.run(_TOOL, *whom, "--describe"), "Dynamic configs for broker-logger 1 are:", "root=")


def group(bench: Bench) -> None:
    """Configs of one group."""
    whom = ("--entity-type", "groups", "--entity-name", "g")
    bench.run(_TOOL, *whom, "--alter", "--add-config", "consumer.session.timeout.ms=50000")
    expect(bench.run(_TOOL, *whom, "--describe"), "consumer.session.timeout.ms=50000")


def client_metrics_list(bench: Bench) -> None:
    """There are none."""
    assert bench.run("ClientMetricsCommand", "--list").strip() == ""


def client_metrics_alter(bench: Bench) -> None:
    """A subscription to clients' metrics."""
    whom = ("--name", "m", "--metrics", "org.apache.kafka.producer.", "--interval", "30000")
    bench.run("ClientMetricsCommand", "--alter", *whom)
    expect(bench.run("ClientMetricsCommand", "--describe", "--name", "m"), "interval.ms=30000")


CASES: tuple[Case, ...] = (
    topic,
    broker,
    brokers_default,
    user_quota,
    request_quota,
    client_quota,
    ip_quota,
    scram_user,
    broker_loggers,
    group,
    client_metrics_list,
    client_metrics_alter,
)
