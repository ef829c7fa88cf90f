"""JSON web tokens checked against the keys of one issuer (RFC 7519, RFC 7517, KIP-768).

A token counts only if all of this holds: an allowed asymmetric algorithm, a key id that the issuer's key set
has, a good signature by that key, the issuer, the audience, an expiry in the future, no later start, and a
subject.  There is no unsigned mode.  The key set comes from a file or from exactly the configured URL: https
(or http on loopback), no redirects, at most 1 MiB.
"""

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import Executor
from email.message import Message
from http.client import HTTPResponse
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey
from joserfc.jws import extract_compact

from tailrace.changes.errors import ConfigError
from tailrace.security.bearer import Identity, TokenError, TokenRules
from tailrace.security.listeners import is_loopback
from tailrace.security.scram import LONGEST_NAME

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
MAX_TOKEN_BYTES = 64 << 10
_MAX_KEY_SET_BYTES = 1 << 20
_FETCH_TIMEOUT_S = 10.0
_MIN_REFRESH_S = 10.0  # an unknown key id makes us look again, but not for every bad token


_Key = RSAKey | ECKey | OKPKey


class JwksKeys:
    """The issuer's public keys by key id, from `source`: `file:///path` or an URL.

    Raises ConfigError at once for a source that is not allowed, TokenError when the keys cannot be had.
    """

    def __init__(
        self, source: str, executor: Executor, *, refresh_s: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        parts = urlsplit(source)
        local = parts.scheme == "http" and is_loopback(parts.hostname or "")
        if parts.scheme not in ("file", "https") and not local:
            raise ConfigError(
                f"the broker's option sasl.oauthbearer.jwks.endpoint.url has {source!r}",
                fix="give an https URL, or file:///path",
            )
        self._file = Path(unquote(parts.path)) if parts.scheme == "file" else None
        self._source = source
        self._executor = executor
        self._refresh_s = refresh_s
        self._now = now
        self._keys: dict[str, _Key] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def get(self, key_id: str) -> _Key:
        """The key, looked up again when it is not known or the set is old."""
        if key_id not in self._keys or self._age_s() > self._refresh_s:
            async with self._reading:  # whoever needs the set while it is read waits for it
                fresh_for_s = self._refresh_s if key_id in self._keys else 0 if self._file else _MIN_REFRESH_S
                if self._age_s() > fresh_for_s:
                    await self._read()
        key = self._keys.get(key_id)
        if key is None:
            raise TokenError("its key id is not in the issuer's key set")
        return key

    def _age_s(self) -> float:
        return self._now() - self._read_at

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        self._read_at = self._now()
        try:
            raw = await loop.run_in_executor(self._executor, self._load)
            keys = KeySet.import_key_set(json.loads(raw)).keys
        except (OSError, ValueError, TypeError, KeyError, JoseError) as error:
            if self._keys:
                return  # the keys that were read before are still the issuer's
            raise TokenError(f"the issuer's key set cannot be read: {type(error).__name__}") from error
        self._keys = {
            str(key.kid): key
            for key in keys
            if key.kid and isinstance(key, RSAKey | ECKey | OKPKey) and key.get("use") in (None, "sig")
        }

    def _load(self) -> bytes:
        if self._file is not None:
            with self._file.open("rb") as stream:
                raw = stream.read(_MAX_KEY_SET_BYTES + 1)
        else:
            opener = urllib.request.build_opener(_NoRedirect)
            answer: HTTPResponse
            try:
                with opener.open(self._source, timeout=_FETCH_TIMEOUT_S) as answer:
                    raw = answer.read(_MAX_KEY_SET_BYTES + 1)
            except urllib.error.HTTPError as error:
                error.close()
                raise OSError(f"the issuer answers {error.code}") from None
        if len(raw) > _MAX_KEY_SET_BYTES:
            raise ValueError("the key set is larger than 1 MiB")
        return raw


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        raise urllib.error.HTTPError(req.full_url, code, "a redirect is not followed", headers, fp)


class JwtValidator:
    """Checks tokens; `clock` is the time in seconds since the epoch."""

    def __init__(self, rules: TokenRules, keys: JwksKeys, *, clock: Callable[[], float] = time.time) -> None:
        self._rules = rules
        self._keys = keys
        self._clock = clock

    async def validate(self, token: str) -> Identity:
        """Who the token is for.  Raises TokenError."""
        if len(token) > MAX_TOKEN_BYTES:
            raise TokenError("it is larger than 64 KiB")
        try:
            header = extract_compact(token.encode()).headers()
            algorithm, key_id = header.get("alg"), header.get("kid")
            if algorithm not in ALGORITHMS:
                raise TokenError("its algorithm is not allowed")
            if not isinstance(key_id, str) or not key_id:
                raise TokenError("it names no key id")
            key = await self._keys.get(key_id)
            if key.get("alg") not in (None, algorithm):
                raise TokenError("its algorithm is not that of its key")
            claims = jwt.decode(token, key, algorithms=[algorithm]).claims
            self._registry().validate(claims)
            return self._identity(claims)
        except TokenError:
            raise
        except JoseError as error:
            raise TokenError(f"it is refused: {error.error}") from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
            raise TokenError("it is malformed") from None

    def _registry(self) -> jwt.JWTClaimsRegistry:
        rules = self._rules
        return jwt.JWTClaimsRegistry(
            now=lambda: int(self._clock()),
            leeway=rules.skew_s,
            iss={"essential": True, "value": rules.issuer},
            aud={"essential": True, "values": list(rules.audiences)},
            exp={"essential": True},
        )

    def _identity(self, claims: dict[str, Any]) -> Identity:
        name = claims.get(self._rules.subject_claim)
        if not isinstance(name, str) or not name.strip() or len(name) > LONGEST_NAME:
            raise TokenError(f"its {self._rules.subject_claim} is no name of a user")
        expires_at = float(claims["exp"])
        if not expires_at < 1 << 53:
            raise TokenError("its expiry is no time")
        return Identity(name, expires_at)
