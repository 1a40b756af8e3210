"""Contexts: sets of dots, and the tokens that carry them to clients and back."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.core import causality
from merganser.model.errors import RequestError
from merganser.model.row import Context, Dot, Span

KEY = b"cart"
dots = st.builds(
    lambda epoch, more, number: Dot(epoch + more, number, epoch), *[st.integers(0, 5)] * 2, st.integers(1, 2)
)
sets_of_dots = st.sets(dots, max_size=8)
EVERY_DOT = [Dot(epoch + more, number, epoch) for epoch in range(6) for more in range(6) for number in (1, 2)]


def context_of(seen: set[Dot]) -> Context:
    found: Context = ()
    for dot in seen:
        found = causality.join(found, causality.only(dot))
    return found


def dots_in(context: Context) -> set[Dot]:
    return {dot for dot in EVERY_DOT if causality.has_seen(context, dot)}


@given(a=sets_of_dots, b=sets_of_dots)
def test_join_is_the_union(a: set[Dot], b: set[Dot]) -> None:
    joined = causality.join(context_of(a), context_of(b))
    assert dots_in(joined) == a | b
    assert joined == context_of(a | b)
    assert causality.flaw_of(joined) == ""


@given(a=sets_of_dots, b=sets_of_dots)
def test_covers_is_the_subset(a: set[Dot], b: set[Dot]) -> None:
    assert causality.covers(context_of(a), context_of(b)) == (a >= b)


@given(a=sets_of_dots, gone=sets_of_dots)
def test_without_is_the_difference(a: set[Dot], gone: set[Dot]) -> None:
    left = causality.without(context_of(a), gone)
    assert dots_in(left) == a - gone
    assert left == context_of(a - gone)


@given(a=sets_of_dots)
def test_a_token_comes_back_as_the_context(a: set[Dot]) -> None:
    assert causality.decode(KEY, causality.encode(KEY, context_of(a))) == context_of(a)


def test_an_actor_needs_one_span_however_many_dots_it_mints() -> None:
    actors = causality.Actors(1)
    context: Context = ()
    for micros in (10, 20, 30):
        context = causality.join(context, (actors.mint(KEY, micros),))
    assert context == (Span(1, 10, 10, 30),)


def test_a_dot_that_was_not_seen_is_a_gap() -> None:
    actors = causality.Actors(1)
    first, lost, last = (actors.mint(KEY, micros) for micros in (10, 20, 30))
    context = causality.join((first,), (last,))
    assert not causality.has_seen(context, causality.dot_of(lost))
    assert causality.join(context, (lost,)) == (Span(1, 10, 10, 30),)


def test_a_new_life_of_a_node_is_another_actor() -> None:
    causality.Actors(1).mint(KEY, 10)
    assert causality.Actors(1).mint(KEY, 50) == Span(1, 50, 50, 50)


def test_a_key_that_was_forgotten_begins_a_new_epoch() -> None:
    actors = causality.Actors(1, keys_max=2)
    for micros, key in enumerate((b"a", b"b", b"a", b"c"), start=10):
        actors.mint(key, micros)
    assert actors.mint(b"a", 20) == Span(1, 10, 13, 20)
    assert actors.mint(b"b", 21) == Span(1, 21, 21, 21)


def test_a_timestamp_that_has_waited_claims_nothing_of_later_ones() -> None:
    actors = causality.Actors(1)
    actors.mint(KEY, 10)
    actors.mint(KEY, 30)
    assert actors.mint(KEY, 20) == Span(1, 20, 20, 20)
    assert actors.mint(KEY, 40) == Span(1, 10, 31, 40)


TOKEN = causality.encode(KEY, (Span(1, 10, 10, 30),))
UNORDERED = causality.encode(KEY, (Span(2, 10, 10, 30), Span(1, 10, 10, 30)))
BACKWARDS = causality.encode(KEY, (Span(1, 10, 30, 20),))


@pytest.mark.parametrize(
    ("key", "token", "reason"),
    [
        (KEY, b"what?", "not base64"),
        (KEY, base64.urlsafe_b64encode(b"abc"), "cut off after 3 bytes"),
        (KEY, base64.urlsafe_b64encode(b"\x09" + base64.urlsafe_b64decode(TOKEN)[1:]), "format 9, this node knows 1"),
        (b"other", TOKEN, "belongs to another key"),
        (KEY, base64.urlsafe_b64encode(base64.urlsafe_b64decode(TOKEN)[:-1]), "another key, or was changed"),
        (KEY, TOKEN[:-8] + b"AAAAAAA=", "another key, or was changed"),
        (KEY, UNORDERED, "not in order"),
        (KEY, BACKWARDS, "the span 30 to 20"),
        (KEY, b"A" * 1_048_580, "a context of 1048580 bytes, of 1048576 at most"),
    ],
)
def test_what_is_no_token_is_refused_with_the_reason(key: bytes, token: bytes, reason: str) -> None:
    with pytest.raises(RequestError, match=reason) as told:
        causality.decode(key, token)
    assert "read the key again" in str(told.value)


def test_the_token_of_a_key_that_was_busy_in_thousands_of_lives_of_its_nodes_is_taken_back() -> None:
    context = tuple(Span(1, micros, micros, micros) for micros in range(10, 50_000, 10))
    assert causality.decode(KEY, causality.encode(KEY, context)) == context


def test_no_context_is_no_token() -> None:
    assert causality.encode(KEY, ()) == b""
    assert causality.decode(KEY, b"") == ()
