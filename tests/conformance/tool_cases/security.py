"""kafka-acls.sh and kafka-delegation-tokens.sh."""

from tests.conformance.tool_cases.bench import Bench, Case, expect

_TOOL = "AclCommand"


def add_list_remove(bench: Bench) -> None:
    """One rule."""
    rule = ("--allow-principal", "User:alice", "--operation", "Read", "--topic", "secret")
    expect(bench.run(_TOOL, "--add", *rule), "Adding ACLs for resource .*TOPIC.*secret")
    listed = bench.run(_TOOL, "--list", "--topic", "secret")
    expect(listed, r"principal=User:alice, host=\*, operation=READ, permissionType=ALLOW")
    bench.run(_TOOL, "--remove", "--force", *rule)
    assert "User:alice" not in bench.run(_TOOL, "--list", "--topic", "secret")


def conveniences(bench: Bench) -> None:
    """What a producer and a consumer need, as one rule each, on a prefix."""
    who = ("--allow-principal", "User:etl", "--topic", "lake.", "--resource-pattern-type", "prefixed")
    bench.run(_TOOL, "--add", "--producer", *who, "--transactional-id", "etl", "--idempotent")
    bench.run(_TOOL, "--add", "--consumer", *who, "--group", "etl")
    listed = bench.run(_TOOL, "--list", "--principal", "User:etl")
    expect(
        listed,
        r"name=lake\., patternType=PREFIXED",
        "operation=WRITE",
        "operation=CREATE",
        "operation=READ",
        "operation=IDEMPOTENT_WRITE",
        "resourceType=TRANSACTIONAL_ID",
        "resourceType=GROUP",
    )


def deny_from_a_host(bench: Bench) -> None:
    """Deny rules, hosts, and the match filter."""
    rule = (
        "--deny-principal",
        "User:eve",
        "--deny-host",
        "10.0.0.1",
        "--operation",
        "All",
        "--topic",
        "lake.raw",
    )
    bench.run(_TOOL, "--add", *rule)
    matching = bench.run(_TOOL, "--list", "--topic", "lake.raw", "--resource-pattern-type", "match")
    expect(matching, "principal=User:eve, host=10.0.0.1, operation=ALL, permissionType=DENY")


def delegation_tokens(bench: Bench) -> None:
    """A token that stands for a login."""
    config = bench.file("client.properties", "")
    made = ("--create", "--max-life-time-period", "-1", "--command-config", config)
    expect(bench.run("DelegationTokenCommand", *made), "Created delegation token with tokenId")


CASES: tuple[Case, ...] = (add_list_remove, conveniences, deny_from_a_host, delegation_tokens)
