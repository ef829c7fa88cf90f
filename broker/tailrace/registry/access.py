"""Who may see and change which subject, by the broker's authorizer (Confluent's TopicNameStrategy names the topic).

    subject               read                 change
    T-key, T-value        DESCRIBE topic T     WRITE, DELETE or ALTER_CONFIGS topic T
    any other, global     DESCRIBE cluster     ALTER cluster

A read shows what is left when everything that its caller may not see is taken away, so what is forbidden answers as
what is missing does; a refused change says so whether its subject exists or not.
"""

import asyncio
import re
from collections.abc import Iterable
from enum import Enum, auto

from tailrace.broker.http_gate import HttpVisitor, Question
from tailrace.registry.call import Call
from tailrace.registry.errors import RegistryError, RegistryErrorCode
from tailrace.registry.subjects import Subjects
from tailrace.security.acls import CLUSTER_NAME, Operation, ResourceType

_OF_A_TOPIC = re.compile(r"(?P<topic>[a-zA-Z0-9._-]{1,249})-(?:key|value)")


class Reads(Enum):
    """What a read tells of."""

    NOTHING = auto()  # of no subject
    SUBJECT = auto()  # the one in its path
    SCHEMA = auto()  # the one whose id is in its path
    SUBJECTS = auto()  # all of them
    GLOBALS = auto()


def question(operation: Operation, subject: str | None) -> Question:
    """What the authorizer is asked for an operation on a subject, or on what is global."""
    found = None if subject is None else _OF_A_TOPIC.fullmatch(subject)
    if found is not None:
        return operation, ResourceType.TOPIC, found["topic"]
    on_cluster = Operation.DESCRIBE if operation is Operation.DESCRIBE else Operation.ALTER
    return on_cluster, ResourceType.CLUSTER, CLUSTER_NAME


async def visible(reads: Reads, subjects: Subjects, call: Call, visitor: HttpVisitor) -> Subjects:
    """The state as the visitor may see it.  Raises RegistryError 40301 for the globals, which always exist."""
    match reads:
        case Reads.NOTHING:
            return Subjects()
        case Reads.SUBJECT:
            return subjects.only(await _describable([call.subject], visitor))
        case Reads.SUBJECTS:
            return subjects.only(await _describable(subjects.names(deleted=True), visitor))
        case Reads.SCHEMA:
            return await _with_schema(subjects, call.schema_id, visitor)
        case Reads.GLOBALS:
            if not await _allowed(Operation.DESCRIBE, None, visitor):
                raise RegistryError(
                    RegistryErrorCode.OPERATION_DENIED, "User is denied operation GLOBAL_READ on this server."
                )
            return subjects


async def require(operation: Operation, call: Call, visitor: HttpVisitor) -> None:
    """Raise RegistryError 40301 where the visitor may not do this to the subject in the path, or globally."""
    if not await _allowed(operation, call.own_subject, visitor):
        what = "this server." if call.own_subject is None else f"Subject: {call.own_subject}"
        raise RegistryError(
            RegistryErrorCode.OPERATION_DENIED, f"User is denied operation {operation.name} on {what}"
        )


async def _with_schema(subjects: Subjects, schema_id: int, visitor: HttpVisitor) -> Subjects:
    users = subjects.users_of(schema_id)
    if users:
        return subjects.only(await _describable(users, visitor))
    left = Subjects()  # of a schema whose subjects were all removed for good
    if await _allowed(Operation.DESCRIBE, None, visitor) and schema_id in subjects.schemas:
        left.schemas[schema_id] = subjects.schemas[schema_id]
    return left


async def _describable(names: Iterable[str], visitor: HttpVisitor) -> list[str]:
    asked = {name: question(Operation.DESCRIBE, name) for name in names}
    different = list(dict.fromkeys(asked.values()))
    answers: list[bool] = await asyncio.wrap_future(visitor.ask(different))
    verdicts = dict(zip(different, answers, strict=True))
    return [name for name, about in asked.items() if verdicts[about]]


async def _allowed(operation: Operation, subject: str | None, visitor: HttpVisitor) -> bool:
    (verdict,) = await asyncio.wrap_future(visitor.ask([question(operation, subject)]))
    return verdict
