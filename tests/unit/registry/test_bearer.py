"""A registry beside a broker that takes OAUTHBEARER: tokens in the Authorization header, by the broker's validator."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey
from tests.fixtures.registry_place import ADMIN, CLERK, PASSWORD, RegistryPlace, registry_place

from tailrace.broker.client import PLAINTEXT, LoginError
from tailrace.broker.client.security import ClientSecurity, read_security
from tailrace.changes.errors import ConfigError
from tailrace.registry.client import RegistryClient, RegistryRefusedError, RegistryUnavailableError
from tailrace.registry.login import RegistryLogin, read_login

KEY, STRANGER = RSAKey.generate_key(2048, {"kid": "k"}), RSAKey.generate_key(2048, {"kid": "k"})
ISSUER, AUDIENCE = "https://issuer.example", "kafka"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryPlace]:
    folder = tmp_path_factory.mktemp("bearer")
    keys: Path = folder / "jwks.json"
    keys.write_text(json.dumps({"keys": [KEY.as_dict(private=False)]}))
    with registry_place(
        folder / "data",
        sasl_enabled_mechanisms=("OAUTHBEARER",),
        sasl_oauthbearer_jwks_endpoint_url=keys.as_uri(),
        sasl_oauthbearer_expected_issuer=ISSUER,
        sasl_oauthbearer_expected_audience=(AUDIENCE,),
        sasl_oauthbearer_clock_skew_seconds=0,
    ) as made:
        yield made


def bearer(name: str, key: RSAKey = KEY, *, ends_in_s: float = 300, audience: str = AUDIENCE) -> str:
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": audience, "sub": name, "iat": now, "exp": now + int(ends_in_s)}
    return "Bearer " + jwt.encode({"alg": "RS256", "kid": "k"}, claims, key)


def test_a_token_of_the_issuer_is_a_login_and_the_authorizer_decides_for_its_user(
    place: RegistryPlace,
) -> None:
    assert place.ask("GET", "/config", Authorization=bearer(ADMIN))[0] == 200
    status, answer = place.ask("GET", "/config", Authorization=bearer(CLERK))
    assert (status, answer["error_code"]) == (403, 40301)


def test_a_token_that_does_not_count_and_a_password_are_refused_where_only_tokens_are_taken(
    place: RegistryPlace,
) -> None:
    bad = [
        bearer(ADMIN, STRANGER),
        bearer(ADMIN, ends_in_s=-600),
        bearer(ADMIN, audience="others"),
        bearer(ADMIN)[:-4],
        "Bearer",
    ]
    for header in bad:
        status, answer, headers = place.exchange("GET", "/", Authorization=header)
        assert (status, answer) == (401, {"error_code": 401, "message": "Unauthorized"})
        assert headers.get_all("WWW-Authenticate") == ['Bearer realm="tailrace"']
    assert place.ask("GET", "/", login=f"{ADMIN}:{PASSWORD}")[0] == 401


INHERIT = {"bearer.auth.credentials.source": "SASL_OAUTHBEARER_INHERIT"}


def cluster(url: str, **more: str) -> ClientSecurity:
    """The brokers' options, with the token at `url`."""
    given = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.token.endpoint.url": url,
    }
    return read_security(
        given | {f"sasl.oauthbearer.{k.replace('_', '.')}": v for k, v in more.items()}, Path()
    )


def client(place: RegistryPlace, security: ClientSecurity, timeout_s: float = 30) -> RegistryClient:
    login = read_login(INHERIT, Path(), security)
    return RegistryClient(f"http://127.0.0.1:{place.port}", login=login, timeout_s=timeout_s)


def test_our_own_client_brings_the_token_of_the_brokers_and_a_new_one_when_it_has_expired(
    place: RegistryPlace, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    first = bearer(ADMIN, ends_in_s=2)
    file.write_text(first.removeprefix("Bearer "))
    ours = client(place, cluster(file.as_uri()))
    made = ours.register("orders-value", '"long"')
    deadline = time.monotonic() + 20
    while place.ask("GET", "/subjects", Authorization=first)[0] == 200:
        assert time.monotonic() < deadline
    with pytest.raises(RegistryRefusedError, match="Unauthorized"):
        ours.latest("orders-value")
    file.write_text(bearer(ADMIN).removeprefix("Bearer "))
    assert ours.latest("orders-value") == (made, ours.schema(made))
    ours.close()


def test_a_token_that_does_not_count_or_is_not_there_is_told_by_our_own_client(
    place: RegistryPlace, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    ours = client(place, cluster(file.as_uri()))
    with pytest.raises(LoginError, match="cannot be read"):
        ours.latest("orders-value")
    bad = bearer(ADMIN, STRANGER).removeprefix("Bearer ")
    file.write_text(bad)
    with pytest.raises(RegistryRefusedError, match="Unauthorized") as caught:
        ours.latest("orders-value")
    assert bad not in str(caught.value)
    ours.close()
    nowhere = cluster("http://127.0.0.1:1/token", client_id="shop", client_secret="hunter2")
    waits = client(place, nowhere, timeout_s=0)
    with pytest.raises(RegistryUnavailableError, match=r"token endpoint \S+ does not answer"):
        waits.latest("orders-value")
    waits.close()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"bearer.auth.credentials.source": "URL"}, "use SASL_OAUTHBEARER_INHERIT"),
        (INHERIT | {"basic.auth.user.info": "a:b"}, "contradicts basic.auth"),
        (INHERIT, "needs sasl.mechanism OAUTHBEARER"),
    ],
)
def test_options_of_a_token_that_cannot_be_obeyed_are_told(given: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_login(given, Path(), PLAINTEXT)


def test_a_token_is_sent_over_https_only() -> None:
    login = RegistryLogin(tokens=cluster("file:///token"))
    with pytest.raises(ConfigError, match="show the token to the network"):
        RegistryClient("http://registry.example:8081", login=login)
