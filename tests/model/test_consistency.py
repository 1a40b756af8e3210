"""Levels: what they ask of a table, and how clients write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.model.consistency import (
    Consistency,
    Levels,
    Need,
    ReadQuorums,
    WriteQuorums,
    name_of,
    needed_to_read,
    needed_to_write,
    parse_levels,
)

NAMED = [level for level in Consistency if level is not Consistency.ANY]


@given(level=st.sampled_from(NAMED), n=st.integers(3, 9))
def test_named_levels_count_primaries_only(level: Consistency, n: int) -> None:
    required = level.required(n)
    assert needed_to_write(level, n) == needed_to_read(level, n) == Need(required, required)
    assert needed_to_write(level, n).is_strict


def test_any_asks_one_node_and_no_primary_to_write() -> None:
    assert needed_to_write(Consistency.ANY, 3) == Need(1, 0)


def test_any_cannot_be_read_at() -> None:
    with pytest.raises(ValueError, match="ANY is for writes: choose ONE"):
        needed_to_read(Consistency.ANY, 3)


def test_numbers_count_any_node_and_say_how_many_must_be_primaries() -> None:
    assert needed_to_write(WriteQuorums(w=2), 3) == Need(2, 0)
    assert needed_to_read(ReadQuorums(r=3, pr=1), 3) == Need(3, 1)
    assert not needed_to_write(WriteQuorums(w=2, pw=1), 3).is_strict
    assert needed_to_write(WriteQuorums(w=2, pw=2), 3).is_strict


def test_more_primaries_than_nodes_ask_for_as_many_nodes() -> None:
    assert needed_to_write(WriteQuorums(w=1, pw=2), 3) == Need(2, 2)


@pytest.mark.parametrize("level", [WriteQuorums(w=4), WriteQuorums(w=1, pw=4), WriteQuorums(w=-1)])
def test_numbers_outside_the_table_are_refused(level: WriteQuorums) -> None:
    with pytest.raises(ValueError, match="the table has 3 replicas: choose a number from 0 to 3"):
        needed_to_write(level, 3)


def test_asking_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="r=0 asks nobody: choose a number from 1 to 3"):
        needed_to_read(ReadQuorums(r=0), 3)


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("QUORUM", Levels(Consistency.QUORUM, Consistency.QUORUM)),
        (" one ", Levels(Consistency.ONE, Consistency.ONE)),
        ("ANY", Levels(Consistency.ANY, Consistency.ANY)),
        ("w=2,pw=1", Levels(WriteQuorums(w=2, pw=1), None)),
        ("r=2", Levels(None, ReadQuorums(r=2))),
        ("pr=2", Levels(None, ReadQuorums(r=2, pr=2))),
        ("W = 2, PW=1 ,r=3,pr=2", Levels(WriteQuorums(w=2, pw=1), ReadQuorums(r=3, pr=2))),
    ],
)
def test_what_clients_write(text: str, levels: Levels) -> None:
    assert parse_levels(text) == levels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "SOME",
            "choose one of ONE, TWO, THREE, QUORUM, ALL, ANY, LOCAL_ONE, LOCAL_QUORUM, EACH_QUORUM, or numbers",
        ),
        ("", "choose one of"),
        ("w=", "w is ''"),
        ("w=two", "w is 'two': write a number"),
        ("w=-1", "w is '-1'"),
        ("w=2,w=3", "w is there twice"),
        ("n=3", "'n=3' is none of w, pw, r and pr"),
        ("w=2,", "'' is none of"),
        ("w=QUORUM", "w is 'quorum'"),
        ("w=12345", "w is '12345'"),
        ("w=²", "w is '²'"),
    ],
)
def test_nonsense_is_refused_with_what_to_write(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        parse_levels(text)


@given(w=st.integers(0, 9999), pw=st.integers(0, 9999))
def test_a_level_reads_as_it_is_written(w: int, pw: int) -> None:
    level = WriteQuorums(w=w, pw=pw)
    assert parse_levels(name_of(level)) == Levels(level, None)
    assert name_of(Consistency.QUORUM) == "QUORUM"


@given(text=st.text(max_size=30))
def test_any_text_is_a_level_or_a_value_error(text: str) -> None:
    try:
        parse_levels(text)
    except ValueError:
        return
