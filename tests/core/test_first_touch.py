"""What a new leader makes of a majority's answers, and what of a place it knows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from merganser.core.first_touch import (
    KNOWN,
    TOUCHED_MAX,
    KnownPlace,
    Touched,
    is_known_by_roots,
    touched,
    unequal,
)
from merganser.model.ids import NodeId
from merganser.model.register import Version

ME, OTHER, THIRD = NodeId("me"), NodeId("other"), NodeId("third")


def version_of(stored: bytes) -> Version:
    """Registers are told apart by their sequence alone here."""
    return Version(1, 1, int(stored))


def judged(own: bytes | None, *answers: bytes | None, is_own_intact: bool = True, replicas: int = 3) -> Touched | None:
    return touched(
        own,
        answers,
        is_own_intact=is_own_intact,
        quorum=replicas // 2 + 1,
        meets=replicas - replicas // 2,
        version_of=version_of,
    )


def test_a_majority_that_agrees_makes_the_item_known() -> None:
    assert judged(b"1", b"1") == KNOWN
    assert judged(None, None) == KNOWN


def test_the_latest_of_a_majority_that_differs_is_written_back() -> None:
    assert judged(b"1", b"2") == Touched(is_known=False, adopt=b"2")
    assert judged(b"2", b"1") == Touched(is_known=False, adopt=b"2")
    assert judged(None, b"1") == Touched(is_known=False, adopt=b"1")
    assert judged(b"1", None) == Touched(is_known=False, adopt=b"1")


def test_too_few_answers_decide_nothing() -> None:
    assert judged(b"1") is None
    assert judged(b"1", b"1", replicas=5) is None


def test_a_damaged_register_of_its_own_is_no_answer_and_always_written_anew() -> None:
    assert judged(b"x", b"1", is_own_intact=False) is None
    assert judged(b"x", b"1", b"1", is_own_intact=False) == Touched(is_known=False, adopt=b"1")
    assert judged(b"x", None, None, is_own_intact=False) == Touched(is_known=False, adopt=None)


@given(
    replicas=st.integers(1, 7),
    kept=st.sets(st.integers(0, 6)),
    asked=st.sets(st.integers(0, 6)),
    old=st.lists(st.integers(1, 9), min_size=7, max_size=7),
)
def test_what_a_majority_has_is_always_met(replicas: int, kept: set[int], asked: set[int], old: list[int]) -> None:
    """A register that a majority keeps is known or adopted, whoever is asked, and whatever else the others hold."""
    majority = replicas // 2 + 1
    holds = {n: b"10" if n in kept else b"%d" % old[n] for n in range(replicas)}
    answers = [holds[n] for n in sorted(asked) if 0 < n < replicas]
    verdict = judged(holds[0], *answers, replicas=replicas)
    if verdict is None:
        assert 1 + len(answers) < replicas - replicas // 2
    elif sum(n < replicas for n in kept) >= majority:
        assert verdict.adopt == b"10" or (verdict == KNOWN and holds[0] == b"10")
    elif verdict == KNOWN:
        assert 1 + len(answers) >= majority
        assert set(answers) <= {holds[0]}


def test_equal_roots_of_a_majority_with_this_node_make_a_place_known() -> None:
    assert is_known_by_roots({ME: 1, OTHER: 1, THIRD: 2}, ME, 2)
    assert not is_known_by_roots({ME: 2, OTHER: 1, THIRD: 1}, ME, 2)
    assert not is_known_by_roots({OTHER: 1, THIRD: 1}, ME, 2)
    assert not is_known_by_roots({ME: 1}, ME, 2)


def test_a_place_is_known_as_far_as_the_walk_has_come_and_where_it_was_touched() -> None:
    place = KnownPlace(b"a", is_whole=False)
    place.touched(b"k")
    assert [place.knows(key) for key in (b"a", b"j", b"k", b"l")] == [False, False, True, False]
    place.covered(b"a", b"c")
    place.covered(b"x", b"z")  # read ahead of the walk, which does not go on there
    assert [place.knows(key) for key in (b"a", b"b", b"c", b"k", b"y")] == [True, True, False, True, False]
    place.completed()
    assert place.knows(b"y")


def test_keys_touched_ahead_of_the_walk_are_bounded_and_only_ever_forgotten() -> None:
    place = KnownPlace(b"", is_whole=False)
    for number in range(TOUCHED_MAX + 1):
        place.touched(b"%d" % number)
    assert place.knows(b"%d" % TOUCHED_MAX)
    assert not place.knows(b"0")


def test_the_walk_looks_where_any_of_the_others_differs() -> None:
    assert unequal((1, 2, 3), [(1, 2, 3)]) == []
    assert unequal((1, 2, 3, 4, 5), [(0, 2, 0, 0, 5)]) == [(0, 1), (2, 4)]
    assert unequal((1, 2, 3, 4, 5), [(1, 2, 3, 4, 0), (1, 2, 3, 0, 5)]) == [(3, 5)]
