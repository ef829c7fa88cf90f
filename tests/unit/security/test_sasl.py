"""Logins as a state machine, on a clock that the test turns: mechanisms, renewal, locks, and nothing after a failure."""

import asyncio
import math
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tailrace.security.bearer import INVALID_TOKEN, Identity, TokenError, read_token
from tailrace.security.sasl import OAUTHBEARER, PLAIN, Authenticator, SaslFailure, SaslSession
from tailrace.security.scram import MIN_ITERATIONS, Mechanism, credential
from tailrace.security.secrets import Secret
from tailrace.security.store import SecurityStore
from tailrace.security.users import Users

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # kafka-python reads its schemas the old way
    from kafka.net.sasl.scram import ScramClient

SCRAM = str(Mechanism.SHA_256)


class Tokens:
    """Takes `name@expiry`."""

    async def validate(self, token: str) -> Identity:
        name, at, expiry = token.partition("@")
        if not at:
            raise TokenError("it is not good")
        return Identity(name, float(expiry))


class Place:
    """Users alice and bob (password: name + "-pw"), a clock, and sessions from one address."""

    def __init__(self, store: SecurityStore, executor: ThreadPoolExecutor) -> None:
        self.users = Users(store)
        self.now = 1000.0
        for name in ("alice", "bob"):
            self.set_password(name, f"{name}-pw")
        self.authenticator = Authenticator(
            (SCRAM, "SCRAM-SHA-512", PLAIN, OAUTHBEARER), self.users, Tokens(), executor
        )

    def set_password(self, name: str, password: str) -> None:
        made = credential(Mechanism.SHA_256, Secret(password), iterations=MIN_ITERATIONS)
        self.users.alter({(name, Mechanism.SHA_256): made})

    def session(self, *, tls: bool = True, address: str = "ip", most_s: float = math.inf) -> SaslSession:
        return SaslSession(
            self.authenticator, tls=tls, address=address, max_lifetime_s=most_s,
            clock=lambda: self.now, epoch=lambda: self.now,
        )  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    store = SecurityStore(tmp_path / "metadata.db")
    with ThreadPoolExecutor(1) as executor:
        yield Place(store, executor)
    store.close()


def answer(session: SaslSession, message: bytes) -> tuple[bytes, int]:
    return asyncio.run(session.answer(message))


def plain(session: SaslSession, name: str, password: str, authzid: str = "") -> int:
    assert session.choose(PLAIN)
    return answer(session, f"{authzid}\0{name}\0{password}".encode())[1]


def scram(session: SaslSession, name: str, password: str) -> int:
    assert session.choose(SCRAM)
    client = ScramClient(name, password, SCRAM)
    client.process_server_first_message(answer(session, client.first_message())[0])
    message, lifetime_ms = answer(session, client.final_message())
    client.process_server_final_message(message)
    return lifetime_ms


def bearer(session: SaslSession, token: str) -> tuple[bytes, int]:
    assert session.choose(OAUTHBEARER)
    return answer(session, f"n,,\x01auth=Bearer {token}\x01\x01".encode())


def test_nothing_is_served_before_the_login_and_the_user_is_known_after_it(place: Place) -> None:
    for log_in in (scram, plain):
        session = place.session()
        assert session.principal is None and not session.may_ask
        assert log_in(session, "alice", "alice-pw") == 0
        assert str(session.principal) == "User:alice" and session.may_ask


@pytest.mark.parametrize(
    ("name", "password", "authzid"),
    [
        ("alice", "wrong", ""),
        ("alice", "bob-pw", ""),
        ("nobody", "alice-pw", ""),
        ("Alice", "alice-pw", ""),
        ("alice", "", ""),
        ("", "alice-pw", ""),
        ("alice", "alice-pw", "bob"),
        ("x" * 100_000, "alice-pw", ""),
        ("alice", "x" * 100_000, ""),
    ],
)
def test_plain_lets_nobody_in_with_anything_but_name_and_password(
    place: Place, name: str, password: str, authzid: str
) -> None:
    session = place.session()
    with pytest.raises(SaslFailure) as failure:
        plain(session, name, password, authzid)
    assert not session.may_ask and session.principal is None and session.failed
    assert "-pw" not in str(failure.value)


@pytest.mark.parametrize(
    "message", [b"", b"alice", b"\0alice", b"\0alice\0alice-pw\0", b"\xff\0alice\0alice-pw"]
)
def test_a_malformed_message_of_plain_is_refused(place: Place, message: bytes) -> None:
    session = place.session()
    session.choose(PLAIN)
    with pytest.raises(SaslFailure):
        answer(session, message)


def test_plain_is_offered_inside_tls_only(place: Place) -> None:
    assert PLAIN in place.session(tls=True).offered
    session = place.session(tls=False)
    assert PLAIN not in session.offered
    assert not session.choose(PLAIN) and session.failed


@pytest.mark.parametrize(
    "mechanism", ["GSSAPI", "", "scram-sha-256", "SCRAM-SHA-256-PLUS", "EXTERNAL", "ANONYMOUS"]
)
def test_a_mechanism_that_is_not_offered_ends_the_session(place: Place, mechanism: str) -> None:
    session = place.session()
    assert not session.choose(mechanism)
    assert session.failed
    assert not session.choose(PLAIN)  # nothing but the end follows


def test_after_a_failure_no_further_attempt_counts_on_the_same_session(place: Place) -> None:
    session = place.session()
    with pytest.raises(SaslFailure):
        plain(session, "alice", "wrong")
    assert not session.choose(PLAIN)
    assert not session.may_ask


def test_a_name_is_locked_after_ten_wrong_passwords_and_the_right_one_does_not_help(place: Place) -> None:
    for _ in range(10):
        with pytest.raises(SaslFailure):
            plain(place.session(), "alice", "wrong")
    for log_in in (plain, scram):
        with pytest.raises(SaslFailure, match="locked"):
            log_in(place.session(), "alice", "alice-pw")
    plain(place.session(address="elsewhere"), "alice", "alice-pw")
    plain(place.session(), "bob", "bob-pw")
    place.now += 61
    plain(place.session(), "alice", "alice-pw")


def test_names_that_fail_are_remembered_by_no_more_than_their_longest_length(place: Place) -> None:
    for attempt in (plain, scram):
        with pytest.raises(SaslFailure):
            attempt(place.session(), "x" * 400_000, "pw")
    remembered = place.authenticator.failed_logins._failures
    assert max(len(user) for _, user in remembered) <= 255


# -- renewal (KIP-368) ---------------------------------------------------------------------------------


def test_a_session_holds_as_long_as_told_and_a_renewal_by_the_same_user_prolongs_it(place: Place) -> None:
    session = place.session(most_s=60)
    assert scram(session, "alice", "alice-pw") == 60_000
    place.now += 59
    assert session.may_ask
    assert scram(session, "alice", "alice-pw") == 60_000
    place.now += 59
    assert session.may_ask
    place.now += 2
    assert not session.may_ask


@pytest.mark.parametrize("by", ["another user", "another mechanism"])
def test_a_session_does_not_change_hands(place: Place, by: str) -> None:
    session = place.session(most_s=60)
    scram(session, "alice", "alice-pw")
    with pytest.raises(SaslFailure, match="another user or mechanism"):
        if by == "another user":
            scram(session, "bob", "bob-pw")
        else:
            plain(session, "alice", "alice-pw")
    assert session.failed and not session.may_ask


def test_nothing_is_served_between_the_messages_of_a_renewal(place: Place) -> None:
    session = place.session()
    scram(session, "alice", "alice-pw")
    assert session.choose(SCRAM)
    assert not session.may_ask


def test_a_renewal_that_fails_ends_the_session_that_held(place: Place) -> None:
    session = place.session()
    scram(session, "alice", "alice-pw")
    with pytest.raises(SaslFailure):
        scram(session, "alice", "wrong")
    assert not session.may_ask
    session = place.session()
    scram(session, "alice", "alice-pw")
    assert not session.choose("GSSAPI")
    assert not session.may_ask


# -- credentials that change ---------------------------------------------------------------------------


def test_a_session_rests_on_the_credential_that_it_was_made_with_and_on_no_other(place: Place) -> None:
    session = place.session()
    scram(session, "alice", "alice-pw")
    assert session.uses({("alice", Mechanism.SHA_256)})
    assert not session.uses({("alice", Mechanism.SHA_512), ("bob", Mechanism.SHA_256)})


def test_a_password_that_changes_during_a_login_ends_it(place: Place) -> None:
    session = place.session()
    session.choose(SCRAM)
    client = ScramClient("alice", "alice-pw", SCRAM)
    client.process_server_first_message(answer(session, client.first_message())[0])
    place.set_password("alice", "new-pw")
    with pytest.raises(SaslFailure, match="changed meanwhile"):
        answer(session, client.final_message())
    assert not session.may_ask


def test_who_is_told_of_a_change_is_told_after_it_counts(place: Place) -> None:
    told: list[object] = []
    place.users.on_change = lambda changed: told.append(
        (set(changed), place.users.find("alice", Mechanism.SHA_256))
    )
    place.users.alter({("alice", Mechanism.SHA_256): None})
    assert told == [({("alice", Mechanism.SHA_256)}, None)]
    with pytest.raises(SaslFailure):
        scram(place.session(), "alice", "alice-pw")


def test_an_unknown_user_is_asked_as_before_after_a_restart_and_with_a_known_users_iterations(
    tmp_path: Path,
) -> None:
    asked = []
    for _ in range(2):
        store = SecurityStore(tmp_path / "metadata.db")
        users = Users(store)
        made = credential(Mechanism.SHA_256, Secret("pw"), salt=b"s" * 17, iterations=7777)
        users.alter({("alice", Mechanism.SHA_256): made})
        shown = users.pretended("nobody", Mechanism.SHA_256)
        asked.append((shown.salt, shown.iterations, len(shown.salt)))
        store.close()
    assert asked[0] == asked[1]
    assert asked[0][1:] == (7777, 17)


# -- tokens --------------------------------------------------------------------------------------------


def test_a_token_makes_its_user_until_it_expires(place: Place) -> None:
    session = place.session()
    assert bearer(session, "carol@1090") == (b"", 90_000)
    assert str(session.principal) == "User:carol"
    seen = []
    for seconds in (89, 2):
        place.now += seconds
        seen.append(session.may_ask)
    assert seen == [True, False]
    session = place.session(most_s=60)
    assert bearer(session, "carol@9999") == (b"", 60_000)


def test_a_token_that_does_not_count_is_told_so_and_the_next_message_ends_the_session(place: Place) -> None:
    for following in (b"\x01", b"n,,\x01auth=Bearer carol@9999\x01\x01"):
        session = place.session()
        assert bearer(session, "bad") == (INVALID_TOKEN, 0)
        assert not session.may_ask
        with pytest.raises(SaslFailure, match="the token does not count"):
            answer(session, following)
        assert session.failed and not session.may_ask


@pytest.mark.parametrize(
    "message",
    [
        b"", b"x", b"n,,", b"n,,\x01", b"n,,\x01\x01", b"n,,\x01auth=Bearer x\x01", b"y,,\x01auth=Bearer x\x01\x01",
        b"p=tls-unique,,\x01auth=Bearer x\x01\x01", b"n,,\x01auth=Basic x\x01\x01", b"n,,\x01auth=x\x01\x01",
        b"n,a=bob,\x01auth=Bearer x\x01\x01", b"n,,\x01auth=Bearer x\x01auth=Bearer y\x01\x01",
        b"n,,\x01host=x\x01\x01", b"n,,\x01auth=Bearer \xff\x01\x01", b"n,,\x01auth=Bearer x\x01\x01\x01",
    ],
)  # fmt: skip
def test_a_message_without_one_bearer_token_is_refused(message: bytes) -> None:
    with pytest.raises(TokenError):
        read_token(message)


def test_extensions_beside_the_token_are_let_pass() -> None:
    assert read_token(b"n,,\x01auth=Bearer a.b.c\x01traceId=1\x01\x01") == "a.b.c"
