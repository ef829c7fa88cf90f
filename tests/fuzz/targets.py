"""What is fuzzed: each target makes one input from a random source, and reads it as the product would."""

import asyncio
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from random import Random
from typing import Any

from crc32c import crc32c
from tests.fuzz.forged import forged
from tests.fuzz.mutations import damaged
from tests.unit.broker.protocol.random_messages import random_message

from tailrace.broker.coordinator import schemas
from tailrace.broker.coordinator.consumer_group import records
from tailrace.broker.coordinator.consumer_group.member import MemberState, Progress, Subscription
from tailrace.broker.log import LogError
from tailrace.broker.log.config import read_topic_config
from tailrace.broker.log.validation import check_batch, rewritten
from tailrace.broker.protocol import (
    APIS,
    ApiKey,
    ProtocolError,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)
from tailrace.broker.records.batch import (
    CRC_AT,
    CRC_START,
    HEADER_BYTES,
    check_produced,
    iterate_batches,
    read_marker,
)
from tailrace.broker.records.columnar_parse import parse_batches
from tailrace.broker.records.compression import Codec, compress, decompress
from tailrace.broker.records.errors import InvalidBatchError
from tailrace.broker.records.record import Record, decode_records, encode_batch
from tailrace.changes.errors import TailraceError
from tailrace.security.bearer import TokenError, read_token
from tailrace.security.sasl import PLAIN, Authenticator, SaslFailure, SaslSession
from tailrace.security.scram import Mechanism, credential
from tailrace.security.secrets import Secret

_SERVED = [(key, v) for key, api in APIS.items() for v in range(api.served.first, api.served.last + 1)]
_NOW_MS = 1_700_000_000_000
_BOMB_LIMIT = 1 << 20
_OPENED = read_topic_config({"cleanup.policy": "compact"})
_REPACKED = read_topic_config({"compression.type": "lz4"})


@dataclass(frozen=True)
class Target:
    """`make` an input, `read` it; the exceptions in `refusals` are an answer, every other is a crash."""

    make: Callable[[Random], Any]
    read: Callable[[Any], None]
    refusals: tuple[type[Exception], ...]


# -- messages ------------------------------------------------------------------------------------------


def _request(rng: Random) -> bytes:
    key, version = rng.choice(_SERVED)
    if rng.random() < 0.5:
        flexible = version in APIS[key].flexible
        header = struct.pack(">hhihB", key, version, rng.randrange(99), 1, 0x6D) + bytes(flexible)
        return header + forged(APIS[key].request, version, flexible, rng)
    request = random_message(APIS[key].request, version, rng)
    return damaged(b"".join(encode_request(key, version, 1, "me", request))[4:], rng)


def _read_request(frame: bytes) -> None:
    decode_request(frame)


def _response(rng: Random) -> tuple[ApiKey, int, bytes]:
    key, version = rng.choice(_SERVED)
    if rng.random() < 0.5:
        flexible = version in APIS[key].flexible
        header = bytes(4) + bytes(flexible and key is not ApiKey.API_VERSIONS)
        return key, version, header + forged(APIS[key].response, version, flexible, rng)
    response = random_message(APIS[key].response, version, rng)
    return key, version, damaged(b"".join(encode_response(key, version, 1, response))[4:], rng)


def _read_response(case: tuple[ApiKey, int, bytes]) -> None:
    decode_response(*case)


# -- record batches ------------------------------------------------------------------------------------


def _batch(rng: Random) -> bytes:
    """A batch with damage in its header, its records or its compressed bytes; mostly with a right checksum."""
    records = [
        Record(
            rng.choice((None, b"", b"key", rng.randbytes(20))),
            rng.choice((None, b"", b"v" * 300, rng.randbytes(9))),
            _NOW_MS + rng.randrange(1000),
            rng.choice(((), (("h", None),), (("op", b"u"), ("lsn", rng.randbytes(8))))),
        )
        for _ in range(rng.choice((1, 1, 3, 40)))
    ]
    codec = rng.choice(list(Codec))
    batch = encode_batch(
        records,
        producer_id=rng.choice((-1, 7)),
        producer_epoch=0,
        base_sequence=rng.choice((0, -1, 5)),
        transactional=rng.random() < 0.2,
    )
    header, payload = bytes(batch[:HEADER_BYTES]), bytes(batch[HEADER_BYTES:])
    where = rng.randrange(4)
    if where == 0:
        payload = damaged(payload, rng)
    packed = compress(codec, payload) if payload else b""
    if where == 1:
        packed = damaged(packed, rng)
    whole = bytearray(header + packed)
    whole[22] = whole[22] & ~7 | codec
    struct.pack_into(">i", whole, 8, len(whole) - 12)
    if where == 2:
        whole = bytearray(damaged(bytes(whole[:HEADER_BYTES]), rng) + whole[HEADER_BYTES:])
    elif where == 3:
        whole = bytearray(damaged(bytes(whole), rng))
    if rng.random() < 0.9 and len(whole) > CRC_START:
        struct.pack_into(">I", whole, CRC_AT, crc32c(memoryview(whole)[CRC_START:]))
    return bytes(whole)


def _read_produced(batch: bytes) -> None:
    """What the broker does with a batch: also for topics whose records it must open or pack again."""
    check_produced(batch)
    view = memoryview(batch)
    for config in (_OPENED, _REPACKED):
        header = check_batch(view, config, _NOW_MS, internal=False)
        rewritten(view, header, config, _NOW_MS)


def _read_fetched(batch: bytes) -> None:
    """What the client and the coordinators do with batches."""
    for header, one in iterate_batches(batch):
        if header.is_control:
            read_marker(one)
        decode_records(one)


def _read_columns(batch: bytes) -> None:
    parse_batches([one for _, one in iterate_batches(batch)])


def _packed(rng: Random) -> tuple[int, bytes]:
    codec = rng.choice([*list(Codec)[1:], rng.randrange(8)])
    content = rng.choice((b"", b"a" * 4000, bytes(3 * _BOMB_LIMIT), rng.randbytes(500)))
    if rng.random() < 0.99 and len(content) > _BOMB_LIMIT:
        content = content[:5000]
    packed = compress(codec, content) if codec in list(Codec) else content[:9000]
    return codec, damaged(packed, rng) if rng.random() < 0.9 else packed


def _read_packed(case: tuple[int, bytes]) -> None:
    out = decompress(*case, limit=_BOMB_LIMIT)
    assert case[0] == Codec.NONE or len(out) <= _BOMB_LIMIT


# -- internal topics -----------------------------------------------------------------------------------


_STORED: tuple[tuple[bytes, Callable[[bytes], object]], ...] = (
    (schemas.encode_group_key("group"), schemas.decode_consumer_offsets_key),
    (schemas.OffsetKey("group", "topic", 3).encode(), schemas.decode_consumer_offsets_key),
    (schemas.OffsetValue(7, 1, "note", _NOW_MS).encode(), schemas.OffsetValue.decode),
    (schemas.encode_txn_key("tx"), schemas.decode_txn_key),
    (
        schemas.TxnMetadata(
            7, 1, 60_000, schemas.TxnStatus.ONGOING, frozenset({("t", 0), ("u", 1)}), _NOW_MS, _NOW_MS
        ).encode(),
        schemas.TxnMetadata.decode,
    ),
)


_GROUP_CHANGES: tuple[records.Change, ...] = (
    records.GroupEpoch(7),
    records.SeenTopics({"t": (bytes(16), 3)}),
    records.MemberSubscription(
        "m", Subscription("i", "r", "c", "/h", 1000, frozenset({"t"}), "a.*", "range")
    ),
    records.TargetEpoch(7),
    records.MemberTarget("m", frozenset({(bytes(16), 0), (bytes(16), 2)})),
    records.MemberProgress(
        "m", Progress(7, 6, MemberState.UNREVOKED, {(bytes(16), 0): 7}, {(bytes(16), 2): 5})
    ),
    records.ResolvedPattern("a.*", frozenset({"t"}), 3, _NOW_MS),
)


def _reader(key: bytes) -> Callable[[bytes], object]:
    named = schemas.decode_consumer_offsets_key(key)
    assert not isinstance(named, schemas.OffsetKey | str | None)
    return lambda value: records.decode(named, value)


for _change in _GROUP_CHANGES:
    _key, _value = records.encode("group", _change)
    assert _value is not None
    _STORED += ((_key, schemas.decode_consumer_offsets_key), (_value, _reader(_key)))


def _stored(rng: Random) -> tuple[int, bytes]:
    number = rng.randrange(len(_STORED))
    return number, damaged(_STORED[number][0], rng)


def _read_stored(case: tuple[int, bytes]) -> None:
    _STORED[case[0]][1](case[1])


# -- SASL ----------------------------------------------------------------------------------------------


_CREDENTIALS = {m: credential(m, Secret("secret"), iterations=4096) for m in Mechanism}
_FIRSTS = (
    b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
    b"y,a=user,n=user,r=rOprNGfwEbeRWgbNEkqO,tokenauth=true",
    b"\0user\0secret",
    b"n,,\x01auth=Bearer abc.def.ghi\x01\x01",
)
_FINALS = (b"c=biws,r=%s,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", b"c=biws,r=%s,p=", b"", b"\x01")


class _OneUser:
    """`Users` without a store."""

    def find(self, name: str, mechanism: Mechanism) -> Any:
        return _CREDENTIALS[mechanism] if name == "user" else None

    def pretended(self, name: str, mechanism: Mechanism) -> Any:
        return _CREDENTIALS[mechanism]

    def any_of(self, name: str) -> Any:
        return (Mechanism.SHA_256, _CREDENTIALS[Mechanism.SHA_256]) if name == "user" else None


class _AnyToken:
    async def validate(self, token: str) -> Any:
        raise TokenError("no key")


class _Inline(ThreadPoolExecutor):
    """Password checks are left out: they cost milliseconds each and read no bytes of the client's."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        return super().submit(bool)


_loop = asyncio.new_event_loop()
_executor = _Inline(1)


def _sasl(rng: Random) -> tuple[str, bytes, bytes]:
    mechanism = rng.choice((PLAIN, *Mechanism, "OAUTHBEARER"))
    return mechanism, damaged(rng.choice(_FIRSTS), rng), rng.choice(_FINALS)


def _read_sasl(case: tuple[str, bytes, bytes]) -> None:
    mechanism, first, final = case
    offered = (PLAIN, *Mechanism, "OAUTHBEARER")
    session = SaslSession(
        Authenticator(offered, _OneUser(), _AnyToken(), _executor),  # type: ignore[arg-type]
        tls=True,
        address="127.0.0.1",
    )
    assert session.choose(mechanism)
    exchange = session._exchange
    assert exchange is not None
    if mechanism == PLAIN:
        _loop.run_until_complete(exchange.answer(first))
        return
    answer = _step(exchange.answer(first))
    nonce = answer.partition(b"r=")[2].partition(b",")[0]
    rng = Random(first)
    _step(exchange.answer(damaged(final.replace(b"%s", nonce), rng)))


def _step(coroutine: Any) -> bytes:
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return bytes(stop.value)
    raise AssertionError("an exchange waits for something")


def _token(rng: Random) -> bytes:
    return damaged(_FIRSTS[3], rng)


def _read_token(message: bytes) -> None:
    read_token(message)


TARGETS = {
    "requests": Target(_request, _read_request, (ProtocolError,)),
    "responses": Target(_response, _read_response, (ProtocolError,)),
    "produced batches": Target(_batch, _read_produced, (InvalidBatchError, LogError)),
    "fetched batches": Target(_batch, _read_fetched, (InvalidBatchError,)),
    "batches as columns": Target(_batch, _read_columns, (TailraceError,)),
    "codecs": Target(_packed, _read_packed, (InvalidBatchError,)),
    "internal topics": Target(_stored, _read_stored, (ProtocolError,)),
    "sasl": Target(_sasl, _read_sasl, (SaslFailure,)),
    "bearer tokens": Target(_token, _read_token, (TokenError,)),
}
