"""Why a listener hung up on a client before it answered anything: asked of the listener itself, in another tongue.

A broker closes the connection of who speaks TLS to a listener without it, or the reverse, or asks before logging in;
it says no word then, and a retry would end no better.
"""

import contextlib
import socket
import ssl

from tailrace.broker.client.errors import BrokerError, LoginError, RetryableError
from tailrace.broker.client.partition import Address
from tailrace.broker.client.security import PLAINTEXT, ClientSecurity
from tailrace.broker.client.wire import Wire, as_views, speaks_plain, speaks_tls, wants_certificate
from tailrace.broker.protocol import ApiKey, ErrorCode, MalformedMessageError, decode_response, encode_request
from tailrace.broker.protocol.messages import SaslHandshakeRequest

_PATIENCE_S = 2.0
_LARGEST_ANSWER = 1 << 20
_NO_MECHANISM = "-"


def why_hung_up(address: Address, security: ClientSecurity) -> LoginError | None:
    """The option that does not fit the listener, with the next step; None where the options are not to blame."""
    protocol = security.protocol
    if protocol.tls != _has_tls(address):
        if not protocol.tls:
            return speaks_tls(address, security)
        return speaks_plain(address, security) if _offers(address, PLAINTEXT) is not None else None
    offered = _offers(address, security)
    if offered is None and protocol.tls and _has_tls(address):
        return wants_certificate(address, security, "it hangs up after the handshake")
    if offered and not protocol.sasl:
        return LoginError(
            f"broker {address} wants a login on this listener, and security.protocol is {protocol}",
            fix=f"set security.protocol to {'SASL_SSL' if protocol.tls else 'SASL_PLAINTEXT'}, with sasl.mechanism one of "
            f"{', '.join(offered)}, sasl.username and sasl.password",
        )
    return None


def _has_tls(address: Address) -> bool:
    """Whether the listener answers the first message of TLS; certificates do not matter here, nothing is told it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection(address, timeout=_PATIENCE_S) as plain,
            context.wrap_socket(plain, server_hostname=address.host),
        ):
            return True
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")
    except OSError:
        return False


def _offers(address: Address, security: ClientSecurity) -> list[str] | None:
    """The mechanisms of the listener, none where it wants no login; None where it does not speak Kafka's protocol."""
    request = SaslHandshakeRequest(mechanism=_NO_MECHANISM)
    with contextlib.suppress(OSError, RetryableError, BrokerError, LoginError, MalformedMessageError):
        wire = Wire(address, security, timeout_s=_PATIENCE_S)
        with contextlib.closing(wire):
            wire.send(as_views(encode_request(ApiKey.SASL_HANDSHAKE, 1, 0, None, request)), _PATIENCE_S)
            frame = wire.receive(_PATIENCE_S, largest=_LARGEST_ANSWER)
        _, answer = decode_response(ApiKey.SASL_HANDSHAKE, 1, frame)
        return list(answer.mechanisms) if answer.error_code == ErrorCode.UNSUPPORTED_SASL_MECHANISM else []
    return None
