"""SCRAM-SHA-256 and -512, both sides, without any I/O.

    client   n,,n=<user>,r=<nonce>                server   r=<nonce><more>,s=<salt>,i=<iterations>
    client   c=biws,r=<nonce><more>,p=<proof>     server   v=<signature>  |  refused

An unknown user is answered like a known one, with a salt that never changes and the iterations of a user that
exists, and refused only where a wrong password is.  A `p=` channel binding is refused, since none is offered;
`y` is taken for what it says.

The client takes no server for the right one that cannot prove that it knows the credential.

Sources: RFC 5802, RFC 7677, KIP-84; org.apache.kafka.common.security.scram.internals.ScramSaslServer, ScramSaslClient.
"""

import base64
import hashlib
import hmac
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tailrace.security.secrets import Secret

MIN_ITERATIONS = 4096
MAX_ITERATIONS = 16384
DEFAULT_ITERATIONS = 10_000
_MOST_ITERATIONS = 10 * MAX_ITERATIONS  # what a client lets a server ask for: a tenth of a second of CPU
LONGEST_NAME = 255
"""Characters of a user name; a longer one is refused before anything remembers it."""
_SALT_BYTES = 24
_NONCE_BYTES = 24
_NONCE = re.compile(r"[\x21-\x2b\x2d-\x7e]+")
_CLIENT_FIRST = re.compile(r"(?P<gs2>(?P<binding>n|y|p=[^,]*),(?:a=(?P<authzid>[^,]*))?,)(?P<bare>.*)", re.S)
_BARE = re.compile(r"n=(?P<user>[^,]+),r=(?P<nonce>[^,]+)(?P<extensions>(?:,[A-Za-z]+=[^,]*)*)")
_CLIENT_FINAL = re.compile(
    r"(?P<plain>c=(?P<binding>[^,]*),r=(?P<nonce>[^,]+)(?:,[A-Za-z]=[^,]*)*),p=(?P<proof>[^,]*)"
)

_SERVER_FIRST = re.compile(
    r"r=(?P<nonce>[^,]+),s=(?P<salt>[^,]+),i=(?P<iterations>[0-9]{1,9})(?:,[A-Za-z]=[^,]*)*"
)
_SERVER_FINAL = re.compile(r"(?:v=(?P<signature>[^,]+)|e=(?P<error>[^,]+))(?:,[A-Za-z]=[^,]*)*")
_NO_BINDING = "n,,"


class Mechanism(StrEnum):
    """The two that Kafka has; `number` is theirs in the Describe and Alter requests."""

    SHA_256 = "SCRAM-SHA-256"
    SHA_512 = "SCRAM-SHA-512"

    @property
    def number(self) -> int:
        return 1 if self is Mechanism.SHA_256 else 2

    @property
    def hash_name(self) -> str:
        return "sha256" if self is Mechanism.SHA_256 else "sha512"

    @classmethod
    def of(cls, number: int) -> "Mechanism | None":
        """The mechanism with this number in requests, if there is one."""
        return {1: cls.SHA_256, 2: cls.SHA_512}.get(number)


@dataclass(frozen=True, slots=True)
class Credential:
    """What a server keeps of a password."""

    salt: bytes
    stored_key: bytes
    server_key: bytes
    iterations: int

    def __repr__(self) -> str:
        return f"Credential(iterations={self.iterations})"


class ScramError(Exception):
    """The exchange ends here; the text may be shown to the client."""


def credential(
    mechanism: Mechanism, password: Secret, *, salt: bytes = b"", iterations: int = DEFAULT_ITERATIONS
) -> Credential:
    """Derive a credential (PBKDF2: milliseconds of CPU, not for an event loop's thread)."""
    salt = salt or os.urandom(_SALT_BYTES)
    salted = hashlib.pbkdf2_hmac(mechanism.hash_name, password.reveal().encode(), salt, iterations)
    return from_salted(mechanism, salted, salt, iterations)


def from_salted(mechanism: Mechanism, salted: bytes, salt: bytes, iterations: int) -> Credential:
    """The credential of a salted password, which is what AlterUserScramCredentials carries."""
    client_key = _hmac(mechanism, salted, b"Client Key")
    stored_key = hashlib.new(mechanism.hash_name, client_key).digest()
    return Credential(salt, stored_key, _hmac(mechanism, salted, b"Server Key"), iterations)


def matches(mechanism: Mechanism, password: Secret, known: Credential) -> bool:
    """Whether a password is the one of a credential (PBKDF2, as in `credential`)."""
    derived = credential(mechanism, password, salt=known.salt, iterations=known.iterations)
    return hmac.compare_digest(derived.stored_key, known.stored_key)


Shape = tuple[int, int]
"""What the server's first message shows of a credential: iterations, and bytes of its salt."""


def pretended(mechanism: Mechanism, user: str, key: bytes, shapes: Sequence[Shape] = ()) -> Credential:
    """What an unknown user is asked with: always the same for a name, and no password fits it.

    `shapes` are those of the users that exist, so that iterations do not tell who does.
    """
    seed = _hmac(Mechanism.SHA_512, key, f"{mechanism} {user}".encode())
    iterations, salt_bytes = shapes[seed[-1] % len(shapes)] if shapes else (DEFAULT_ITERATIONS, _SALT_BYTES)
    salt = hashlib.pbkdf2_hmac("sha512", seed, b"salt", 1, max(1, salt_bytes))
    size = hashlib.new(mechanism.hash_name).digest_size
    return Credential(salt, os.urandom(size), os.urandom(size), iterations)


Find = Callable[[str], Credential | None]


class ScramServer:
    """One exchange: `first`, then `final`; `user` is there after `first`, and proven after `final`.

    `find` gives the credential of a user, `pretend` that of one who does not exist.  Raises ScramError.
    """

    def __init__(
        self,
        mechanism: Mechanism,
        find: Find,
        pretend: Callable[[str], Credential],
        *,
        nonce: Callable[[], str] | None = None,
    ) -> None:
        self._mechanism = mechanism
        self._find = find
        self._pretend = pretend
        self._nonce = nonce or _fresh_nonce
        self._known = False
        self._gs2 = self._bare = self._server_first = ""
        self._full_nonce = ""
        self.user = ""
        self.used: Credential | None = None

    def first(self, message: bytes) -> bytes:
        """The server's first message for the client's."""
        found = _CLIENT_FIRST.fullmatch(_text(message))
        if found is None:
            raise ScramError("the client's first message is malformed")
        if found["binding"].startswith("p="):
            raise ScramError("channel binding is not offered")
        bare = _BARE.fullmatch(found["bare"])
        if bare is None or not _NONCE.fullmatch(bare["nonce"]):
            raise ScramError("the client's first message is malformed")
        self.user = _name(bare["user"])
        if found["authzid"] and _name(found["authzid"]) != self.user:
            raise ScramError("a client cannot act as somebody else")
        if "tokenauth=" in bare["extensions"]:
            raise ScramError("delegation tokens are not served")
        known = self._find(self.user)
        self._known = known is not None
        self.used = known or self._pretend(self.user)
        self._gs2, self._bare = found["gs2"], found["bare"]
        self._full_nonce = bare["nonce"] + self._nonce()
        salt = base64.b64encode(self.used.salt).decode()
        self._server_first = f"r={self._full_nonce},s={salt},i={self.used.iterations}"
        return self._server_first.encode()

    def final(self, message: bytes) -> bytes:
        """The server's signature, which proves the server to the client in turn."""
        text = _text(message)
        found = _CLIENT_FINAL.fullmatch(text)
        if found is None or self.used is None:
            raise ScramError("the client's final message is malformed")
        if not hmac.compare_digest(found["nonce"].encode(), self._full_nonce.encode()):
            raise ScramError("the client's final message has another nonce")
        if _unbase64(found["binding"]) != self._gs2.encode():
            raise ScramError("the client's final message has another channel binding")
        proof = _unbase64(found["proof"])
        signed = f"{self._bare},{self._server_first},{found['plain']}".encode()
        signature = _hmac(self._mechanism, self.used.stored_key, signed)
        if len(proof) != len(signature):
            raise ScramError("the proof has a wrong length")
        client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
        derived = hashlib.new(self._mechanism.hash_name, client_key).digest()
        if not hmac.compare_digest(derived, self.used.stored_key) or not self._known:
            raise ScramError("the user name or the password is wrong")
        return b"v=" + base64.b64encode(_hmac(self._mechanism, self.used.server_key, signed))


class ScramClient:
    """One exchange: `first`, `final`, then `verify`, without which nobody knows whom they talk to.  Raises ScramError."""

    def __init__(
        self, mechanism: Mechanism, user: str, password: Secret, *, nonce: Callable[[], str] | None = None
    ) -> None:
        self._mechanism = mechanism
        self._password = password
        self._nonce = (nonce or _fresh_nonce)()
        escaped = user.replace("=", "=3D").replace(",", "=2C")
        self._bare = f"n={escaped},r={self._nonce}"
        self._signature = b""

    def first(self) -> bytes:
        """The client's first message."""
        return f"{_NO_BINDING}{self._bare}".encode()

    def final(self, message: bytes) -> bytes:
        """The client's proof, for the server's first message (PBKDF2: milliseconds of CPU)."""
        text = _text(message)
        found = _SERVER_FIRST.fullmatch(text)
        if found is None:
            raise ScramError("the server's first message is malformed")
        nonce, iterations = found["nonce"], int(found["iterations"])
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise ScramError("the server's nonce does not continue the client's")
        if not MIN_ITERATIONS <= iterations <= _MOST_ITERATIONS:
            raise ScramError(f"the server asks for {iterations} iterations")
        salt = _unbase64(found["salt"])
        salted = hashlib.pbkdf2_hmac(
            self._mechanism.hash_name, self._password.reveal().encode(), salt, iterations
        )
        keys = from_salted(self._mechanism, salted, salt, iterations)
        plain = f"c={base64.b64encode(_NO_BINDING.encode()).decode()},r={nonce}"
        signed = f"{self._bare},{text},{plain}".encode()
        client_key = _hmac(self._mechanism, salted, b"Client Key")
        signature = _hmac(self._mechanism, keys.stored_key, signed)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self._signature = _hmac(self._mechanism, keys.server_key, signed)
        return f"{plain},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, message: bytes) -> None:
        """Check the server's final message: it knows the credential too."""
        found = _SERVER_FINAL.fullmatch(_text(message))
        if found is None or not self._signature:
            raise ScramError("the server's final message is malformed")
        if found["error"]:
            raise ScramError(f"the server refuses: {found['error'][:100]}")
        if not hmac.compare_digest(_unbase64(found["signature"]), self._signature):
            raise ScramError("the server cannot prove that it knows the user's credential")


def _hmac(mechanism: Mechanism, key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, mechanism.hash_name)


def _fresh_nonce() -> str:
    return base64.b64encode(os.urandom(_NONCE_BYTES)).decode()


def _text(message: bytes) -> str:
    try:
        return message.decode()
    except UnicodeDecodeError:
        raise ScramError("a message is not UTF-8 text") from None


def _name(escaped: str) -> str:
    """A user name with `=2C` and `=3D` undone; any other `=` is malformed (RFC 5802, 5.1)."""
    if len(escaped) > 3 * LONGEST_NAME or re.search(r"=(?!2C|3D)", escaped):
        raise ScramError("the user name is malformed")
    name = escaped.replace("=2C", ",").replace("=3D", "=")
    if len(name) > LONGEST_NAME:
        raise ScramError("the user name is too long")
    return name


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error, or what is not even ASCII
        raise ScramError("a field is not base64") from None
