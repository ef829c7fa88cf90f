"""A whole pipeline over our own broker with TLS, SCRAM and ACLs, and its registry, which asks for the same logins."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fixtures.certificates import Certificates
from tests.fixtures.registry import Stack
from tests.integration.pipeline.command import Shell, execute, wait_until

pytestmark = [pytest.mark.postgres, pytest.mark.slow, pytest.mark.timeout(400)]
PASSWORD, REGISTRY_LOGIN = "shop-secret-1", "reader:shop-secret-2"
PIPELINE = """\
version: 1
name: shop
broker: {{mode: external, bootstrap: "{bootstrap}", security.protocol: SASL_SSL, sasl.mechanism: SCRAM-SHA-256,
         sasl.username: shop, sasl.password: "${{env:KAFKA_PASSWORD}}", ssl.ca.location: "{authority}"}}
registry: {{url: "{registry}", basic.auth.user.info: "${{env:REGISTRY_LOGIN}}", ssl.ca.location: "{authority}"}}
source:
  type: postgres
  dsn: ${{env:PG_DSN}}
  tables: [public.orders]
sinks:
  lake: {{type: delta, path: "./lake/{{table}}"}}
"""
TRANSFORM = """\
  joined: {type: delta, from: big, path: "./lake/{table}"}
transforms:
  big: {from: {o: public.orders}, to: big.orders, key: [id], sql: "SELECT id, amount * 2 AS twice FROM o WHERE id > 10"}
"""


@pytest.fixture
def stack(tmp_path: Path, certificates: Certificates) -> Iterator[Stack]:
    """Two users who are super, one for the brokers, one for the registry; logins hold for three seconds."""
    users = {"shop": PASSWORD, "reader": REGISTRY_LOGIN.partition(":")[2]}
    login = tmp_path / "registry.properties"
    login.write_text(
        "security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\nsasl.username=shop\n"
        f"sasl.password={PASSWORD}\nssl.ca.location={certificates.authority}\n"
    )
    running = Stack(
        tmp_path / "stack",
        registry_listen="https://127.0.0.1:0",
        command_config=login,
        listeners=["SASL_SSL://127.0.0.1:0"],
        ssl_keystore_location=str(certificates.folder / "broker.pem"),
        scram_users=[f"{name}={password}" for name, password in users.items()],
        authorizer_class_name="StandardAuthorizer",
        super_users="User:shop;User:reader",
        connections_max_reauth_ms=3_000,
    )
    running.start()
    yield running
    running.kill()


def pipeline(stack: Stack, certificates: Certificates, more: str = "") -> str:
    place = {
        "bootstrap": stack.bootstrap, "authority": certificates.authority, "registry": stack.registry_url
    }  # fmt: skip
    return PIPELINE.format(**place) + more


@pytest.mark.parametrize(
    "more", ["", pytest.param(TRANSFORM, marks=pytest.mark.flink)], ids=["direct", "flink"]
)
def test_every_part_logs_in_and_every_table_equals_its_source(
    stack: Stack,
    certificates: Certificates,
    postgres: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: str,
    request: pytest.FixtureRequest,
) -> None:
    if more:
        request.getfixturevalue("flink_environment")
    monkeypatch.setenv("KAFKA_PASSWORD", PASSWORD)
    monkeypatch.setenv("REGISTRY_LOGIN", REGISTRY_LOGIN)
    execute(
        postgres,
        "CREATE TABLE orders (id bigint PRIMARY KEY, amount numeric(12,2) NOT NULL)",
        "INSERT INTO orders SELECT i, i * 1.25 FROM generate_series(1, 1000) i",
    )
    shell = Shell(tmp_path, postgres)
    file = shell.write(pipeline(stack, certificates, more))
    told = [shell.tailrace("plan", file).out, shell.tailrace("plan", file, "--json").out]
    with shell.running(file) as run:
        wait_until(
            lambda: run.poll() is not None or all(t["rows"] for t in shell.status(file)["tables"]),
            "every table has rows",
            240,
        )
        # deletes behind the rows: through a transform they carry nothing but the key
        execute(
            postgres, "UPDATE orders SET amount = 7 WHERE id % 3 = 0", "DELETE FROM orders WHERE id % 7 = 0"
        )
        verdict = shell.tailrace(
            "verify", file, "--data-dir", shell.data_dir, "--timeout", "200", timeout_s=240
        )
        assert run.poll() is None, run.communicate()[1]
        told += [verdict.out, verdict.err, str(shell.status(file))]
    assert verdict.code == 0, verdict.out + verdict.err
    told += [path.read_text(errors="replace") for path in shell.data_dir.rglob("*") if path.is_file()]
    assert not any(secret in text for secret in (PASSWORD, "shop-secret-2") for text in told)


def test_a_wrong_password_ends_the_run_with_one_paragraph(
    stack: Stack,
    certificates: Certificates,
    postgres: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "hunter2")
    monkeypatch.setenv("REGISTRY_LOGIN", REGISTRY_LOGIN)
    execute(postgres, "CREATE TABLE orders (id bigint PRIMARY KEY)")
    shell = Shell(tmp_path, postgres)
    ended = shell.run(shell.write(pipeline(stack, certificates)))
    assert ended.code == 2, ended.err
    assert "refuses the login of user 'shop' by SCRAM-SHA-256" in ended.err
    assert "check sasl.username and sasl.password" in ended.err
    assert "Traceback" not in ended.err and "hunter2" not in ended.out + ended.err
