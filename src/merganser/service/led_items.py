"""The items that this node leads: their heads, how they get a new one, and when what they are may be told.

The head of an item is what this node's engine holds, once the item is known in the term (`first_touches`); a write is
kept here before it is sent, so it is the head at once. What was seen is told once it is chosen, and a majority has
said, asked after the request came in, that the epoch stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from merganser.model.cluster import Table
from merganser.model.errors import (
    CorruptionError,
    OverloadedError,
    RefusedError,
    StorageFailedError,
    UnavailableError,
    UnknownOutcomeError,
)
from merganser.model.ids import TableId
from merganser.model.leader_messages import Replicate
from merganser.model.register import Content, Register
from merganser.service.asking import Asker
from merganser.service.damage import Damage
from merganser.service.first_touches import FirstTouches, Term
from merganser.service.hash_trees import HashTrees
from merganser.service.in_flight import Proposal
from merganser.service.intents import NoTransactions, Resolver
from merganser.service.leadership import Leadership
from merganser.service.leadership import Led as LedTerm
from merganser.service.led_terms import Terms
from merganser.service.outboxes import Outboxes
from merganser.service.topology import Topology
from merganser.storage.engine import Engine
from merganser.storage.registers import decode_register, encode_register, is_of_epoch, plain_value

PATIENCE_S = 10.0
"""How long a request waits here for anything: longer than any client does, so that its own deadline comes first."""
LOOKS_MAX = 16
"""How often a request finds that the item has become unknown, or locked again, before it gives up."""


class LedItems:
    """Items by their terms; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        engine: Engine,
        leadership: Leadership,
        trees: HashTrees,
        damage: Damage,
        terms: Terms,
        *,
        outboxes: Outboxes,
        admit: Callable[[], Awaitable[None]],
    ) -> None:
        """Hold the items of ``terms``; the other arguments are those of `service.leader.Leader`."""
        self.resolver: Resolver = NoTransactions()
        """Who is asked about intents that are met on them."""
        self.when_deleted: Callable[[LedTerm, TableId], None] = lambda _led, _table: None
        """Told of each write of a tombstone."""
        self.when_behind_indexes: Callable[[LedTerm, TableId, bytes], None] = lambda _led, _table, _key: None
        """Told of each write of an item with an outbox."""
        self._topology = topology
        self._engine = engine
        self._leadership = leadership
        self._trees = trees
        self._damage = damage
        self._terms = terms
        self._loop = asyncio.get_running_loop()
        self.touches = FirstTouches(
            topology,
            asker,
            engine,
            trees,
            damage,
            outboxes,
            admit=admit,
            adopt=self.propose,
            put_back=self._put_back,
            learned=terms.learned,
        )
        """How they become known."""
        terms.when_begun = self.touches.begin
        terms.when_ended = self.touches.forget

    def known_now(self, term: Term, table: Table, key: bytes) -> tuple[bytes | None, Content] | None:
        """Return what is stored of an item, and what that says, if it is known and intact; else `known` sees to it."""
        try:
            stored = self._engine.get(key)
            if stored is not None and is_of_epoch(stored, term.epoch_bytes):
                value = plain_value(key, stored)
                if value is not None:  # of nearly all, and a third of the time
                    return stored, Content(value)
            head = decode_register(key, stored)
        except CorruptionError:
            return None
        return (stored, head.content) if self.touches.knows(term, table, key, head.version) else None

    async def known(self, term: Term, table: Table, key: bytes) -> tuple[bytes | None, Register]:
        """Return the head of a known item, and what is stored of it, as of this turn of the loop.

        Raises:
            RefusedError: deposed meanwhile.
            UnavailableError: too few replicas told what they hold.
        """
        for _ in range(LOOKS_MAX):
            if not term.led.is_standing:
                raise self._terms.not_leading(term.led.group)
            try:
                stored = self._engine.get(key)
                head = decode_register(key, stored)
                if self.touches.knows(term, table, key, head.version):
                    return stored, head
            except CorruptionError:
                self._damage.met_row(table.id, key)
            await self.touches.touch(term, table, key)
        raise UnavailableError("the item cannot be read here; nothing was done, try again")

    def propose(
        self, term: Term, table: Table, key: bytes, content: Content, *, before: bytes | None, is_intact: bool
    ) -> Proposal:
        """Write ``content`` in this turn of the loop, in the place of ``before``, and send it.

        Raises:
            UnknownOutcomeError: this node's disk has failed.
        """
        led = term.led
        version = led.next_version()
        if content.outbox:
            self.when_behind_indexes(led, table.id, key)
        elif content.value is None and content.intent is None:
            self.when_deleted(led, table.id)
        register = encode_register(key, Register(version, content))
        try:
            if is_intact:
                self._trees.put(table.id, led.group.partition, key, before, register)
            else:
                self._trees.write(((table.id, key, before, register),))
        except StorageFailedError as error:
            raise UnknownOutcomeError(f"this node's disk has failed: {error}") from None
        request = Replicate(self._topology.map.epoch, table.id, key, led.epoch, register, led.generation)
        return term.flight.propose(version, request)

    def amend(self, term: Term, table: Table, key: bytes, amended: Callable[[Register], Content]) -> bool:
        """Write what ``amended`` makes of a known item, as `service.leader.Leader.amend`; false if not possible now.

        Raises:
            UnknownOutcomeError: this node's disk has failed.
        """
        try:
            self._terms.check_open(term)
            stored = self._engine.get(key)
            head = decode_register(key, stored)
        except (RefusedError, OverloadedError, CorruptionError):
            return False
        if not self.touches.knows(term, table, key, head.version):
            return False
        content = amended(head)
        if content != head.content:
            self.propose(term, table, key, content, before=stored, is_intact=True)
        return True

    async def revealed(self, term: Term, key: bytes) -> None:
        """Return when what this node held under ``key`` at the call may be told: it is chosen, and the epoch stands.

        Raises:
            RefusedError: the epoch does not stand.
            UnavailableError: not in time.
        """
        newest = term.flight.newest(key)
        await self.confirmed(term)
        if newest is not None:
            await self.chosen(term, newest)

    def confirmed(self, term: Term) -> Awaitable[None]:
        """Return once a majority, asked after the call, has said that the epoch stands; raises as `revealed`."""
        return self._leadership.confirm(term.led, deadline=self.patience())

    async def chosen(self, term: Term, proposal: Proposal) -> None:
        """Return once a write is chosen; raises as `revealed`."""
        if not await proposal.ended():
            if not term.led.is_standing:
                raise self._terms.not_leading(term.led.group)
            raise UnavailableError("what the item is has not reached a majority in time, try again")

    def patience(self) -> float:
        """Return the loop time until which a request that has come now waits."""
        return self._loop.time() + PATIENCE_S

    def _put_back(self, table: Table, damaged: bytes | None, proposal: Proposal) -> None:
        self._trees.write(((table.id, proposal.key, damaged, proposal.request.register),))
