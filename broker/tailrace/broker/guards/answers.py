"""How a guard refuses: the whole request, or some of its items while the handler serves the others."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from tailrace.broker.handlers.context import CloseConnection, Handler, RequestContext
from tailrace.broker.handlers.failures import failure_answer
from tailrace.broker.protocol import ApiKey, ErrorCode
from tailrace.security.acls import Operation, ResourceType
from tailrace.security.authorizer import Access

Answer = Any | Awaitable[Any]
Guard = Callable[[RequestContext, Access, Any, Handler], Answer]
Judge = Callable[[Any], ErrorCode]

DENIED = {
    ResourceType.TOPIC: ErrorCode.TOPIC_AUTHORIZATION_FAILED,
    ResourceType.GROUP: ErrorCode.GROUP_AUTHORIZATION_FAILED,
    ResourceType.CLUSTER: ErrorCode.CLUSTER_AUTHORIZATION_FAILED,
    ResourceType.TRANSACTIONAL_ID: ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}


def judge(access: Access, operation: Operation, kind: ResourceType, name: str | None) -> ErrorCode:
    """NONE, or the error of the resource's type."""
    return ErrorCode.NONE if access.may(operation, kind, name or "") else DENIED[kind]


def then(answer: Answer, change: Callable[[Any], Any]) -> Answer:
    """The answer after a change, whether it is there or still awaited."""
    return _later(answer, change) if inspect.isawaitable(answer) else change(answer)


async def _later(answer: Awaitable[Any], change: Callable[[Any], Any]) -> Any:
    return change(await answer)


def refused(context: RequestContext, key: ApiKey, request: Any, error: ErrorCode) -> Any:
    """The answer that refuses the whole request."""
    answer = failure_answer(key, context.version, request, error)
    if answer is None:
        raise CloseConnection(f"{context.principal} may not ask {key.name}, and its answer has no error")
    return answer


def split(
    context: RequestContext,
    key: ApiKey,
    request: Any,
    handler: Handler,
    *,
    items: str,
    answers: str,
    error_of: Judge,
) -> Answer:
    """Let the handler serve the items without an error; each other one is answered with its error, in place.

    `items` and `answers` are the lists in the request and in the response.
    """
    asked = getattr(request, items)
    errors = [error_of(item) for item in asked]
    if not any(errors):
        return handler(context, request)
    refusals = []
    for item, error in zip(asked, errors, strict=True):
        if error:
            setattr(request, items, [item])
            refusals += getattr(refused(context, key, request, error), answers)
    allowed = [item for item, error in zip(asked, errors, strict=True) if not error]

    def merge(answer: Any) -> Any:
        served, denied = iter(getattr(answer, answers)), iter(refusals)
        setattr(answer, answers, [next(denied if error else served) for error in errors])
        return answer

    if not allowed:
        setattr(request, items, asked)
        answer = refused(context, key, request, errors[0])
        setattr(answer, answers, refusals)
        return answer
    setattr(request, items, allowed)
    return then(handler(context, request), merge)
