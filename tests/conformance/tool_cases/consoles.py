"""kafka-console-producer.sh and kafka-console-consumer.sh."""

from tests.conformance.tool_cases.bench import Bench, Case, expect

_FORMATTERS = "org.apache.kafka.tools.consumer"


def consumed(bench: Bench, topic: str, count: int, *arguments: str) -> list[str]:
    """The lines of `count` records; what the client logs before them is left out."""
    which = ("--topic", topic, "--max-messages", str(count), "--timeout-ms", "20000")
    printed = bench.run("consumer.ConsoleConsumer", *which, *arguments)
    expect(printed, f"^Processed a total of {count} messages$")
    return printed.splitlines()[-count - 1 : -1]


def lines(bench: Bench) -> None:
    """Lines in, lines out, in a group of its own."""
    bench.create("lines")
    bench.run("ConsoleProducer", "--topic", "lines", stdin="one\ntwo\nthree\n")
    printed = consumed(bench, "lines", 3, "--from-beginning", "--group", "console")
    assert printed == ["one", "two", "three"], printed


def keys_and_headers(bench: Bench) -> None:
    """What the console reads from a line, and shows again."""
    bench.create("keyed")
    read = [part for name in ("parse.key=true", "parse.headers=true") for part in ("--reader-property", name)]
    bench.run("ConsoleProducer", "--topic", "keyed", *read, stdin="h1:a,h2:b\tkey\tvalue\n")
    shown = [
        part
        for name in ("key", "headers", "offset", "partition", "timestamp")
        for part in ("--formatter-property", f"print.{name}=true")
    ]
    (printed,) = consumed(bench, "keyed", 1, "--from-beginning", *shown)
    expect(printed, r"CreateTime:\d+\s+Partition:0\s+Offset:0\s+h1:a,h2:b\s+key\s+value")


def codecs(bench: Bench) -> None:
    """Every codec."""
    bench.create("packed")
    packed = ("gzip", "snappy", "lz4", "zstd")
    for codec in packed:
        bench.run(
            "ConsoleProducer", "--topic", "packed", "--compression-codec", codec, stdin=codec * 99 + "\n"
        )
    printed = consumed(bench, "packed", 4, "--from-beginning")
    assert printed == [codec * 99 for codec in packed], printed


def from_an_offset(bench: Bench) -> None:
    """One partition from the middle, committed records only."""
    bench.create("middle")
    bench.write("middle", 10)
    where = ("--partition", "0", "--offset", "7", "--isolation-level", "read_committed")
    assert consumed(bench, "middle", 3, *where) == ["7", "8", "9"]


def offsets_topic(bench: Bench) -> None:
    """What groups committed, as Kafka's own formatter reads it."""
    bench.create("committed")
    bench.commit("committer", "committed", 5)
    formatter = ("--formatter", f"{_FORMATTERS}.OffsetsMessageFormatter")
    which = ("--from-beginning", "--timeout-ms", "8000", "--topic", "__consumer_offsets", *formatter)
    printed = bench.run("consumer.ConsoleConsumer", *which)
    expect(printed, r'"group":"committer","topic":"committed","partition":0.*"offset":5')


def transactions_topic(bench: Bench) -> None:
    """What transactions became, as Kafka's own formatter reads it."""
    bench.create("copied")
    bench.call(
        "ProducerPerformance",
        *("--topic", "copied", "--num-records", "10", "--record-size", "10", "--throughput", "-1"),
        *("--transactional-id", "printed", "--transaction-duration-ms", "10"),
        *("--command-property", f"bootstrap.servers={bench.bootstrap}"),
    )
    formatter = ("--formatter", f"{_FORMATTERS}.TransactionLogMessageFormatter")
    which = ("--from-beginning", "--timeout-ms", "8000", "--topic", "__transaction_state", *formatter)
    expect(
        bench.run("consumer.ConsoleConsumer", *which),
        r'"transactionalId":"printed"',
        r'"transactionStatus":4',
    )


CASES: tuple[Case, ...] = (lines, keys_and_headers, codecs, from_an_offset, offsets_topic, transactions_topic)
