"""What two replicas that compare a partition ask each other, and which keys differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import mmh3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merganser.core import exchange
from merganser.core.exchange import (
    BUCKETS_MAX,
    BUCKETS_TOGETHER_MAX,
    DAMAGED,
    LEAVES_MAX,
    STRETCHES_MAX,
    WIDE_ROWS,
    Exchange,
    ListRegions,
    LookAtNodes,
    LookAtTwigs,
    MeetKeys,
    Pause,
    SecondLook,
    StretchSurvey,
    Survey,
    TallyStretches,
    bucket_of,
    check_buckets,
    check_leaves,
    check_regions,
    check_stretches,
    check_tallies,
)
from merganser.core.hash_tree import FANOUT, LEAVES, STRETCHES, stretches_in
from merganser.model.errors import CorruptionError
from merganser.model.messages import Listed, Region

Rows = dict[bytes, int]


def leaf_of(key: bytes) -> int:
    """The first two bytes: leaves are ranges of keys."""
    return int.from_bytes(key[:2], "big") % LEAVES


def twig_of(key: bytes) -> int:
    """The third byte, by its number among the stretches."""
    return stretches_in(leaf_of(key))[key[2] % FANOUT]


def key_in(leaf: int, name: object, twig: int = 3) -> bytes:
    return leaf.to_bytes(2, "big") + bytes([twig]) + f"{name}".encode()


def fingerprint(key: bytes, value: int) -> int:
    return mmh3.hash64(b"%d" % value + key, signed=False)[0] or 1


class Side:
    """One replica: what it would answer."""

    def __init__(
        self, rows: Rows, *, page_rows: int = 100, damaged: Iterable[bytes] = (), has_twigs: bool = True
    ) -> None:
        self.rows = rows
        self.page_rows = page_rows
        self.damaged = frozenset(damaged)
        self.has_twigs = has_twigs

    def seen(self, key: bytes) -> int | None:
        if key in self.damaged:
            return DAMAGED
        return fingerprint(key, self.rows[key]) if key in self.rows else None

    def nodes(self, level: int, positions: Sequence[int]) -> tuple[int, ...]:
        width = (LEAVES, FANOUT, 1)[level]
        sums: Counter[int] = Counter()
        for key in self.rows:
            sums[leaf_of(key) // width] ^= self.seen(key) or 0
        return tuple(sums[position] for position in positions)

    def twigs(self, leaves: Sequence[int]) -> tuple[int, ...]:
        sums: Counter[int] = Counter()
        for key in self.rows:
            sums[twig_of(key)] ^= self.seen(key) or 0
        return tuple(sums[stretch] for leaf in leaves for stretch in stretches_in(leaf))

    def in_stretch(self, stretch: int) -> list[bytes]:
        return [key for key in self.rows if stretch in (leaf_of(key), twig_of(key))]

    def survey(self, stretch: int) -> StretchSurvey:
        rows = self.in_stretch(stretch)
        sums: Counter[int] = Counter()
        for key in rows:
            sums[bucket_of(key, BUCKETS_MAX)] ^= self.seen(key) or 0
        return StretchSurvey(len(rows), sums)

    def tally(self, stretch: int, buckets: int) -> tuple[int, ...]:
        sums: Counter[int] = Counter()
        for key in self.in_stretch(stretch):
            sums[bucket_of(key, buckets)] ^= self.seen(key) or 0
        return tuple(sums[bucket] for bucket in range(buckets))

    def listing(self, regions: Sequence[Region], start: bytes) -> Listed:
        chosen = {region.stretch: region for region in regions}
        entries: list[tuple[bytes, int]] = []
        for key in sorted(key for key in self.rows if key >= start):
            region = chosen.get(leaf_of(key)) or chosen.get(twig_of(key))
            if region is not None and bucket_of(key, region.buckets) in region.chosen:
                if len(entries) == self.page_rows:
                    return Listed(tuple(entries), key)
                entries.append((key, self.seen(key) or DAMAGED))
        return Listed(tuple(entries), None)


class Walk:
    """An exchange between two sides, to its end."""

    def __init__(self, mine: Side, theirs: Side, *, confirms: bool = False, meets: bool = True) -> None:
        self.exchange = Exchange(confirms=confirms, meets=meets)
        self.mine, self.theirs = mine, theirs
        self.met: list[bytes] = []
        self.steps: Counter[type] = Counter()
        self.most_kept = 0
        self.tallies = 3
        self.meanwhile: Callable[[], None] = lambda: None

    def run(self) -> Walk:
        while (step := self.exchange.step) is not None:
            self.steps[type(step)] += 1
            self.most_kept = max(self.most_kept, len(self.exchange._found))
            self._do(step)
        return self

    def _do(self, step: exchange.Step) -> None:
        mine, theirs, walk = self.mine, self.theirs, self.exchange
        if isinstance(step, LookAtNodes):
            walk.looked(mine.nodes(step.level, step.positions), theirs.nodes(step.level, step.positions))
        elif isinstance(step, Survey):
            check_stretches(step.stretches)
            walk.surveyed([mine.survey(stretch) for stretch in step.stretches])
        elif isinstance(step, LookAtTwigs):
            check_leaves(step.leaves)
            if mine.has_twigs and theirs.has_twigs:
                walk.looked_at_twigs(mine.twigs(step.leaves), theirs.twigs(step.leaves))
            else:
                walk.without_twigs()
        elif isinstance(step, TallyStretches):
            check_tallies(step.stretches, step.buckets)
            asked = [*zip(step.stretches, step.buckets, strict=True)][: self.tallies]
            walk.tallied([theirs.tally(stretch, buckets) for stretch, buckets in asked])
        elif isinstance(step, ListRegions):
            check_regions(step.regions)
            walk.listed(mine.listing(step.regions, step.start), theirs.listing(step.regions, step.start))
        elif isinstance(step, Pause):
            self.meanwhile()
            walk.paused()
        elif isinstance(step, SecondLook):
            walk.looked_again([mine.seen(key) for key in step.keys], [theirs.seen(key) for key in step.keys])
        else:
            self.met += step.keys[:7]
            walk.met(len(step.keys[:7]))


def differing(one: Mapping[bytes, int], other: Mapping[bytes, int]) -> list[bytes]:
    return sorted(key for key in {*one, *other} if one.get(key) != other.get(key))


def many(leaf: int, count: int) -> Rows:
    return {key_in(leaf, number): number for number in range(count)}


small_keys = st.builds(
    key_in, st.sampled_from([0, 1, 31, 32, 500, 1023]), st.integers(0, 40), st.sampled_from([0, 1, 31])
)
sides = st.dictionaries(small_keys, st.integers(0, 2), max_size=60)


@given(sides, sides, st.booleans(), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_exactly_the_keys_that_differ_are_met_each_once(
    one: Rows, other: Rows, confirms: bool, page: int, their_page: int, has_twigs: bool
) -> None:
    mine, theirs = Side(one, page_rows=page, has_twigs=has_twigs), Side(other, page_rows=their_page)
    walk = Walk(mine, theirs, confirms=confirms).run()
    assert sorted(walk.met) == differing(one, other)
    assert walk.exchange.differing == len(walk.met)
    assert (walk.exchange.in_flight, walk.exchange.damaged) == (0, [])


@given(sides, sides, st.lists(small_keys, max_size=5))
def test_a_key_that_is_damaged_on_either_side_is_told_and_not_met(one: Rows, other: Rows, damaged: list[bytes]) -> None:
    mine, theirs = {*damaged[::2]} & {*one}, {*damaged[1::2]} & {*other}
    walk = Walk(Side(one, damaged=mine), Side(other, damaged=theirs)).run()
    assert not {*walk.met} & (mine | theirs)
    assert sorted(walk.met) == [key for key in differing(one, other) if key not in mine | theirs]
    told = {*walk.exchange.damaged}
    assert told <= mine | theirs
    assert told >= {key for key in mine ^ theirs if key in one and key in other}, "a damaged row is no part of a tree"


def test_equal_sides_ask_for_one_hash_only() -> None:
    rows = {key_in(leaf, 0): leaf for leaf in range(0, LEAVES, 7)}
    assert Walk(Side(rows), Side(dict(rows))).run().steps == {LookAtNodes: 1}


@pytest.mark.parametrize(("has_twigs", "listed"), [(True, 2), (False, 3)])
def test_one_key_that_differs_costs_a_question_a_level_and_a_listing_of_its_stretch(
    has_twigs: bool, listed: int
) -> None:
    rows = {key_in(leaf, name, twig=name // 2): 1 for leaf in range(LEAVES) for name in range(3)}
    walk = Walk(Side(rows, has_twigs=has_twigs), Side({**rows, key_in(77, 1, twig=0): 2})).run()
    assert walk.met == [key_in(77, 1, twig=0)]
    assert walk.exchange.listed_keys == listed
    assert walk.steps == {LookAtNodes: 3, LookAtTwigs: 1, Survey: 1, ListRegions: 1, MeetKeys: 1}


def test_of_many_rows_little_is_listed_but_what_differs() -> None:
    rows = {key_in(leaf, name, twig=name % FANOUT): 1 for leaf in range(0, LEAVES, 64) for name in range(1_000)}
    changed = {key_in(leaf, leaf, twig=leaf % FANOUT): 2 for leaf in range(0, LEAVES, 64)}
    walk = Walk(Side(rows, page_rows=10_000), Side({**rows, **changed}, page_rows=10_000))
    walk.tallies = 10_000
    walk.run()
    assert sorted(walk.met) == sorted(changed)
    assert walk.exchange.listed_keys <= 5 * len(changed)
    assert walk.steps[TallyStretches] == 1


def test_tallies_go_together_as_far_as_a_message_takes() -> None:
    rows = {key_in(leaf, name): 1 for leaf in range(LEAVES_MAX) for name in range(5_000)}
    walk = Walk(Side({}), Side({}))
    walk.exchange.step = Survey(tuple(range(LEAVES_MAX)))
    walk.exchange.surveyed([StretchSurvey(len(rows) // LEAVES_MAX, {}) for _ in range(LEAVES_MAX)])
    step = walk.exchange.step
    assert isinstance(step, TallyStretches)
    check_tallies(step.stretches, step.buckets)
    assert 1 < len(step.stretches) < LEAVES_MAX


@pytest.mark.parametrize("rows", [WIDE_ROWS + 1, 5_000, 60_000])
def test_of_a_wide_leaf_only_buckets_that_differ_are_listed(rows: int) -> None:
    mine = many(3, rows)
    changed = {key_in(3, number): -1 for number in (0, rows // 2)}
    walk = Walk(Side(mine, page_rows=10_000), Side({**mine, **changed}, page_rows=10_000)).run()
    assert sorted(walk.met) == sorted(changed)
    assert walk.steps[TallyStretches] == 1
    assert 2 <= walk.exchange.listed_keys <= 100


@given(st.integers(WIDE_ROWS + 1, 500), st.sets(st.integers(0, 600), max_size=30), st.sets(st.integers(0, 600)))
@settings(max_examples=50)
def test_wide_leaves_come_to_the_same_as_narrow_ones(rows: int, changed: set[int], missing: set[int]) -> None:
    mine = many(9, rows)
    theirs = {**mine, **{key_in(9, number): -1 for number in changed}}
    for number in missing:
        theirs.pop(key_in(9, number), None)
    walk = Walk(Side(mine, page_rows=20), Side(theirs, page_rows=30)).run()
    assert sorted(walk.met) == differing(mine, theirs)


def test_one_who_has_nothing_gets_everything_and_keeps_little_of_it_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "DIFFERENCES_MAX", 300)
    theirs = {**many(5, 1_000), **many(6, 50), **many(900, 2_000)}
    for confirms in False, True:
        walk = Walk(Side({}), Side(theirs), confirms=confirms).run()
        assert sorted(walk.met) == sorted(theirs)
        assert walk.most_kept <= 300 + 100
        walk = Walk(Side(dict(theirs)), Side({}), confirms=confirms).run()
        assert sorted(walk.met) == sorted(theirs)
        assert walk.most_kept <= 300 + 100


# Two looks


def test_a_write_that_arrives_between_the_looks_is_in_flight_and_not_met() -> None:
    late, stays, moves = key_in(1, "late"), key_in(1, "stays"), key_in(2, "moves")
    mine, theirs = Side({late: 1, stays: 1, moves: 1}), Side({moves: 2})
    walk = Walk(mine, theirs, confirms=True)

    def meanwhile() -> None:
        theirs.rows[late] = 1
        theirs.rows[moves] = 3

    walk.meanwhile = meanwhile
    assert walk.run().met == [stays]
    assert (walk.exchange.differing, walk.exchange.in_flight) == (1, 2)


def test_whoever_has_to_know_meets_what_is_in_flight_too() -> None:
    walk = Walk(Side({key_in(1, "late"): 1}), Side({}), confirms=False)
    assert walk.run().met == [key_in(1, "late")]
    assert walk.steps[Pause] == 0


def test_damage_between_the_looks_is_told() -> None:
    key = key_in(1, "k")
    theirs = Side({key: 2})
    walk = Walk(Side({key: 1}), theirs, confirms=True)

    def meanwhile() -> None:
        theirs.damaged = frozenset([key])

    walk.meanwhile = meanwhile
    assert walk.run().met == []
    assert walk.exchange.damaged == [key]


@given(sides, sides)
def test_a_dry_run_counts_the_same_and_meets_nothing(one: Rows, other: Rows) -> None:
    walk = Walk(Side(one), Side(other), confirms=True, meets=False).run()
    assert walk.met == []
    assert walk.exchange.differing == len(differing(one, other))


# Peers that answer nonsense


def at_listing() -> Exchange:
    walk = Exchange(confirms=False, meets=True)
    walk.looked([1], [2])
    walk.looked([1] * FANOUT, [2] + [1] * (FANOUT - 1))
    walk.looked([1] * FANOUT, [2] + [1] * (FANOUT - 1))
    walk.without_twigs()
    walk.surveyed([StretchSurvey(0, {})])
    walk.listed(Listed((), None), Listed(((b"m", 1),), b"n"))
    assert walk.step == ListRegions((Region(0),), b"n")
    return walk


@pytest.mark.parametrize(
    "page",
    [
        Listed(((b"a", 1),), None),
        Listed(((b"p", 1), (b"o", 1)), None),
        Listed(((b"o", 1), (b"o", 1)), None),
        Listed(((b"p", 1),), b"o"),
        Listed((), b"n"),
        Listed((), b"a"),
    ],
)
def test_a_listing_that_is_out_of_order_or_does_not_go_on_ends_the_exchange(page: Listed) -> None:
    with pytest.raises(CorruptionError):
        at_listing().listed(Listed((), None), page)


def test_too_few_answers_end_the_exchange() -> None:
    walk = Exchange(confirms=True, meets=True)
    with pytest.raises(CorruptionError):
        walk.looked([1], [])
    walk.looked([1], [2])
    with pytest.raises(CorruptionError):
        walk.looked([1] * FANOUT, [2])
    walk.looked([1] * FANOUT, [2] + [1] * (FANOUT - 1))
    walk.looked([1] * FANOUT, [2] + [1] * (FANOUT - 1))
    with pytest.raises(CorruptionError):
        walk.looked_at_twigs([1] * FANOUT, [2])
    walk.looked_at_twigs([1] * FANOUT, [2, 2] + [1] * (FANOUT - 2))
    walk.surveyed([StretchSurvey(100, {0: 1})] * 2)
    for answers in [], [(1,)], [(1,) * 32] * 3:
        with pytest.raises(CorruptionError):
            walk.tallied(answers)
    walk = at_listing()
    walk.listed(Listed((), None), Listed((), None))
    with pytest.raises(CorruptionError):
        walk.met(2)
    with pytest.raises(CorruptionError):
        walk.met(0)


@pytest.mark.parametrize("buckets", [-1, 0, 3, BUCKETS_MAX * 2])
def test_what_is_no_number_of_buckets_is_refused(buckets: int) -> None:
    with pytest.raises(CorruptionError):
        check_buckets(buckets)
    with pytest.raises(CorruptionError):
        check_regions([Region(1, buckets)])


@pytest.mark.parametrize(
    "regions",
    [
        [],
        [Region(1), Region(1)],
        [Region(2), Region(1)],
        [Region(-1)],
        [Region(STRETCHES)],
        [Region(LEAVES - 1), Region(LEAVES)],
        [Region(number) for number in range(LEAVES_MAX + 1)],
        [Region(LEAVES + number) for number in range(STRETCHES_MAX + 1)],
        [Region(1, 4, ())],
        [Region(1, 4, (-1,))],
        [Region(1, 4, (4,))],
        [Region(1, 4, (2, 1))],
    ],
)
def test_regions_that_make_no_sense_are_refused(regions: list[Region]) -> None:
    with pytest.raises(CorruptionError):
        check_regions(regions)


@pytest.mark.parametrize(
    ("stretches", "buckets"),
    [
        ((), ()),
        ((1,), ()),
        ((1, 2), (4, 3)),
        ((2, 1), (4, 4)),
        ((LEAVES - 1, LEAVES), (4, 4)),
        ((1, 2), (BUCKETS_TOGETHER_MAX, 1)),
    ],
)
def test_tallies_that_make_no_sense_together_are_refused(stretches: tuple[int, ...], buckets: tuple[int, ...]) -> None:
    with pytest.raises(CorruptionError):
        check_tallies(stretches, buckets)


@pytest.mark.parametrize("leaves", [(), (-1,), (2, 1), (LEAVES,), tuple(range(LEAVES_MAX + 1))])
def test_leaves_whose_twigs_cannot_be_looked_at_are_refused(leaves: tuple[int, ...]) -> None:
    with pytest.raises(CorruptionError):
        check_leaves(leaves)


def test_buckets_are_the_first_bits_of_a_hash_so_that_fewer_are_sums_of_more() -> None:
    for number in range(1_000):
        key = b"%d" % number
        fine = bucket_of(key, BUCKETS_MAX)
        assert all(bucket_of(key, 1 << bits) == fine >> (14 - bits) for bits in range(15))
