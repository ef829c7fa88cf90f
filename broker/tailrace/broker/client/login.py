"""Logging in on a connection: SASL's client side (KIP-43, KIP-152, KIP-368)."""

from collections.abc import Callable, Generator
from typing import Any

from tailrace.broker.client.errors import LoginError, raise_for
from tailrace.broker.client.partition import Address
from tailrace.broker.client.security import ClientSecurity
from tailrace.broker.client.tokens import get_token
from tailrace.broker.protocol import ApiKey, ErrorCode
from tailrace.broker.protocol.messages import SaslAuthenticateRequest, SaslHandshakeRequest
from tailrace.security.sasl import OAUTHBEARER, PLAIN
from tailrace.security.scram import Mechanism, ScramClient, ScramError
from tailrace.security.secrets import Secret

Ask = Callable[[ApiKey, Any], Any]
_Exchange = Generator[bytes, bytes, None]


def log_in(security: ClientSecurity, address: Address, ask: Ask, *, timeout_s: float) -> float:
    """Log in, or renew the login of a connection; for how many seconds it holds, 0 for as long as the connection.

    Raises LoginError for what no retry cures, RetryableError for the rest.
    """
    handshake = ask(ApiKey.SASL_HANDSHAKE, SaslHandshakeRequest(mechanism=security.mechanism))
    if handshake.error_code == ErrorCode.UNSUPPORTED_SASL_MECHANISM:
        offered = ", ".join(handshake.mechanisms) or "none"
        raise LoginError(
            f"broker {address} does not offer {security.mechanism} on this listener, but {offered}",
            fix="set sasl.mechanism to one of these",
        )
    if handshake.error_code == ErrorCode.ILLEGAL_SASL_STATE:
        raise LoginError(
            f"broker {address} wants no login on this listener, and security.protocol is {security.protocol}",
            fix=f"set security.protocol to {'SSL' if security.protocol.tls else 'PLAINTEXT'}, or check the port",
        )
    raise_for(handshake.error_code, f"log in to broker {address}")
    exchange = _exchange(security, timeout_s)
    message = next(exchange)
    while True:
        answer = ask(ApiKey.SASL_AUTHENTICATE, SaslAuthenticateRequest(auth_bytes=message))
        if answer.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED:
            raise _refused(security, address, answer.error_message)
        raise_for(answer.error_code, f"log in to broker {address}")
        try:
            message = exchange.send(bytes(answer.auth_bytes))
        except StopIteration:
            return float(answer.session_lifetime_ms) / 1000
        except ScramError as error:
            raise LoginError(
                f"the login of user '{security.username}' at broker {address} was given up: {error}",
                fix="check that this address is the right cluster's",
            ) from None


def _exchange(security: ClientSecurity, timeout_s: float) -> _Exchange:
    if security.mechanism == PLAIN:
        return _plain(security)
    if security.mechanism == OAUTHBEARER:
        return _bearer(get_token(security, timeout_s=timeout_s))
    return _scram(security)


def _plain(security: ClientSecurity) -> _Exchange:
    """RFC 4616."""
    assert security.password is not None
    yield f"\0{security.username}\0{security.password.reveal()}".encode()


def _scram(security: ClientSecurity) -> _Exchange:
    assert security.password is not None
    client = ScramClient(Mechanism(security.mechanism), security.username, security.password)
    answer = yield client.first()
    answer = yield client.final(answer)
    client.verify(answer)


def _bearer(token: Secret) -> _Exchange:
    """RFC 7628; a broker that refuses says so in JSON, and goes on to the error only after an empty answer."""
    answer = yield f"n,,\x01auth=Bearer {token.reveal()}\x01\x01".encode()
    if answer:
        yield b"\x01"
        raise LoginError("the broker refuses the token, and does not say why")


def _refused(security: ClientSecurity, address: Address, said: str | None) -> LoginError:
    detail = f" ({said})" if said else ""
    if security.mechanism == OAUTHBEARER:
        return LoginError(
            f"broker {address} refuses the token{detail}",
            fix=f"check what {security.token_url} gives: its issuer, audience and expiry",
        )
    return LoginError(
        f"broker {address} refuses the login of user '{security.username}' by {security.mechanism}{detail}",
        fix="check sasl.username and sasl.password, and that the user has a credential for this mechanism",
    )
