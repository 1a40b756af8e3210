"""The hash tree of a partition: equal rows have equal trees, and a write changes one leaf.

::

    root                       1   XOR of the branches
    branches                  32   XOR of their leaves
    leaves         32 * 32 = 1,024 XOR of their twigs
    twigs    32 * 32 * 32 = 32,768 XOR of the fingerprints of their rows; kept of large partitions only

A row's twig follows from its token alone: the tokens of the partition are cut into 32,768 equal stretches, so a twig
is one contiguous range of keys, and so is a leaf. XOR takes a row out as it puts it in, so a write costs O(1) whatever
the partition holds, and the order of writes leaves no trace.

Twigs take 256 KiB. Where a leaf holds few rows they would cost more than they save: a tree has them once it is told to
(`begin_twigs`), of the leaves from the first on that it has been told (`keep_twigs`), and then keeps them up.

A fingerprint is 64 bits of Murmur3 over the key and the beginning of the stored bytes, which holds the checksum of the
whole row and its timestamps: its cost does not grow with the row. It is seeded by the table, so that keys that
hide each other in one table do not in the next. Two replicas that differ have equal trees once in 2**64 times;
the upper nodes are XOR as well, because that adds nothing to the odds and costs no hashing. Murmur3 is no defence
against a client that sets out to hide rows of its own table from repair.

Invariants: a tree is a function of the set of (key, stored bytes) alone; a leaf without rows is 0, and so is the XOR of
its twigs and itself; branches without rows take no memory.

Source: DeCandia 2007 §4.7; Merkle 1987.
"""

from __future__ import annotations

import operator
import struct
import sys
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
TWIGS = LEAVES * FANOUT
STRETCHES = LEAVES + TWIGS
"""Ranges of keys that replicas name to each other: the leaves, 0 to 1,023, and the twigs, from 1,024 on."""

_FANOUT_BITS = 5
_BRANCH_BITS = 10  # of a twig's number, those that tell where in its branch it is
_TWIG_BITS = 15
_IN_BRANCH = FANOUT - 1
_HEAD_BYTES = 64
"""Of the stored bytes: the checksum over key and row, and for nearly every row its timestamps. Hashing a longer head
tells no more apart than the checksum already does."""
_VERSION = 2
_IMAGE_HEAD = struct.Struct(">BIQ?")
_BRANCH = struct.Struct(f">{FANOUT}Q")
_NOTHING = (0,) * FANOUT
_NO_TWIGS = bytes(8 * TWIGS)
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


def twig_shift(partitions: int) -> int:
    """Return how many low bits of a token do not matter for its twig, on a ring of so many partitions."""
    return 64 - (partitions.bit_length() - 1) - _TWIG_BITS


def twig_at(token: Token, shift: int) -> int:
    """Return the twig of the rows at ``token``, in their partition.

    Args:
        token: of a key.
        shift: of the ring, from `twig_shift`.
    """
    return (token - TOKEN_MIN) >> shift & TWIGS - 1


def leaf_of(twig: int) -> int:
    """Return the leaf that a twig is of."""
    return twig >> _FANOUT_BITS


def stretches_in(leaf: int) -> range:
    """Return the numbers, among the stretches, of a leaf's twigs."""
    return range(LEAVES + leaf * FANOUT, LEAVES + (leaf + 1) * FANOUT)


def stretch_tokens(first: Token, stretch: int, shift: int) -> tuple[Token, Token]:
    """Return the first and the last token of a leaf, or of a twig.

    Args:
        first: token of the partition.
        stretch: a leaf, 0 to 1,023, or a twig, from 1,024 on.
        shift: of the ring, from `twig_shift`.
    """
    if stretch < LEAVES:
        shift, number = shift + _FANOUT_BITS, stretch
    else:
        number = stretch - LEAVES
    low = first + (number << shift)
    return Token(low), Token(low + (1 << shift) - 1)


class HashTree:
    """The fingerprints of a partition, summed up; see the module's docstring."""

    __slots__ = ("_branches", "_twigs", "_twigs_to", "rows")

    def __init__(self) -> None:
        """Start as the tree of no rows, without twigs."""
        self.rows = 0
        """How many there are, if `toggle` was told."""
        self._branches: dict[int, array[int]] = {}
        self._twigs: array[int] | None = None
        self._twigs_to = 0
        """The twigs before this one are kept."""

    def __eq__(self, other: object) -> bool:
        """Tell whether both are trees of the same rows, but for a collision; with twigs or without."""
        return isinstance(other, HashTree) and self._filled() == other._filled()

    __hash__ = None  # type: ignore[assignment]  # it changes

    def toggle(self, twig: int, change: int, rows: int = 0) -> None:
        """Put a row in, or take it out: the same; a new version takes the XOR of both.

        Args:
            twig: 0 to 32,767.
            change: fingerprint, or XOR of fingerprints.
            rows: how many more there are now.
        """
        branch = self._branches.get(twig >> _BRANCH_BITS)
        if branch is None:
            branch = self._branches[twig >> _BRANCH_BITS] = array("Q", _NOTHING)
        branch[twig >> _FANOUT_BITS & _IN_BRANCH] ^= change
        self.rows += rows
        if twig < self._twigs_to:
            twigs = self._twigs
            assert twigs is not None
            twigs[twig] ^= change

    def replace(self, twig: int, key: bytes, before: bytes | None, after: bytes, seed: int) -> None:
        """Put a row in the place of what was under its key: `toggle`, by what `fingerprint` says of both, in one step.

        Args:
            twig: 0 to 32,767.
            key: of the row.
            before: what was there, None if nothing was.
            after: what is there.
            seed: of the table.
        """
        change: int = _digest(key + after[:_HEAD_BYTES], seed)[0]
        if before is None:
            self.rows += 1
        else:
            change ^= _digest(key + before[:_HEAD_BYTES], seed)[0]
        branch = self._branches.get(twig >> _BRANCH_BITS)
        if branch is None:
            branch = self._branches[twig >> _BRANCH_BITS] = array("Q", _NOTHING)
        branch[twig >> _FANOUT_BITS & _IN_BRANCH] ^= change
        if twig < self._twigs_to:
            twigs = self._twigs
            assert twigs is not None
            twigs[twig] ^= change

    # Twigs

    @property
    def has_twigs(self) -> bool:
        """Tell whether all twigs are kept."""
        return self._twigs_to == TWIGS

    @property
    def leaves_with_twigs(self) -> int:
        """How many leaves, from the first on, have their twigs kept."""
        return leaf_of(self._twigs_to)

    def begin_twigs(self) -> None:
        """Make room for twigs; `keep_twigs` of each leaf in turn is to follow, if there are rows."""
        self._twigs, self._twigs_to = array("Q", _NO_TWIGS), 0 if self._filled() else TWIGS

    def drop_twigs(self) -> None:
        """Keep no twigs any more."""
        self._twigs, self._twigs_to = None, 0

    def keep_twigs(self, leaf: int, sums: Sequence[int]) -> None:
        """Take what the twigs of a leaf are; from now on they are kept up.

        Args:
            leaf: one whose twigs are kept, or the next after those; else this does nothing.
            sums: 32 of them.
        """
        first = leaf << _FANOUT_BITS
        twigs = self._twigs
        if twigs is not None and first <= self._twigs_to:
            twigs[first : first + FANOUT] = array("Q", sums)
            self._twigs_to = max(self._twigs_to, first + FANOUT)

    def twigs_of(self, leaf: int) -> tuple[int, ...] | None:
        """Return the 32 twigs of a leaf, None if they are not kept."""
        first = leaf << _FANOUT_BITS
        twigs = self._twigs
        return tuple(twigs[first : first + FANOUT]) if twigs is not None and first < self._twigs_to else None

    def is_right(self, leaf: int, sums: Sequence[int]) -> bool:
        """Tell whether a leaf, and what is kept of its twigs, are what ``sums``, its 32 twigs, say."""
        return self.leaf(leaf) == reduce(operator.xor, sums) and self.twigs_of(leaf) in (None, tuple(sums))

    def put_right(self, leaf: int, sums: Sequence[int]) -> None:
        """Let a leaf be what ``sums``, its 32 twigs, say."""
        self.keep_twigs(leaf, sums)
        branch = self._branches.setdefault(leaf >> _FANOUT_BITS, array("Q", _NOTHING))
        branch[leaf & _IN_BRANCH] = reduce(operator.xor, sums)

    def agrees_with(self, other: HashTree) -> bool:
        """Tell whether both are equal, and their twigs as well if both have them."""
        is_told = self.has_twigs and other.has_twigs
        return self == other and (not is_told or self._twigs == other._twigs)

    # Nodes

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
        leaves = self._branches.get(leaf >> _FANOUT_BITS)
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

    def pack(self, *, with_twigs: bool = True) -> bytes:
        """Return the tree as bytes.

        Those are version, a bit for each branch that is not all 0, how many rows, whether there are twigs; those
        branches; the twigs.

        Args:
            with_twigs: if it has all.
        """
        filled = self._filled()
        twigs = self._twigs if with_twigs and self.has_twigs else None
        head = _IMAGE_HEAD.pack(_VERSION, sum(1 << branch for branch in filled), max(0, self.rows), twigs is not None)
        branches = [_BRANCH.pack(*filled[branch]) for branch in sorted(filled)]
        return b"".join((head, *branches, b"" if twigs is None else _big_endian(twigs).tobytes()))

    @classmethod
    def unpack(cls, packed: bytes) -> HashTree:
        """Return the tree that `pack` made ``packed`` of.

        Raises:
            CorruptionError: none, or a tree of another version.
        """
        if len(packed) < _IMAGE_HEAD.size or packed[0] != _VERSION:
            raise CorruptionError(f"not a hash tree of version {_VERSION}: {packed[:8].hex()} ({len(packed)} bytes)")
        _, filled, rows, has_twigs = _IMAGE_HEAD.unpack_from(packed)
        twigs_at = _IMAGE_HEAD.size + filled.bit_count() * _BRANCH.size
        if len(packed) != twigs_at + (len(_NO_TWIGS) if has_twigs else 0):
            raise CorruptionError(f"a hash tree of {filled.bit_count()} branches in {len(packed)} bytes")
        tree, at = cls(), _IMAGE_HEAD.size
        tree.rows = rows
        for branch in range(FANOUT):
            if filled >> branch & 1:
                tree._branches[branch] = array("Q", _BRANCH.unpack_from(packed, at))
                at += _BRANCH.size
        if has_twigs:
            tree._twigs, tree._twigs_to = _big_endian(array("Q", packed[twigs_at:])), TWIGS
        return tree

    def _filled(self) -> dict[int, array[int]]:
        return {branch: leaves for branch, leaves in self._branches.items() if any(leaves)}


def _big_endian(hashes: array[int]) -> array[int]:
    """Return a copy with the bytes of each in big-endian order, or of such a copy the hashes."""
    turned = hashes[:]
    if sys.byteorder == "little":
        turned.byteswap()
    return turned
