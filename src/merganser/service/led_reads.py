"""Consistent reads at the leader: of one item, of several, of ranges.

::

    ReadLed --> admitted --> known --> confirmed, chosen --> no intent --> answered
                (epoch)    (first touch)        ^               | intent
                                                |               v
                                                +--- gone --- `Resolver` --> its value --> answered
"""

from __future__ import annotations

import asyncio
from functools import partial

from merganser.model.cluster import Table
from merganser.model.errors import MerganserError, UnavailableError
from merganser.model.ids import NodeId
from merganser.model.leader_messages import Led, LedRows, ReadLed, ReadRangeLed
from merganser.model.messages import Reply
from merganser.model.register import NO_VERSION, Register
from merganser.service.asking import Asker
from merganser.service.first_touches import Term
from merganser.service.group_gate import GroupGate
from merganser.service.intents import Gone
from merganser.service.leadership import Leadership
from merganser.service.led_items import LOOKS_MAX, LedItems
from merganser.service.led_ranges import LedRanges
from merganser.service.led_terms import Terms
from merganser.service.local_indexes import LocalIndexes
from merganser.service.topology import Topology
from merganser.storage.engine import Engine
from merganser.storage.registers import decode_register, plain_value, version_of

_THIS_AND_ANOTHER = 2


class LedReads:
    """Reads of what this node leads; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        engine: Engine,
        leadership: Leadership,
        terms: Terms,
        items: LedItems,
        gate: GroupGate,
        *,
        local: LocalIndexes,
    ) -> None:
        """Read ``items``, of ``terms``, of what ``gate`` admits; ``local``: the indexes among them."""
        self._topology = topology
        self._asker = asker
        self._engine = engine
        self._leadership = leadership
        self._terms = terms
        self._items = items
        self._gate = gate
        self._loop = asyncio.get_running_loop()
        self._ranges = LedRanges(
            engine,
            items.touches,
            local,
            confirmed=items.confirmed,
            chosen=items.chosen,
            value=self._value,
            read=self._read,
        )

    async def read(self, sender: NodeId, request: ReadLed) -> Led:
        """Return the item as it is: chosen, and nothing acknowledged before the request came in is missing.

        Raises:
            RefusedError: this node does not lead in that epoch.
            UnavailableError: the item is not known, or the epoch not confirmed, in time.
        """
        table, group = await self._gate.admit(sender, request.map_epoch, request.table, request.key)
        return await self._read(self._terms.standing(group, request.epoch), table, request.key)

    def read_at_once(self, _sender: NodeId, request: ReadLed) -> Led | None:
        """Return what `read` does, None if that would have to wait: for other replicas, or for what is in flight.

        Raises:
            as `read`.
        """
        if request.map_epoch > self._topology.map.epoch:
            return None
        table, group = self._gate.held(request.table, request.key)
        term = self._terms.standing(group, request.epoch)
        if len(term.led.replicas) > 1 or term.flight.newest(request.key) is not None:
            return None
        stored = self._engine.get(request.key)
        value = None if stored is None else plain_value(request.key, stored)
        if stored is not None and value is not None:
            version = version_of(request.key, stored)
        else:
            head = decode_register(request.key, stored)
            if head.content.intent is not None:
                return None
            value, version = head.content.value, head.version
        return Led(value, version) if self._items.touches.knows(term, table, request.key, version) else None

    def begin_read(self, sender: NodeId, request: ReadLed) -> asyncio.Future[Reply] | Led | None:
        """Do as `read`, as a `net.transport.Beginner`, of an item that is known, and of which nothing is in flight.

        Raises:
            RefusedError: this node does not lead in that epoch.
        """
        if self._gate.is_behind(request.map_epoch):
            return None
        key = request.key
        table, group = self._gate.held(request.table, key)
        term = self._terms.standing(group, request.epoch)
        if len(term.led.replicas) == 1:
            return self.read_at_once(sender, request)
        found = None if term.flight.newest(key) is not None else self._items.known_now(term, table, key)
        if found is None or found[1].intent is not None:
            return None
        stored, content = found
        led = Led(content.value, NO_VERSION if stored is None else version_of(key, stored))
        if request.is_vouched and self._is_confirmed_by(sender, term, request.map_epoch):
            return led
        answer: asyncio.Future[Reply] = self._loop.create_future()
        confirmed = self._leadership.begin_to_confirm(term.led, deadline=self._items.patience())
        confirmed.add_done_callback(partial(self._answer_read, term, led, answer))
        return answer

    def _is_confirmed_by(self, sender: NodeId, term: Term, map_epoch: int) -> bool:
        """Tell whether this node and ``sender``, which vouches for the epoch by that map, are a majority."""
        led = term.led
        is_other_replica = sender in led.replicas and sender != self._asker.node
        return is_other_replica and led.quorum == _THIS_AND_ANOTHER and map_epoch >= self._topology.map.placed

    def _answer_read(
        self, term: Term, led: Led, answer: asyncio.Future[Reply], confirmed: asyncio.Future[bool]
    ) -> None:
        if answer.done():
            return
        try:
            self._leadership.check_confirmed(term.led, confirmed)
            answer.set_result(led)
        except MerganserError as error:
            answer.set_exception(error)
            answer.exception()

    async def read_range(self, sender: NodeId, request: ReadRangeLed) -> LedRows:
        """Return the items of a range of rows, or of a local index, within one partition, each as `read` would.

        They are not all as of one instant.

        The page may hold fewer than asked for, even none, and say where to go on: registers without a value count.

        Raises:
            RefusedError: this node does not lead in that epoch, or the range is of several partitions.
            UnavailableError: the items are not known, or the epoch not confirmed, in time.
            CorruptionError: this node cannot read what it holds.
        """
        start, end = request.start, request.end
        table, group = await self._gate.admit_range(sender, request.map_epoch, request.table, start, end)
        return await self._ranges.read(self._terms.standing(group, request.epoch), table, request)

    async def _read(self, term: Term, table: Table, key: bytes) -> Led:
        for _ in range(LOOKS_MAX):
            _, head = await self._items.known(term, table, key)
            await self._items.revealed(term, key)
            if head.content.intent is None:
                return Led(head.content.value, head.version)
            value = await self._value(table, key, head)
            if not isinstance(value, Gone):
                return Led(value, head.version)
        raise UnavailableError(f"transactions hold the item again and again ({LOOKS_MAX} times), try again")

    async def _value(self, table: Table, key: bytes, head: Register) -> bytes | Gone | None:
        if head.content.intent is None:
            return head.content.value
        return await self._items.resolver.for_read(table, key, head, deadline=self._items.patience())
