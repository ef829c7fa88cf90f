"""The pipeline file: every mistake at once, each at its place, with a fix."""

import pickle
from pathlib import Path

import pytest

from tailrace.pipeline.diagnostics import SpecError
from tailrace.pipeline.load import load_spec
from tailrace.pipeline.part import read_endpoints
from tailrace.pipeline.plan import Endpoints, make_plan
from tailrace.registry.login import RegistryLogin
from tailrace.security.secrets import Secret

MINIMAL = """\
version: 1
name: shop
source:
  type: postgres
  dsn: ${env:PG_DSN}
  tables: [public.orders, public.customers]
sinks:
  lake:
    type: delta
    path: ./lake/{table}
"""
ENVIRONMENT = {"PG_DSN": "host=127.0.0.1 dbname=shop"}


def problems(
    tmp_path: Path, text: str, environment: dict[str, str] | None = None
) -> list[tuple[int, int, str, str]]:
    file = tmp_path / "pipeline.yaml"
    file.write_text(text)
    with pytest.raises(SpecError) as refused:
        load_spec(file, ENVIRONMENT if environment is None else environment)
    assert refused.value.exit_code == 2
    return [
        (item.line, item.column, item.code, f"{item.message} {item.fix}")
        for item in refused.value.diagnostics
    ]


def test_the_minimal_pipeline_is_accepted_and_needs_no_java(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(MINIMAL)
    plan = make_plan(load_spec(file, ENVIRONMENT))
    assert plan.parts() == ("broker", "source", "sink.lake")
    config = plan.sink_config("lake", tmp_path, Endpoints("h:1", "http://h:2"))
    assert [(item.topic, item.target) for item in config.inputs] == [
        ("raw.shop.orders", "orders"),
        ("raw.shop.customers", "customers"),
    ]
    assert config.control_topic == "_tailrace.shop.control"


def test_the_examples_are_accepted() -> None:
    examples = sorted((Path(__file__).parents[3] / "examples").glob("*/pipeline.yaml"))
    assert examples
    for file in examples:
        make_plan(load_spec(file, ENVIRONMENT))


def test_every_mistake_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    text = (
        MINIMAL.replace("name: shop", "nmae: shop")
        .replace("type: delta", "type: dleta")
        .replace("public.customers]", "customers]")
        .replace("  tables:", "  slto: x\n  tables:")
    )
    found = problems(tmp_path, text)
    assert [(line, code) for line, _, code, _ in found] == [
        (1, "E201"),
        (2, "E202"),
        (6, "E202"),
        (7, "E203"),
        (10, "E401"),
    ]
    assert "did you mean 'name'?" in found[1][3]
    assert "did you mean 'slot'?" in found[2][3]
    assert "delta" in found[4][3]


def test_a_mistake_is_drawn_with_a_caret_under_it(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(MINIMAL.replace("    path:", "    mode: upsrt\n    path:"))
    with pytest.raises(SpecError) as refused:
        load_spec(file, ENVIRONMENT)
    lines = str(refused.value).splitlines()
    assert lines[0].startswith(f"{file}:10:5: E203 ")
    assert lines[1] == "        mode: upsrt"
    assert lines[2] == "        ^"
    assert "1 problem in" in lines[-1]


def test_a_missing_environment_variable_is_named(tmp_path: Path) -> None:
    found = problems(tmp_path, MINIMAL, {})
    assert found[0][:3] == (5, 3, "E110")
    assert "${env:PG_DSN}" in found[0][3]


def test_a_value_cannot_change_the_document(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(MINIMAL.replace("name: shop", "name: ${env:NAME}"))
    spec = load_spec(file, {**ENVIRONMENT, "NAME": "shop"}).spec
    assert spec.name == "shop"
    found = problems(
        tmp_path, MINIMAL.replace("name: shop", "name: ${env:NAME}"), {**ENVIRONMENT, "NAME": "a\nversion: 2"}
    )
    assert [code for _, _, code, _ in found] == ["E203"]


@pytest.mark.parametrize(
    ("text", "place", "code"),
    [
        ("version: 1\nname: a\nname: b\n", (3, 1), "E102"),
        ("version: [1\nname: a\n", (2, 1), "E100"),
        ("- a\n", (1, 1), "E101"),
        ("", (1, 1), "E101"),
    ],
)
def test_what_is_not_yaml_is_told_with_its_place(
    tmp_path: Path, text: str, place: tuple[int, int], code: str
) -> None:
    line, column, found, _ = problems(tmp_path, text)[0]
    assert (found, line) == (code, place[0])
    assert column >= 1


def test_references_to_unknown_topics_and_files_are_told(tmp_path: Path) -> None:
    text = MINIMAL + (
        "    from: [public.order, enriched]\n"
        "transforms:\n"
        "  enrich:\n"
        "    from: {o: public.ordres}\n"
        "    to: enriched\n"
        "    key: [id]\n"
        "    sql: SELECT 1\n"
        '    udfs: {risk: {python: "nowhere.py:f", returns: DOUBLE}}\n'
    )
    found = problems(tmp_path, text)
    assert [(line, code) for line, _, code, _ in found] == [(11, "E305"), (14, "E305"), (18, "E306")]
    assert "did you mean 'public.orders'?" in found[0][3]


def test_plugin_options_are_checked_at_their_place(tmp_path: Path) -> None:
    found = problems(tmp_path, MINIMAL + "    pth: x\n")
    assert found[0][:3] == (11, 5, "E202")
    assert "did you mean 'path'?" in found[0][3]


CLUSTER = {
    "security.protocol": "SASL_SSL",
    "sasl.mechanism": "SCRAM-SHA-512",
    "sasl.username": "shop",
    "sasl.password": "${env:KAFKA_PASSWORD}",
}
SECRETS = {**ENVIRONMENT, "KAFKA_PASSWORD": "hunter2", "REGISTRY_LOGIN": "shop:hunter3"}


def over_kafka(registry: str, **changes: str | None) -> str:
    """MINIMAL with its log in a secured Kafka: the two lines of the README; `sasl__password=None` leaves one out."""
    options = {**CLUSTER, **{name.replace("__", "."): value for name, value in changes.items()}}
    shown = ", ".join(f'{name}: "{value}"' for name, value in options.items() if value is not None)
    return f'{MINIMAL}broker: {{mode: external, bootstrap: "k:9093", {shown}}}\nregistry: {{{registry}}}\n'


def test_a_secured_kafka_and_registry_take_two_lines_and_every_part_gets_them(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    (tmp_path / "ca.pem").write_text("")
    file.write_text(
        over_kafka(
            'url: "https://r:8081", basic.auth.user.info: "${env:REGISTRY_LOGIN}", ssl.ca.location: "ca.pem"',
            ssl__ca__location="ca.pem",
        )
    )
    plan = make_plan(load_spec(file, SECRETS))
    assert plan.parts() == ("source", "sink.lake")
    endpoints = read_endpoints(plan, tmp_path)
    assert endpoints is not None and endpoints.bootstrap == "k:9093"
    parts = (
        plan.source_config(tmp_path, endpoints),
        plan.sink_config("lake", tmp_path, endpoints),
        plan.flink_config(tmp_path, endpoints),
    )
    for config in parts:
        assert config.security.username == "shop"
        assert config.security.password == Secret("hunter2")
        assert config.security.authorities == tmp_path / "ca.pem"
        assert config.registry_login == RegistryLogin(Secret("shop:hunter3"), tmp_path / "ca.pem")


def test_no_secret_of_the_cluster_is_in_the_plan(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(over_kafka('url: "https://r:8081", basic.auth.user.info: "${env:REGISTRY_LOGIN}"'))
    loaded = load_spec(file, SECRETS)
    plan = make_plan(loaded)
    for text in (repr(loaded), repr(plan), str(plan.as_json()), repr(read_endpoints(plan, tmp_path))):
        assert "hunter" not in text
    with pytest.raises(TypeError, match="secret"):
        pickle.dumps(plan)


@pytest.mark.parametrize(
    ("changes", "option", "code", "said"),
    [
        ({"sasl__pasword": "x"}, "sasl.pasword", "E202", "did you mean 'sasl.password'?"),
        ({"sasl__jaas__config": "x"}, "sasl.jaas.config", "E202", "give sasl.username and sasl.password"),
        ({"security__protocol": "TLS"}, "security.protocol", "E203", "use PLAINTEXT, SSL"),
        ({"ssl__ca__location": "no.pem"}, "ssl.ca.location", "E203", "there is no file"),
        ({"security__protocol": None}, "sasl.mechanism", "E301", "set security.protocol to SASL_SSL"),
        ({"sasl__password": None}, "sasl.mechanism", "E301", "needs sasl.username and sasl.password"),
    ],
)
def test_a_mistake_in_the_options_of_a_cluster_has_its_place(
    tmp_path: Path, changes: dict[str, str | None], option: str, code: str, said: str
) -> None:
    text = over_kafka('url: "https://r:8081"', **changes)
    line = MINIMAL.count("\n") + 1
    column = text.splitlines()[line - 1].index(option) + 1
    (found,) = problems(tmp_path, text, SECRETS)
    assert found[:3] == (line, column, code)
    assert said in found[3]


def test_the_options_of_a_cluster_belong_to_an_external_one(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, MINIMAL + "broker: {security.protocol: SSL}\n")
    assert found[2] == "E302" and "belongs to mode: external" in found[3]
    (found,) = problems(tmp_path, MINIMAL + "registry: {basic.auth.user.info: 'a:b'}\n")
    assert found[2] == "E301" and "needs a registry of its own" in found[3]


def test_the_registry_of_a_broker_with_an_authorizer_may_be_given_a_login(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(
        MINIMAL
        + "broker: {config: {authorizer.class.name: StandardAuthorizer}}\n"
        + 'registry: {basic.auth.user.info: "a:b", basic.auth.credentials.source: USER_INFO}\n'
    )
    assert load_spec(file, ENVIRONMENT).cluster.registry_login == RegistryLogin(Secret("a:b"))


@pytest.mark.parametrize(
    ("registry", "said"),
    [
        (
            'url: "http://r:8081", basic.auth.user.info: "${env:REGISTRY_LOGIN}"',
            "show the password to the network",
        ),
        ('url: "https://r:8081", basic.auth.user.info: hunter2', "is not user:password"),
        ('url: "https://r:8081", basic.auth.user: hunter2', "known here: basic.auth.user.info"),
        ('url: "https://r:8081", ssl.ca.location: "no.pem"', "there is no file"),
        (
            'url: "https://r:8081", basic.auth.credentials.source: SASL_INHERIT, basic.auth.user.info: "a:b"',
            "contradicts SASL_INHERIT",
        ),
    ],
)
def test_a_login_of_the_registry_that_cannot_be_used_is_told(
    tmp_path: Path, registry: str, said: str
) -> None:
    (found,) = problems(tmp_path, over_kafka(registry), SECRETS)
    assert said in found[3]


def test_a_password_in_the_file_is_not_drawn_beside_a_problem(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(over_kafka('url: "https://r:8081"', sasl__password="hunter2", sasl__mechanism="GSSAPI"))
    with pytest.raises(SpecError) as refused:
        load_spec(file, SECRETS)
    assert "hunter2" not in str(refused.value)
    assert "'GSSAPI', which this client does not speak" in str(refused.value)


def test_mistakes_in_the_options_of_the_embedded_broker_are_told_at_their_place(tmp_path: Path) -> None:
    config = "  config:\n    tailrace.durability: page_cache\n    num.partition: 2\n    node.id: one\n    log.dir: d\n"
    found = problems(tmp_path, f"{MINIMAL}broker:\n{config}")
    assert [(line, column, code) for line, column, code, _ in found] == [
        (14, 5, "E202"),
        (15, 5, "E203"),
        (16, 5, "E202"),
    ]
    assert "num.partitions" in found[0][3]


def test_transforms_that_could_not_log_in_are_told_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    bearer: dict[str, str | None] = {
        "sasl__mechanism": "OAUTHBEARER",
        "sasl__username": None,
        "sasl__password": None,
        "sasl__oauthbearer__token__endpoint__url": (tmp_path / "token").as_uri(),
    }
    text = over_kafka('url: "https://r:8081"', **bearer)
    file = tmp_path / "pipeline.yaml"
    file.write_text(text)
    assert load_spec(file, SECRETS).cluster.security.mechanism == "OAUTHBEARER"
    text += "transforms: {t: {from: {o: public.orders}, to: out, sql: SELECT 1}}\n"
    (found,) = problems(tmp_path, text, SECRETS)
    assert found[2] == "E302" and "transforms cannot log in by OAUTHBEARER" in found[3]
