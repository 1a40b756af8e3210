"""The hash tree of a partition: equal rows have equal trees, and a write changes one leaf.

::

    root                  1   XOR of the branches
    branches             32   XOR of their leaves
    leaves    32 * 32 = 1,024 XOR of the fingerprints of their rows

A row's leaf follows from its token alone: the tokens of the partition are cut into 1,024 equal stretches, so a leaf
is one contiguous range of keys. XOR takes a row out as it puts it in, so a write costs O(1) whatever the partition
holds, and the order of writes leaves no trace.

A fingerprint is 64 bits of Murmur3 over the key and the beginning of the stored bytes, which holds the checksum of the
whole row and its timestamps: its cost does not grow with the row. It is seeded by the table, so that keys that
hide each other in one table do not in the next. Two replicas that differ have equal trees once in 2**64 times;
the upper nodes are XOR as well, because that adds nothing to the odds and costs no hashing. Murmur3 is no defence
against a client that sets out to hide rows of its own table from repair.

Invariants: a tree is a function of the set of (key, stored bytes) alone; a leaf without rows is 0; branches without
rows take no memory.

Source: DeCandia 2007 §4.7; Merkle 1987.
"""

from __future__ import annotations

import operator
import struct
from array import array
from collections.abc import Sequence
from functools import reduce
from itertools import chain

import mmh3

from merganser.core.token import TOKEN_MIN
from merganser.model.errors import CorruptionError
from merganser.model.ids import Token

FANOUT = 32
LEAVES = FANOUT * FANOUT
ALL_LEAVES = range(LEAVES)
LEVELS = (1, FANOUT, LEAVES)
"""How many nodes there are on each level, the root first."""
LEAF_LEVEL = len(LEVELS) - 1

_LEAF_BITS = 10
_BRANCH_BITS = 5
_LEAF_MASK = LEAVES - 1
_IN_BRANCH = FANOUT - 1
_HEAD_BYTES = 64
"""Of the stored bytes: the checksum over key and row, and for nearly every row its timestamps. Hashing a longer head
tells no more apart than the checksum already does."""
_VERSION = 1
_IMAGE_HEAD = struct.Struct(">BI")
_BRANCH = struct.Struct(f">{FANOUT}Q")
_NOTHING = (0,) * FANOUT
_digest = mmh3.mmh3_x64_128_utupledigest


def seed_of(unique_id: str) -> int:
    """Return the seed for the fingerprints of the table with that unique id."""
    return mmh3.hash(unique_id.encode(), 0, False)


def fingerprint(key: bytes, stored: bytes, seed: int) -> int:
    """Return what a row adds to its leaf: 64 bits, unsigned.

    Args:
        key: of the row.
        stored: the bytes under it, which have passed their checksum.
        seed: of the table.
    """
    return _digest(key + stored[:_HEAD_BYTES], seed)[0]


def leaf_shift(partitions: int) -> int:
    """Return how many low bits of a token do not matter for its leaf, on a ring of so many partitions."""
    return 64 - (partitions.bit_length() - 1) - _LEAF_BITS


def leaf_at(token: Token, shift: int) -> int:
    """Return the leaf of the rows at ``token``, in their partition.

    Args:
        token: of a key.
        shift: of the ring, from `leaf_shift`.
    """
    return (token - TOKEN_MIN) >> shift & _LEAF_MASK


def leaf_tokens(first: Token, leaf: int, shift: int) -> tuple[Token, Token]:
    """Return the first and the last token of a leaf.

    Args:
        first: token of the partition.
        leaf: 0 to 1,023.
        shift: of the ring, from `leaf_shift`.
    """
    low = first + (leaf << shift)
    return Token(low), Token(low + (1 << shift) - 1)


class HashTree:
    """The fingerprints of a partition, summed up; see the module's docstring."""

    __slots__ = ("_branches",)

    def __init__(self) -> None:
        """Start as the tree of no rows."""
        self._branches: dict[int, array[int]] = {}

    def __eq__(self, other: object) -> bool:
        """Tell whether both are trees of the same rows, but for a collision."""
        return isinstance(other, HashTree) and self._filled() == other._filled()

    __hash__ = None  # type: ignore[assignment]  # it changes

    def toggle(self, leaf: int, change: int) -> None:
        """Put a row into a leaf, or take it out: the same; a new version takes the XOR of both.

        Args:
            leaf: 0 to 1,023.
            change: fingerprint, or XOR of fingerprints.
        """
        branch = self._branches.get(leaf >> _BRANCH_BITS)
        if branch is None:
            branch = self._branches[leaf >> _BRANCH_BITS] = array("Q", _NOTHING)
        branch[leaf & _IN_BRANCH] ^= change

    def replace(self, leaf: int, key: bytes, before: bytes | None, after: bytes, seed: int) -> None:
        """Put a row in the place of what was under its key: `toggle`, by what `fingerprint` says of both, in one step.

        Args:
            leaf: 0 to 1,023.
            key: of the row.
            before: what was there, None if nothing was.
            after: what is there.
            seed: of the table.
        """
        branch = self._branches.get(leaf >> _BRANCH_BITS)
        if branch is None:
            branch = self._branches[leaf >> _BRANCH_BITS] = array("Q", _NOTHING)
        if before is None:
            branch[leaf & _IN_BRANCH] ^= _digest(key + after[:_HEAD_BYTES], seed)[0]
        else:
            changed = _digest(key + before[:_HEAD_BYTES], seed)[0] ^ _digest(key + after[:_HEAD_BYTES], seed)[0]
            branch[leaf & _IN_BRANCH] ^= changed

    @property
    def root(self) -> int:
        """The XOR of everything."""
        return reduce(operator.xor, (reduce(operator.xor, leaves) for leaves in self._branches.values()), 0)

    @property
    def branches(self) -> tuple[int, ...]:
        """The 32 nodes below the root."""
        branches = [0] * FANOUT
        for branch, leaves in self._branches.items():
            branches[branch] = reduce(operator.xor, leaves)
        return tuple(branches)

    def leaves_of(self, branch: int) -> tuple[int, ...]:
        """Return the 32 leaves below a branch."""
        leaves = self._branches.get(branch)
        return _NOTHING if leaves is None else tuple(leaves)

    def leaf(self, leaf: int) -> int:
        """Return one leaf."""
        leaves = self._branches.get(leaf >> _BRANCH_BITS)
        return 0 if leaves is None else leaves[leaf & _IN_BRANCH]

    def nodes(self, level: int, positions: Sequence[int]) -> tuple[int, ...]:
        """Return the nodes at ``positions`` of a level, in that order.

        Args:
            level: 0 the root, 1 branches, 2 leaves.
            positions: from 0; leaves are counted through the whole tree.

        Raises:
            ValueError: there are no such nodes.
        """
        if not 0 <= level < len(LEVELS):
            raise ValueError(f"a hash tree has levels 0 to {len(LEVELS) - 1}, not {level}")
        if positions == ALL_LEAVES and level == LEAF_LEVEL:  # asked for often, and a thousand
            return tuple(chain.from_iterable(map(self.leaves_of, range(FANOUT))))
        if positions and not 0 <= min(positions) <= max(positions) < LEVELS[level]:
            raise ValueError(f"level {level} of a hash tree has nodes 0 to {LEVELS[level] - 1}")
        if level == 0:
            return (self.root,) * len(positions)
        if level == 1:
            branches = self.branches
            return tuple(branches[position] for position in positions)
        return tuple([self.leaf(position) for position in positions])

    @property
    def is_empty(self) -> bool:
        """Tell whether this is the tree of no rows."""
        return not self._filled()

    def pack(self) -> bytes:
        """Return the tree as bytes: version, a bit for each branch that is not all 0, those branches."""
        filled = self._filled()
        head = _IMAGE_HEAD.pack(_VERSION, sum(1 << branch for branch in filled))
        return head + b"".join(_BRANCH.pack(*filled[branch]) for branch in sorted(filled))

    @classmethod
    def unpack(cls, packed: bytes) -> HashTree:
        """Return the tree that `pack` made ``packed`` of.

        Raises:
            CorruptionError: none, or a tree of another version.
        """
        if len(packed) < _IMAGE_HEAD.size or packed[0] != _VERSION:
            raise CorruptionError(f"not a hash tree of version {_VERSION}: {packed[:8].hex()} ({len(packed)} bytes)")
        _, filled = _IMAGE_HEAD.unpack_from(packed)
        if len(packed) != _IMAGE_HEAD.size + filled.bit_count() * _BRANCH.size:
            raise CorruptionError(f"a hash tree of {filled.bit_count()} branches in {len(packed)} bytes")
        tree, at = cls(), _IMAGE_HEAD.size
        for branch in range(FANOUT):
            if filled >> branch & 1:
                tree._branches[branch] = array("Q", _BRANCH.unpack_from(packed, at))
                at += _BRANCH.size
        return tree

    def _filled(self) -> dict[int, array[int]]:
        return {branch: leaves for branch, leaves in self._branches.items() if any(leaves)}
