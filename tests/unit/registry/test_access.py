"""Every route of a registry beside a broker with an authorizer: who gets in, what they may, what they learn.

The routes are the application's own: one that is added there without a row in NEEDS fails here.
"""

import itertools
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, cast

import pytest
from starlette.routing import Route
from tests.fixtures.registry_place import ADMIN, CLERK, PASSWORD, Need, RegistryPlace, registry_place

from tailrace.registry.http import create_app
from tailrace.registry.store import Store
from tailrace.security.acls import CLUSTER_NAME, Operation, ResourceType
from tailrace.security.scram import Mechanism, credential
from tailrace.security.secrets import Secret

TOPIC, CLUSTER = ResourceType.TOPIC, ResourceType.CLUSTER
SCHEMA = json.dumps({"type": "record", "name": "r", "fields": [{"name": "id", "type": "long"}]})
DESCRIBE, ALTER = Operation.DESCRIBE, Operation.ALTER

NEEDS: dict[tuple[str, str], Operation | None] = {
    ("GET", "/"): None,
    ("GET", "/v1/metadata/id"): None,
    ("GET", "/v1/metadata/version"): None,
    ("GET", "/contexts"): None,
    ("GET", "/schemas/types"): None,
    ("GET", "/schemas/ids/{id}"): DESCRIBE,
    ("GET", "/schemas/ids/{id}/schema"): DESCRIBE,
    ("GET", "/schemas/ids/{id}/subjects"): DESCRIBE,
    ("GET", "/schemas/ids/{id}/versions"): DESCRIBE,
    ("GET", "/subjects"): DESCRIBE,
    ("POST", "/subjects/{subject}"): DESCRIBE,
    ("DELETE", "/subjects/{subject}"): Operation.DELETE,
    ("GET", "/subjects/{subject}/versions"): DESCRIBE,
    ("POST", "/subjects/{subject}/versions"): Operation.WRITE,
    ("GET", "/subjects/{subject}/versions/{version}"): DESCRIBE,
    ("DELETE", "/subjects/{subject}/versions/{version}"): Operation.DELETE,
    ("GET", "/subjects/{subject}/versions/{version}/schema"): DESCRIBE,
    ("GET", "/subjects/{subject}/versions/{version}/referencedby"): DESCRIBE,
    ("POST", "/compatibility/subjects/{subject}/versions"): DESCRIBE,
    ("POST", "/compatibility/subjects/{subject}/versions/{version}"): DESCRIBE,
    ("GET", "/config"): DESCRIBE,
    ("PUT", "/config"): ALTER,
    ("DELETE", "/config"): ALTER,
    ("GET", "/config/{subject}"): DESCRIBE,
    ("PUT", "/config/{subject}"): Operation.ALTER_CONFIGS,
    ("DELETE", "/config/{subject}"): Operation.ALTER_CONFIGS,
    ("GET", "/mode"): DESCRIBE,
    ("PUT", "/mode"): ALTER,
    ("DELETE", "/mode"): ALTER,
    ("GET", "/mode/{subject}"): DESCRIBE,
    ("PUT", "/mode/{subject}"): Operation.ALTER_CONFIGS,
    ("DELETE", "/mode/{subject}"): Operation.ALTER_CONFIGS,
}
"""What each route needs, on the topic of its subject or, where it has none, on the cluster."""
ALWAYS_THE_SAME = [row for row, needed in NEEDS.items() if needed is None]
GLOBAL = [row for row in NEEDS if row[1] in ("/config", "/mode")]
READS = [row for row, needed in NEEDS.items() if needed is DESCRIBE and row not in GLOBAL]
BODIES = {"POST": {"schema": SCHEMA}, "PUT": {"compatibility": "FULL", "mode": "READWRITE"}}

_numbers = itertools.count()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryPlace]:
    with registry_place(tmp_path_factory.mktemp("registry")) as made:
        yield made


def fresh(place: RegistryPlace) -> tuple[str, str, int]:
    """A topic, its subject with a schema of its own, a level and a mode, and the schema's id."""
    topic = f"vault-{next(_numbers)}"
    subject = f"{topic}-value"
    made = place.as_admin("POST", f"/subjects/{subject}/versions", {"schema": own_schema(topic)})
    place.as_admin("PUT", f"/config/{subject}", {"compatibility": "FULL"})
    place.as_admin("PUT", f"/mode/{subject}", {"mode": "READWRITE"})
    place.as_admin("PUT", "/mode", {"mode": "READWRITE"})
    return topic, subject, made["id"]


def own_schema(topic: str) -> str:
    return json.dumps(
        {"type": "record", "name": topic.replace("-", "_"), "fields": [{"name": "id", "type": "long"}]}
    )


def ask(
    place: RegistryPlace, row: tuple[str, str], subject: str, schema_id: int, *, login: str | None
) -> tuple[int, Any]:
    verb, path = row
    body = dict(BODIES[verb]) if verb in BODIES else None
    if body is not None and "schema" in body and "compatibility" not in path:
        body["schema"] = own_schema(subject.removesuffix("-value"))
    filled = path.format(subject=subject, id=schema_id, version="1")
    return place.ask(verb, filled, body, login=login)


def need(row: tuple[str, str], topic: str) -> list[Need]:
    needed = NEEDS[row]
    if needed is None:
        return []
    return [(CLUSTER, needed, CLUSTER_NAME)] if row in GLOBAL else [(TOPIC, needed, topic)]


# -- every route, everybody ----------------------------------------------------------------------------


def test_a_route_that_is_served_has_a_row_that_says_what_it_needs() -> None:
    served = [cast(Route, route) for route in create_app(cast(Store, None)).routes]
    rows = {(verb, route.path) for route in served for verb in (route.methods or set()) - {"HEAD"}}
    assert rows == NEEDS.keys()


@pytest.mark.parametrize("row", [*NEEDS, ("GET", "/nowhere"), ("PATCH", "/subjects")], ids=" ".join)
@pytest.mark.parametrize("login", [None, f"{CLERK}:wrong", f"nobody:{PASSWORD}", ":", f"{ADMIN}"])
def test_without_a_right_login_every_path_answers_401_and_nothing_else(
    place: RegistryPlace, row: tuple[str, str], login: str | None
) -> None:
    forget_failures(place)
    path = row[1].format(subject="s-value", id=1, version=1)
    status, answer, headers = place.exchange(row[0], path, BODIES.get(row[0]), login=login)
    assert (status, answer) == (401, {"error_code": 401, "message": "Unauthorized"})
    assert headers.get_all("WWW-Authenticate") == ['Basic realm="tailrace", charset="UTF-8"']


@pytest.mark.parametrize("row", [row for row in NEEDS if row not in ALWAYS_THE_SAME], ids=" ".join)
def test_who_has_no_rule_gets_nothing_and_exactly_the_rule_of_the_route_is_enough(
    place: RegistryPlace, row: tuple[str, str]
) -> None:
    topic, subject, schema_id = fresh(place)
    login = f"{CLERK}:{PASSWORD}"
    everything = [
        (kind, operation, name)
        for kind, name in ((TOPIC, f"{topic}x"), (ResourceType.GROUP, topic))
        for operation in Operation
        if operation >= Operation.ALL
    ]
    for rules in ([], everything):
        place.allow(*rules)
        status, answer = ask(place, row, subject, schema_id, login=login)
        if row == ("GET", "/subjects"):
            assert (status, answer) == (200, [])
        elif row in READS:
            assert status == 404 or answer == {"is_compatible": True}
        else:
            assert (status, answer["error_code"]) == (403, 40301)
    place.allow(*need(row, topic))
    status, answer = ask(place, row, subject, schema_id, login=login)
    assert status == 200, answer


@pytest.mark.parametrize("row", ALWAYS_THE_SAME, ids=" ".join)
def test_what_tells_nothing_of_subjects_is_answered_to_everybody_with_a_login(
    place: RegistryPlace, row: tuple[str, str]
) -> None:
    place.allow()
    assert place.ask(*row, login=f"{CLERK}:{PASSWORD}")[0] == 200


@pytest.mark.parametrize("row", [row for row in NEEDS if "{" in row[1]], ids=" ".join)
@pytest.mark.parametrize("switches", ["", "?deleted=true&permanent=true&defaultToGlobal=true&verbose=true"])
def test_what_is_forbidden_answers_as_what_is_missing_does(
    place: RegistryPlace, row: tuple[str, str], switches: str
) -> None:
    _, subject, schema_id = fresh(place)
    missing, no_id = subject.replace("vault", "empty"), 1_000_000 + schema_id
    place.allow()
    asked = (row[0], row[1] + switches)
    known = ask(place, asked, subject, schema_id, login=f"{CLERK}:{PASSWORD}")
    unknown = ask(place, asked, missing, no_id, login=f"{CLERK}:{PASSWORD}")
    shown = json.dumps(known).replace(subject, missing).replace(f"Schema {schema_id} ", f"Schema {no_id} ")
    assert json.loads(shown) == list(unknown)


def test_a_subject_that_names_no_topic_and_what_is_global_need_the_cluster(place: RegistryPlace) -> None:
    login = f"{CLERK}:{PASSWORD}"
    for subject in ("shop.Order", "-value", "a%2Fb-value", "orders"):
        place.as_admin("POST", f"/subjects/{subject}/versions", {"schema": SCHEMA})
        place.allow(*((TOPIC, o, name) for o in Operation if o >= Operation.ALL for name in ("*", subject)))
        assert place.ask("GET", f"/subjects/{subject}/versions", login=login)[0] == 404
        assert place.ask("PUT", f"/config/{subject}", {"compatibility": "FULL"}, login=login)[0] == 403
        place.allow((CLUSTER, DESCRIBE, CLUSTER_NAME))
        assert place.ask("GET", f"/subjects/{subject}/versions", login=login) == (200, [1])
        assert place.ask("DELETE", f"/subjects/{subject}", login=login)[0] == 403
        place.allow((CLUSTER, ALTER, CLUSTER_NAME))
        assert place.ask("DELETE", f"/subjects/{subject}", login=login) == (200, [1])


def test_lists_name_only_what_may_be_seen_and_a_shared_schema_only_its_visible_subjects(
    place: RegistryPlace,
) -> None:
    login = f"{CLERK}:{PASSWORD}"
    topic, subject, schema_id = fresh(place)
    other, _, _ = fresh(place)
    place.as_admin("POST", f"/subjects/{other}-key/versions", {"schema": own_schema(topic)})
    place.allow((TOPIC, Operation.READ, topic))
    assert place.ask("GET", "/subjects", login=login) == (200, [subject])
    assert place.ask("GET", "/subjects?deleted=true&subjectPrefix=vault", login=login) == (200, [subject])
    assert place.ask("GET", f"/schemas/ids/{schema_id}/subjects", login=login) == (200, [subject])
    versions = [{"subject": subject, "version": 1}]
    assert place.ask("GET", f"/schemas/ids/{schema_id}/versions", login=login) == (200, versions)
    place.allow((TOPIC, DESCRIBE, other))  # any one subject that has the schema will do
    assert place.ask("GET", f"/schemas/ids/{schema_id}", login=login)[0] == 200
    assert place.ask("GET", f"/schemas/ids/{schema_id}/subjects", login=login) == (200, [f"{other}-key"])


def test_a_schema_whose_subjects_are_gone_for_good_is_read_by_who_may_describe_the_cluster(
    place: RegistryPlace,
) -> None:
    login = f"{CLERK}:{PASSWORD}"
    topic, subject, schema_id = fresh(place)
    place.as_admin("DELETE", f"/subjects/{subject}")
    place.allow((TOPIC, DESCRIBE, topic))
    assert place.ask("GET", f"/schemas/ids/{schema_id}", login=login)[0] == 200  # old records are still read
    place.as_admin("DELETE", f"/subjects/{subject}?permanent=true")
    assert place.ask("GET", f"/schemas/ids/{schema_id}", login=login)[0] == 404
    place.allow((CLUSTER, DESCRIBE, CLUSTER_NAME))
    assert place.ask("GET", f"/schemas/ids/{schema_id}", login=login)[0] == 200


# -- logins --------------------------------------------------------------------------------------------


def forget_failures(place: RegistryPlace) -> None:
    place.server.broker.security.authenticator.failed_logins._failures.clear()


def test_after_ten_failures_the_right_password_is_refused_and_another_name_is_not(
    place: RegistryPlace,
) -> None:
    forget_failures(place)
    assert place.ask("GET", "/", login=f"{CLERK}:{PASSWORD}")[0] == 200
    for _ in range(10):
        # the address that a proxy would tell is not believed, or each guess would have its own
        status, _ = place.ask("GET", "/", login=f"{CLERK}:wrong", X_Forwarded_For=f"10.0.0.{next(_numbers)}")
        assert status == 401
    assert place.ask("GET", "/", login=f"{CLERK}:{PASSWORD}")[0] == 401
    assert place.ask("GET", "/", login=f"{ADMIN}:{PASSWORD}")[0] == 200
    forget_failures(place)
    assert place.ask("GET", "/", login=f"{CLERK}:{PASSWORD}")[0] == 200


def test_a_password_that_was_right_counts_no_longer_than_its_credential(place: RegistryPlace) -> None:
    forget_failures(place)
    users = place.server.broker.security.users
    made = credential(Mechanism.SHA_256, Secret("first"), iterations=4096)
    changed = credential(Mechanism.SHA_256, Secret("second"), iterations=4096)

    def alter(value: Any) -> None:
        place.on_loop(lambda: users.alter({("guest", Mechanism.SHA_256): value}))

    assert place.ask("GET", "/", login="guest:first")[0] == 401
    alter(made)
    for _ in range(2):
        assert place.ask("GET", "/", login="guest:first")[0] == 200
    alter(changed)
    assert place.ask("GET", "/", login="guest:first")[0] == 401
    assert place.ask("GET", "/", login="guest:second")[0] == 200
    alter(None)
    assert place.ask("GET", "/", login="guest:second")[0] == 401


@pytest.mark.parametrize(
    "header", ["Basic", "Basic !!!", "Basic /w==", "Negotiate x", "Bearer x", "basic YTpi YTpi", "\x01"]
)
def test_a_header_that_is_no_login_is_refused(place: RegistryPlace, header: str) -> None:
    assert place.ask("GET", "/", Authorization=header)[0] in (400, 401)


# -- limits --------------------------------------------------------------------------------------------


def nested(levels: int) -> str:
    return '{"type":"array","items":' * levels + '"int"' + "}" * levels


def record(fields: list[Any]) -> str:
    return json.dumps({"type": "record", "name": "r", "fields": fields})


LIMITS = {
    "a body of 10 MB": (json.dumps({"schema": " " * 10_000_000}).encode(), 413),
    "a schema that is larger than a record": ({"schema": json.dumps({"type": "string", "doc": "x" * 1_100_000})}, 422),
    "one that grows too large by escapes": ({"schema": json.dumps({"type": "string", "doc": "é" * 200_000})}, 422),
    "10,000 levels": ({"schema": nested(10_000)}, 422),
    "129 levels": ({"schema": nested(129)}, 422),
    "10,000 levels around the schema": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, 422),
    "12,000 fields": ({"schema": record([{"name": f"f{n}", "type": "int"} for n in range(12_000)])}, 422),
    "quotes without an end": ({"schema": '"\\' * 500_000}, 422),
}  # fmt: skip


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.timeout(60)
def test_a_schema_beyond_a_limit_is_refused_in_time_and_the_registry_goes_on(
    place: RegistryPlace, limit: str
) -> None:
    body, expected = LIMITS[limit]
    for path in (
        "/subjects/l-value/versions",
        "/subjects/l-value",
        "/compatibility/subjects/l-value/versions",
    ):
        status, answer = place.ask("POST", path, body, login=f"{ADMIN}:{PASSWORD}")
        assert status == expected, answer
        assert set(answer) == {"error_code", "message"}
    assert place.as_admin("GET", "/") == {}


def test_what_is_within_the_limits_is_taken(place: RegistryPlace) -> None:
    place.as_admin("POST", "/subjects/deep-value/versions", {"schema": nested(128)})
    place.as_admin("POST", "/compatibility/subjects/deep-value/versions", {"schema": nested(128)})
    columns = [{"name": f"c{n}", "type": ["null", "string"], "default": None} for n in range(1_600)]
    wide = record(columns)
    place.as_admin("POST", "/subjects/wide-value/versions", {"schema": wide})


@pytest.mark.parametrize("path", ["/schemas/ids/%C2%B2", f"/schemas/ids/{'9' * 5000}", "/schemas/ids/-1"])
def test_an_id_that_is_no_number_is_not_found(place: RegistryPlace, path: str) -> None:
    status, answer = place.ask("GET", path, login=f"{ADMIN}:{PASSWORD}")
    assert (status, answer["error_code"]) == (404, 40403)


@pytest.mark.parametrize("version", ["%C2%B2", "9" * 5000, "0", "x"])
def test_a_version_that_is_no_number_is_told(place: RegistryPlace, version: str) -> None:
    _, subject, _ = fresh(place)
    path = f"/subjects/{subject}/versions/{version}"
    status, answer = place.ask("GET", path, login=f"{ADMIN}:{PASSWORD}")
    assert (status, answer["error_code"]) == (422, 42202)


@pytest.mark.parametrize("subject", ["s" * 513, "a%00b", "a%0Ab"])
def test_a_subject_that_nobody_could_read_in_a_list_is_refused(place: RegistryPlace, subject: str) -> None:
    status, answer = place.ask(
        "POST", f"/subjects/{subject}/versions", {"schema": SCHEMA}, login=f"{ADMIN}:{PASSWORD}"
    )
    assert (status, answer["error_code"]) == (422, 42208)


def test_connections_that_ask_nothing_are_limited_and_keep_nobody_out_for_ever(
    place: RegistryPlace,
) -> None:
    with ExitStack() as stack:
        for _ in range(1_000):
            stack.enter_context(socket.create_connection(("127.0.0.1", place.port), 20))
        assert place.ask("GET", "/")[0] == 503
    deadline = time.monotonic() + 20
    while place.ask("GET", "/", login=f"{ADMIN}:{PASSWORD}")[0] != 200:
        assert time.monotonic() < deadline
