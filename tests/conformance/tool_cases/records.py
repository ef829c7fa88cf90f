"""kafka-get-offsets.sh, kafka-delete-records.sh, kafka-log-dirs.sh, kafka-dump-log.sh, kafka-replica-verification.sh."""

import json

from tests.conformance.tool_cases.bench import START_MS, Bench, Case, expect


def get_offsets(bench: Bench) -> None:
    """Ends, starts, the newest timestamp, and a time between."""
    bench.create("counted", 2)
    bench.write("counted", 10)
    for at, offset in (
        ("latest", 10),
        ("earliest", 0),
        ("max-timestamp", 9),
        (str(START_MS + 4), 4),
        ("earliest-local", 0),
    ):
        told = bench.run("GetOffsetShell", "--topic", "counted", "--time", at)
        expect(told, rf"^counted:0:{offset}$")
    every = bench.run("GetOffsetShell", "--topic-partitions", "counted:0-2", "--exclude-internal-topics")
    expect(every, "^counted:0:10$", "^counted:1:0$")


def delete_records(bench: Bench) -> None:
    """Before an offset; the log starts there from then on."""
    bench.create("trimmed")
    bench.write("trimmed", 10)
    wanted = {"partitions": [{"topic": "trimmed", "partition": 0, "offset": 6}], "version": 1}
    told = bench.run("DeleteRecordsCommand", "--offset-json-file", bench.file("to.json", json.dumps(wanted)))
    expect(told, r"partition: trimmed-0\s+low_watermark: 6")
    expect(bench.run("GetOffsetShell", "--topic", "trimmed", "--time", "earliest"), "^trimmed:0:6$")


def log_dirs(bench: Bench) -> None:
    """The size of every partition."""
    bench.create("sized")
    bench.write("sized", 10)
    told = bench.run("LogDirsCommand", "--describe", "--topic-list", "sized")
    (document,) = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    (directory,) = document["brokers"][0]["logDirs"]
    assert directory["error"] is None, directory
    (partition,) = directory["partitions"]
    assert (partition["partition"], partition["offsetLag"], partition["isFuture"]) == ("sized-0", 0, False)
    assert partition["size"] > 100, partition


def dump_log(bench: Bench) -> None:
    """The files of a partition, as Kafka's own code reads them."""
    bench.create("dumped")
    bench.write("dumped", 10)
    (log,) = bench.data.rglob("dumped-0/*.log")
    told = bench.call("DumpLogSegments", "--files", str(log), "--print-data-log")
    expect(told, r"baseOffset: 0 lastOffset: \d", "isvalid: true", "payload: 9$")
    assert "isvalid: false" not in told


def verify_replicas(bench: Bench) -> None:
    """One replica lags behind nobody."""
    bench.create("verified")
    bench.write("verified", 10)
    arguments = ("--topics-include", "verified", "--time", "-2", "--report-interval-ms", "500")
    lines = []
    with bench.started("ReplicaVerificationTool", "--broker-list", bench.bootstrap, *arguments) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if "max lag is 0 for partition" in line and "at offset 10" in line:
                return
    raise AssertionError("".join(lines)[-500:])


CASES: tuple[Case, ...] = (get_offsets, delete_records, log_dirs, dump_log, verify_replicas)
