"""Where a partition key lies on the ring.

Token = first half of Murmur3 x64 128 (seed 0) of the key bytes, as signed 64-bit, in the variant
Cassandra uses: the tail bytes (the last ``len % 16``) are sign-extended before they are mixed in, a
slip in Cassandra's first port that became its format. CQL drivers compute the same, and so can send
a request straight to a replica. Keys whose tail is ASCII hash alike in both variants and take the C
library; the others are hashed here.

Invariants: every token is in TOKEN_MIN..TOKEN_MAX, and no key's token is TOKEN_MIN, because
Cassandra keeps it for "before everything".

Source: Appleby 2011, MurmurHash3_x64_128; Cassandra, `MurmurHash.hash3_x64_128` and
`Murmur3Partitioner.getToken`.
"""

from __future__ import annotations

import struct

import mmh3

from merganser.model.ids import Token

TOKEN_MIN = Token(-(2**63))
TOKEN_MAX = Token(2**63 - 1)

_MASK = 2**64 - 1
_C1 = 0x87C37B91114253D5
_C2 = 0x4CF5AD432745937F


def token_of(partition_key: bytes) -> Token:
    """Return the token of ``partition_key``; b"" has token 0, as the drivers have it."""
    if partition_key[len(partition_key) & ~15 :].isascii():
        hashed = mmh3.mmh3_x64_128_stupledigest(partition_key, 0)[0]
    else:
        hashed = _hash_with_signed_tail(partition_key)
    return Token(hashed) if hashed != TOKEN_MIN else TOKEN_MAX


def _hash_with_signed_tail(key: bytes) -> int:
    """Return the first half of Cassandra's variant, signed; about 1 µs for every 16 bytes."""
    h1, h2 = _mix_body(key)
    body_length = len(key) & ~15
    h1 ^= _scramble_first(_signed_sum(key[body_length : body_length + 8]))
    h2 ^= _scramble_second(_signed_sum(key[body_length + 8 :]))
    h1 ^= len(key)
    h2 ^= len(key)
    h1 = (h1 + h2) & _MASK
    h2 = (h2 + h1) & _MASK
    hashed = (_finish(h1) + _finish(h2)) & _MASK
    return hashed - 2**64 if hashed >> 63 else hashed


def _mix_body(key: bytes) -> tuple[int, int]:
    h1 = h2 = 0
    words = struct.unpack_from(f"<{len(key) // 16 * 2}Q", key)
    for k1, k2 in zip(words[::2], words[1::2], strict=True):
        h1 ^= _scramble_first(k1)
        h1 = (_rotated(h1, 27) + h2) * 5 + 0x52DCE729 & _MASK
        h2 ^= _scramble_second(k2)
        h2 = (_rotated(h2, 31) + h1) * 5 + 0x38495AB5 & _MASK
    return h1, h2


def _signed_sum(tail: bytes) -> int:
    """Fold up to eight bytes, each widened to 64 bits with its sign: the slip that makes the variant."""
    folded = 0
    for position, byte in enumerate(tail):
        signed = byte - 256 if byte > 127 else byte
        folded ^= signed << 8 * position & _MASK
    return folded


def _scramble_first(k1: int) -> int:
    return _rotated(k1 * _C1 & _MASK, 31) * _C2 & _MASK


def _scramble_second(k2: int) -> int:
    return _rotated(k2 * _C2 & _MASK, 33) * _C1 & _MASK


def _finish(h: int) -> int:
    h = (h ^ h >> 33) * 0xFF51AFD7ED558CCD & _MASK
    h = (h ^ h >> 33) * 0xC4CEB9FE1A85EC53 & _MASK
    return h ^ h >> 33


def _rotated(x: int, bits: int) -> int:
    return (x << bits | x >> 64 - bits) & _MASK
