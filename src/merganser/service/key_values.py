"""Tables whose conflicting values stand side by side (`core.siblings`): get, put and delete, with contexts.

A read is one of the coordinator, and brings the values of all the replicas it asked, and the context of what it saw. A
put is an ordinary write of a row that consists of the value and the context of what it replaces; its dot is minted by
this node if it is a replica of the key, or else by one that is::

    client --put(value, context)--> any node --Mint--> a replica
                                    any node <--span--
                                    any node --Apply--> the replicas, hints for those that are away
           <------- context ------- any node <--acks---

So only replicas become actors of a key, and its context stays short. A replica that does not answer at once is not
waited for: this node then mints by itself. A dot that was minted and never used names an event that never happened.

Source: DeCandia 2007 §4.4 to §4.6; design §4.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import cast

import msgspec

from merganser.core import causality, siblings
from merganser.core.siblings import Sibling
from merganser.model.cluster import Table
from merganser.model.consistency import ReadLevel, WriteLevel
from merganser.model.errors import RefusedError, RequestError, UnavailableError
from merganser.model.ids import NodeId
from merganser.model.messages import Mint, Minted
from merganser.model.row import Context, Row, Span
from merganser.model.timestamp import Timestamp
from merganser.net.transport import refusal_code
from merganser.service.admission import timed
from merganser.service.asking import SILENT_S, Asker, error_of
from merganser.service.coordinator import Coordinator
from merganser.service.replica import Replica
from merganser.service.timestamps import Timestamps
from merganser.service.topology import Topology

SIBLINGS_MAX = 100
"""A key with more has clients that never read before they put; each further one would make every read dearer."""
VALUE_BYTES_MAX = 1024 * 1024

_WRONG = refusal_code(RequestError())


class Values(msgspec.Struct, frozen=True):
    """What a key reads as."""

    siblings: list[Sibling]
    """The oldest first; none: there is no such key."""
    context: bytes
    """To be sent along with the put that replaces all of them."""


class KeyValues:
    """This node's side of key-value tables; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        coordinator: Coordinator,
        replica: Replica,
        timestamps: Timestamps,
        *,
        ahead_us_max: int,
    ) -> None:
        """Serve clients through ``coordinator``.

        Args:
            topology: who holds what.
            asker: asks replicas for dots.
            coordinator: reads and writes.
            replica: knows how many siblings a key has.
            timestamps: where dots come from.
            ahead_us_max: how far a context may be ahead of this node's clock.
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

    # For clients

    async def get(self, table: Table, key: bytes, *, level: ReadLevel, deadline: float) -> Values:
        """Return the values of a key, and the context of this read.

        Raises:
            as `Coordinator.read`; RequestError also if the table keeps no siblings.
        """
        _check_kind(table)
        row = await self._coordinator.read(table, key, level=level, deadline=deadline)
        found = siblings.values(row, self._coordinator.wall_us() // 1_000_000)
        return Values(found, causality.encode(key, siblings.seen_by_reader(row)))

    async def put(
        self,
        table: Table,
        key: bytes,
        value: bytes,
        *,
        context: bytes = b"",
        expires_at_s: int | None = None,
        level: WriteLevel,
        deadline: float,
    ) -> bytes:
        """Put ``value`` in the place of what the client has seen; returns the context to put with next.

        Args:
            table: one that keeps siblings.
            key: of a row.
            value: `VALUE_BYTES_MAX` at most.
            context: of an earlier `get`, `put` or `delete` of the same key; none: it has seen nothing.
            expires_at_s: seconds since 1970 from which the value reads as absent.
            level: how many nodes must have it.
            deadline: loop time.

        Raises:
            RequestError: the context is none of this key, the value is too large, the key has too many siblings, or the
                table keeps none; nothing was written. Otherwise as `Coordinator.write`.
        """
        if len(value) > VALUE_BYTES_MAX:
            raise RequestError(f"a value of {len(value):,} bytes, of {VALUE_BYTES_MAX:,} at most: split it")
        return await self._put(table, key, value, context, expires_at_s, level, deadline)

    async def delete(
        self, table: Table, key: bytes, *, context: bytes = b"", level: WriteLevel, deadline: float
    ) -> bytes:
        """Delete the values that the client has seen; those it has not seen stay.

        Raises:
            as `put`.
        """
        return await self._put(table, key, None, context, None, level, deadline)

    # For other nodes, and this one

    async def mint(self, sender: NodeId, request: Mint) -> Minted:
        """Mint a dot for a key that this node holds a replica of.

        Raises:
            RefusedError: it holds none, there is no such table, or it keeps no siblings.
            RequestError: the key has too many siblings for one more.
            CorruptionError: what is stored under the key is damaged.
            UnavailableError, ClockSkewError, StorageFailedError: there is no timestamp.
        """
        held = await self._replica.siblings_of(sender, request)
        if request.is_blind and held >= SIBLINGS_MAX:
            raise RequestError(
                f"the key has {held} siblings, of {SIBLINGS_MAX} at most: read it, and put what they come to with the "
                "context of that answer"
            )
        try:
            timestamp = await self._timestamps.mint(self._loop.time() + SILENT_S)
        except TimeoutError:
            raise UnavailableError("this node cannot mint a timestamp in time; nothing was written") from None
        return Minted(self._actors.mint(request.key, timestamp.micros))

    @timed
    async def _put(
        self,
        table: Table,
        key: bytes,
        value: bytes | None,
        context: bytes,
        expires_at_s: int | None,
        level: WriteLevel,
        deadline: float,
    ) -> bytes:
        _check_kind(table)
        seen = causality.decode(key, context)
        self._check_time(seen)
        request = Mint(self._topology.map.epoch, table.id, key, is_blind=value is not None and not seen)
        span = await self._span_of_a_replica(table, request, deadline)
        putting = _Putting(self._actors, key, value, seen, expires_at_s, span)
        await self._coordinator.write_row(table, key, putting.stamped, level=level, deadline=deadline)
        return causality.encode(key, putting.seen)

    def _check_time(self, seen: Context) -> None:
        if seen and causality.newest_us(seen) > self._coordinator.wall_us() + self._ahead_us_max:
            raise RequestError(
                "the context is of a time to come: set the clocks of the nodes right, read the key again and take the "
                "context of that answer"
            )

    async def _span_of_a_replica(self, table: Table, request: Mint, deadline: float) -> Span | None:
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
            return cast("Minted", answer.result()).span
        if isinstance(error, RequestError) or (isinstance(error, RefusedError) and error.code == _WRONG):
            raise RequestError(str(error))
        return None


def _check_kind(table: Table) -> None:
    if table.conflicts != "siblings":
        raise RequestError(f"table {table.name} keeps no siblings: the last write wins there")


class _Putting:
    """One put: its row, which is made once.

    A replica may have sealed its time, because this node's clock is far behind. The put does not go out again under a
    later dot: who had read and replaced the first meanwhile would find the second beside it.
    """

    __slots__ = ("_expires_at_s", "_mint", "_span", "_value", "has_begun", "seen")

    def __init__(
        self,
        actors: causality.Actors,
        key: bytes,
        value: bytes | None,
        seen: Context,
        expires_at_s: int | None,
        span: Span | None,
    ) -> None:
        self._mint = partial(actors.mint, key)
        self._value = value
        self._expires_at_s = expires_at_s
        self._span = span
        self.has_begun = False
        self.seen = seen
        """By the client, once the put is acknowledged."""

    def stamped(self, timestamp: Timestamp) -> Row:
        """Return the row; ``timestamp`` is for the dot, unless a replica has minted one.

        Raises:
            UnavailableError: it has been sent already.
        """
        if self.has_begun:
            raise UnavailableError("a replica takes no writes of that time any more, so it may have reached too few")
        self.has_begun = True
        span = self._span or self._mint(timestamp.micros)
        row = siblings.put(span, self._value, seen=self.seen, expires_at_s=self._expires_at_s)
        self.seen = siblings.seen_by_writer(self.seen, span)
        return row
