"""What a client puts under a key of a key-value table: a value, and what it says about it."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from merganser.model.errors import RequestError
from merganser.model.shown import shown

VALUE_BYTES_MAX: Final = 1024 * 1024
CONTENT_TYPE_MAX: Final = 255
CLIENT_MAX: Final = 128
METADATA_MAX: Final = 64
METADATA_BYTES_MAX: Final = 8 * 1024
"""Of all names and texts together: a client that wants more has a second value to put."""
TAGS_MAX: Final = 64
"""Each is an entry on each replica, changed with the value."""
TAG_NAME_BYTES_MAX: Final = 128
TAG_VALUE_BYTES_MAX: Final = 1024
INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1


class Tag(NamedTuple):
    """An entry of a secondary index: values are found by it. Integers and bytes of one name are two indexes."""

    name: str
    value: int | bytes


class TaggedKey(NamedTuple):
    """A key that was found by a tag of its values."""

    value: int | bytes
    """Of the tag."""
    key: bytes
    """The client's."""


class Content(msgspec.Struct, frozen=True):
    """A value and what is kept with it."""

    value: bytes
    content_type: str = ""
    """As HTTP has it; empty: none was given."""
    metadata: tuple[tuple[str, str], ...] = ()
    """The client's own: names, ascending, each once, and texts."""
    tags: tuple[Tag, ...] = ()
    client: str = ""
    """Who wrote it, by its own account; empty: it did not say."""

    @property
    def is_described(self) -> bool:
        """Tell whether anything is said about the value."""
        return bool(self.content_type or self.metadata or self.tags or self.client)


class Condition(enum.Enum):
    """What must be so for a put or delete to be done."""

    NOT_MODIFIED = "not_modified"
    """Nothing has happened to the key that the context has not seen."""
    NONE_MATCH = "none_match"
    """There is no value."""


def check(content: Content) -> None:
    """Return if ``content`` may be put.

    Raises:
        RequestError: it may not; says why.
    """
    if len(content.value) > VALUE_BYTES_MAX:
        raise RequestError(f"a value of {len(content.value):,} bytes, of {VALUE_BYTES_MAX:,} at most: split it")
    if content.is_described:
        for objection in _objections(content):
            raise RequestError(objection)


def check_tag(tag: Tag) -> None:
    """Return if a value may have ``tag``; raises as `check`."""
    for objection in _objections_to(tag):
        raise RequestError(objection)


def _objections(content: Content) -> Iterator[str]:
    if not _is_line(content.content_type) or len(content.content_type) > CONTENT_TYPE_MAX:
        yield f"a content type is {CONTENT_TYPE_MAX} printable characters at most, not {content.content_type!r:.80}"
    if not _is_line(content.client) or len(content.client) > CLIENT_MAX:
        yield f"a client's name is {CLIENT_MAX} printable characters at most, not {content.client!r:.80}"
    names = [name for name, _ in content.metadata]
    if len(names) > METADATA_MAX:
        yield f"{len(names)} pieces of metadata, of {METADATA_MAX} at most"
    if names != sorted(set(names)):
        yield "metadata is there twice, or not in the order of its names"
    for name, text in content.metadata:
        if not name or not _is_line(name) or not _is_line(text):
            yield f"metadata is printable, and has a name; {name!r:.80} is not so"
    size = sum(len(part.encode()) for pair in content.metadata for part in pair)
    if size > METADATA_BYTES_MAX:
        yield f"metadata of {size:,} bytes, of {METADATA_BYTES_MAX:,} at most"
    if len(content.tags) > TAGS_MAX:
        yield f"{len(content.tags)} tags, of {TAGS_MAX} at most"
    for tag in content.tags:
        yield from _objections_to(tag)
    if len(set(content.tags)) != len(content.tags):
        yield "a tag is there twice"


def _objections_to(tag: Tag) -> Iterator[str]:
    name, value = tag
    if not name or not _is_line(name) or len(name.encode()) > TAG_NAME_BYTES_MAX:
        yield f"a tag's name is 1 to {TAG_NAME_BYTES_MAX} printable bytes, not {name!r:.80}"
    if isinstance(value, int):
        if not INTEGER_MIN <= value <= INTEGER_MAX:
            yield f"tag {name} is {shown(value, 40)}: an integer has 64 bits, or is given as text"
    elif len(value) > TAG_VALUE_BYTES_MAX:
        yield f"tag {name} has {len(value):,} bytes, of {TAG_VALUE_BYTES_MAX:,} at most"


def _is_line(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return text.isprintable()
