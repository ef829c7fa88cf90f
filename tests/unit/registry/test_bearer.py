"""A registry beside a broker that takes OAUTHBEARER: tokens in the Authorization header, by the broker's validator."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey
from tests.fixtures.registry_place import ADMIN, CLERK, PASSWORD, RegistryPlace, registry_place

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
