"""Staleness by hand where that can be done, and by its laws where it cannot."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merganser.core.staleness import Basis, Link, Measured, predict, quantile
from merganser.model.errors import RequestError

SECONDS = st.lists(st.floats(0.0, 0.1), min_size=1, max_size=5)


def cluster(nodes: str, out: list[float], back: list[float], applies: list[float]) -> Measured:
    links = {(a, b): Link(out, back) for a in nodes for b in nodes if a != b}
    return Measured(links, dict.fromkeys(nodes, applies), dict.fromkeys(nodes, 1.0))


@pytest.mark.parametrize(
    ("nodes", "questions", "least", "writes", "is_enough", "is_good"),
    [
        (3, 0, 0, 1000, False, False),
        (3, 600, 100, 9, False, False),
        (3, 9, 1, 1000, False, False),
        (3, 10, 1, 10, True, False),
        (3, 900, 99, 100, True, False),
        (3, 600, 100, 99, True, False),
        (3, 600, 100, 100, True, True),
        (1, 0, 0, 100, True, True),
    ],
)
def test_a_few_measurements_are_no_basis_and_some_are_none_for_what_is_rare(
    nodes: int, questions: int, least: int, writes: int, is_enough: bool, is_good: bool
) -> None:
    basis = Basis(nodes, questions, least, 60.0, writes, 60.0)
    assert (basis.is_enough, basis.is_good) == (is_enough, is_good)


def test_two_nodes_that_each_read_themselves_miss_the_others_writes_until_they_arrive() -> None:
    found = predict(cluster("ab", [0.01], [0.0], [0.0]), n=2, r=1, w=1, draw=random.Random(1).random)
    assert found.fresh(0.0) == pytest.approx(0.5, abs=0.05)
    assert found.fresh(0.0099) == found.fresh(0.0)
    assert found.fresh(0.01) == 1.0
    assert found.within_versions(3) == pytest.approx(1 - 0.5**3, abs=0.03)
    assert found.reads_s == [0.0] * 2000
    assert quantile(found.writes_s, 1.0) == 0.0


def test_who_waits_for_both_acks_is_seen_at_once() -> None:
    found = predict(cluster("ab", [0.01], [0.002], [0.003]), n=2, r=1, w=2, draw=random.Random(1).random)
    assert found.fresh(0.0) == 1.0
    assert found.writes_s == [pytest.approx(0.015)] * 2000


def test_a_copy_that_gets_lost_is_never_seen() -> None:
    found = predict(cluster("ab", [math.inf], [0.0], [0.0]), n=2, r=1, w=1, draw=random.Random(1).random)
    assert found.fresh(1e9) == pytest.approx(0.5, abs=0.05)
    assert quantile(found.visible_after_s, 0.9) == math.inf


def test_coordinators_are_drawn_by_what_they_do() -> None:
    measured = cluster("ab", [0.01], [0.0], [0.0])._replace(weights={"a": 1.0, "b": 0.0})
    assert predict(measured, n=2, r=1, w=1, draw=random.Random(1).random).fresh(0.0) == 1.0


@settings(max_examples=40)
@given(SECONDS, SECONDS, SECONDS, st.integers(1, 4), st.data())
def test_quorums_that_meet_are_never_stale_and_more_asked_are_never_worse(
    out: list[float], back: list[float], applies: list[float], n: int, data: st.DataObject
) -> None:
    r, w = data.draw(st.integers(1, n)), data.draw(st.integers(1, n))
    measured = cluster("abcde", out, back, applies)
    found = predict(measured, n=n, r=r, w=w, draw=random.Random(1).random, trials=200)
    if r + w > n:
        assert found.fresh(0.0) == 1.0
    assert found.visible_after_s == sorted(found.visible_after_s)
    assert all(found.fresh(a) <= found.fresh(b) for a, b in ((0.0, 0.01), (0.01, 0.3)))
    assert found.fresh(0.3) == 1.0, "by then every copy has arrived"
    assert found.within_versions(1) <= found.within_versions(2) <= 1.0
    whole = predict(measured, n=n, r=r, w=w, draw=random.Random(1).random, trials=200, fan_out_all=True)
    assert r + w <= n or whole.fresh(0.0) == 1.0


@pytest.mark.parametrize(("n", "r", "w"), [(0, 1, 1), (3, 0, 1), (3, 1, 4), (3, 4, 1)])
def test_numbers_that_cannot_be_are_refused(n: int, r: int, w: int) -> None:
    with pytest.raises(RequestError, match="r and w are from 1 to n"):
        predict(cluster("ab", [0.0], [0.0], [0.0]), n=n, r=r, w=w, draw=random.Random(1).random)


def test_nothing_is_predicted_of_what_was_not_measured() -> None:
    with pytest.raises(RequestError, match="nothing was measured yet"):
        predict(Measured({}, {}, {}), n=3, r=1, w=1, draw=random.Random(1).random)
