"""Items are chosen as YCSB's core workloads choose them."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.bench.choices import CHOICES, ZIPFIAN_CONSTANT, Inserted, Zipfian, chooser, scrambled

DRAWS = 200_000


def none_inserted(loaded: int) -> Inserted:
    return Inserted(loaded=loaded, first=loaded, place=0, processes=1)


@pytest.mark.parametrize("count", [10, 1_000])
def test_a_rank_is_drawn_in_proportion_to_its_weight(count: int) -> None:
    draw = Zipfian(count, random.Random(1))
    drawn = Counter(draw() for _ in range(DRAWS))
    whole = sum((rank + 1) ** -ZIPFIAN_CONSTANT for rank in range(count))
    for rank in range(2):  # exact by construction; the ranks beyond are Gray's approximation
        assert drawn[rank] / DRAWS == pytest.approx((rank + 1) ** -ZIPFIAN_CONSTANT / whole, rel=0.05)
    halves = [sum(drawn[rank] for rank in ranks) for ranks in (range(count // 10), range(count // 10, count))]
    wanted = sum((rank + 1) ** -ZIPFIAN_CONSTANT for rank in range(count // 10)) / whole
    assert halves[0] / DRAWS == pytest.approx(wanted, rel=0.05)


@given(st.integers(1, 50), st.integers(0, 1_000))
def test_ranks_stay_within_the_items(count: int, seed: int) -> None:
    draw = Zipfian(count, random.Random(seed))
    assert all(0 <= draw() < count for _ in range(50))


def test_of_no_items_none_can_be_chosen() -> None:
    with pytest.raises(ValueError, match="not 0 items"):
        Zipfian(0, random.Random(1))


def test_scrambled_ranks_have_the_values_of_fnv_1a() -> None:
    # FNV-1a of eight zero bytes, and of 01 followed by seven zeros, as the authors' own program gives them
    mixed = 0xCBF29CE484222325
    for byte in b"\x01" + bytes(7):
        mixed = (mixed ^ byte) * 0x100000001B3 % 2**64
    assert scrambled(1) == mixed
    assert len({scrambled(rank) % 1_000 for rank in range(20)}) > 15, "neighbours are spread"


@pytest.mark.parametrize("choice", CHOICES)
@given(items=st.integers(1, 40), seed=st.integers(0, 100))
def test_every_choice_is_of_items_that_were_loaded(choice: str, items: int, seed: int) -> None:
    choose = chooser(choice, items, random.Random(seed), none_inserted(items))
    assert all(0 <= choose() < items for _ in range(30))


def test_hot_items_are_the_same_for_all_processes_and_lie_anywhere() -> None:
    hottest = []
    for seed in range(3):
        choose = chooser("zipfian", 1_000, random.Random(seed), none_inserted(1_000))
        hottest.append(Counter(choose() for _ in range(20_000)).most_common(2))
    assert {item for counted in hottest for item, _ in counted} == {scrambled(0) % 1_000, scrambled(1) % 1_000}


def test_uniform_items_are_all_about_as_frequent() -> None:
    choose = chooser("uniform", 10, random.Random(1), none_inserted(10))
    drawn = Counter(choose() for _ in range(100_000))
    assert all(count == pytest.approx(10_000, rel=0.05) for count in drawn.values())


def test_the_latest_is_the_item_that_was_acknowledged_last() -> None:
    inserted = Inserted(loaded=100, first=100, place=1, processes=3)
    assert inserted.from_latest(0) == 99
    given = [inserted.give() for _ in range(4)]
    assert given == [101, 104, 107, 110]
    assert inserted.from_latest(0) == 99, "nothing is acknowledged yet"
    inserted.acknowledged = 2
    assert [inserted.from_latest(back) for back in range(4)] == [104, 101, 99, 98]
    assert inserted.from_latest(102) == 104, "further back than there are items it begins anew"


def test_processes_never_insert_the_same_item() -> None:
    numbers = [Inserted(loaded=10, first=10, place=place, processes=4) for place in range(4)]
    given = [inserted.give() for inserted in numbers for _ in range(50)]
    assert len(set(given)) == len(given)
    assert min(given) == 10


def test_latest_chooses_most_of_what_was_inserted_last() -> None:
    inserted = none_inserted(1_000)
    choose = chooser("latest", 1_000, random.Random(1), inserted)
    for _ in range(10):
        inserted.give()
        inserted.acknowledged += 1
    drawn = Counter(choose() for _ in range(20_000))
    assert drawn.most_common(1)[0][0] == 1_009
    assert set(drawn) <= set(range(1_010))


def test_a_choice_that_there_is_not_is_told() -> None:
    with pytest.raises(ValueError, match="uniform, zipfian, latest, not 'hottest'"):
        chooser("hottest", 10, random.Random(1), none_inserted(10))
