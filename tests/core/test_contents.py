"""Values and what is said about them: kept as they were given, bounded, and told apart from bytes alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.core import contents
from merganser.model.contents import INTEGER_MAX, INTEGER_MIN, Content, Tag, check
from merganser.model.errors import CorruptionError, RequestError

LINES = st.text(st.characters(categories=("L", "N", "P")), max_size=20)
NAMES = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=20)
TAGS = st.tuples(NAMES, st.integers(INTEGER_MIN, INTEGER_MAX) | st.binary(max_size=20)).map(lambda tag: Tag(*tag))
CONTENTS = st.builds(
    Content,
    st.binary(max_size=50),
    content_type=LINES,
    metadata=st.dictionaries(NAMES, LINES, max_size=4).map(lambda there: tuple(sorted(there.items()))),
    tags=st.lists(TAGS, max_size=4, unique=True).map(tuple),
    client=LINES,
)


@given(CONTENTS)
def test_what_is_packed_comes_back_as_it_was(content: Content) -> None:
    check(content)
    kind, stored = contents.packed(content)
    assert contents.unpacked(kind, stored) == content
    assert contents.unpacked(contents.DESCRIBED, contents.described(content)) == content
    assert contents.tags_of(kind, stored) == content.tags


def test_a_value_that_nothing_is_said_about_is_stored_as_it_is() -> None:
    assert contents.packed(Content(b"milk")) == (b"", b"milk")
    assert contents.tags_of(b"", b"\x00\x00\x00\x04....") == ()


@pytest.mark.parametrize(
    "stored", [b"", b"\x00\x00", b"\x00\x00\x00\x09\x90", b"\x00\x00\x00\x01\x05", b"\xff\xff\xff\xff"]
)
def test_what_makes_no_sense_is_damaged(stored: bytes) -> None:
    with pytest.raises(CorruptionError, match=r"a value of|makes no sense"):
        contents.unpacked(contents.DESCRIBED, stored)


def test_a_kind_of_a_later_release_is_not_taken_for_a_value() -> None:
    with pytest.raises(CorruptionError, match="a kind that this node does not know"):
        contents.unpacked(b"\x02", b"milk")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (Content(b"x" * (1024 * 1024 + 1)), "of 1,048,576 at most"),
        (Content(b"", content_type="text\nplain"), "printable characters"),
        (Content(b"", client="x" * 129), "a client's name"),
        (Content(b"", client="\ud800"), "a client's name"),
        (Content(b"", metadata=(("b", "1"), ("a", "2"))), "order of its names"),
        (Content(b"", metadata=(("a", "1"), ("a", "2"))), "twice"),
        (Content(b"", metadata=(("", "1"),)), "has a name"),
        (Content(b"", metadata=(("a", "x" * 8192),)), "metadata of 8,193 bytes"),
        (Content(b"", metadata=tuple((f"{n:03}", "") for n in range(65))), "65 pieces"),
        (Content(b"", tags=tuple(Tag("a", n) for n in range(65))), "65 tags"),
        (Content(b"", tags=(Tag("a", 2**63),)), "64 bits"),
        (Content(b"", tags=(Tag("a", b"x" * 1025),)), "1,025 bytes"),
        (Content(b"", tags=(Tag("", 1),)), "a tag's name"),
        (Content(b"", tags=(Tag("a", 1), Tag("a", 1))), "there twice"),
    ],
)
def test_what_is_too_much_is_refused_with_its_reason(content: Content, told: str) -> None:
    with pytest.raises(RequestError, match=told):
        check(content)
