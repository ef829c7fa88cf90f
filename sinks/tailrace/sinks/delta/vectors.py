"""Deletion vectors (Delta protocol, "Deletion Vectors" and "Deletion Vector File Storage Format").

One file holds the vectors of one commit::

    0   1  format version, 1
    per vector:
        4  size n of what follows, int32 BE
        n  4  magic 1681511377, int32 LE
           8  number of 32-bit bitmaps, int64 LE: here always 1
           4  key of the bitmap (upper 32 bits of its positions), int32 LE: here always 0
           .  RoaringBitmap in its portable format
        4  CRC-32 of the n bytes, int32 BE

A descriptor names it: storageType "u", pathOrInlineDv = optional folder prefix + Z85 of the file's UUID,
offset of the size field, sizeInBytes = n, cardinality.
"""

import struct
import uuid
import zlib
from collections.abc import Mapping
from typing import Any

from pyroaring import BitMap

from tailrace.changes import TailraceError

Descriptor = dict[str, Any]

_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_Z85_VALUE = {char: value for value, char in enumerate(_Z85)}
_HEAD = struct.Struct("<iqi")
_MAGIC = 1681511377


def z85_encode(data: bytes) -> str:
    """ZeroMQ RFC 32; `data` is a multiple of 4 bytes."""
    out = []
    for at in range(0, len(data), 4):
        value = int.from_bytes(data[at : at + 4], "big")
        out += [_Z85[value // 85**power % 85] for power in (4, 3, 2, 1, 0)]
    return "".join(out)


def z85_decode(text: str) -> bytes:
    """The bytes of a Z85 text; its length is a multiple of 5."""
    out = bytearray()
    for at in range(0, len(text), 5):
        value = 0
        for char in text[at : at + 5]:
            value = value * 85 + _Z85_VALUE[char]
        out += value.to_bytes(4, "big")
    return bytes(out)


def encode_file(vectors: Mapping[str, BitMap]) -> tuple[str, bytes, dict[str, Descriptor]]:
    """A new vector file: its path, its bytes, and the descriptor of each vector by data file path."""
    name = uuid.uuid4()
    encoded = z85_encode(name.bytes)
    out = bytearray(b"\x01")
    descriptors: dict[str, Descriptor] = {}
    for path, positions in vectors.items():
        compact = positions.copy()
        compact.run_optimize()
        data = _HEAD.pack(_MAGIC, 1, 0) + compact.serialize()
        descriptors[path] = {
            "storageType": "u",
            "pathOrInlineDv": encoded,
            "offset": len(out),
            "sizeInBytes": len(data),
            "cardinality": len(positions),
        }
        out += struct.pack(">i", len(data)) + data + struct.pack(">I", zlib.crc32(data))
    return f"deletion_vector_{name}.bin", bytes(out), descriptors


def vector_path(descriptor: Descriptor) -> str:
    """Path of the file that a descriptor names; TailraceError for a kind that no sink writes."""
    if descriptor["storageType"] != "u":
        raise TailraceError(
            "the Delta table has a deletion vector that this sink did not write",
            fix="only maintenance may be done by others on a table that a sink owns",
        )
    text = descriptor["pathOrInlineDv"]
    prefix = text[:-20]
    return f"{prefix}/" * bool(prefix) + f"deletion_vector_{uuid.UUID(bytes=z85_decode(text[-20:]))}.bin"


def decode(file: bytes, descriptor: Descriptor) -> BitMap:
    """The positions of one vector; TailraceError when its bytes are damaged."""
    at, size = descriptor.get("offset", 0), descriptor["sizeInBytes"]
    data = file[at + 4 : at + 4 + size]
    (crc,) = struct.unpack_from(">I", file, at + 4 + size)
    magic, bitmaps, key = _HEAD.unpack_from(data)
    if zlib.crc32(data) != crc or (magic, bitmaps, key) != (_MAGIC, 1, 0):
        raise TailraceError(
            f"deletion vector file {vector_path(descriptor)} is damaged", fix="restore the file"
        )
    return BitMap.deserialize(data[_HEAD.size :])
