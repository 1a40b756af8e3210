"""What is said about a value, as the admin port takes and tells it: content type, metadata, tags, client."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import msgspec

from merganser.core.siblings import Sibling
from merganser.model.contents import Condition, Content, Tag
from merganser.model.errors import RequestError

ABOUT = frozenset(("content_type", "metadata", "tags", "client"))
"""Of a query."""


class _Bytes(msgspec.Struct, forbid_unknown_fields=True):
    base64: str


_metadata = msgspec.json.Decoder(dict[str, str])
_tags = msgspec.json.Decoder(list[tuple[str, int | str | _Bytes]])
_tag_value = msgspec.json.Decoder(int | str | _Bytes)


def content_of(value: bytes, query: Mapping[str, str]) -> Content:
    """Return what is to be put.

    Args:
        value: of the request's body.
        query: values in Latin-1.

    Raises:
        RequestError: a part of the query is not as it should be; says how it should.
    """
    try:
        metadata = _metadata.decode(_bytes(query, "metadata", "{}"))
        tags = tuple(Tag(name, _tag_bytes(given)) for name, given in _tags.decode(_bytes(query, "tags", "[]")))
    except (msgspec.MsgspecError, ValueError) as error:
        raise RequestError(
            f"{error}: metadata is an object of texts in JSON, tags is an array of "
            '["name", 5], ["name", "text"] and ["name", {"base64": "…"}]'
        ) from None
    return Content(
        value,
        content_type=_text(query, "content_type"),
        metadata=tuple(sorted(metadata.items())),
        tags=tags,
        client=_text(query, "client"),
    )


def tag_value(text: str) -> int | bytes:
    """Return the value of a tag that a query names in JSON, in Latin-1.

    Raises:
        RequestError: it names none.
    """
    try:
        return _tag_bytes(_tag_value.decode(text.encode("latin-1")))
    except (msgspec.MsgspecError, ValueError):
        raise RequestError(f'a tag is 5, "text" or {{"base64": "…"}} in JSON, not {text!r:.80}') from None


def condition_of(query: Mapping[str, str]) -> Condition | None:
    """Return what a put or delete depends on; raises a RequestError if there is no such condition."""
    given = query.get("if")
    if given is None:
        return None
    try:
        return Condition(given)
    except ValueError:
        raise RequestError(f"if is {' or '.join(one.value for one in Condition)}, not {given!r:.80}") from None


def told(sibling: Sibling) -> dict[str, object]:
    """Return a value and all that is known of it."""
    shown: dict[str, object] = {
        **as_json(sibling.value),
        "written_at_us": sibling.dot.micros,
        "by_node": sibling.dot.number,
    }
    if sibling.client:
        shown["by_client"] = sibling.client
    if sibling.expires_at_s is not None:
        shown["expires_at_s"] = sibling.expires_at_s
    if sibling.content_type:
        shown["content_type"] = sibling.content_type
    if sibling.metadata:
        shown["metadata"] = dict(sibling.metadata)
    if sibling.tags:
        shown["tags"] = [[tag.name, tag_as_json(tag.value)] for tag in sibling.tags]
    return shown


def as_json(value: bytes) -> dict[str, object]:
    """Return bytes as text if they are UTF-8, else as base64."""
    try:
        return {"text": value.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def tag_as_json(value: int | bytes) -> object:
    """Return the value of a tag as it is put."""
    if isinstance(value, int):
        return value
    shown = as_json(value)
    return shown.get("text", shown)


def _tag_bytes(given: int | str | _Bytes) -> int | bytes:
    if isinstance(given, _Bytes):
        return base64.b64decode(given.base64, validate=True)
    return given.encode() if isinstance(given, str) else given


def _bytes(query: Mapping[str, str], name: str, default: str) -> bytes:
    return query.get(name, default).encode("latin-1")


def _text(query: Mapping[str, str], name: str) -> str:
    try:
        return _bytes(query, name, "").decode()
    except UnicodeDecodeError:
        raise RequestError(f"{name} must be UTF-8") from None
