"""DescribeUserScramCredentials (50), AlterUserScramCredentials (51) (KIP-554)."""

from collections import Counter

from tailrace.broker.handlers.context import RequestContext
from tailrace.broker.protocol import ErrorCode
from tailrace.broker.protocol.messages import (
    AlterUserScramCredentialsRequest,
    AlterUserScramCredentialsResponse,
    AlterUserScramCredentialsResult,
    DescribeUserScramCredentialsRequest,
    DescribeUserScramCredentialsResponse,
    DescribeUserScramCredentialsResult,
    ScramCredentialDeletion,
    ScramCredentialInfo,
    ScramCredentialUpsertion,
)
from tailrace.security.scram import MAX_ITERATIONS, MIN_ITERATIONS, Credential, Mechanism, from_salted
from tailrace.security.store import StoreError

_Change = tuple[tuple[str, Mechanism], Credential | None]


class _Unacceptable(Exception):
    def __init__(self, code: ErrorCode, why: str) -> None:
        super().__init__(why)
        self.code = code


def describe_user_scram_credentials(
    context: RequestContext, request: DescribeUserScramCredentialsRequest
) -> DescribeUserScramCredentialsResponse:
    """Mechanisms and iterations of users, never a key; no users named: all."""
    users = context.broker.security.users
    asked = Counter(user.name for user in request.users) if request.users else Counter(users.names())
    results = []
    for name, times in asked.items():
        if times > 1:
            error, why = ErrorCode.DUPLICATE_RESOURCE, "the user is named more than once"
        elif not users.of(name):
            error, why = ErrorCode.RESOURCE_NOT_FOUND, "the user has no SCRAM credential"
        else:
            infos = [ScramCredentialInfo(m.number, made.iterations) for m, made in users.of(name)]
            results.append(DescribeUserScramCredentialsResult(name, ErrorCode.NONE, None, infos))
            continue
        results.append(DescribeUserScramCredentialsResult(name, error, why))
    return DescribeUserScramCredentialsResponse(error_message=None, results=results)


def alter_user_scram_credentials(
    context: RequestContext, request: AlterUserScramCredentialsRequest
) -> AlterUserScramCredentialsResponse:
    """Set and remove credentials, durably; live sessions that rest on them end.

    The request carries salted passwords; a listener without TLS to other machines is refused at start.
    """
    parts: list[ScramCredentialDeletion | ScramCredentialUpsertion] = [
        *request.deletions,
        *request.upsertions,
    ]
    times = Counter((part.name, part.mechanism) for part in parts)
    errors: dict[str, tuple[ErrorCode, str | None]] = {}
    changes: dict[str, list[_Change]] = {}
    for part in parts:
        changes.setdefault(part.name, [])
        try:
            if times[part.name, part.mechanism] > 1:
                raise _Unacceptable(
                    ErrorCode.DUPLICATE_RESOURCE, "a credential is changed more than once in the request"
                )
            if isinstance(part, ScramCredentialDeletion):
                changes[part.name].append(_deletion(context, part))
            else:
                changes[part.name].append(_upsertion(part))
        except _Unacceptable as error:
            errors[part.name] = (error.code, str(error))
    made = dict(change for name, some in changes.items() if name not in errors for change in some)
    try:
        if made:
            context.broker.security.users.alter(made)
    except StoreError as error:
        failed = (ErrorCode.UNKNOWN_SERVER_ERROR, str(error))
        errors = {name: errors.get(name, failed) for name in changes}
    return AlterUserScramCredentialsResponse(
        results=[
            AlterUserScramCredentialsResult(name, *errors.get(name, (ErrorCode.NONE, None)))
            for name in changes
        ]
    )


def _mechanism(name: str, number: int) -> Mechanism:
    mechanism = Mechanism.of(number)
    if mechanism is None:
        raise _Unacceptable(
            ErrorCode.UNSUPPORTED_SASL_MECHANISM, "the mechanism is neither SCRAM-SHA-256 nor SCRAM-SHA-512"
        )
    if not name:
        raise _Unacceptable(ErrorCode.UNACCEPTABLE_CREDENTIAL, "the user name is empty")
    return mechanism


def _deletion(context: RequestContext, part: ScramCredentialDeletion) -> _Change:
    mechanism = _mechanism(part.name, part.mechanism)
    if context.broker.security.users.find(part.name, mechanism) is None:
        raise _Unacceptable(
            ErrorCode.RESOURCE_NOT_FOUND, "Attempt to delete a user credential that does not exist"
        )
    return (part.name, mechanism), None


def _upsertion(part: ScramCredentialUpsertion) -> _Change:
    mechanism = _mechanism(part.name, part.mechanism)
    if not MIN_ITERATIONS <= part.iterations <= MAX_ITERATIONS:
        raise _Unacceptable(
            ErrorCode.UNACCEPTABLE_CREDENTIAL,
            f"the iterations must be from {MIN_ITERATIONS} to {MAX_ITERATIONS}",
        )
    if not part.salt or not part.salted_password:
        raise _Unacceptable(ErrorCode.UNACCEPTABLE_CREDENTIAL, "the salt or the salted password is empty")
    made = from_salted(mechanism, part.salted_password, part.salt, part.iterations)
    return (part.name, mechanism), made
