"""A client's options about TLS and SASL: what is refused, and with which next step; no secret is ever shown."""

from pathlib import Path
from typing import Any

import pytest

from tailrace.broker.client.security import OPTIONS, ClientSecurity, OptionError, read_security
from tailrace.security.listeners import SecurityProtocol
from tailrace.security.secrets import Secret

LOGIN = {
    "security.protocol": "SASL_SSL",
    "sasl.mechanism": "SCRAM-SHA-512",
    "sasl.username": "shop",
    "sasl.password": "hunter2",
}


def read(tmp_path: Path, **changes: Any) -> ClientSecurity:
    """LOGIN with changes; `sasl__password=None` leaves an option out."""
    given = {**LOGIN, **{name.replace("__", "."): value for name, value in changes.items()}}
    return read_security({name: value for name, value in given.items() if value is not None}, tmp_path)


def test_options_by_their_names_are_read(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("")
    found = read(tmp_path, ssl__ca__location="ca.pem", ssl__endpoint__identification__algorithm="")
    assert found.protocol is SecurityProtocol.SASL_SSL
    assert (found.username, found.password) == ("shop", Secret("hunter2"))
    assert found.authorities == tmp_path / "ca.pem"
    assert not found.checks_host


def test_the_host_is_checked_unless_told_otherwise(tmp_path: Path) -> None:
    assert read(tmp_path).checks_host
    assert read(tmp_path).tls_context().check_hostname


def test_no_secret_is_in_the_text_of_the_options(tmp_path: Path) -> None:
    assert "hunter2" not in repr(read(tmp_path))
    assert {name for name, option in OPTIONS.items() if option.secret} == {
        "sasl.password",
        "sasl.oauthbearer.client.secret",
        "ssl.key.password",
    }


@pytest.mark.parametrize(
    ("changes", "option", "said"),
    [
        ({"security__protocol": "TLS"}, "security.protocol", "PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"),
        ({"security__protocol": None}, "sasl.mechanism", "set security.protocol to SASL_SSL"),
        ({"security__protocol": "SSL"}, "sasl.mechanism", "set security.protocol to SASL_SSL"),
        ({"sasl__mechanism": None}, "security.protocol", "needs sasl.mechanism"),
        ({"sasl__mechanism": "GSSAPI"}, "sasl.mechanism", "'GSSAPI', which this client does not speak"),
        ({"sasl__mechanism": "PLAIN", "security__protocol": "SASL_PLAINTEXT"}, "sasl.mechanism", "password to the net"),
        ({"sasl__password": None}, "sasl.mechanism", "needs sasl.username and sasl.password"),
        ({"sasl__password": ""}, "sasl.mechanism", "needs sasl.username and sasl.password"),
        ({"sasl__password": 5.5}, "sasl.password", "quote it"),
        ({"ssl__ca__location": "nowhere.pem"}, "ssl.ca.location", "there is no file .*nowhere.pem"),
        ({"ssl__endpoint__identification__algorithm": "maybe"}, "ssl.endpoint.identification.algorithm", "https, none"),
        ({"ssl__key__password": "hunter2"}, "ssl.key.password", "without a key"),
        ({"sasl__jaas__config": "hunter2"}, "sasl.jaas.config", "give sasl.username and sasl.password"),
        ({"ssl__truststore__location": "x"}, "ssl.truststore.location", "give ssl.ca.location"),
        ({"sasl__pasword": "hunter2"}, "sasl.pasword", "is not an option"),
        ({"sasl__mechanism": "OAUTHBEARER"}, "sasl.mechanism", "token.endpoint.url, an https URL or file:"),
    ],
)  # fmt: skip
def test_what_cannot_be_obeyed_names_the_option_and_the_next_step(
    tmp_path: Path, changes: dict[str, Any], option: str, said: str
) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        read(tmp_path, **changes)
    assert caught.value.option == option
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://auth.example/token", "ftp://x", "/etc/token"])
def test_a_token_comes_from_a_file_or_over_tls(tmp_path: Path, url: str) -> None:
    with pytest.raises(OptionError, match="https URL or file:"):
        read(
            tmp_path, sasl__mechanism="OAUTHBEARER", sasl__oauthbearer__token__endpoint__url=url,
            sasl__oauthbearer__client__id="a", sasl__oauthbearer__client__secret="hunter2",
        )  # fmt: skip


def test_a_token_endpoint_needs_an_id_and_a_secret(tmp_path: Path) -> None:
    url = "https://auth.example/token"
    with pytest.raises(OptionError, match=r"client\.id and sasl\.oauthbearer\.client\.secret"):
        read(tmp_path, sasl__mechanism="OAUTHBEARER", sasl__oauthbearer__token__endpoint__url=url)


@pytest.mark.parametrize("option", ["ssl.ca.location", "ssl.certificate.location"])
def test_a_file_that_is_no_certificate_is_named(tmp_path: Path, option: str) -> None:
    (tmp_path / "bad.pem").write_text("hunter2")
    security = read(tmp_path, **{option.replace(".", "__"): "bad.pem"})
    with pytest.raises(OptionError, match=r"bad\.pem cannot be used: it is no PEM file") as caught:
        security.tls_context()
    assert "hunter2" not in str(caught.value)
