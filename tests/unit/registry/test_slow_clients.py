"""Clients of the registry that never end what they begin: they are hung up on, and the others notice nothing."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.fixtures.registry_place import ADMIN, PASSWORD, RegistryPlace, registry_place

from tailrace.registry import deadlines

PATIENCE_S = 1.0
HEADER = b"POST /subjects/s/versions HTTP/1.1\r\nHost: registry\r\nAuthorization: Basic YWRtaW46cmlnaHQ=\r\n"
BODY = b'{"schema": "\\"long\\""}'


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryPlace]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deadlines, "REQUEST_S", PATIENCE_S)
        patch.setattr(deadlines, "ANSWER_S", PATIENCE_S)
        with registry_place(tmp_path_factory.mktemp("registry")) as made:
            yield made


def connect(place: RegistryPlace) -> socket.socket:
    return socket.create_connection(("127.0.0.1", place.port), 20)


def is_hung_up_on(client: socket.socket) -> bool:
    """Whether the registry ends the connection before the socket's own time limit of 20 s, whatever it says before."""
    try:
        while client.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def is_served(place: RegistryPlace) -> None:
    assert place.ask("GET", "/subjects", login=f"{ADMIN}:{PASSWORD}")[0] == 200


def is_hung_up_on_while_sending(client: socket.socket, piece: bytes) -> bool:
    """Whether the registry ends the connection of a client that goes on sending and reads nothing."""
    deadline = time.monotonic() + 20
    try:
        while time.monotonic() < deadline:
            client.sendall(piece)
            threading.Event().wait(PATIENCE_S / 20)
    except ConnectionError:
        return True
    return False


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        HEADER,
        HEADER + b"Content-Length: 1000\r\n\r\n" + BODY,
        HEADER + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
        HEADER.replace(b"YWRt", b"AAAA") + b"Content-Length: 1000\r\n\r\n" + BODY,
    ],
    ids=["nothing", "header", "body", "chunk", "body of a stranger"],
)
def test_a_client_that_never_ends_its_request_is_hung_up_on_while_others_are_served(
    place: RegistryPlace, sent: bytes
) -> None:
    with connect(place) as slow:
        slow.sendall(sent)
        is_served(place)
        assert is_hung_up_on(slow)
    is_served(place)


def test_a_client_that_goes_on_byte_by_byte_has_no_more_time_than_another(place: RegistryPlace) -> None:
    with connect(place) as slow:
        slow.sendall(HEADER + b"X: ")
        assert is_hung_up_on_while_sending(slow, b"x")
    with connect(place) as slow:
        slow.sendall(HEADER + b"Transfer-Encoding: chunked\r\n\r\n")
        assert is_hung_up_on_while_sending(slow, b"1\r\n{\r\n")
    is_served(place)


def test_a_client_that_never_reads_its_answers_is_hung_up_on(place: RegistryPlace) -> None:
    symbols = [f"a_symbol_of_some_length_{number}" for number in range(20_000)]
    schema = json.dumps({"type": "enum", "name": "large", "symbols": symbols})
    made = place.as_admin("POST", "/subjects/large/versions", {"schema": schema})
    asked = HEADER.replace(b"POST /subjects/s/versions", b"GET /schemas/ids/%d" % made["id"]) + b"\r\n"
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(20)
        slow.connect(("127.0.0.1", place.port))
        slow.sendall(asked * 20)
        assert is_hung_up_on_while_sending(slow, b"x")
    is_served(place)


def test_half_headers_on_every_connection_keep_others_out_for_the_time_limit_only(
    place: RegistryPlace,
) -> None:
    with ExitStack() as stack:
        for _ in range(1_000):
            stack.enter_context(connect(place)).sendall(HEADER)
        deadline = time.monotonic() + 20
        while place.ask("GET", "/subjects", login=f"{ADMIN}:{PASSWORD}")[0] == 503:
            assert time.monotonic() < deadline
        is_served(place)


def test_a_request_that_comes_in_pieces_within_the_time_limit_is_answered_and_its_connection_kept(
    place: RegistryPlace,
) -> None:
    with connect(place) as client:
        for _ in range(3):  # longer than one time limit, all together
            whole = HEADER + f"Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY
            for start in range(0, len(whole), 20):
                client.sendall(whole[start : start + 20])
                threading.Event().wait(PATIENCE_S / 20)
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")
        client.sendall(HEADER)
        assert is_hung_up_on(client)


def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error(
    place: RegistryPlace, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(place) as client:
        client.sendall(HEADER + b"Content-Length: 1000\r\n\r\n" + BODY)
    with connect(place) as slow:
        slow.sendall(HEADER + b"Content-Length: 1000\r\n\r\n" + BODY)
        assert is_hung_up_on(slow)
    is_served(place)
    assert caplog.messages == []
