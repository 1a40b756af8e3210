"""Pages of several replicas lined up: every key once, in order, with what each replica holds."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from merganser.model.ids import NodeId
from merganser.model.messages import Rows
from merganser.service.range_merge import merge_pages

A, B = NodeId("a"), NodeId("b")
START, END = b"", b"\xff"

row_keys = st.binary(min_size=1, max_size=2).filter(lambda key: key < END)
replicas = st.dictionaries(row_keys, st.sampled_from([b"old", b"new"]), max_size=12)
clusters = st.lists(st.tuples(replicas, st.integers(1, 4)), min_size=1, max_size=3)


def page_of(held: dict[bytes, bytes], start: bytes, end: bytes, rows_max: int, *, reverse: bool) -> Rows:
    """Return what a replica answers."""
    wanted = sorted((key for key in held if start <= key < end), reverse=reverse)
    return Rows(tuple((key, held[key]) for key in wanted[:rows_max]), is_last=len(wanted) <= rows_max)


@settings(max_examples=300)
@given(clusters, st.booleans())
def test_paging_to_the_end_tells_of_every_key_what_every_replica_holds(
    cluster: list[tuple[dict[bytes, bytes], int]], reverse: bool
) -> None:
    start, end = START, END
    told: list[tuple[bytes, dict[NodeId, bytes | None]]] = []
    while True:
        pages = {
            NodeId(str(number)): page_of(held, start, end, rows_max, reverse=reverse)
            for number, (held, rows_max) in enumerate(cluster)
        }
        merged = merge_pages(pages, reverse=reverse)
        told += merged.answers
        if merged.resume is None:
            break
        assert merged.answers, "every page makes progress"
        start, end = (start, merged.resume) if reverse else (merged.resume, end)
    everything = sorted({key for held, _ in cluster for key in held}, reverse=reverse)
    assert told == [
        (key, {NodeId(str(number)): held.get(key) for number, (held, _) in enumerate(cluster)}) for key in everything
    ]


def test_a_page_ends_where_the_shortest_one_does() -> None:
    pages = {
        A: Rows(((b"1", b"x"), (b"2", b"x")), is_last=False),
        B: Rows(((b"1", b"x"), (b"3", b"x")), is_last=True),
    }
    merged = merge_pages(pages, reverse=False)
    assert merged.answers == [(b"1", {A: b"x", B: b"x"}), (b"2", {A: b"x", B: None})]
    assert merged.resume == b"2\x00"


def test_a_reversed_page_resumes_before_its_last_key() -> None:
    pages = {A: Rows(((b"3", b"x"),), is_last=False), B: Rows(((b"3", b"x"), (b"1", b"x")), is_last=True)}
    merged = merge_pages(pages, reverse=True)
    assert [key for key, _ in merged.answers] == [b"3"]
    assert merged.resume == b"3"


def test_empty_pages_that_reached_the_end_leave_nothing() -> None:
    merged = merge_pages({A: Rows((), is_last=True), B: Rows((), is_last=True)}, reverse=False)
    assert (merged.answers, merged.resume) == ([], None)
