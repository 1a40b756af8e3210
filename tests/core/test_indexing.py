"""Entries of global indexes: what is stored of them, what a write leaves behind, and what may still change them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.core.indexing import Shown, applied, changed, decoded, encoded, is_marker, left, outbox_of, shown_in
from merganser.model.errors import CorruptionError
from merganser.model.ids import TableId
from merganser.model.register import EMPTY, Content, Pending, Version

NEWEST = Version(2**64 - 1, 2**32 - 1, 2**64 - 1)
A, B, C = ((TableId(7), name) for name in (b"a", b"b", b"c"))


@pytest.mark.parametrize("shown", [Shown(NEWEST, b"item"), Shown(Version(1, 2, 3), b""), Shown(NEWEST, None)])
def test_entry_is_read_as_it_was_stored(shown: Shown) -> None:
    assert decoded(encoded(shown)) == shown
    assert is_marker(encoded(shown)) == (shown.value is None)


def test_markers_are_not_shown() -> None:
    rows = ((b"a", encoded(Shown(NEWEST, b"item"))), (b"b", encoded(Shown(NEWEST, None))))
    assert shown_in(rows) == ((b"a", b"item"),)


def test_entry_that_ends_too_early_is_damaged() -> None:
    with pytest.raises(CorruptionError, match="not an entry"):
        decoded(b"short")


@pytest.mark.parametrize(
    ("before", "after", "behind"),
    [
        ({}, {A: b"1"}, [A]),
        ({A: b"1"}, {}, [A]),
        ({A: b"1"}, {A: b"2"}, [A]),
        ({A: b"1"}, {B: b"1"}, [A, B]),
        ({A: b"1", B: b"2"}, {A: b"1", B: b"3"}, [B]),
        ({A: b"1"}, {A: b"1"}, []),
    ],
)
def test_a_write_leaves_behind_what_it_changes(
    before: dict[Pending, bytes], after: dict[Pending, bytes], behind: list[Pending]
) -> None:
    assert list(changed(before, after)) == behind


def test_an_outbox_grows_by_what_is_new_in_it_without_what_is_gone() -> None:
    assert outbox_of([A, B], [B, C], is_gone=lambda entry: entry == A) == (B, C)


@pytest.mark.parametrize(
    ("now", "stays"),
    [
        ({A: b"1"}, ()),
        ({A: b"2"}, (A,)),  # written again meanwhile
        ({}, (A,)),
        ({A: b"1", B: b"1"}, (B,)),  # was away when it was delivered, and is there again
    ],
)
def test_what_is_delivered_leaves_the_outbox_unless_it_has_changed_since(
    now: dict[Pending, bytes], stays: tuple[Pending, ...]
) -> None:
    assert left((A, B), {A: b"1", B: None}, now) == stays


def test_what_was_not_delivered_stays_in_the_outbox() -> None:
    assert left((A, B), {A: b"1"}, {A: b"1"}) == (B,)


versions = st.builds(Version, st.integers(0, 2), st.integers(0, 2), st.integers(0, 3))
messages = st.lists(st.builds(Shown, versions, st.none() | st.binary(max_size=2)), min_size=1)


@given(messages)
def test_in_whatever_order_messages_come_the_latest_version_stays(sent: list[Shown]) -> None:
    content = EMPTY
    for shown in sent:
        becomes = applied(content, shown).content
        content = content if becomes is None else becomes
    assert content.value is not None
    stays = decoded(content.value)
    assert stays.version == max(shown.version for shown in sent)
    assert stays == next(shown for shown in sent if shown.version == stays.version)


def test_what_says_the_same_version_writes_nothing() -> None:
    there = Content(encoded(Shown(Version(1, 1, 5), b"item")))
    assert applied(there, Shown(Version(1, 1, 5), b"item")).content is None
    assert applied(there, Shown(Version(1, 1, 4), None)).content is None
