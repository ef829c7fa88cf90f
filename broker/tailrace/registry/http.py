"""Confluent's Schema Registry REST API over the registry's state (Confluent API reference, "Schema Registry API").

Reads answer from memory; writes go through `Store.write`, which answers once the record is durable in
`_schemas`.  Handlers run in Starlette's thread pool; one lock orders the writers.

With a gate nobody passes without a login, whatever the path, and every route says what it reads or changes
(`handlers.ROUTES`), which `access` puts to the authorizer.
"""

import asyncio
import json
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tailrace.broker.http_gate import HttpGate, HttpRefusedError, HttpVisitor
from tailrace.registry.access import require, visible
from tailrace.registry.call import MEDIA_TYPE, Body, Call
from tailrace.registry.connection import TLS
from tailrace.registry.errors import RegistryError, RegistryErrorCode
from tailrace.registry.handlers import ROUTES, Change, Read
from tailrace.registry.store import Store

MOST_BODY_BYTES = 2 << 20
_VISITOR = "tailrace.visitor"


def create_app(store: Store, gate: HttpGate | None = None) -> Starlette:
    """Build the application; without a gate it is open.

    Subjects may hold any character, percent-encoded in the path.
    """
    login = [Middleware(_Login, gate=gate)] if gate is not None else []
    return Starlette(
        middleware=[*login, Middleware(_RawPath)],
        routes=[
            Route(path, _Endpoint(store, route, guarded=gate is not None), methods=[verb])
            for verb, path, route in ROUTES
        ],
        exception_handlers={404: _not_found, 405: _not_found, Exception: _crashed},
    )


class _Login:
    """Lets nothing pass but HTTP requests of somebody who is known."""

    def __init__(self, app: ASGIApp, gate: HttpGate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        authorization = Headers(scope=scope).get("authorization", "")
        address = scope["client"][0] if scope.get("client") else ""
        try:
            entering = self._gate.enter(authorization, address, scope["state"].get(TLS))
            visitor = await asyncio.wrap_future(entering)
        except HttpRefusedError:
            refusal = _error(RegistryError(RegistryErrorCode.UNAUTHORIZED, "Unauthorized"))
            for challenge in self._gate.challenges:
                refusal.headers.append("WWW-Authenticate", challenge)
            await refusal(scope, receive, send)
            return
        await self._app({**scope, _VISITOR: visitor}, receive, send)


class _RawPath:
    """Routes on the path as it was sent, so that a subject may hold an encoded slash."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("raw_path"):
            scope = {**scope, "path": scope["raw_path"].decode("ascii", "replace")}
        await self._app(scope, receive, send)


class _Endpoint:
    """One route as an application of its own."""

    def __init__(self, store: Store, route: Read | Change, *, guarded: bool) -> None:
        self._store, self._route, self._guarded = store, route, guarded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await self._answer(Request(scope, receive))
        except RegistryError as error:
            answer = _error(error)
        except ClientDisconnect:
            return  # nobody is left to hear an answer
        if not isinstance(answer, Response):
            answer = JSONResponse(answer, media_type=MEDIA_TYPE)
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> Any:
        store, route, call = self._store, self._route, Call(request)
        visitor: HttpVisitor | None = request.scope[_VISITOR] if self._guarded else None
        if isinstance(route, Change):
            if visitor is not None:
                await require(route.needs, call, visitor)
            call.body = await _body(request)
            return await run_in_threadpool(route.handler, store, call)
        call.body = await _body(request)
        seen = store.subjects
        if visitor is not None:
            seen = await visible(route.reads, seen, call, visitor)
        return await run_in_threadpool(route.handler, seen, call)


async def _body(request: Request) -> Body:
    raw, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= MOST_BODY_BYTES:
            raw += chunk  # of what is too large the rest is only taken, so that its sender hears why
    if size > MOST_BODY_BYTES:
        raise RegistryError(
            RegistryErrorCode.BODY_TOO_LARGE,
            f"The request has {size} bytes, at most {MOST_BODY_BYTES} are taken",
        )
    try:
        body = json.loads(raw) if raw else {}
    except (ValueError, RecursionError) as error:
        raise RegistryError(RegistryErrorCode.INVALID_SCHEMA, f"Invalid JSON body: {error}") from None
    if not isinstance(body, dict):
        raise RegistryError(
            RegistryErrorCode.INVALID_SCHEMA, "Invalid JSON body: the body must be a JSON object"
        )
    return body


def _error(error: RegistryError) -> Response:
    return JSONResponse(
        {"error_code": int(error.code), "message": error.message},
        status_code=error.status,
        media_type=MEDIA_TYPE,
    )


async def _not_found(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return JSONResponse(
        {"error_code": status, "message": f"HTTP {status}"}, status_code=status, media_type=MEDIA_TYPE
    )


async def _crashed(request: Request, error: Exception) -> Response:
    return _error(RegistryError(RegistryErrorCode.STORE_FAILED, f"Error in the backend data store: {error}"))
