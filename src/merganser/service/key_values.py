"""Tables of keys and values: get, put and delete, with contexts.

Conflicting values stand side by side (`core.siblings`), or the last write wins (`core.last_writes`); the interface is
the same. A read is one of the coordinator, and brings the values of all the replicas it asked, and the context of what
it saw. A put is an ordinary write of a row. Where values stand side by side, the row consists of the value and the
context of what it replaces; its dot is minted by this node if it is a replica of the key, or else by one that is::

    client --put(value, context)--> any node --Mint--> a replica
                                    any node <--span--
                                    any node --Apply--> the replicas, hints for those that are away
           <------- context ------- any node <--acks---

So only replicas become actors of a key, and its context stays short. A replica that does not answer at once is not
waited for: this node then mints by itself. A dot that was minted and never used names an event that never happened.

A put that depends on something goes through `service.conditional_puts`.

Source: DeCandia 2007 §4.4 to §4.6; design §4.
"""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import cast

import msgspec

from merganser.core import causality, contents, last_writes, siblings
from merganser.core.siblings import Sibling
from merganser.model.cluster import Table
from merganser.model.consistency import Consistency, ReadLevel, WriteLevel
from merganser.model.contents import VALUE_BYTES_MAX, Condition, Content, check
from merganser.model.errors import ClockSkewError, RefusedError, RequestError, StorageFailedError, UnavailableError
from merganser.model.ids import NodeId
from merganser.model.row import Context, Row, Span
from merganser.model.timestamp import Timestamp
from merganser.model.value_messages import Mint, Minted
from merganser.model.versions import DESCRIBED_SINCE
from merganser.net.transport import refusal_code
from merganser.service.admission import timed
from merganser.service.asking import SILENT_S, Asker, error_of
from merganser.service.conditional_puts import Change, ConditionalPuts
from merganser.service.coordinator import Coordinator
from merganser.service.replica import Replica
from merganser.service.sent_once import SentOnce
from merganser.service.timestamps import Timestamps
from merganser.service.topology import Topology

__all__ = ["SIBLINGS_MAX", "VALUE_BYTES_MAX", "KeyValues", "Values"]

SIBLINGS_MAX = 100
"""A key with more has clients that never read before they put; each further one would make every read dearer."""
SIBLINGS_BYTES_MAX = 8 * 1024 * 1024
"""A row is read, written and compared whole; and a search for what comes before it in its file reads it, too: with rows
of 43 MB each look into an index of tags took 20 ms."""
SPANS_MAX = 4096
"""That one request asks for: an update with an operation of each, and one that resets some counters."""

_WRONG = refusal_code(RequestError())


class Values(msgspec.Struct, frozen=True):
    """What a key reads as."""

    siblings: list[Sibling]
    """The oldest first; none: there is no such key."""
    context: bytes
    """To be sent along with the put that replaces all of them."""


class KeyValues:
    """This node's side of tables of keys and values; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        coordinator: Coordinator,
        replica: Replica,
        timestamps: Timestamps,
        *,
        ahead_us_max: int,
        rng: random.Random,
    ) -> None:
        """Serve clients through ``coordinator``.

        Args:
            topology: who holds what.
            asker: asks replicas for dots.
            coordinator: reads and writes.
            replica: knows how many siblings a key has.
            timestamps: where dots come from.
            ahead_us_max: how far a context may be ahead of this node's clock.
            rng: draws the names of requests.
        """
        self.under_way = coordinator.under_way
        self._topology = topology
        self._asker = asker
        self._coordinator = coordinator
        self._replica = replica
        self._timestamps = timestamps
        self._ahead_us_max = ahead_us_max
        self._actors = causality.Actors(topology.me.number)
        self._loop = asyncio.get_running_loop()
        self.conditional_puts = ConditionalPuts(topology, asker, read=self._current, put=self._changed, rng=rng)

    # For clients

    async def get(self, table: Table, key: bytes, *, level: ReadLevel, deadline: float) -> Values:
        """Return the values of a key, and the context of this read.

        Raises:
            as `Coordinator.read`; RequestError also if the table is none of values.
        """
        found, context = await self._current(table, key, level, deadline)
        return Values(found, causality.encode(key, context))

    async def put(
        self,
        table: Table,
        key: bytes,
        value: bytes | Content,
        *,
        context: bytes = b"",
        expires_at_s: int | None = None,
        only_if: Condition | None = None,
        read_level: ReadLevel = Consistency.QUORUM,
        level: WriteLevel,
        deadline: float,
    ) -> bytes:
        """Put ``value`` in the place of what the client has seen; returns the context to put with next.

        Args:
            table: one of values. Where the last write wins, that is later than all the context has seen, and takes the
                place of everything.
            key: of a row.
            value: `VALUE_BYTES_MAX` at most.
            context: of an earlier `get`, `put` or `delete` of the same key; none: it has seen nothing.
            expires_at_s: seconds since 1970 from which the value reads as absent.
            only_if: what must be so; see `service.conditional_puts` for what that is worth.
            read_level: how many replicas are to be asked whether it is.
            level: how many nodes must have it.
            deadline: loop time.

        Raises:
            PreconditionFailedError: it is not so; nothing was written.
            RequestError: the context is none of this key, the value or what is said about it is too large, the key has
                too many siblings, or the table is none of values; nothing was written. Otherwise as
                `Coordinator.write`.
        """
        content = value if isinstance(value, Content) else Content(value)
        check(content)
        if content.is_described and self._topology.map.version < DESCRIBED_SINCE:
            raise UnavailableError(
                f"values with content type, metadata, tags or a client's name need version {DESCRIBED_SINCE} on every "
                "node: upgrade those with an older release"
            )
        change = Change(table, key, content, context, expires_at_s, level, deadline)
        return await self._put(change, only_if, read_level)

    async def delete(
        self,
        table: Table,
        key: bytes,
        *,
        context: bytes = b"",
        only_if: Condition | None = None,
        read_level: ReadLevel = Consistency.QUORUM,
        level: WriteLevel,
        deadline: float,
    ) -> bytes:
        """Delete the values that the client has seen; those it has not seen stay, unless the last write wins.

        Raises:
            as `put`.
        """
        return await self._put(Change(table, key, None, context, None, level, deadline), only_if, read_level)

    # For other nodes, and this one

    async def mint(self, sender: NodeId, request: Mint) -> Minted:
        """Mint a dot for a key that this node holds a replica of.

        Raises:
            RefusedError: it holds none, there is no such table, or it keeps no siblings.
            RequestError: the key has too many siblings for one more.
            CorruptionError: what is stored under the key is damaged.
            UnavailableError: there is no timestamp.
        """
        held, size = await self._replica.siblings_of(sender, request)
        if request.is_blind and (held >= SIBLINGS_MAX or size >= SIBLINGS_BYTES_MAX):
            raise RequestError(
                f"the key has {held} siblings, of {size:,} bytes together, and may have {SIBLINGS_MAX}, or "
                f"{SIBLINGS_BYTES_MAX:,} bytes: read it, and put what they come to with the "
                "context of that answer"
            )
        count = min(request.count, SPANS_MAX)
        first, *more = await self._minted(request.key, count, self._loop.time() + SILENT_S)
        return Minted(first, tuple(more))

    async def spans(self, table: Table, key: bytes, count: int, deadline: float) -> list[Span]:
        """Return ``count`` spans for events of ``key``, which a replica has minted, or else this node.

        Raises:
            UnavailableError: there are no timestamps by ``deadline``; nothing was written.
        """
        request = Mint(self._topology.map.epoch, table.id, key, is_blind=False, count=count)
        minted = await self._minted_by_a_replica(table, request, deadline)
        found = [] if minted is None else [minted.span, *minted.more]
        return [*found, *(await self._minted(key, count - len(found), deadline))]

    async def timestamp(self, deadline: float) -> Timestamp:
        """Return a timestamp of this node.

        Raises:
            UnavailableError: there is none by ``deadline``; nothing was written.
        """
        try:
            return await self._timestamps.mint(deadline)
        except TimeoutError:
            raise UnavailableError("this node cannot mint a timestamp in time; nothing was written") from None
        except (ClockSkewError, StorageFailedError) as error:
            raise UnavailableError(f"this node cannot mint a timestamp ({error}); nothing was written") from None

    async def _minted(self, key: bytes, count: int, deadline: float) -> list[Span]:
        return [self._actors.mint(key, (await self.timestamp(deadline)).micros) for _ in range(count)]

    async def _put(self, change: Change, only_if: Condition | None, read_level: ReadLevel) -> bytes:
        _check_kind(change.table)
        self._seen_in(change)
        if only_if is None:
            return await self._changed(change)
        return await self.conditional_puts.put(change, only_if, read_level)

    async def _current(
        self, table: Table, key: bytes, level: ReadLevel, deadline: float
    ) -> tuple[list[Sibling], Context]:
        """Return the values of a key, and what they have seen."""
        _check_kind(table)
        row = await self._coordinator.read(table, key, level=level, deadline=deadline)
        now_s = self._coordinator.wall_us() // 1_000_000
        if table.is_causal:
            return siblings.values(row, now_s), siblings.seen_by_reader(row)
        return last_writes.values(row, now_s), last_writes.seen_by_reader(row)

    @timed
    async def _changed(self, change: Change) -> bytes:
        """Put or delete a value; returns the context to put with next."""
        seen = self._seen_in(change)
        return await (self._put_beside if change.table.is_causal else self._put_last)(change, seen)

    async def _put_beside(self, change: Change, seen: Context) -> bytes:
        table, key, content = change.table, change.key, change.content
        request = Mint(self._topology.map.epoch, table.id, key, is_blind=content is not None and not seen)
        minted = await self._minted_by_a_replica(table, request, change.deadline)
        span = None if minted is None else minted.span
        putting = _Putting(self._actors, key, content, seen, change.expires_at_s, span)
        await self._coordinator.write_row(
            table, key, SentOnce(putting.row).stamped, level=change.level, deadline=change.deadline
        )
        return causality.encode(key, putting.seen)

    async def _put_last(self, change: Change, seen: Context) -> bytes:
        if seen:
            try:
                self._timestamps.observe(last_writes.newest(seen))
            except ClockSkewError as error:
                raise UnavailableError(f"{error}; nothing was written") from None
        mutation = last_writes.mutation(change.content, change.expires_at_s)
        timestamp = await self._coordinator.write(
            change.table, change.key, mutation, level=change.level, deadline=change.deadline
        )
        return causality.encode(change.key, last_writes.seen_by_writer(timestamp))

    def _seen_in(self, change: Change) -> Context:
        """Return what the client has seen; raises a RequestError if its context is none of the key."""
        seen = causality.decode(change.key, change.context)
        self._check_time(seen)
        return seen

    def _check_time(self, seen: Context) -> None:
        if seen and causality.newest_us(seen) > self._coordinator.wall_us() + self._ahead_us_max:
            raise RequestError(
                "the context is of a time to come: set the clocks of the nodes right, read the key again and take the "
                "context of that answer"
            )

    async def _minted_by_a_replica(self, table: Table, request: Mint, deadline: float) -> Minted | None:
        """Return what a replica of the key has minted, None if this node is to do it.

        Raises:
            RequestError: the key has too many siblings for one more.
        """
        node = self._asker.nearest_first(self._topology.replicas(table, request.key))[0]
        if not self._asker.is_responsive(node):
            return None
        answer = self._asker.ask(node, request, timeout_s=min(SILENT_S, deadline - self._loop.time()))
        await asyncio.wait({answer})
        error = error_of(answer)
        if error is None:
            return cast("Minted", answer.result())
        if isinstance(error, RequestError) or (isinstance(error, RefusedError) and error.code == _WRONG):
            raise RequestError(str(error))
        return None


def _check_kind(table: Table) -> None:
    if not table.has_contents:
        why = "the last write wins there" if table.conflicts == "lww" else f"its values are of kind {table.conflicts}"
        if table.has_leaders:
            why = "it has leaders, who order the writes of each item: there are no contexts"
        raise RequestError(f"table {table.name} keeps no siblings: {why}")


class _Putting:
    """One put."""

    __slots__ = ("_expires_at_s", "_kind", "_mint", "_span", "_value", "seen")

    def __init__(
        self,
        actors: causality.Actors,
        key: bytes,
        content: Content | None,
        seen: Context,
        expires_at_s: int | None,
        span: Span | None,
    ) -> None:
        self._mint = partial(actors.mint, key)
        packed: tuple[bytes, bytes | None] = (contents.PLAIN, None) if content is None else contents.packed(content)
        self._kind, self._value = packed
        self._expires_at_s = expires_at_s
        self._span = span
        self.seen = seen
        """By the client, once the put is acknowledged."""

    def row(self, timestamp: Timestamp) -> Row:
        """Return the row; ``timestamp`` is for the dot, unless a replica has minted one."""
        span = self._span or self._mint(timestamp.micros)
        row = siblings.put(span, self._value, kind=self._kind, seen=self.seen, expires_at_s=self._expires_at_s)
        self.seen = siblings.seen_by_writer(self.seen, span)
        return row
