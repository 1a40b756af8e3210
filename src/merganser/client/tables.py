"""A key-value table, as the native client hands it out: `ValueTable`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from functools import partial
from typing import Final, Literal, TypeVar

import msgspec

from merganser.client.arguments import checked_pairs, checked_text, wrong_type
from merganser.client.calls import PAGE_PATIENCE_S, Calls, Data, for_reads, level_or
from merganser.client.session import Make
from merganser.client.values import Change, Merge, Values, as_bytes, merged, values_of
from merganser.model.client_messages import (
    AskKeys,
    AskTagged,
    ClientGet,
    ClientPut,
    KeysAre,
    PutIs,
    TaggedKeysAre,
    ValuesAre,
)
from merganser.model.contents import INTEGER_MAX, INTEGER_MIN, Tag, TaggedKey
from merganser.model.errors import RequestError
from merganser.model.shown import shown
from merganser.net.frames import FRAME_BYTES_MAX

PAGE_KEYS: Final = 500

OnlyIf = Literal["not_modified", "none_match"]
T = TypeVar("T")


class ValueTable:
    """A key-value table. Keys are 1 to 2,048 bytes, values 1 MiB at most; text stands for its UTF-8."""

    def __init__(self, calls: Calls, name: str, merge: Merge | None, consistency: str) -> None:
        """Be the table called ``name``; made by `Client.table`."""
        self.name = name
        self._calls = calls
        self._merge = merge
        self._consistency = consistency

    async def get(self, key: Data, *, consistency: str | None = None, timeout_s: float | None = None) -> Values:
        """Return the values of a key, and the context to replace them with.

        Several values stay as they are in the table until somebody puts what they come to: `put` without a context, and
        `update`, do that where there is a merge function.

        Raises:
            TableNotFoundError: there is no such table.
            UnavailableError: too few replicas could be asked in time.
            RequestError: there can be no such key, or no such consistency.
        """
        return await self._get(key, consistency, self._calls.deadline(timeout_s))

    async def put(
        self,
        key: Data,
        value: Data,
        *,
        context: bytes | None = None,
        ttl_s: int | None = None,
        content_type: str = "",
        metadata: Mapping[str, str] | None = None,
        tags: Iterable[tuple[str, int | Data]] = (),
        only_if: OnlyIf | None = None,
        consistency: str | None = None,
        timeout_s: float | None = None,
    ) -> bytes:
        """Put a value in the place of what was seen; returns the context to put with next.

        Args:
            key: of the value.
            value: to be put.
            context: of an earlier answer for this key: the value replaces what that had seen, and nothing else. None:
                it replaces nothing, and stands beside what is there; but with a merge function what is there is read
                first, and replaced by what it and the value come to.
            ttl_s: after how many seconds it reads as absent.
            content_type: kept with it.
            metadata: kept with it.
            tags: kept with it, to find it by.
            only_if: "none_match": there is no value; "not_modified": nothing was written that the context has not seen.
                No compare and set: when the replica that decides dies, or seems to, another may be let in that depends
                on the same state, and both stand (docs/adr/0020). A table with leaders has conditions that hold.
            consistency: how many nodes must have it; None: that of the table.
            timeout_s: what it may take.

        Raises:
            PreconditionFailedError: what ``only_if`` says is not so; nothing was written.
            RequestError: it cannot be done as it is, for example because the value is too large; nothing was written.
            UnavailableError: too few replicas could be reached; nothing was written.
            UnknownOutcomeError: it may have been written, now or later. It is not sent again by itself, for that
                could leave two values where one was meant.
        """
        given, deadline = as_bytes(value, "value"), self._calls.deadline(timeout_s)
        made = partial(
            ClientPut,
            ttl_s=ttl_s,
            only_if="" if only_if is None else only_if,
            content_type=content_type,
            metadata=checked_pairs("metadata", metadata),
            tags=_tags(tags),
            client=self._calls.name,
        )
        if context is None and self._merge is not None and only_if is None:
            found = await self._get(key, for_reads(consistency), deadline)
            context = found.context
            if found.siblings:
                given = merged(self._merge, [*found.all, given])
        return await self._put(key, given, b"" if context is None else context, made, consistency, deadline)

    async def delete(
        self,
        key: Data,
        *,
        context: bytes | None = None,
        only_if: OnlyIf | None = None,
        consistency: str | None = None,
        timeout_s: float | None = None,
    ) -> bytes:
        """Delete what was seen, and nothing else; returns the context to put with next.

        ``context`` None: what is there now is read first.

        Raises:
            as `put`.
        """
        deadline = self._calls.deadline(timeout_s)
        made = partial(ClientPut, only_if="" if only_if is None else only_if)
        if context is None:
            context = (await self._get(key, for_reads(consistency), deadline)).context
        return await self._put(key, None, context, made, consistency, deadline)

    async def update(
        self,
        key: Data,
        change: Change,
        *,
        ttl_s: int | None = None,
        consistency: str | None = None,
        timeout_s: float | None = None,
    ) -> bytes | None:
        """Read, change, and put with the context of what was read; returns what was put, None if it was deleted.

        Whoever does the same at the same time leaves a sibling, which the next `update` merges.

        Raises:
            SiblingsError: there are several values, and no merge function.
            and as `put`.
        """
        deadline = self._calls.deadline(timeout_s)
        if not callable(change):
            raise wrong_type("change", "a function", change)
        found = await self._get(key, for_reads(consistency), deadline)
        changed = change(found.value)
        value = None if changed is None else as_bytes(changed, "value")
        if value is not None or found.siblings:
            made = partial(ClientPut, ttl_s=ttl_s, client=self._calls.name)
            await self._put(key, value, found.context, made, consistency, deadline)
        return value

    async def keys(
        self, *, prefix: Data = b"", consistency: str | None = None, timeout_s: float | None = None
    ) -> AsyncIterator[bytes]:
        """Yield every key that begins with ``prefix``, in the order of the ring; the next page when it is wanted.

        ``timeout_s`` is for each page.

        Raises:
            as `get`.
        """
        asked = AskKeys(
            self.name, None, PAGE_KEYS, level_or(self._consistency, consistency), 0, prefix=as_bytes(prefix, "prefix")
        )
        while True:
            page = await self._page(partial(_within, asked), KeysAre, timeout_s)
            for key in page.keys:
                yield key
            if page.resume is None:
                return
            asked = msgspec.structs.replace(asked, start=page.resume)

    async def find(
        self,
        tag: str,
        value: int | Data | None = None,
        *,
        low: int | Data | None = None,
        high: int | Data | None = None,
        is_integer: bool = False,
        consistency: str | None = None,
        timeout_s: float | None = None,
    ) -> AsyncIterator[TaggedKey]:
        """Yield the keys whose values have a tag, in the order of its values; a page at a time, as `keys`.

        Args:
            tag: its name.
            value: that it has. None: any, or those of a range.
            low: the least value, if it matters.
            high: the greatest value, if it matters.
            is_integer: of a query that says no value, which of the two indexes of that name is meant.
            consistency: how many replicas are asked for each key; None: that of the table.
            timeout_s: for each page.

        Raises:
            RequestError: the range makes no sense; otherwise as `get`.
        """
        if value is not None and (low is not None or high is not None):
            raise RequestError("value is exact: leave it out, or low and high")
        bounds = [None if bound is None else _tag_value(bound, name) for bound, name in ((low, "low"), (high, "high"))]
        if value is not None:
            bounds = [_tag_value(value, "value")] * 2
        asked = AskTagged(
            self.name,
            tag,
            low=bounds[0],
            high=bounds[1],
            is_integer=is_integer or any(isinstance(bound, int) for bound in bounds),
            resume=None,
            limit=PAGE_KEYS,
            level=level_or(self._consistency, consistency),
            timeout_ms=0,
        )
        while True:
            page = await self._page(partial(_within, asked), TaggedKeysAre, timeout_s)
            for found in page.found:
                yield found
            if page.resume is None:
                return
            asked = msgspec.structs.replace(asked, resume=page.resume)

    async def _page(self, make: Make, kind: type[T], timeout_s: float | None) -> T:
        return await self._calls.read(
            self.name,
            None,
            make,
            deadline=self._calls.deadline(timeout_s),
            kind=kind,
            patience_s=PAGE_PATIENCE_S,
        )

    async def _get(self, key: Data, consistency: str | None, deadline: float) -> Values:
        name, raw, level = self.name, as_bytes(key, "key"), level_or(self._consistency, consistency)
        told = await self._calls.read(
            name,
            raw,
            lambda within_ms: ClientGet(name, raw, level, within_ms),
            deadline=deadline,
            kind=ValuesAre,
        )
        return values_of(told, self._merge)

    async def _put(
        self,
        key: Data,
        value: bytes | None,
        context: bytes,
        made: partial[ClientPut],
        consistency: str | None,
        deadline: float,
    ) -> bytes:
        name, raw, level = self.name, as_bytes(key, "key"), level_or(self._consistency, consistency)
        if value is not None and len(value) > FRAME_BYTES_MAX // 2:
            raise RequestError(f"a value of {len(value):,} bytes is more than can be sent: split it")
        told = await self._calls.write(
            name,
            raw,
            lambda within_ms: made(name, raw, value, context, level, within_ms),
            deadline=deadline,
            kind=PutIs,
        )
        return told.context


def _within(asked: AskKeys | AskTagged, within_ms: int) -> AskKeys | AskTagged:
    return msgspec.structs.replace(asked, timeout_ms=within_ms)


def _tags(tags: Iterable[tuple[str, int | Data]]) -> tuple[Tag, ...]:
    is_list = isinstance(tags, Iterable) and not isinstance(tags, str | bytes | Mapping)
    pairs = list(tags) if is_list else []
    if not is_list or not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        raise wrong_type("tags", 'pairs of a name and a value, such as [("age", 7)]', tags)
    return tuple(
        Tag(checked_text("the name of a tag", name), _tag_value(value, f"tag {name}")) for name, value in pairs
    )


def _tag_value(given: int | Data, name: str) -> int | bytes:
    if type(given) is int:
        if not INTEGER_MIN <= given <= INTEGER_MAX:
            raise RequestError(
                f"{name} is {shown(given, 40)}: an integer has 64 bits, or is given as text; nothing was sent"
            )
        return given
    if not isinstance(given, str | bytes | bytearray | memoryview):
        raise wrong_type(name, "a whole number, bytes or text", given)
    return as_bytes(given, name)
