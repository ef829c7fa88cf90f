"""SaslHandshake (17) and SaslAuthenticate (36): the login of a connection, and its renewal (KIP-43, KIP-152, KIP-368)."""

import asyncio

from tailrace.broker.handlers.context import RequestContext
from tailrace.broker.protocol import ErrorCode
from tailrace.broker.protocol.messages import (
    SaslAuthenticateRequest,
    SaslAuthenticateResponse,
    SaslHandshakeRequest,
    SaslHandshakeResponse,
)
from tailrace.security.sasl import SaslFailure

_FIRST_VERSION_WITH_REQUESTS = 1


def sasl_handshake(context: RequestContext, request: SaslHandshakeRequest) -> SaslHandshakeResponse:
    """Choose a mechanism; after v0 the messages of its exchange come without requests around them."""
    session = context.caller.session
    if session is None or session.exchanging:
        return SaslHandshakeResponse(ErrorCode.ILLEGAL_SASL_STATE, [])
    raw = context.version < _FIRST_VERSION_WITH_REQUESTS
    if not session.choose(request.mechanism, raw=raw):
        return SaslHandshakeResponse(ErrorCode.UNSUPPORTED_SASL_MECHANISM, session.offered)
    return SaslHandshakeResponse(ErrorCode.NONE, session.offered)


async def sasl_authenticate(
    context: RequestContext, request: SaslAuthenticateRequest
) -> SaslAuthenticateResponse:
    """One message of the exchange; a failure is answered late, alike for every reason, and ends the connection."""
    session = context.caller.session
    if session is None or not session.exchanging:
        return SaslAuthenticateResponse(
            ErrorCode.ILLEGAL_SASL_STATE, "name a mechanism with SaslHandshake first"
        )
    try:
        answer, lifetime_ms = await session.answer(request.auth_bytes)
    except SaslFailure:
        await asyncio.sleep(context.broker.config.connection_failed_authentication_delay_ms / 1000)
        return SaslAuthenticateResponse(
            ErrorCode.SASL_AUTHENTICATION_FAILED,
            "Authentication failed: the credentials are not valid for this mechanism",
        )
    return SaslAuthenticateResponse(ErrorCode.NONE, None, answer, lifetime_ms)
