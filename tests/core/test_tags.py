"""Tags: their places order as their values do, and pages of replicas become one without a gap."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from merganser.core import contents, last_writes, rows, siblings, tags
from merganser.core.causality import Actors
from merganser.core.tags import TagPage
from merganser.model.contents import INTEGER_MAX, INTEGER_MIN, Content, Tag
from merganser.model.ids import NodeId
from merganser.model.row import Row
from merganser.model.timestamp import Timestamp

INTEGERS = st.integers(INTEGER_MIN, INTEGER_MAX)
BYTES = st.binary(max_size=6) | st.lists(st.sampled_from([0, 1, 255]), max_size=5).map(bytes)
TABLE = b"\x00\x00\x00\x07"
A, B, C = NodeId("a"), NodeId("b"), NodeId("c")


@given(st.lists(INTEGERS, max_size=6) | st.lists(BYTES, max_size=6), st.binary(min_size=12, max_size=20))
def test_places_order_as_values_do_and_tell_value_and_row(values: list[int | bytes], rest: bytes) -> None:
    row_key = TABLE + rest
    places = [tags.place_of(value, row_key) for value in sorted(values)]
    assert places == sorted(places)
    for value, place in zip(sorted(values), places, strict=True):
        assert tags.value_at(place) == value
        assert tags.row_at(place, TABLE) == row_key


@given(st.tuples(INTEGERS, INTEGERS, INTEGERS) | st.tuples(BYTES, BYTES, BYTES), st.binary(min_size=12, max_size=16))
def test_a_range_holds_the_places_from_its_least_to_its_greatest_value(
    values: tuple[int, int, int] | tuple[bytes, bytes, bytes], rest: bytes
) -> None:
    low, high, value = values
    start, end = tags.places_between(low, high, is_integer=isinstance(low, int))
    assert (start <= tags.place_of(value, TABLE + rest) < end) == (low <= value <= high)  # type: ignore[operator]
    start, end = tags.places_between(None, None, is_integer=isinstance(low, int))
    assert start <= tags.place_of(value, TABLE + rest) < end
    start, end = tags.places_between(None, None, is_integer=not isinstance(low, int))
    assert not start <= tags.place_of(value, TABLE + rest) < end


def test_a_row_has_the_tags_of_all_its_values_and_readers_see_those_of_live_ones() -> None:
    actors = Actors(1)

    def put(micros: int, tag: Tag, expires_at_s: int | None = None) -> Row:
        kind, value = contents.packed(Content(b"v", tags=(tag,)))
        return siblings.put(actors.mint(b"k", micros), value, kind=kind, expires_at_s=expires_at_s)

    both = rows.merge(put(10, Tag("a", 1)), put(20, Tag("b", b"x"), 5))
    assert tags.tags_of(both) == {("a", 1), ("b", b"x")}
    assert tags.tags_of(both, 5) == {("a", 1)}
    written = last_writes.mutation(Content(b"v", tags=(Tag("a", 1),)), 5)
    assert tags.tags_of(rows.stamp(written, Timestamp(10, 1))) == {("a", 1)}
    assert tags.tags_of(rows.stamp(last_writes.mutation(None, None), Timestamp(10, 1))) == set()
    assert tags.tags_of(None) == set()


def test_what_all_tell_is_found_and_what_one_lacks_or_holds_otherwise_is_doubtful() -> None:
    pages = {
        A: TagPage([(b"1", 7), (b"2", 7), (b"3", 7), (b"4", 0)], None),
        B: TagPage([(b"1", 7), (b"3", 8), (b"4", 0)], None),
    }
    merged = tags.merged(pages, lambda _place: (A, B), 10)
    assert merged.found == [(b"1", False), (b"2", True), (b"3", True), (b"4", True)]
    assert merged.resume is None


@given(
    st.dictionaries(st.integers(0, 40), st.sets(st.sampled_from([A, B, C]), min_size=1), max_size=30),
    st.integers(1, 6),
    st.integers(1, 6),
)
def test_pages_put_together_tell_each_place_once_and_in_order(
    there: dict[int, set[NodeId]], most: int, at_once: int
) -> None:
    def page(node: NodeId, start: bytes) -> TagPage:
        places = sorted(bytes((number,)) for number, nodes in there.items() if node in nodes)
        left = [place for place in places if place >= start]
        return TagPage([(place, 1) for place in left[:at_once]], left[at_once] if len(left) > at_once else None)

    told: list[bytes] = []
    start: bytes | None = b""
    while start is not None:
        merged = tags.merged({node: page(node, start) for node in (A, B, C)}, lambda _place: (A, B, C), most)
        assert len(merged.found) <= most
        assert merged.resume is None or merged.resume > start or merged.found == []
        told += [place for place, _ in merged.found]
        start = merged.resume
    assert told == sorted(bytes((number,)) for number in there)
