"""OAUTHBEARER: one good token by each algorithm, and more than forty bad ones, against a key set in a file and by HTTP."""

import asyncio
import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from tailrace.changes.errors import ConfigError
from tailrace.security.bearer import TokenError, TokenRules
from tailrace.security.oauth import ALGORITHMS, JwksKeys, JwtValidator

NOW = 1_800_000_000
ISSUER, AUDIENCE = "https://issuer.example", "kafka"
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
EC = {
    "ES256": ECKey.generate_key("P-256", {"kid": "ES256"}),
    "ES384": ECKey.generate_key("P-384", {"kid": "ES384"}),
    "ES512": ECKey.generate_key("P-521", {"kid": "ES512"}),
}
ED = OKPKey.generate_key("Ed25519", {"kid": "EdDSA"})
STRANGER = RSAKey.generate_key(2048, {"kid": "rsa"})  # the same key id, and not the issuer's
FOR_RS256 = RSAKey.generate_key(2048, {"kid": "rs256 only", "alg": "RS256"})
FOR_ENCRYPTION = RSAKey.generate_key(2048, {"kid": "encryption", "use": "enc"})
SHARED = OctKey.import_key("a shared secret of many characters", {"kid": "shared"})
WITHOUT_ID = RSAKey.generate_key(2048)
KEYS: list[Any] = [RSA, *EC.values(), ED, FOR_RS256, FOR_ENCRYPTION]
PUBLIC = [key.as_dict(private=False) for key in KEYS]
CLAIMS: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": NOW + 600, "iat": NOW}
OLD_AND_NEW = [*ALGORITHMS, "HS256", "none"]


def key_of(algorithm: str) -> Any:
    return {**EC, "EdDSA": ED}.get(algorithm, RSA)


def sign(claims: dict[str, Any] | bytes, key: Any = RSA, algorithm: str = "RS256", **header: Any) -> str:
    """A token; `header` adds to or (None) takes from `alg` and `kid`."""
    whole = {"alg": algorithm, "kid": key.kid, **header}
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    registry = jws.JWSRegistry(algorithms=OLD_AND_NEW, strict_check_header=False)
    named = {name: value for name, value in whole.items() if value is not None}
    return jws.serialize_compact(named, payload, key, registry=registry)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in CLAIMS.items() if key != name}


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forged(header: dict[str, Any], claims: dict[str, Any] = CLAIMS, signature: bytes = b"") -> str:
    return ".".join(map(encoded, (json.dumps(header).encode(), json.dumps(claims).encode(), signature)))


def with_public_key_as_shared_secret() -> str:
    """The classic confusion: HS256 with the RSA key that everybody knows."""
    start = forged({"alg": "HS256", "kid": "rsa"}).rpartition(".")[0]
    return f"{start}.{encoded(hmac.digest(RSA.as_pem(private=False), start.encode(), hashlib.sha256))}"


def with_header(**header: Any) -> str:
    """Signed as it should be, under a header that says more."""
    start = forged({"alg": "RS256", "kid": "rsa", **header}).rpartition(".")[0]
    made = RSA.private_key.sign(start.encode(), padding.PKCS1v15(), hashes.SHA256())  # type: ignore[union-attr]
    return f"{start}.{encoded(made)}"


def for_anything(key: RSAKey) -> RSAKey:
    """The key without what it says about its use."""
    parts = key.as_dict(private=True)
    return RSAKey.import_key({name: part for name, part in parts.items() if name not in ("use", "alg")})


def with_another_payload() -> str:
    header, _, signature = sign(CLAIMS).split(".")
    return f"{header}.{encoded(json.dumps({**CLAIMS, 'sub': 'admin'}).encode())}.{signature}"


def with_a_bit_flipped() -> str:
    start, _, signature = sign(CLAIMS).rpartition(".")
    return f"{start}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"


BAD: dict[str, Callable[[], str]] = {
    "empty": lambda: "",
    "no token": lambda: "token",
    "two parts": lambda: ".".join(sign(CLAIMS).split(".")[:2]),
    "four parts": lambda: sign(CLAIMS) + ".x",
    "no signature": lambda: sign(CLAIMS).rpartition(".")[0] + ".",
    "not base64": lambda: "%.%.%",
    "not ASCII": lambda: "é" + sign(CLAIMS),
    "header is no JSON": lambda: f"{encoded(b'x')}.{encoded(b'{}')}.{encoded(b'x')}",
    "header is a list": lambda: f"{encoded(b'[]')}.{encoded(b'{}')}.{encoded(b'x')}",
    "header nested deeply": lambda: f"{encoded(b'[' * 40_000)}.{encoded(b'{}')}.{encoded(b'x')}",
    "too long": lambda: sign({**CLAIMS, "padding": "x" * 100_000}),
    "alg none": lambda: forged({"alg": "none", "kid": "rsa"}),
    "alg None": lambda: forged({"alg": "None", "kid": "rsa"}),
    "alg missing": lambda: forged({"kid": "rsa"}),
    "alg null": lambda: forged({"alg": None, "kid": "rsa"}),
    "alg a list": lambda: forged({"alg": ["RS256"], "kid": "rsa"}),
    "alg unknown": lambda: forged({"alg": "RS257", "kid": "rsa"}),
    "alg lower case": lambda: forged({"alg": "rs256", "kid": "rsa"}),
    "HS256 with the public key": with_public_key_as_shared_secret,
    "HS256 with a key of its own": lambda: sign(CLAIMS, SHARED, "HS256"),
    "an algorithm of another key type": lambda: forged({"alg": "ES256", "kid": "rsa"}, signature=bytes(64)),
    "an algorithm that its key is not for": lambda: sign(CLAIMS, for_anything(FOR_RS256), "PS256"),
    "an algorithm of another curve": lambda: forged({"alg": "ES256", "kid": "ES384"}, signature=bytes(64)),
    "ECDSA with zeros": lambda: forged({"alg": "ES256", "kid": "ES256"}, signature=bytes(64)),
    "no key id": lambda: sign(CLAIMS, kid=None),
    "empty key id": lambda: sign(CLAIMS, kid=""),
    "key id a number": lambda: forged({"alg": "RS256", "kid": 1}, signature=bytes(256)),
    "unknown key id": lambda: sign(CLAIMS, kid="other"),
    "key id a path": lambda: sign(CLAIMS, kid="../../etc/passwd"),
    "a key for encryption": lambda: sign(CLAIMS, for_anything(FOR_ENCRYPTION)),
    "signed by a stranger": lambda: sign(CLAIMS, STRANGER),
    "with the stranger's key in its header": lambda: sign(CLAIMS, STRANGER, jwk=STRANGER.as_dict(private=False)),
    "with an address of keys in its header": lambda: sign(CLAIMS, STRANGER, jku="https://evil.example/jwks"),
    "critical header that we do not know": lambda: with_header(crit=["x"], x=1),
    "payload that is not encoded": lambda: with_header(crit=["b64"], b64=False),
    "payload changed": with_another_payload,
    "signature changed": with_a_bit_flipped,
    "payload is no JSON": lambda: sign(b"x"),
    "payload is a list": lambda: sign(b"[]"),
    "payload is null": lambda: sign(b"null"),
    "expired": lambda: sign({**CLAIMS, "exp": NOW - 31}),
    "no expiry": lambda: sign(without("exp")),
    "expiry null": lambda: sign({**CLAIMS, "exp": None}),
    "expiry a text": lambda: sign({**CLAIMS, "exp": str(NOW + 600)}),
    "expiry true": lambda: sign({**CLAIMS, "exp": True}),
    "expiry no number": lambda: sign({**CLAIMS, "exp": float("nan")}),
    "expiry infinite": lambda: sign({**CLAIMS, "exp": float("inf")}),
    "expiry too great for a float": lambda: sign({**CLAIMS, "exp": 10**400}),
    "expiry in milliseconds of no year": lambda: sign({**CLAIMS, "exp": 1 << 60}),
    "not before later": lambda: sign({**CLAIMS, "nbf": NOW + 31}),
    "not before a text": lambda: sign({**CLAIMS, "nbf": "now"}),
    "issued later": lambda: sign({**CLAIMS, "iat": NOW + 3600}),
    "no issuer": lambda: sign(without("iss")),
    "another issuer": lambda: sign({**CLAIMS, "iss": "https://evil.example"}),
    "issuer with a slash more": lambda: sign({**CLAIMS, "iss": ISSUER + "/"}),
    "issuer a list": lambda: sign({**CLAIMS, "iss": [ISSUER]}),
    "no audience": lambda: sign(without("aud")),
    "another audience": lambda: sign({**CLAIMS, "aud": "web"}),
    "other audiences": lambda: sign({**CLAIMS, "aud": ["web", "kafka2"]}),
    "audience empty": lambda: sign({**CLAIMS, "aud": []}),
    "audience an object": lambda: sign({**CLAIMS, "aud": {"kafka": 1}}),
    "no subject": lambda: sign(without("sub")),
    "subject empty": lambda: sign({**CLAIMS, "sub": ""}),
    "subject blank": lambda: sign({**CLAIMS, "sub": "  "}),
    "subject a number": lambda: sign({**CLAIMS, "sub": 7}),
    "subject a list": lambda: sign({**CLAIMS, "sub": ["admin"]}),
    "subject too long": lambda: sign({**CLAIMS, "sub": "a" * 300}),
}  # fmt: skip


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_text(
        json.dumps({"keys": [*PUBLIC, WITHOUT_ID.as_dict(private=False), SHARED.as_dict(private=True)]})
    )
    return path


def validator(source: str, executor: ThreadPoolExecutor, **rules: Any) -> JwtValidator:
    keys = JwksKeys(source, executor, refresh_s=3600)
    return JwtValidator(TokenRules(ISSUER, (AUDIENCE, "other"), **rules), keys, clock=lambda: NOW)


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # by RFC 9864, and still what issuers use
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_good_token_counts_by_every_allowed_algorithm(
    key_file: Path, executor: ThreadPoolExecutor, algorithm: str
) -> None:
    token = sign({**CLAIMS, "aud": ["web", AUDIENCE]}, key_of(algorithm), algorithm)
    found = asyncio.run(validator(key_file.as_uri(), executor).validate(token))
    assert (found.name, found.expires_at) == ("alice", NOW + 600)


def test_there_are_at_least_forty_bad_tokens() -> None:
    assert len(BAD) >= 40
    assert len({make() for make in BAD.values()}) == len(BAD)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_token_does_not_count(key_file: Path, executor: ThreadPoolExecutor, name: str) -> None:
    token = BAD[name]()
    with pytest.raises(TokenError) as error:
        asyncio.run(validator(key_file.as_uri(), executor).validate(token))
    assert len(str(error.value)) < 200
    if token:
        assert token not in str(error.value)


def test_the_name_may_come_from_another_claim(key_file: Path, executor: ThreadPoolExecutor) -> None:
    by_email = validator(key_file.as_uri(), executor, subject_claim="email")
    token = sign({**CLAIMS, "email": "a@example"})
    assert asyncio.run(by_email.validate(token)).name == "a@example"
    with pytest.raises(TokenError, match="its email"):
        asyncio.run(by_email.validate(sign(CLAIMS)))


@pytest.mark.parametrize(
    "source",
    [
        "http://issuer.example/jwks", "http://169.254.169.254/latest/meta-data", "ftp://127.0.0.1/x", "jwks.json",
        "data:application/json,{}", "http://127.0.0.1.example/", "http://localhost.example/", "", "gopher://x",
    ],
)  # fmt: skip
def test_keys_come_from_a_file_from_https_or_from_loopback_and_from_nowhere_else(
    source: str, executor: ThreadPoolExecutor
) -> None:
    with pytest.raises(ConfigError, match=r"jwks\.endpoint\.url"):
        JwksKeys(source, executor, refresh_s=60)


class Issuer:
    """An HTTP server on loopback with a key set; `answer` may be replaced."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Callable[[BaseHTTPRequestHandler], None] = self.keys(PUBLIC)
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                issuer.answer(self)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's own name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/jwks"

    def keys(self, keys: list[Any]) -> Callable[[BaseHTTPRequestHandler], None]:
        return self.body(json.dumps({"keys": keys}).encode())

    def body(self, raw: bytes, status: int = 200, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(raw)

        return answer

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    yield made
    made.close()


def test_a_redirect_of_the_issuer_is_not_followed(
    issuer: Issuer, executor: ThreadPoolExecutor, tmp_path: Path
) -> None:
    for target in ("/other", "http://169.254.169.254/", (tmp_path / "jwks").as_uri()):
        issuer.asked.clear()
        issuer.answer = issuer.body(b"", 302, Location=target)
        with pytest.raises(TokenError, match="cannot be read"):
            asyncio.run(validator(issuer.url, executor).validate(sign(CLAIMS)))
        assert issuer.asked == ["/jwks"]


@pytest.mark.parametrize(
    "raw", [b"", b"x", b"[]", b'{"keys": 1}', b'{"keys": [1]}', b" " * (1 << 20) + b'{"keys": []}']
)
def test_a_key_set_that_is_none_or_too_large_lets_nobody_in(
    issuer: Issuer, executor: ThreadPoolExecutor, raw: bytes
) -> None:
    issuer.answer = issuer.body(raw)
    with pytest.raises(TokenError):
        asyncio.run(validator(issuer.url, executor).validate(sign(CLAIMS)))


def test_unknown_key_ids_make_the_keys_be_read_again_but_not_for_every_bad_token(
    issuer: Issuer, executor: ThreadPoolExecutor
) -> None:
    now = [0.0]
    keys = JwksKeys(issuer.url, executor, refresh_s=3600, now=lambda: now[0])

    async def story() -> None:
        assert (await keys.get("rsa")).kid == "rsa"
        for number in range(100):
            now[0] += 0.01
            with pytest.raises(TokenError):
                await keys.get(f"new-{number}")
        assert len(issuer.asked) == 1
        now[0] += 11
        issuer.answer = issuer.keys(
            [*PUBLIC, RSAKey.generate_key(2048, {"kid": "rotated"}).as_dict(private=False)]
        )
        results = await asyncio.gather(*(keys.get("rotated") for _ in range(20)))
        assert {key.kid for key in results} == {"rotated"}
        assert len(issuer.asked) == 2

    asyncio.run(story())


def test_a_key_that_the_issuer_withdrew_counts_no_more_after_the_refresh(
    issuer: Issuer, executor: ThreadPoolExecutor
) -> None:
    now = [0.0]
    keys = JwksKeys(issuer.url, executor, refresh_s=60, now=lambda: now[0])

    async def story() -> None:
        await keys.get("rsa")
        issuer.answer = issuer.keys([EC["ES256"].as_dict(private=False)])
        now[0] += 61
        with pytest.raises(TokenError, match="not in the issuer's key set"):
            await keys.get("rsa")

    asyncio.run(story())


def test_keys_that_were_read_still_count_while_the_issuer_cannot_be_reached(
    issuer: Issuer, executor: ThreadPoolExecutor
) -> None:
    now = [0.0]
    keys = JwksKeys(issuer.url, executor, refresh_s=60, now=lambda: now[0])

    async def story() -> None:
        await keys.get("rsa")
        issuer.answer = issuer.body(b"", 503)
        now[0] += 61
        assert (await keys.get("rsa")).kid == "rsa"

    asyncio.run(story())


def test_a_token_of_a_known_key_does_not_wait_for_keys_that_somebody_made_up(
    issuer: Issuer, executor: ThreadPoolExecutor
) -> None:
    now, hanging, answer = [0.0], threading.Event(), threading.Event()
    keys = JwksKeys(issuer.url, executor, refresh_s=3600, now=lambda: now[0])

    def hang(handler: BaseHTTPRequestHandler) -> None:
        hanging.set()
        assert answer.wait(30)
        issuer.keys(PUBLIC)(handler)

    async def story() -> None:
        await keys.get("rsa")
        now[0] += 11
        issuer.answer = hang
        made_up = asyncio.create_task(keys.get("made up"))
        assert await asyncio.to_thread(hanging.wait, 30)
        async with asyncio.timeout(5):
            assert (await keys.get("rsa")).kid == "rsa"
        assert not made_up.done()
        answer.set()
        with pytest.raises(TokenError):
            await made_up

    asyncio.run(story())
