"""A connection to a cluster for one command, and what its answers mean."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from tailrace.broker.client import BrokerError, Client
from tailrace.broker.client.errors import raise_for
from tailrace.broker.protocol import ApiKey, ErrorCode
from tailrace.pipeline.plan import Endpoints

PATIENCE_S = 10.0  # a person waits for the answer
GROUP, TRANSACTION = 0, 1  # kinds of coordinators

_Result = TypeVar("_Result")

_FIXES: Mapping[ErrorCode, str] = {
    ErrorCode.SECURITY_DISABLED: "start the broker with an authorizer",
    ErrorCode.NON_EMPTY_GROUP: "stop its members first",
    ErrorCode.GROUP_ID_NOT_FOUND: "list them: tailrace groups list",
    ErrorCode.TRANSACTIONAL_ID_NOT_FOUND: "list them: tailrace transactions list",
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: "list them: tailrace topics list",
    ErrorCode.TOPIC_AUTHORIZATION_FAILED: "ask for an ACL on the topic, or use another user",
    ErrorCode.GROUP_AUTHORIZATION_FAILED: "ask for an ACL on the group, or use another user",
    ErrorCode.CLUSTER_AUTHORIZATION_FAILED: "ask for an ACL on the cluster, or use another user",
    ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "ask for an ACL on the transactional id, or use another user",
    ErrorCode.TOPIC_DELETION_DISABLED: "set delete.topic.enable",
}


def open_client(endpoints: Endpoints) -> Client:
    """A client that gives up after ten seconds; nothing is connected yet."""
    return Client(
        endpoints.bootstrap, client_id="tailrace-cli", security=endpoints.security, retry_for_s=PATIENCE_S
    )


def check(error_code: int, what: str, message: str | None = None) -> None:
    """Raise BrokerError with the broker's own words and the next step; RetryableError where a retry may help."""
    if error_code == ErrorCode.NONE:
        return
    error = ErrorCode.of(error_code)
    said = f"{what}: {message}" if message else what
    if error.retriable and error not in _FIXES:
        raise_for(error_code, said)
    raise BrokerError(f"{said} ({error.name})", error=error, fix=_FIXES.get(error, ""))


def ask(client: Client, api_key: ApiKey, request: Any, read: Callable[[Any], _Result]) -> _Result:
    """One request to the controller, tried again while its answer says so; `read` checks and returns."""
    return client.retrying(api_key.name.lower(), lambda: read(client.ask_controller(api_key, request)))


def ask_every_node(client: Client, api_key: ApiKey, request: Any) -> list[Any]:
    """The same request to every broker: what each one alone knows of its groups, transactions and disks."""
    return client.retrying(
        api_key.name.lower(),
        lambda: [client.ask(client.connection(node), api_key, request) for node in client.nodes()],
    )


def ask_coordinator(
    client: Client, kind: int, key: str, api_key: ApiKey, request: Any, read: Callable[[Any], _Result]
) -> _Result:
    """One request to the coordinator of a group or transactional id; `read` checks and returns."""
    return client.retrying(
        api_key.name.lower(), lambda: read(client.ask_coordinator(kind, key, api_key, request))
    )


def check_coordinated(
    client: Client, kind: int, key: str, error_code: int, what: str, message: str | None = None
) -> None:
    """`check` that also looks the coordinator up anew where it has moved."""
    if error_code in (ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_NOT_AVAILABLE):
        client.check_coordinator(kind, key, error_code, what)
    check(error_code, what, message)
