"""The verbs that administer a cluster, against a real broker: what they show is so, what they change is changed."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer
from tests.fixtures.wire import WireClient, batch, begin, create, produce_request, produced

from tailrace.broker.client import Client, TopicPartition
from tailrace.broker.embedded import EmbeddedBroker
from tailrace.broker.protocol import ApiKey, ErrorCode
from tailrace.broker.protocol import messages as m
from tailrace.pipeline.cli import main

DEADLINE_S = 30.0
SET_FOR_ALL = {"min.insync.replicas": "1"}  # as in a Kafka that was formatted with its defaults


@dataclass(frozen=True, slots=True)
class Command:
    """`tailrace ... --bootstrap` of one broker."""

    bootstrap: str

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        ended = CliRunner().invoke(main, [*arguments, "--bootstrap", self.bootstrap])
        assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
        return ended.exit_code, ended.stdout, ended.stderr

    def json(self, *arguments: str) -> Any:
        """What a verb that succeeds prints with --json."""
        code, out, err = self.run(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    def done(self, *arguments: str) -> str:
        """Standard output of a verb that succeeds."""
        code, out, err = self.run(*arguments)
        assert code == 0, err
        return out

    def refused(self, *arguments: str, code: int = 1) -> str:
        """The paragraph of a verb that fails."""
        ended, _, err = self.run(*arguments)
        assert ended == code, err
        assert err.startswith("error: ")
        assert "Traceback" not in err
        return err


@pytest.fixture
def command(broker: EmbeddedBroker) -> Command:
    return Command(broker.bootstrap)


@pytest.fixture
def client(broker: EmbeddedBroker) -> Iterator[Client]:
    with Client(broker.bootstrap, client_id="test") as client:
        yield client


def test_topics_are_made_grown_described_and_deleted(
    command: Command, wire: WireClient, client: Client
) -> None:
    command.done("topics", "create", "orders", "--partitions", "2", "-c", "retention.ms=-1")
    assert "exists already" in command.refused("topics", "create", "orders")
    command.done("topics", "alter", "orders", "--partitions", "3")
    records = batch(b"a", b"b")
    assert produced(wire.ask(ApiKey.PRODUCE, produce_request("orders", records, partition=1)))[0] == 0
    client.commit_offsets("readers", {TopicPartition("orders", 1): 1})
    found = command.json("topics", "describe", "orders")
    assert [(p["partition"], p["earliest"], p["latest"], p["bytes"]) for p in found["partitions"]] == [
        (0, 0, 0, 0),
        (1, 0, 2, len(records)),
        (2, 0, 0, 0),
    ]
    assert found["configs"] == {**SET_FOR_ALL, "retention.ms": "-1"}
    assert found["groups"] == [{"group": "readers", "state": "Empty", "lag": 1}]
    listed = {row["topic"]: row for row in command.json("topics", "list")}
    assert listed["orders"] == {"topic": "orders", "partitions": 3, "records": 2, "bytes": len(records)}
    for shown in (command.done("topics", "list"), command.done("topics", "describe", "orders")):
        assert "orders" in shown
    assert "cannot get 2" in command.refused("topics", "alter", "orders", "--partitions", "2")
    assert "there is no topic 'nothing'" in command.refused("topics", "delete", "orders", "nothing")
    command.done("topics", "delete", "orders")
    assert "tailrace topics list" in command.refused("topics", "describe", "orders")


def test_a_group_of_the_consumer_protocol_is_shown_with_where_its_members_stand(
    command: Command, wire: WireClient, client: Client
) -> None:
    create(wire, "orders", 2)
    said = m.ConsumerGroupHeartbeatRequest(
        "readers",
        "first",
        0,
        rebalance_timeout_ms=60_000,
        subscribed_topic_names=["orders"],
        topic_partitions=[],
    )
    assert wire.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, said).error_code == 0
    said.member_id = "second"
    said.subscribed_topic_names, said.subscribed_topic_regex = None, "ord.*"
    assert wire.ask(ApiKey.CONSUMER_GROUP_HEARTBEAT, said).error_code == 0
    assert command.json("groups", "list") == [
        {"group": "readers", "state": "Reconciling", "type": "consumer", "protocol_type": "consumer"}
    ]
    found = command.json("groups", "describe", "readers")
    assert (found["state"], found["type"], found["protocol"]) == ("Reconciling", "consumer", "uniform")
    first, second = found["members"]
    assert (first["member"], first["epoch"], first["subscription"]) == ("first", 1, ["orders"])
    assert (first["partitions"], first["target"]) == (["orders/0", "orders/1"], ["orders/0"])
    assert (second["partitions"], second["target"], second["subscription"]) == ([], ["orders/1"], ["ord.*"])
    assert "orders/0 orders/1" in command.done("groups", "describe", "readers")
    assert "stop its members" in command.refused("groups", "reset-offsets", "readers", "--to", "beginning")
    assert "stop its members" in command.refused("groups", "delete", "readers")


def test_a_group_is_shown_with_its_members_and_is_set_back_only_without_them(
    command: Command, wire: WireClient, client: Client
) -> None:
    create(wire, "orders")
    assert produced(wire.ask(ApiKey.PRODUCE, produce_request("orders", batch(b"a", b"b", b"c"))))[0] == 0
    options = {"bootstrap.servers": command.bootstrap, "group.id": "readers", "auto.offset.reset": "earliest"}
    consumer = Consumer({**options, "client.id": "shop", "enable.auto.commit": False})
    try:
        consumer.subscribe(["orders"])
        deadline = time.monotonic() + DEADLINE_S
        while not (message := consumer.poll(0.2)):
            assert time.monotonic() < deadline
        consumer.commit(message=message, asynchronous=False)
        found = command.json("groups", "describe", "readers")
        assert (found["state"], found["members"][0]["client_id"]) == ("Stable", "shop")
        assert found["members"][0]["partitions"] == ["orders/0"]
        assert [(row["committed"], row["end"], row["lag"]) for row in found["offsets"]] == [(1, 3, 2)]
        assert "orders/0" in command.done("groups", "describe", "readers")
        assert "stop its members" in command.refused(
            "groups", "reset-offsets", "readers", "--to", "beginning"
        )
        assert "stop its members" in command.refused("groups", "delete", "readers")
    finally:
        consumer.close()
    assert command.json("groups", "list")[0]["state"] == "Empty"
    planned = command.json("groups", "reset-offsets", "readers", "--to", "end", "--dry-run")
    assert planned == [{"topic": "orders", "partition": 0, "before": 1, "after": 3}]
    assert client.committed_offsets("readers") == {TopicPartition("orders", 0): 1}
    for to, offset in (("end", 3), ("beginning", 0), ("2", 2), ("99", 3), ("-1s", 3), ("1970-01-01", 0)):
        command.done("groups", "reset-offsets", "readers", "--to", to)
        assert client.committed_offsets("readers") == {TopicPartition("orders", 0): offset}
    assert "no place to start" in command.refused("groups", "reset-offsets", "readers", "--to", "x", code=2)
    command.done("groups", "delete", "readers")
    assert command.json("groups", "list") == []
    assert "tailrace groups list" in command.refused("groups", "describe", "readers")
    assert "--topic" in command.refused("groups", "reset-offsets", "new", "--to", "end")
    command.done("groups", "reset-offsets", "new", "--to", "end", "--topic", "orders")
    assert client.committed_offsets("new") == {TopicPartition("orders", 0): 3}


def test_an_open_transaction_is_shown_and_aborted_and_its_producer_is_out(
    command: Command, wire: WireClient, client: Client
) -> None:
    create(wire, "ledger")
    made = begin(wire, "payments", "ledger")
    assert [
        row["transactional_id"] for row in command.json("transactions", "list", "--state", "Ongoing")
    ] == ["payments"]
    found = command.json("transactions", "describe", "payments")
    assert (found["state"], found["partitions"]) == ("Ongoing", ["ledger/0"])
    assert found["open_for_s"] >= 0
    assert "payments" in command.done("transactions", "describe", "payments")
    place = TopicPartition("ledger", 0)
    assert client.list_offsets([place], isolation="read_committed") == {place: 0}
    command.done("transactions", "abort", "payments")
    assert client.list_offsets([place], isolation="read_committed") == {place: 2}
    late = m.EndTxnRequest("payments", made.producer_id, made.producer_epoch, True)
    assert wire.ask(ApiKey.END_TXN, late).error_code == ErrorCode.PRODUCER_FENCED
    assert "no open transaction" in command.refused("transactions", "abort", "payments")
    assert "tailrace transactions list" in command.refused("transactions", "describe", "nobody")
    assert "CompleteAbort" in command.refused("transactions", "list", "--state", "Odd")


def test_configs_are_shown_with_their_source_and_changed_one_by_one(
    command: Command, wire: WireClient
) -> None:
    create(wire, "orders")
    command.done("configs", "alter", "topic:orders", "retention.ms=1000", "segment.bytes=2048")
    assert {row["name"]: row["value"] for row in command.json("configs", "describe", "topic:orders")} == {
        **SET_FOR_ALL,
        "retention.ms": "1000",
        "segment.bytes": "2048",
    }
    command.done("configs", "alter", "topic:orders", "--delete", "retention.ms")
    assert "segment.bytes" in command.done("configs", "describe", "topic:orders")
    every = {row["name"]: row for row in command.json("configs", "describe", "topic:orders", "--all")}
    assert every["retention.ms"]["source"] == "default"
    assert every["min.insync.replicas"]["source"] == "dynamic default broker"
    assert every["retention.ms"]["documentation"]
    broker = {row["name"]: row for row in command.json("configs", "describe", "broker:1", "--all")}
    assert broker["num.partitions"]["value"] == "1"
    assert "retention.mss" in command.refused("configs", "alter", "topic:orders", "retention.mss=1")
    assert "NAME=VALUE" in command.refused("configs", "alter", "topic:orders", "retention.ms", code=2)
    assert "brokers are 1" in command.refused("configs", "describe", "broker:7", code=2)
    assert "topic:NAME" in command.refused("configs", "describe", "orders", code=2)


def test_acls_of_a_broker_without_an_authorizer_are_refused_with_the_reason(command: Command) -> None:
    assert "authorizer" in command.refused("acls", "list")
    rule = ("--principal", "User:alice", "--resource", "topic:orders", "--operation")
    assert "authorizer" in command.refused("acls", "add", *rule, "read")
    assert "did you mean 'read'" in command.refused("acls", "add", *rule, "reed", code=2)
    assert "--operation" in command.refused("acls", "add", "--principal", "User:alice", code=2)
    assert "--all" in command.refused("acls", "remove", code=2)
    assert "topic:NAME" in command.refused("acls", "list", "--resource", "orders", code=2)


def test_a_broker_that_is_not_there_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tailrace.pipeline.admin.cluster.PATIENCE_S", 0.5)
    told = Command("127.0.0.1:1").refused("groups", "list")
    assert "127.0.0.1:1" in told
    assert "check that the broker runs" in told
