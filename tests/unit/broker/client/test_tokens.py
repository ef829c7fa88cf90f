"""OAUTHBEARER with real signed tokens: from a file, renewed on disk, and from a token endpoint."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey
from tests.fixtures.broker import BrokerFactory
from tests.fixtures.certificates import Certificates

from tailrace.broker.client import Client, LoginError
from tailrace.broker.client.errors import RetryableError
from tailrace.broker.client.security import ClientSecurity, read_security
from tailrace.broker.client.tokens import get_token
from tailrace.broker.embedded import EmbeddedBroker

KEY = ECKey.generate_key("P-256", {"kid": "one", "use": "sig", "alg": "ES256"})


def token(**changes: Any) -> str:
    claims = {"iss": "https://issuer", "aud": "kafka", "sub": "shop", "exp": int(time.time()) + 600}
    return jwt.encode({"alg": "ES256", "kid": "one"}, claims | changes, KEY)


@pytest.fixture
def broker(broker_factory: BrokerFactory, certificates: Certificates, tmp_path: Path) -> EmbeddedBroker:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [KEY.as_dict(private=False)]}))
    return broker_factory(
        listeners=("SASL_SSL://127.0.0.1:0",),
        ssl_keystore_location=str(certificates.folder / "broker.pem"),
        sasl_enabled_mechanisms=("OAUTHBEARER",),
        sasl_oauthbearer_jwks_endpoint_url=keys.as_uri(),
        sasl_oauthbearer_expected_issuer="https://issuer",
        sasl_oauthbearer_expected_audience=("kafka",),
        authorizer_class_name="StandardAuthorizer",
        super_users="User:shop",
    )


def bearer(certificates: Certificates, url: str, **more: str) -> ClientSecurity:
    given = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.token.endpoint.url": url,
        "ssl.ca.location": str(certificates.authority),
    }
    return read_security(
        given | {f"sasl.oauthbearer.{k.replace('_', '.')}": v for k, v in more.items()}, Path()
    )


def test_a_token_in_a_file_logs_in_and_is_read_anew_at_each_login(
    broker: EmbeddedBroker, certificates: Certificates, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(token(exp=int(time.time()) - 600) + "\n")
    with Client(broker.bootstrap, client_id="test", security=bearer(certificates, file.as_uri())) as client:
        with pytest.raises(LoginError, match=r"refuses the token.*check what file:") as caught:
            client.nodes()
        assert file.read_text().strip() not in str(caught.value)
        file.write_text(token())
        assert client.nodes() == [1]
        assert client.connection()._renew_at < time.monotonic() + 600, "the login ends with its token"


@pytest.mark.parametrize(("text", "said"), [("", "holds no token"), (None, "cannot be read: No such file")])
def test_a_file_without_a_token_is_named(
    certificates: Certificates, tmp_path: Path, text: str | None, said: str
) -> None:
    if text is not None:
        (tmp_path / "token").write_text(text)
    with pytest.raises(LoginError, match=said):
        get_token(bearer(certificates, (tmp_path / "token").as_uri()), timeout_s=5)


@pytest.fixture
def endpoint() -> Iterator[tuple[str, list[dict[str, Any]], list[tuple[int, bytes]]]]:
    """A token endpoint: its URL, what it was asked, and the answers that it shall give."""
    asked: list[dict[str, Any]] = []
    answers: list[tuple[int, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            asked.append({"login": self.headers["Authorization"], "form": form})
            status, body = answers.pop(0)
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:1/")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/token", asked, answers
        server.shutdown()
        thread.join()


def test_a_token_endpoint_gives_a_token_for_the_clients_credentials(
    broker: EmbeddedBroker,
    certificates: Certificates,
    endpoint: tuple[str, list[dict[str, Any]], list[tuple[int, bytes]]],
) -> None:
    url, asked, answers = endpoint
    answers.append((200, json.dumps({"access_token": token(), "token_type": "bearer"}).encode()))
    security = bearer(certificates, url, client_id="a:b", client_secret="hunter 2", scope="kafka")
    with Client(broker.bootstrap, client_id="test", security=security) as client:
        assert client.nodes() == [1]
    assert asked[0]["form"] == {"grant_type": ["client_credentials"], "scope": ["kafka"]}
    assert base64.b64decode(asked[0]["login"].removeprefix("Basic ")) == b"a%3Ab:hunter%202"


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        ((401, b"hunter2"), LoginError, "refuses client 'shop' with status 401"),
        ((302, b""), LoginError, "status 302"),
        ((503, b""), RetryableError, "answers 503"),
        ((200, b"<html>"), LoginError, "holds no token"),
        ((200, b'{"token": "hunter2"}'), LoginError, "holds no token"),
    ],
)
def test_an_endpoint_that_gives_none_is_told_and_asked_again_only_where_that_may_help(
    certificates: Certificates,
    endpoint: tuple[str, list[dict[str, Any]], list[tuple[int, bytes]]],
    answer: tuple[int, bytes],
    kind: type[Exception],
    said: str,
) -> None:
    url, _, answers = endpoint
    answers.append(answer)
    with pytest.raises(kind, match=said) as caught:
        get_token(bearer(certificates, url, client_id="shop", client_secret="hunter2"), timeout_s=5)
    assert "hunter2" not in str(caught.value)
