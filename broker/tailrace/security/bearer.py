"""OAUTHBEARER's messages, and what a token proves (RFC 7628, KIP-255).

client   n,,^Aauth=Bearer <token>^A^A              server   nothing: done
                                                   server   {"status":"invalid_token"}; client ^A; refused
"""

import re
from dataclasses import dataclass
from typing import Protocol

INVALID_TOKEN = b'{"status":"invalid_token"}'
_MESSAGE = re.compile(r"n,(?:a=(?P<authzid>[^,]*))?,\x01(?P<pairs>(?:[A-Za-z]+=[^\x01]*\x01)*)\x01")


class TokenError(Exception):
    """The token does not count; the text names the check and never the token."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a token is for, and until when (seconds since the epoch)."""

    name: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a token must say: `skew_s` seconds of clock difference are allowed."""

    issuer: str
    audiences: tuple[str, ...]
    subject_claim: str = "sub"
    skew_s: int = 30


class TokenValidator(Protocol):
    """Checks tokens."""

    async def validate(self, token: str) -> Identity:
        """Who the token is for.  Raises TokenError."""


def read_token(message: bytes) -> str:
    """The token in a client's first message.  Raises TokenError."""
    try:
        found = _MESSAGE.fullmatch(message.decode())
    except UnicodeDecodeError:
        found = None
    if found is None:
        raise TokenError("the client's message is malformed")
    if found["authzid"]:
        raise TokenError("a client cannot act as somebody else")
    pairs = [pair.partition("=") for pair in found["pairs"].split("\x01") if pair]
    tokens = [value for name, _, value in pairs if name == "auth"]
    if len(tokens) != 1 or tokens[0][:7].lower() != "bearer ":
        raise TokenError("the client's message has no bearer token")
    return tokens[0][7:].strip()
