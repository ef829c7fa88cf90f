"""SCRAM on the server's side: the vector of RFC 7677, kafka-python's client as the oracle, and who lies."""

import base64
import hmac
import statistics
import time
import warnings
from collections.abc import Callable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tailrace.security import scram
from tailrace.security.scram import (
    LONGEST_NAME,
    MAX_ITERATIONS,
    MIN_ITERATIONS,
    Credential,
    Mechanism,
    ScramError,
    ScramServer,
    credential,
    matches,
    pretended,
)
from tailrace.security.secrets import Secret

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # kafka-python reads its schemas the old way
    from kafka.net.sasl.scram import ScramClient

KEY = b"k" * 32
WRONG = "the user name or the password is wrong"
BOTH = pytest.mark.parametrize("mechanism", list(Mechanism))


def server(
    mechanism: Mechanism, known: dict[str, Credential], nonce: Callable[[], str] | None = None
) -> ScramServer:
    return ScramServer(mechanism, known.get, lambda name: pretended(mechanism, name, KEY), nonce=nonce)


def known(mechanism: Mechanism, name: str = "alice", password: str = "secret") -> dict[str, Credential]:
    return {name: credential(mechanism, Secret(password), iterations=MIN_ITERATIONS)}


def log_in(server: ScramServer, name: str, password: str, mechanism: Mechanism) -> None:
    """Let kafka-python's client log in; it checks the server's signature."""
    client = ScramClient(name, password, str(mechanism))
    client.process_server_first_message(server.first(client.first_message()))
    client.process_server_final_message(server.final(client.final_message()))


def test_the_exchange_of_rfc_7677_comes_out_to_the_byte() -> None:
    made = credential(
        Mechanism.SHA_256,
        Secret("pencil"),
        salt=base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="),
        iterations=4096,
    )
    nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    exchange = server(Mechanism.SHA_256, {"user": made}, lambda: nonce)
    assert exchange.first(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO") == (
        f"r=rOprNGfwEbeRWgbNEkqO{nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode()
    )
    proof = b"dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    answer = exchange.final(b"c=biws,r=rOprNGfwEbeRWgbNEkqO" + nonce.encode() + b",p=" + proof)
    assert answer == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


_PLAIN_NAMES = st.text(
    st.characters(exclude_characters=",=\0", exclude_categories=["Cs"]), min_size=1, max_size=20
)
_PASSWORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@settings(max_examples=40)
@given(name=_PLAIN_NAMES, password=_PASSWORDS, other=_PASSWORDS, mechanism=st.sampled_from(Mechanism))
def test_kafka_pythons_client_is_let_in_with_the_password_and_with_no_other(
    name: str, password: str, other: str, mechanism: Mechanism
) -> None:
    users = known(mechanism, name, password)
    log_in(server(mechanism, users), name, password, mechanism)
    assume(other != password)
    with pytest.raises(ScramError, match=WRONG):
        log_in(server(mechanism, users), name, other, mechanism)


@settings(max_examples=25)
@given(name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_a_name_with_commas_and_equals_signs_arrives_as_it_is(name: str) -> None:
    escaped = name.replace("=", "=3D").replace(",", "=2C")
    exchange = server(Mechanism.SHA_256, known(Mechanism.SHA_256, name))
    log_in(exchange, escaped, "secret", Mechanism.SHA_256)
    assert exchange.user == name


@BOTH
def test_the_nonce_of_the_client_alone_is_refused(mechanism: Mechanism) -> None:
    """CVE-2024-56128: without the server's part an exchange could be played again."""
    exchange = server(mechanism, known(mechanism))
    client = ScramClient("alice", "secret", str(mechanism))
    alone = client.nonce
    client.process_server_first_message(exchange.first(client.first_message()))
    final = client.final_message()
    for wrong in (alone, client.nonce + b"x", client.nonce[:-1], client.nonce.swapcase()):
        with pytest.raises(ScramError, match="another nonce"):
            exchange.final(final.replace(b"r=" + client.nonce, b"r=" + wrong))


@BOTH
def test_an_exchange_that_was_listened_to_cannot_be_played_again(mechanism: Mechanism) -> None:
    users = known(mechanism)
    client = ScramClient("alice", "secret", str(mechanism))
    hello = client.first_message()
    first = server(mechanism, users)
    client.process_server_first_message(first.first(hello))
    first.final(client.final_message())
    again = server(mechanism, users)
    again.first(hello)
    with pytest.raises(ScramError, match="another nonce"):
        again.final(client.final_message())


def test_the_nonce_is_fresh_and_long_for_each_exchange() -> None:
    users = known(Mechanism.SHA_256)
    nonces = {server(Mechanism.SHA_256, users).first(b"n,,n=alice,r=x").split(b",")[0] for _ in range(200)}
    assert len(nonces) == 200
    assert min(map(len, nonces)) >= len("r=x") + 32  # 24 random bytes


@pytest.mark.parametrize(
    "message",
    [
        b"", b"n", b"n,,", b"n,,n=alice", b"n,,r=x", b"n,,n=,r=x", b"n,,n=alice,r=", b"x,,n=alice,r=x",
        b"n,,m=x,n=alice,r=x", b"n,,n=al=ice,r=x", b"n,,n=alice,r=a b", b"n,,n=alice,r=\xc3\xa9", b"\xff",
        b"n,b=x,n=alice,r=x", b"n,,n=" + b"a" * 300_000 + b",r=x", b"n,,n=" + b"a" * (LONGEST_NAME + 1) + b",r=x",
    ],
)  # fmt: skip
def test_a_malformed_first_message_is_refused(message: bytes) -> None:
    with pytest.raises(ScramError):
        server(Mechanism.SHA_256, known(Mechanism.SHA_256)).first(message)


def test_nobody_acts_as_somebody_else() -> None:
    users = known(Mechanism.SHA_256) | known(Mechanism.SHA_256, "bob")
    with pytest.raises(ScramError, match="somebody else"):
        server(Mechanism.SHA_256, users).first(b"n,a=bob,n=alice,r=x")
    assert server(Mechanism.SHA_256, users).first(b"n,a=alice,n=alice,r=x")


def test_delegation_tokens_are_refused() -> None:
    with pytest.raises(ScramError, match="delegation"):
        server(Mechanism.SHA_256, known(Mechanism.SHA_256)).first(b"n,,n=alice,r=x,tokenauth=true")


def test_a_client_that_binds_to_a_channel_is_refused_and_one_that_could_is_taken_at_its_word() -> None:
    """We offer no -PLUS mechanism, so `y` tells of no downgrade; what was said is checked in the final message."""
    users = known(Mechanism.SHA_256)
    for binding in (b"p=tls-unique,,", b"p=tls-exporter,,", b"p=,,"):
        with pytest.raises(ScramError, match="channel binding is not offered"):
            server(Mechanism.SHA_256, users).first(binding + b"n=alice,r=x")
    exchange = server(Mechanism.SHA_256, users)
    nonce = exchange.first(b"y,,n=alice,r=x").split(b",")[0]
    with pytest.raises(ScramError, match="another channel binding"):  # it said y, and now n
        exchange.final(b"c=biws," + nonce + b",p=AAAA")


@pytest.mark.parametrize("proof", [b"", b"AAAA", b"!!!!", b"\xc3\xa9\xc3\xa9", b"A", b"=" * 44])
def test_a_proof_that_is_none_is_refused(proof: bytes) -> None:
    exchange = server(Mechanism.SHA_256, known(Mechanism.SHA_256))
    nonce = exchange.first(b"n,,n=alice,r=x").split(b",")[0]
    for message in (b"c=biws," + nonce + b",p=" + proof, b"c=" + proof + b"," + nonce + b",p=AAAA"):
        with pytest.raises(ScramError):
            exchange.final(message)


def test_a_final_message_without_a_first_is_refused() -> None:
    with pytest.raises(ScramError, match="malformed"):
        server(Mechanism.SHA_256, {}).final(b"c=biws,r=x,p=AAAA")


@BOTH
def test_an_unknown_user_is_asked_and_refused_like_a_known_one(mechanism: Mechanism) -> None:
    users = known(mechanism)
    told = []
    for name in ("alice", "nobody"):
        exchange = server(mechanism, users)
        client = ScramClient(name, "wrong", str(mechanism))
        client.process_server_first_message(exchange.first(client.first_message()))
        with pytest.raises(ScramError) as error:
            exchange.final(client.final_message())
        told.append(str(error.value))
    assert told == [WRONG, WRONG]


@BOTH
def test_no_password_fits_a_user_who_does_not_exist(
    mechanism: Mechanism, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even if the made-up keys were guessed."""
    made = credential(mechanism, Secret("guessed"))
    exchange = ScramServer(mechanism, lambda name: None, lambda name: made)
    with pytest.raises(ScramError, match=WRONG):
        log_in(exchange, "nobody", "guessed", mechanism)


@BOTH
def test_an_unknown_user_has_one_salt_for_ever_and_the_iterations_of_those_who_exist(
    mechanism: Mechanism,
) -> None:
    shapes = [(4096, 24), (8192, 26)]
    seen = {name: pretended(mechanism, name, KEY, shapes) for name in map(str, range(200))}
    for name, made in seen.items():
        again = pretended(mechanism, name, KEY, shapes)
        assert (again.salt, again.iterations) == (made.salt, made.iterations)
    assert {(made.iterations, len(made.salt)) for made in seen.values()} == set(shapes)
    assert len({made.salt for made in seen.values()}) == 200
    assert pretended(mechanism, "1", b"other key", shapes).salt != seen["1"].salt
    assert pretended(mechanism, "1", KEY).iterations == scram.DEFAULT_ITERATIONS


def test_secrets_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """CVE-2021-38153; every comparison of a key goes through hmac.compare_digest."""
    compared: list[bytes] = []

    def spy(left: bytes, right: bytes) -> bool:
        compared.append(bytes(right))
        return left == right

    users = known(Mechanism.SHA_256)
    stored = users["alice"].stored_key
    monkeypatch.setattr(hmac, "compare_digest", spy)
    log_in(server(Mechanism.SHA_256, users), "alice", "secret", Mechanism.SHA_256)
    assert stored in compared
    compared.clear()
    assert matches(Mechanism.SHA_256, Secret("secret"), users["alice"])
    assert compared == [stored]


def test_an_unknown_user_takes_as_long_as_a_wrong_password() -> None:
    users = known(Mechanism.SHA_256)

    def took(name: bytes) -> float:
        times = []
        for _ in range(400):
            exchange = server(Mechanism.SHA_256, users)
            began = time.perf_counter()
            nonce = exchange.first(b"n,,n=" + name + b",r=x").split(b",")[0]
            with pytest.raises(ScramError, match=WRONG):
                exchange.final(b"c=biws," + nonce + b",p=" + base64.b64encode(bytes(32)))
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    # a PBKDF2 for one of the two would be a hundred times as much; the rest drowns in any network
    assert abs(took(b"alice") - took(b"nobody")) < 0.001


def test_a_credential_of_ours_has_a_fresh_salt_and_iterations_within_kafkas_window() -> None:
    made = [credential(Mechanism.SHA_256, Secret("same")) for _ in range(3)]
    assert len({one.salt for one in made}) == 3
    assert {one.iterations for one in made} == {10_000}
    assert (MIN_ITERATIONS, MAX_ITERATIONS) == (4096, 16384)
    assert all("same" not in repr(one) and str(one.salt) not in repr(one) for one in made)
