"""Hash trees: what a tree is, whatever order things come in, and its image."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.core.hash_tree import (
    FANOUT,
    LEAVES,
    HashTree,
    fingerprint,
    leaf_at,
    leaf_shift,
    leaf_tokens,
    seed_of,
)
from merganser.core.token import TOKEN_MAX, TOKEN_MIN
from merganser.model.errors import CorruptionError
from merganser.model.ids import Token

SEED = seed_of("a table")

rows = st.dictionaries(st.binary(min_size=1, max_size=4), st.binary(max_size=90), max_size=30)
writes = st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", b"d"]), st.none() | st.binary(max_size=3)), max_size=40)
tokens = st.integers(TOKEN_MIN, TOKEN_MAX).map(Token)


def leaf_of(key: bytes) -> int:
    return fingerprint(key, b"", 0) % LEAVES


def tree_of(held: dict[bytes, bytes]) -> HashTree:
    tree = HashTree()
    for key, stored in held.items():
        tree.toggle(leaf_of(key), fingerprint(key, stored, SEED))
    return tree


@given(writes)
def test_a_tree_kept_up_write_by_write_equals_one_built_from_what_is_left(changes: list[tuple[bytes, bytes]]) -> None:
    tree, held = HashTree(), dict[bytes, bytes]()
    for key, after in changes:
        before = held.pop(key, None)
        change = 0 if before is None else fingerprint(key, before, SEED)
        if after is not None:
            held[key] = after
            change ^= fingerprint(key, after, SEED)
        tree.toggle(leaf_of(key), change)
    assert tree == tree_of(held)
    assert tree.is_empty == (not held)


@given(rows, rows)
def test_two_trees_are_equal_if_and_only_if_their_rows_are(one: dict[bytes, bytes], other: dict[bytes, bytes]) -> None:
    is_equal = {key: stored[:64] for key, stored in one.items()} == {key: s[:64] for key, s in other.items()}
    assert (tree_of(one) == tree_of(other)) == is_equal
    assert (tree_of(one).root == tree_of(other).root) == is_equal


@given(rows)
def test_each_node_is_the_xor_of_those_below_it(held: dict[bytes, bytes]) -> None:
    tree = tree_of(held)
    leaves = tree.nodes(2, range(LEAVES))
    assert leaves == tuple(leaf for branch in range(FANOUT) for leaf in tree.leaves_of(branch))
    for branch, found in enumerate(tree.nodes(1, range(FANOUT))):
        expected = 0
        for leaf in leaves[branch * FANOUT : (branch + 1) * FANOUT]:
            expected ^= leaf
        assert found == expected
    (root,) = tree.nodes(0, [0])
    for leaf in leaves:
        root ^= leaf
    assert root == 0


@given(rows)
def test_an_image_is_the_tree_again(held: dict[bytes, bytes]) -> None:
    tree = tree_of(held)
    assert HashTree.unpack(tree.pack()) == tree
    assert HashTree.unpack(tree.pack()).pack() == tree.pack()


def test_a_tree_whose_rows_are_all_gone_packs_as_one_that_never_had_any() -> None:
    tree = tree_of({b"k": b"v"})
    tree.toggle(leaf_of(b"k"), fingerprint(b"k", b"v", SEED))
    assert tree.pack() == HashTree().pack()


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:-1], lambda b: b + b"\0", lambda b: b"\x02" + b[1:]])
def test_an_image_of_another_length_or_version_is_refused(damage: object) -> None:
    assert callable(damage)
    with pytest.raises(CorruptionError, match="hash tree of"):
        HashTree.unpack(damage(tree_of({b"k": b"v"}).pack()))


@pytest.mark.parametrize(("level", "position"), [(-1, 0), (3, 0), (0, 1), (1, 32), (2, 1024), (2, -1)])
def test_nodes_that_there_are_not_are_refused(level: int, position: int) -> None:
    with pytest.raises(ValueError, match="hash tree has"):
        HashTree().nodes(level, [position])


@given(st.integers(0, 20).map(lambda bits: 1 << bits), tokens)
def test_leaves_tile_their_partition_in_the_order_of_tokens(partitions: int, token: Token) -> None:
    shift = leaf_shift(partitions)
    width = 2**64 // partitions
    first = Token(TOKEN_MIN + (token - TOKEN_MIN) // width * width)
    low, high = leaf_tokens(first, leaf_at(token, shift), shift)
    assert low <= token <= high
    assert leaf_tokens(first, 0, shift)[0] == first
    assert leaf_tokens(first, LEAVES - 1, shift)[1] == first + width - 1
    assert high - low + 1 == width // LEAVES


def test_tables_do_not_share_their_fingerprints() -> None:
    assert seed_of("a table") != seed_of("another")
    assert fingerprint(b"k", b"v", seed_of("a table")) != fingerprint(b"k", b"v", seed_of("another"))


@given(st.binary(max_size=40), st.none() | st.binary(max_size=100), st.binary(max_size=100), st.integers(0, LEAVES - 1))
def test_a_row_that_is_replaced_is_taken_out_and_put_in(
    key: bytes, before: bytes | None, after: bytes, leaf: int
) -> None:
    replaced, toggled = HashTree(), HashTree()
    replaced.replace(leaf, key, before, after, 7)
    for stored in (after,) if before is None else (before, after):
        toggled.toggle(leaf, fingerprint(key, stored, 7))
    assert replaced == toggled
