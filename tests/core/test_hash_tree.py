"""Hash trees: what a tree is, whatever order things come in, and its image."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.core.hash_tree import (
    FANOUT,
    LEAVES,
    TWIGS,
    HashTree,
    fingerprint,
    leaf_of,
    seed_of,
    stretch_tokens,
    stretches_in,
    twig_at,
    twig_shift,
)
from merganser.core.token import TOKEN_MAX, TOKEN_MIN
from merganser.model.errors import CorruptionError
from merganser.model.ids import Token

SEED = seed_of("a table")

rows = st.dictionaries(st.binary(min_size=1, max_size=4), st.binary(max_size=90), max_size=30)
writes = st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", b"d"]), st.none() | st.binary(max_size=3)), max_size=40)
tokens = st.integers(TOKEN_MIN, TOKEN_MAX).map(Token)


def twig_of(key: bytes) -> int:
    return fingerprint(key, b"", 0) % TWIGS


def tree_of(held: dict[bytes, bytes], *, with_twigs: bool = False) -> HashTree:
    tree = HashTree()
    if with_twigs:
        tree.begin_twigs()
    for key, stored in held.items():
        tree.toggle(twig_of(key), fingerprint(key, stored, SEED), 1)
    return tree


def twigs_of(tree: HashTree) -> list[tuple[int, ...] | None]:
    return [tree.twigs_of(leaf) for leaf in range(LEAVES)]


@given(writes)
def test_a_tree_kept_up_write_by_write_equals_one_built_from_what_is_left(changes: list[tuple[bytes, bytes]]) -> None:
    tree, held = HashTree(), dict[bytes, bytes]()
    for key, after in changes:
        before = held.pop(key, None)
        change = 0 if before is None else fingerprint(key, before, SEED)
        if after is not None:
            held[key] = after
            change ^= fingerprint(key, after, SEED)
        tree.toggle(twig_of(key), change)
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
    tree.toggle(twig_of(b"k"), fingerprint(b"k", b"v", SEED), -1)
    assert tree.pack() == HashTree().pack()


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:-1], lambda b: b + b"\0", lambda b: b"\x01" + b[1:]])
def test_an_image_of_another_length_or_version_is_refused(damage: object) -> None:
    assert callable(damage)
    with pytest.raises(CorruptionError, match="hash tree of"):
        HashTree.unpack(damage(tree_of({b"k": b"v"}).pack()))


@pytest.mark.parametrize(("level", "position"), [(-1, 0), (3, 0), (0, 1), (1, 32), (2, 1024), (2, -1)])
def test_nodes_that_there_are_not_are_refused(level: int, position: int) -> None:
    with pytest.raises(ValueError, match="hash tree has"):
        HashTree().nodes(level, [position])


@given(st.integers(0, 20).map(lambda bits: 1 << bits), tokens)
def test_leaves_and_twigs_tile_their_partition_in_the_order_of_tokens(partitions: int, token: Token) -> None:
    shift = twig_shift(partitions)
    width = 2**64 // partitions
    first = Token(TOKEN_MIN + (token - TOKEN_MIN) // width * width)
    twig = twig_at(token, shift)
    twigs = stretches_in(leaf_of(twig))
    for stretches, stretch in (range(LEAVES), leaf_of(twig)), (range(LEAVES, LEAVES + TWIGS), LEAVES + twig):
        low, high = stretch_tokens(first, stretch, shift)
        assert low <= token <= high
        assert stretch_tokens(first, stretches[0], shift)[0] == first
        assert stretch_tokens(first, stretches[-1], shift)[1] == first + width - 1
        assert high - low + 1 == width // len(stretches)
    assert LEAVES + twig in twigs
    low, high = stretch_tokens(first, leaf_of(twig), shift)
    assert stretch_tokens(first, twigs[0], shift)[0] == low
    assert stretch_tokens(first, twigs[-1], shift)[1] == high


# Twigs


@given(writes)
def test_twigs_kept_up_write_by_write_equal_those_of_what_is_left(changes: list[tuple[bytes, bytes | None]]) -> None:
    tree, held = tree_of({}, with_twigs=True), dict[bytes, bytes]()
    for key, after in changes:
        before = held.pop(key, None)
        if after is not None:
            held[key] = after
            tree.replace(twig_of(key), key, before, after, SEED)
        elif before is not None:
            tree.toggle(twig_of(key), fingerprint(key, before, SEED), -1)
    assert twigs_of(tree) == twigs_of(tree_of(held, with_twigs=True))
    assert tree.rows == len(held)


@given(rows)
def test_a_leaf_is_the_xor_of_its_twigs(held: dict[bytes, bytes]) -> None:
    tree = tree_of(held, with_twigs=True)
    for leaf in range(LEAVES):
        twigs = tree.twigs_of(leaf)
        assert twigs is not None
        assert tree.is_right(leaf, twigs)
    assert tree == tree_of(held)


@given(rows, rows, st.integers(0, LEAVES))
def test_a_tree_that_has_grown_gets_its_twigs_leaf_by_leaf_while_it_changes(
    held: dict[bytes, bytes], later: dict[bytes, bytes], meanwhile: int
) -> None:
    tree, now = tree_of(held), dict(held)
    tree.begin_twigs()
    for leaf in range(LEAVES):
        if leaf == meanwhile:
            for key, stored in later.items():
                tree.replace(twig_of(key), key, now.get(key), stored, SEED)
                now[key] = stored
        assert tree.leaves_with_twigs == leaf or not held
        tree.keep_twigs(leaf, tree_of(now, with_twigs=True).twigs_of(leaf) or ())
    expected = {**held, **later} if meanwhile < LEAVES else held
    assert tree.has_twigs
    assert twigs_of(tree) == twigs_of(tree_of(expected, with_twigs=True))


def test_twigs_are_taken_in_the_order_of_leaves_only_and_go_all_together() -> None:
    tree = tree_of({b"k": b"v"})
    assert twigs_of(tree) == [None] * LEAVES
    tree.keep_twigs(0, [7] * FANOUT)
    assert tree.twigs_of(0) is None, "nobody has begun"
    tree.begin_twigs()
    tree.keep_twigs(1, [7] * FANOUT)
    assert tree.twigs_of(1) is None
    tree.keep_twigs(0, [7] * FANOUT)
    assert tree.twigs_of(0) == (7,) * FANOUT
    assert not tree.has_twigs
    tree.drop_twigs()
    assert twigs_of(tree) == [None] * LEAVES


def test_what_is_wrong_is_told_and_put_right() -> None:
    held = {b"%d" % number: b"v" for number in range(100)}
    tree, right = tree_of(held, with_twigs=True), tree_of(held, with_twigs=True)
    tree.toggle(40, 5)
    tree.toggle(41, 5)  # the leaf does not tell
    twigs = right.twigs_of(1)
    assert twigs is not None
    assert not tree.is_right(1, twigs)
    tree.put_right(1, twigs)
    assert tree.is_right(1, twigs)
    tree.toggle(40, 5)
    assert tree != right
    assert not tree.is_right(1, twigs)
    tree.put_right(1, twigs)
    assert tree == right
    assert twigs_of(tree) == twigs_of(right)


@given(rows)
def test_an_image_holds_the_twigs_if_it_is_to(held: dict[bytes, bytes]) -> None:
    tree = tree_of(held, with_twigs=True)
    again = HashTree.unpack(tree.pack())
    assert (again, again.rows, twigs_of(again)) == (tree, len(held), twigs_of(tree))
    without = HashTree.unpack(tree.pack(with_twigs=False))
    assert (without, without.rows, without.has_twigs) == (tree, len(held), False)
    with pytest.raises(CorruptionError):
        HashTree.unpack(tree.pack()[:-8])


def test_tables_do_not_share_their_fingerprints() -> None:
    assert seed_of("a table") != seed_of("another")
    assert fingerprint(b"k", b"v", seed_of("a table")) != fingerprint(b"k", b"v", seed_of("another"))


@given(st.binary(max_size=40), st.none() | st.binary(max_size=100), st.binary(max_size=100), st.integers(0, TWIGS - 1))
def test_a_row_that_is_replaced_is_taken_out_and_put_in(
    key: bytes, before: bytes | None, after: bytes, twig: int
) -> None:
    replaced, toggled = HashTree(), HashTree()
    replaced.replace(twig, key, before, after, 7)
    for stored in (after,) if before is None else (before, after):
        toggled.toggle(twig, fingerprint(key, stored, 7))
    assert replaced == toggled
