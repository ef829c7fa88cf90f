"""SCRAM's client side: RFC 7677's example is the oracle, and no server is taken for the right one unproven."""

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.security.scram import Mechanism, ScramClient, ScramError, ScramServer, credential, pretended
from tailrace.security.secrets import Secret

NONCE = "rOprNGfwEbeRWgbNEkqO"
SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def example() -> ScramClient:
    return ScramClient(Mechanism.SHA_256, "user", Secret("pencil"), nonce=lambda: NONCE)


def test_the_exchange_of_rfc_7677_comes_out_byte_for_byte() -> None:
    client = example()
    assert client.first() == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    assert client.final(SERVER_FIRST) == (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    client.verify(SERVER_FINAL)


def test_a_server_with_another_signature_is_not_believed() -> None:
    client = example()
    client.final(SERVER_FIRST)
    with pytest.raises(ScramError, match="cannot prove"):
        client.verify(b"v=" + base64.b64encode(bytes(32)))


def test_a_server_cannot_skip_the_proof_of_the_client() -> None:
    with pytest.raises(ScramError, match="malformed"):
        example().verify(b"v=")
    with pytest.raises(ScramError, match="malformed"):
        example().verify(b"v=AAAA")


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (SERVER_FIRST.replace(b"rOpr", b"xOpr"), "nonce"),
        (b"r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "nonce"),
        (SERVER_FIRST.replace(b"i=4096", b"i=1"), "1 iterations"),
        (SERVER_FIRST.replace(b"i=4096", b"i=999999999"), "999999999 iterations"),
        (SERVER_FIRST.replace(b"s=W2", b"s=!2"), "base64"),
        (b"m=must," + SERVER_FIRST, "malformed"),
        ("r=rOprNGfwEbeRWgbNEkqO1,s=é===,i=4096".encode(), "base64"),
        (b"\xff", "UTF-8"),
        (b"", "malformed"),
    ],
)
def test_a_malformed_or_forged_first_message_ends_the_exchange(message: bytes, said: str) -> None:
    with pytest.raises(ScramError, match=said):
        example().final(message)


@given(
    st.binary(max_size=60) | st.text(max_size=60).map(str.encode) | st.integers(0, 90), st.binary(max_size=3)
)
def test_no_server_can_make_the_client_fail_otherwise(message: bytes | int, inserted: bytes) -> None:
    if isinstance(message, int):
        message = SERVER_FIRST[:message] + inserted + SERVER_FIRST[message + 1 :]
    for receive in (example().final, example().verify):
        with contextlib.suppress(ScramError):
            receive(message)


def test_the_reason_of_a_server_that_refuses_is_told() -> None:
    client = example()
    client.final(SERVER_FIRST)
    with pytest.raises(ScramError, match="unknown-user"):
        client.verify(b"e=unknown-user")


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20), st.sampled_from(Mechanism))
def test_our_server_lets_in_whoever_knows_the_password_and_nobody_else(
    user: str, password: str, mechanism: Mechanism
) -> None:
    known = credential(mechanism, Secret(password), iterations=4096)
    for said, right in ((password, True), (password + "x", False)):
        server = ScramServer(
            mechanism,
            lambda name: known if name == user else None,
            lambda name: pretended(mechanism, name, b""),
        )
        client = ScramClient(mechanism, user, Secret(said))
        proof = client.final(server.first(client.first()))
        if right:
            client.verify(server.final(proof))
        else:
            with pytest.raises(ScramError, match="password is wrong"):
                server.final(proof)
