"""Listeners: what is open to other machines needs TLS and authentication, or the start is refused."""

from pathlib import Path
from typing import Any

import pytest

from tailrace.broker.config import BrokerConfig
from tailrace.changes.errors import ConfigError
from tailrace.security.listeners import SecurityProtocol, is_loopback, parse_listeners

BEYOND = [
    "0.0.0.0",
    "10.1.2.3",
    "broker.example",
    "[::]",
    "[2001:db8::1]",
    "127.0.0.1.example",
    "localhost.example",
]


def config(tmp_path: Path, **options: Any) -> BrokerConfig:
    options.setdefault("ssl_keystore_location", "broker.pem")
    return BrokerConfig(tmp_path, **options)


def test_the_default_listens_on_loopback_only(tmp_path: Path) -> None:
    (door,) = BrokerConfig(tmp_path).doors()
    assert door.host == "127.0.0.1" and door.is_local
    assert door.protocol is SecurityProtocol.PLAINTEXT


@pytest.mark.parametrize("host", BEYOND)
@pytest.mark.parametrize(
    ("protocol", "lacking"),
    [
        ("PLAINTEXT", "neither TLS nor authentication"),
        ("SSL", "TLS but no authentication"),
        ("SASL_PLAINTEXT", "authentication but no TLS"),
    ],
)
def test_a_listener_beyond_loopback_without_tls_and_authentication_refuses_to_start(
    tmp_path: Path, host: str, protocol: str, lacking: str
) -> None:
    listener = f"{protocol}://{host}:9092"
    advertised = (f"{protocol}://broker.example:9092",)
    with pytest.raises(ConfigError) as error:
        config(tmp_path, listeners=(listener,), advertised_listeners=advertised)
    shown = host.strip("[]")
    assert f"would listen on {shown}, which other machines can reach" in str(error.value)
    assert lacking in str(error.value) and "--insecure" in str(error.value)
    assert config(tmp_path, listeners=(listener,), advertised_listeners=advertised, insecure=True).doors()


def test_one_open_listener_among_safe_ones_refuses_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither TLS nor authentication"):
        config(tmp_path, listeners=("SASL_SSL://10.1.2.3:9093", "PLAINTEXT://10.1.2.3:9092"))


def test_a_name_that_sounds_safe_does_not_make_a_listener_safe(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither TLS nor authentication"):
        config(
            tmp_path,
            listeners=("SASL_SSL://10.1.2.3:9093",),
            listener_security_protocol_map=("SASL_SSL:PLAINTEXT",),
        )


def test_tls_with_a_login_or_with_required_certificates_is_protected(tmp_path: Path) -> None:
    assert config(tmp_path, listeners=("SASL_SSL://10.1.2.3:9093",)).doors()
    assert config(tmp_path, listeners=("SSL://10.1.2.3:9093",), ssl_client_auth="required").doors()
    with pytest.raises(ConfigError, match="TLS but no authentication"):
        config(tmp_path, listeners=("SSL://10.1.2.3:9093",), ssl_client_auth="requested")


def test_plain_is_never_offered_outside_tls(tmp_path: Path) -> None:
    both = config(tmp_path, sasl_enabled_mechanisms=("PLAIN", "SCRAM-SHA-256"))
    assert both.offered(SecurityProtocol.SASL_PLAINTEXT) == ["SCRAM-SHA-256"]
    assert both.offered(SecurityProtocol.SASL_SSL) == ["PLAIN", "SCRAM-SHA-256"]
    with pytest.raises(ConfigError, match="PLAIN shows the password"):
        config(tmp_path, listeners=("SASL_PLAINTEXT://127.0.0.1:0",), sasl_enabled_mechanisms=("PLAIN",))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True), ("127.8.9.10", True), ("::1", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("", False), ("10.0.0.1", False), ("169.254.1.1", False),
        ("127.0.0.1.example", False), ("localhost.example", False), ("0x7f.1", False), ("127.1", False),
    ],
)  # fmt: skip
def test_loopback_is_what_only_this_machine_reaches(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_listeners_are_read_with_their_names_addresses_and_protocols() -> None:
    inside, outside = parse_listeners(
        ["PLAINTEXT://127.0.0.1:9092", " outside://[::1]:9093 "],
        ["OUTSIDE://broker.example:443"],
        ["OUTSIDE:SASL_SSL"],
    )
    assert (inside.name, inside.host, inside.port) == ("PLAINTEXT", "127.0.0.1", 9092)
    assert (inside.advertised_host, inside.advertised_port) == ("127.0.0.1", 0)
    assert (outside.name, outside.host, outside.protocol) == ("OUTSIDE", "::1", SecurityProtocol.SASL_SSL)
    assert (outside.advertised_host, outside.advertised_port) == ("broker.example", 443)
    assert str(outside) == "OUTSIDE://[::1]:9093"


@pytest.mark.parametrize(
    ("listeners", "advertised", "protocols", "told"),
    [
        (["127.0.0.1:9092"], [], [], "no listener"),
        (["PLAINTEXT://127.0.0.1"], [], [], "no listener"),
        (["PLAINTEXT://127.0.0.1:99999"], [], [], "no listener"),
        (["PLAINTEXT://user@host/x:9092"], [], [], "no listener"),
        (["FRONT://127.0.0.1:1"], [], [], "no security protocol"),
        (["FRONT://127.0.0.1:1"], [], ["FRONT:TLS"], "listener.security.protocol.map"),
        (["PLAINTEXT://127.0.0.1:1", "plaintext://127.0.0.1:2"], [], [], "twice"),
        (["PLAINTEXT://0.0.0.0:1"], [], [], "every address"),
        (["PLAINTEXT://127.0.0.1:1"], ["SSL://a:1"], [], "not among the listeners"),
    ],
)
def test_a_listener_that_cannot_be_obeyed_is_named(
    listeners: list[str], advertised: list[str], protocols: list[str], told: str
) -> None:
    with pytest.raises(ConfigError, match=told.replace(".", r"\.")):
        parse_listeners(listeners, advertised, protocols)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"authorizer_class_name": "kafka.security.authorizer.AclAuthorizer"}, "no authorizer"),
        ({"sasl_enabled_mechanisms": ("GSSAPI",)}, "no SASL mechanism 'GSSAPI'"),
        ({"sasl_enabled_mechanisms": ("OAUTHBEARER",)}, "whose tokens count"),
        ({"ssl_client_auth": "yes"}, "ssl.client.auth"),
        ({"max_connections": 0}, "greater than 0"),
        ({"max_connections_per_ip_overrides": ("10.0.0.1",)}, "max.connections.per.ip.overrides"),
        ({"connections_max_reauth_ms": -1}, "must not be negative"),
        ({"connection_failed_authentication_delay_ms": 20_000}, "must be shorter"),
        ({"advertised_listeners": ("SSL://a:1",)}, "needs listeners"),
        ({"listeners": ("SSL://127.0.0.1:0",), "ssl_keystore_location": ""}, "no certificate"),
        ({"super_users": "admin"}, "super.users"),
        ({"ssl_principal_mapping_rules": "RULE"}, "mapping.rules"),
    ],
)
def test_a_security_option_that_could_not_be_obeyed_stops_the_start(
    tmp_path: Path, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told.replace(".", r"\.")):
        config(tmp_path, **options)
