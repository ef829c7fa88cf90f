"""--command-config: the verbs against a secured broker, and the properties file itself."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.fixtures.broker import BrokerFactory
from tests.fixtures.certificates import Certificates

from tailrace.broker.embedded import EmbeddedBroker
from tailrace.changes import ConfigError
from tailrace.pipeline.cli import main
from tailrace.pipeline.command_config import read_command_config
from tailrace.registry.login import RegistryLogin
from tailrace.security.secrets import Secret

PROPERTIES = """\
# how ops log in
security.protocol=SASL_SSL
sasl.mechanism=SCRAM-SHA-512
sasl.username=ops
sasl.password=${{file:{folder}/password}}
ssl.ca.location={authority}
"""
VERBS = [
    ("topics", "list"),
    ("topics", "describe", "orders"),
    ("consume", "orders", "-n", "1"),
    ("groups", "list"),
    ("acls", "list"),
    ("configs", "describe", "topic:orders"),
    ("transactions", "list"),
]


@pytest.fixture
def broker(broker_factory: BrokerFactory, certificates: Certificates) -> EmbeddedBroker:
    return broker_factory(
        listeners=("SASL_SSL://127.0.0.1:0",),
        env={"OPS_PASSWORD": "right"},
        ssl_keystore_location=str(certificates.folder / "broker.pem"),
        scram_users=("ops=${env:OPS_PASSWORD}",),
        authorizer_class_name="StandardAuthorizer",
        super_users="User:ops",
    )


@pytest.fixture
def properties(certificates: Certificates, tmp_path: Path) -> Path:
    """The properties of ops, whose password is in a file beside them."""
    file = tmp_path / "ops.properties"
    file.write_text(PROPERTIES.format(folder=tmp_path, authority=certificates.authority))
    (tmp_path / "password").write_text("right\n")
    return file


def tailrace(broker: EmbeddedBroker, *arguments: str) -> tuple[int, str, str]:
    ended = CliRunner().invoke(main, [*arguments, "--bootstrap", broker.bootstrap])
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    return ended.exit_code, ended.stdout, ended.stderr


def test_every_verb_works_with_the_right_password_and_says_why_not_with_the_wrong_one(
    broker: EmbeddedBroker, properties: Path
) -> None:
    login = ("--command-config", str(properties))
    assert tailrace(broker, "topics", "create", "orders", *login)[0] == 0
    for verb in VERBS:
        code, _, said = tailrace(broker, *verb, *login)
        assert code == 0, (verb, said)
    _, out, _ = tailrace(broker, "topics", "list", "--json", *login)
    assert "orders" in [topic["topic"] for topic in json.loads(out)]
    (properties.parent / "password").write_text("hunter2")
    for verb in VERBS:
        code, out, said = tailrace(broker, *verb, *login)
        assert (code, out) == (2, ""), verb
        assert "refuses the login of user 'ops' by SCRAM-SHA-512" in said
        assert "check sasl.username and sasl.password" in said
        assert "hunter2" not in said and "Traceback" not in said


def test_a_verb_without_a_login_is_told_what_the_broker_wants(broker: EmbeddedBroker) -> None:
    code, _, said = tailrace(broker, "topics", "list")
    assert code == 2
    assert "speaks TLS on this port, and security.protocol is PLAINTEXT" in said


def test_a_java_properties_file_is_read_with_its_comments_escapes_and_continued_lines(tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_text(
        "! by ops\n\n  security.protocol : SASL_SSL\nsasl.mechanism SCRAM-SHA-256\n"
        "sasl.username = a\\u0041\\=b\nsasl.password=hunt\\\n    er\\\\2=\n"
        "schema.registry.basic.auth.user.info=u:p\n"
    )
    found = read_command_config(file)
    assert found.security.username == "aA=b"
    assert found.security.password == Secret("hunter\\2=")
    assert found.registry_login == RegistryLogin(Secret("u:p"))


def test_the_registry_may_be_let_in_by_the_login_of_the_brokers(tmp_path: Path) -> None:
    file, authority = tmp_path / "client.properties", tmp_path / "ca.pem"
    authority.write_text("")
    file.write_text(
        "security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-256\nsasl.username=u\nsasl.password=p:1\n"
        "schema.registry.basic.auth.credentials.source=SASL_INHERIT\nschema.registry.ssl.ca.location=ca.pem\n"
    )
    assert read_command_config(file).registry_login == RegistryLogin(Secret("u:p:1"), authority)
    file.write_text(
        "security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER\n"
        "sasl.oauthbearer.token.endpoint.url=file:///token\n"
        "schema.registry.bearer.auth.credentials.source=SASL_OAUTHBEARER_INHERIT\n"
    )
    found = read_command_config(file)
    assert found.registry_login == RegistryLogin(tokens=found.security)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("schema.registry.basic.auth.credentials.source=URL", "use USER_INFO or SASL_INHERIT"),
        ("schema.registry.basic.auth.credentials.source=SASL_INHERIT", "needs sasl.username and sasl.password"),
        ("schema.registry.basic.auth.credentials.source=USER_INFO", "needs basic.auth.user.info"),
        ("schema.registry.ssl.ca.location=/no/such/file", "there is no file"),
        ("sasl.pasword=hunter2", "did you mean 'sasl.password'"),
        ("sasl.jaas.config=x password=\"hunter2\";", "give sasl.username and sasl.password"),
        ("hunter2", "line 1 is not name=value"),
        ("security.protocol=SASL_SSL\nsasl.password=${env:NO_SUCH_VARIABLE}", "refers to \\$NO_SUCH_VARIABLE, which is not"),
        ("security.protocol=SASL_SSL\nsasl.password=${file:/no/such/file}", "refers to /no/such/file: No such file"),
        ("sasl.password=hunter2", "set security.protocol to SASL_SSL"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_names_the_file_and_the_next_step(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "client.properties"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        read_command_config(file)
    assert str(file) in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere: No such file"):
        read_command_config(tmp_path / "nowhere")
