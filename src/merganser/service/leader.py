"""The leader of items: evaluates steps, gives versions, replicates, and answers once a majority has what it answers.

::

    Change --> admitted --> known --> intent resolved --> evaluated ----rejected----> confirmed --> answered
               (epoch)     (first     (`Resolver`)            |                           ^
                            touch)                            +--> version, kept here, ---+ when chosen
                                                                   sent (`in_flight`)

`led_terms` knows what this node leads, `led_items` the items of that, `led_reads` answers reads of them.

From the look at the head to the write there is one turn of the loop: nothing of the item comes between. The head is
what this node's engine holds, as a write is kept here before it is sent; so the next step builds on it at once.

What a step says that writes nothing is a read: like every read it leaves when the head is chosen and a majority has
said, asked after the request came in, that the epoch stands.

Outcomes: a refusal `NOT_LEADING`, an UnavailableError, a RequestError say that nothing was done. Once a write was
kept here its outcome is success or unknown, never failure.

Source: design §5; docs/internals/leader.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from merganser.model.cluster import Table
from merganser.model.errors import (
    MerganserError,
    OverloadedError,
    RequestError,
    TransactionConflictError,
    UnavailableError,
    UnknownOutcomeError,
)
from merganser.model.ids import NodeId
from merganser.model.leader_messages import (
    Change,
    Changed,
)
from merganser.model.messages import Reply
from merganser.model.register import NO_VERSION, Content, Register
from merganser.service.asking import Asker
from merganser.service.damage import Damage
from merganser.service.first_touches import Term
from merganser.service.group_gate import GroupGate
from merganser.service.hash_trees import HashTrees
from merganser.service.in_flight import (
    REQUESTS_MAX,
    Outcome,
    Proposal,
    outcomes,
)
from merganser.service.leadership import Leadership
from merganser.service.leadership import Led as LedTerm
from merganser.service.led_items import LOOKS_MAX, LedItems
from merganser.service.led_reads import LedReads
from merganser.service.led_terms import Terms
from merganser.service.local_indexes import LocalIndexes
from merganser.service.outboxes import Outboxes
from merganser.service.settlement import Settlement
from merganser.service.steps import Maker
from merganser.service.told import Told, Untold
from merganser.service.topology import Topology
from merganser.storage.engine import Engine
from merganser.storage.registers import decode_register, version_of


class Leader:
    """This node as a leader; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        engine: Engine,
        leadership: Leadership,
        trees: HashTrees,
        damage: Damage,
        *,
        outboxes: Outboxes,
        admit: Callable[[], Awaitable[None]],
        catch_up: Callable[[NodeId], Awaitable[None]],
        local: LocalIndexes,
    ) -> None:
        """Lead what ``leadership`` is elected for.

        Args:
            topology: knows the tables.
            asker: asks peers.
            engine: holds this node's registers.
            leadership: tells of terms, and whether they stand.
            trees: through which every register is changed.
            damage: takes note of damaged registers.
            outboxes: says what goes into them.
            admit: waits between slices of background work while clients need this node more.
            catch_up: fetches a newer cluster map from a peer.
            local: the local indexes of its items.
        """
        self.makers: dict[int, Maker] = {}
        """By kind of step."""
        self.terms = Terms(topology, asker, engine, leadership)
        self.items = LedItems(
            topology, asker, engine, leadership, trees, damage, self.terms, outboxes=outboxes, admit=admit
        )
        gate = GroupGate(topology, catch_up=catch_up)
        self.reads = LedReads(topology, asker, engine, leadership, self.terms, self.items, gate, local=local)
        self._topology = topology
        self._asker = asker
        self._leadership = leadership
        self._outboxes = outboxes
        self._gate = gate
        self._loop = asyncio.get_running_loop()
        self._requests = outcomes()
        self._settlement = Settlement(
            topology, asker, known=self.items.known, propose=self.items.propose, learned=self.terms.learned
        )

    async def change(self, sender: NodeId, request: Change) -> Changed:
        """Do a step on an item, once, and answer when what it came to is chosen.

        Raises:
            RefusedError: this node does not lead in that epoch; nothing was done.
            RequestError: the step makes no sense; nothing was written.
            TransactionConflictError: a transaction holds the item; nothing was written.
            UnavailableError: the item is not known, or the epoch not confirmed, in time; nothing was written.
            UnknownOutcomeError: kept and sent, but deposed, or out of time, before it was known to be chosen.
        """
        table, group = await self._gate.admit(sender, request.map_epoch, request.table, request.key)
        maker = self.makers.get(request.kind)
        if maker is None:
            raise RequestError(f"nothing on this node knows steps of kind {request.kind}")
        try:
            term = self.terms.standing(group, request.epoch)
            return await self._change(term, table, request, maker)
        except (UnknownOutcomeError, OverloadedError):  # to remember what was refused for want of room takes room
            raise
        except MerganserError as error:
            done = self._requests.of(request.request)
            if isinstance(
                done, Proposal | Changed | Untold
            ):  # what this copy ran into says nothing of the one that wrote
                return await self._done(request.request, done)
            if request.epoch.leader == self._topology.me.number and request.epoch >= self._leadership.known(group):
                self._requests.note(request.request, str(error), self._loop.time())
            raise

    def begin(self, table: Table, key: bytes, kind: int, payload: bytes) -> Proposal | None:
        """Write what a step comes to, in this turn of the loop, if this node leads and nobody has to be asked before.

        For this node itself, which asks once: so it is not remembered which request this was.

        Returns:
            what `written` tells the end of; None if nothing is done, and `change` is to be asked: another leads, the
            item is not known, locked or damaged, or the step makes no sense or writes nothing.

        Raises:
            UnknownOutcomeError: this node's disk has failed.
        """
        maker = self.makers.get(kind)
        if maker is None:
            return None
        try:
            known, group = self._gate.held(table.id, key)
        except MerganserError:
            return None
        term = self.terms.of_group(group)
        return None if term is None else self._begun(term, known, key, maker, payload)

    def begin_change(self, _sender: NodeId, request: Change) -> asyncio.Future[Reply] | None:
        """Do as `change`, as a `net.transport.Beginner`: what `begin` does, of a request that has not come before."""
        maker = self.makers.get(request.kind)
        now = self._loop.time()
        if maker is None or self._gate.is_behind(request.map_epoch) or self._requests.is_full(now):
            return None
        if self._requests.of(request.request) is not None:
            return None
        try:
            table, group = self._gate.held(request.table, request.key)
            term = self.terms.standing(group, request.epoch)
        except MerganserError:
            return None
        proposal = self._begun(term, table, request.key, maker, request.payload)
        if proposal is None:
            return None
        self._requests.note(request.request, proposal, now)
        answer: asyncio.Future[Reply] = self._loop.create_future()
        proposal.when_ended(partial(self._answer, request.request, proposal, answer))
        return answer

    def _answer(self, request: bytes, proposal: Proposal, answer: asyncio.Future[Reply]) -> None:
        """Give the answer to a change that has ended, or is waited for no longer."""
        try:
            changed = self.written(proposal)
        except MerganserError as error:
            if not answer.done():
                answer.set_exception(error)
                answer.exception()
            return
        self._requests.replace(request, changed)
        if not answer.done():
            answer.set_result(changed)

    def _begun(self, term: Term, table: Table, key: bytes, maker: Maker, payload: bytes) -> Proposal | None:
        """Write what a step comes to, as `begin`."""
        try:
            self.terms.check_open(term)
            found = self.items.known_now(term, table, key)
            if found is None or (found[1].intent is not None and not maker.meets_intents):
                return None
            stored, content = found
            decided = maker.step_of(table, payload)(content)
            if decided.content is None or decided.is_rejected:
                return None
            after = self._outboxes.of_write(table, key, content, decided.content)
        except MerganserError:
            return None
        proposal = self.items.propose(term, table, key, after, before=stored, is_intact=True)
        proposal.answer = decided.answer
        return proposal

    async def _change(self, term: Term, table: Table, request: Change, maker: Maker) -> Changed:
        key = request.key
        step = maker.step_of(table, request.payload)
        for _ in range(LOOKS_MAX):
            done = self._requests.of(request.request)  # a copy of it may have been done while this one waited
            if done is None:
                found = self.items.known_now(term, table, key)
                if found is None:
                    stored, head = await self.items.known(term, table, key)
                    content = head.content
                    done = self._requests.of(request.request)  # from here to the write it is one turn of the loop
                else:
                    stored, content = found
            if done is not None:
                return await self._again(term, key, request.request, done)
            self.terms.check_open(term)
            if self._requests.is_full(self._loop.time()):
                raise OverloadedError(f"{REQUESTS_MAX} writes were done of late on this node, no more are taken")
            if content.intent is not None and not maker.meets_intents:
                await self.items.resolver.for_change(
                    table, key, decode_register(key, stored), deadline=self.items.patience()
                )
                continue
            try:
                decided = step(content)
            except RequestError as error:
                self._requests.note(request.request, str(error), self._loop.time())
                await self.items.revealed(term, key)
                raise
            if decided.content is None or decided.is_rejected:
                version = NO_VERSION if stored is None else version_of(key, stored)
                told = Changed(decided.answer, decided.is_rejected, version)
                self._requests.note(request.request, Told(told), self._loop.time())
                await self.items.revealed(term, key)
                return told
            after = self._outboxes.of_write(table, key, content, decided.content)
            proposal = self.items.propose(term, table, key, after, before=stored, is_intact=True)
            proposal.answer = decided.answer
            self._requests.note(request.request, proposal, self._loop.time())
            return await self._done(request.request, proposal)
        raise TransactionConflictError(f"transactions hold the item again and again ({LOOKS_MAX} times); try again")

    async def _again(self, term: Term, key: bytes, request: bytes, done: Outcome) -> Changed:
        """Answer a request that came before."""
        if isinstance(done, Proposal | Changed | Untold):
            return await self._done(request, done)
        if isinstance(done, str):
            raise UnavailableError(f"the request has come before, and will not be done: {done}")
        await self.items.revealed(term, key)
        return done.changed

    async def settle(self, table: Table, key: bytes, *, led: LedTerm, toward: NodeId | None) -> None:
        """Make the item known, and let ``toward``, or every other replica, hold it as it is.

        A replica that lacks it is sent it. If one holds a later version, left behind by an earlier leader, the item
        gets a new version, which outranks that. One that holds a damaged one asks itself (`service.settling`).

        Raises:
            RefusedError: this node leads in another epoch, or not at all.
            UnavailableError: too few replicas answered, or ``toward`` did not.
            UnknownOutcomeError: deposed before it was done.
        """
        term = self.terms.standing(led.group, led.epoch)
        for node in led.replicas if toward is None else (toward,):
            if node != self._asker.node:
                await self._settlement.settle(term, table, key, node)

    async def known(self, table: Table, key: bytes, *, led: LedTerm) -> bytes | None:
        """Make the item known; returns what is stored of it, as of the turn of the loop in which this returns.

        Raises:
            RefusedError: this node leads in another epoch, or not at all.
            UnavailableError: too few replicas answered.
        """
        return (await self.items.known(self.terms.standing(led.group, led.epoch), table, key))[0]

    async def chosen(self, table: Table, key: bytes, *, led: LedTerm) -> Register:
        """Return the item as it was in some turn of the loop after the call, once that is chosen.

        Raises:
            RefusedError: this node leads in another epoch, or not at all.
            UnavailableError: too few replicas answered.
        """
        term = self.terms.standing(led.group, led.epoch)
        _, head = await self.items.known(term, table, key)
        newest = term.flight.newest(key)
        if newest is not None:
            await self.items.chosen(term, newest)
        return head

    def amend(self, table: Table, key: bytes, amended: Callable[[Register], Content], *, led: LedTerm) -> bool:
        """Write, in this turn of the loop, what ``amended`` makes of a known item; that may be nothing new.

        Returns:
            whether that was possible: this node takes changes now, and knows the item.

        Raises:
            UnknownOutcomeError: this node's disk has failed.
        """
        term = self.terms.of(led)
        return term is not None and self.items.amend(term, table, key, amended)

    def knows_all(self, table: Table, *, led: LedTerm) -> bool:
        """Tell whether every item of a table in this partition is known; what is not is walked in the background."""
        return self.items.touches.place(self.terms.standing(led.group, led.epoch), table).is_whole

    async def run(self) -> None:
        """Make known what is not, in the background, while the node lives."""
        await self.items.touches.run()

    def close(self) -> None:
        """Give up what is in flight."""
        self.terms.close()

    async def _done(self, request: bytes, proposal: Proposal | Changed | Untold) -> Changed:
        if isinstance(proposal, Changed):
            return proposal
        if isinstance(proposal, Untold):
            raise UnknownOutcomeError("the write is done, and its answer was too large to be kept: read the item")
        await proposal.ended()
        changed = self.written(proposal)
        self._requests.replace(request, changed)
        return changed

    def written(self, proposal: Proposal) -> Changed:
        """Return what a write came to that has ended, or is waited for no longer.

        Raises:
            UnknownOutcomeError: it is not known to be chosen.
        """
        if not proposal.is_chosen:
            raise UnknownOutcomeError(
                f"node {self._asker.node} was deposed, or has reached no majority: the write may be there, now or later"
            )
        return Changed(proposal.answer, False, proposal.version)
