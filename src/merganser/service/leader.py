"""The leader of items: evaluates steps, gives versions, replicates, and answers once a majority has what it answers.

::

    Change --> admitted --> known --> intent resolved --> evaluated ----rejected----> confirmed --> answered
               (epoch)     (first     (`Resolver`)            |                           ^
                            touch)                            +--> version, kept here, ---+ when chosen
                                                                   sent (`in_flight`)

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

from merganser.model.cluster import ClusterMap, Table
from merganser.model.errors import (
    CorruptionError,
    MerganserError,
    OverloadedError,
    RefusedError,
    RequestError,
    StorageFailedError,
    TransactionConflictError,
    UnavailableError,
    UnknownOutcomeError,
)
from merganser.model.ids import NodeId, TableId
from merganser.model.leader_messages import (
    Change,
    Changed,
    Led,
    LedRows,
    ReadLed,
    ReadRangeLed,
    Replicate,
)
from merganser.model.leadership import Epoch, Group
from merganser.model.messages import Reply
from merganser.model.register import NO_VERSION, Content, Register
from merganser.service.asking import Asker
from merganser.service.damage import Damage
from merganser.service.first_touches import FirstTouches, Term
from merganser.service.group_gate import GroupGate, not_leading
from merganser.service.hash_trees import HashTrees
from merganser.service.in_flight import (
    REQUESTS_MAX,
    Flight,
    LocalAcks,
    Outcome,
    Proposal,
    Sending,
    outcomes,
)
from merganser.service.intents import Gone, NoTransactions, Resolver
from merganser.service.leadership import Leadership
from merganser.service.leadership import Led as LedTerm
from merganser.service.led_ranges import LedRanges
from merganser.service.local_indexes import LocalIndexes
from merganser.service.outboxes import Outboxes
from merganser.service.settlement import Settlement
from merganser.service.steps import Maker
from merganser.service.told import Told, Untold
from merganser.service.topology import Topology
from merganser.storage.engine import Engine
from merganser.storage.registers import decode_register, encode_register, is_of_epoch, plain_value, version_of

PATIENCE_S = 10.0
"""How long a request waits here for anything: longer than any client does, so that its own deadline comes first."""
IN_FLIGHT_MAX = 4_096  # of one group; as many requests as a node takes on at once
LOOKS_MAX = 16
"""How often a request finds that the item has become unknown, or locked again, before it gives up."""
CLOSED_S = 1.0
"""After the quiet that was asked for: then another leads, or this node takes changes again."""
_THIS_AND_ANOTHER = 2


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
        self.resolver: Resolver = NoTransactions()
        self.when_behind: Callable[[LedTerm, TableId, NodeId], None] = lambda _led, _table, _node: None
        """Told of a replica that lacks a write of a term, and will not be sent it again."""
        self.when_deleted: Callable[[LedTerm, TableId], None] = lambda _led, _table: None
        """Told of each write of a tombstone."""
        self.when_behind_indexes: Callable[[LedTerm, TableId, bytes], None] = lambda _led, _table, _key: None
        """Told of each write of an item with an outbox."""
        self._topology = topology
        self._asker = asker
        self._engine = engine
        self._leadership = leadership
        self._trees = trees
        self._damage = damage
        self._outboxes = outboxes
        self._gate = GroupGate(topology, catch_up=catch_up)
        self._loop = asyncio.get_running_loop()
        self._terms: dict[Group, Term] = {}
        self._local = LocalAcks(engine)
        self._sending = Sending(asker)
        self._requests = outcomes()
        self._touches = FirstTouches(
            topology,
            asker,
            engine,
            trees,
            damage,
            outboxes,
            admit=admit,
            adopt=self._propose,
            put_back=self._put_back,
            learned=self._learned,
        )
        self._ranges = LedRanges(
            engine,
            self._touches,
            local,
            confirmed=self._confirmed,
            chosen=self._chosen,
            value=self._value,
            read=self._read,
        )
        self._settlement = Settlement(topology, asker, known=self._known, propose=self._propose, learned=self._learned)
        leadership.when_elected(self._elected)
        leadership.when_deposed(self._deposed)
        leadership.quiesce = self.quiesce
        topology.when_changed(self._forget_dropped)
        leadership.when_regrouped(self._regrouped)

    # Requests

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
            term = self._term(group, request.epoch)
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
        term = self._terms.get(group)
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
            term = self._term(group, request.epoch)
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
            self._check_open(term)
            found = self._known_now(term, table, key)
            if found is None or (found[1].intent is not None and not maker.meets_intents):
                return None
            stored, content = found
            decided = maker.step_of(table, payload)(content)
            if decided.content is None or decided.is_rejected:
                return None
            after = self._outboxes.of_write(table, key, content, decided.content)
        except MerganserError:
            return None
        proposal = self._propose(term, table, key, after, before=stored, is_intact=True)
        proposal.answer = decided.answer
        return proposal

    async def _change(self, term: Term, table: Table, request: Change, maker: Maker) -> Changed:
        key = request.key
        step = maker.step_of(table, request.payload)
        for _ in range(LOOKS_MAX):
            done = self._requests.of(request.request)  # a copy of it may have been done while this one waited
            if done is None:
                found = self._known_now(term, table, key)
                if found is None:
                    stored, head = await self._known(term, table, key)
                    content = head.content
                    done = self._requests.of(request.request)  # from here to the write it is one turn of the loop
                else:
                    stored, content = found
            if done is not None:
                return await self._again(term, key, request.request, done)
            self._check_open(term)
            if self._requests.is_full(self._loop.time()):
                raise OverloadedError(f"{REQUESTS_MAX} writes were done of late on this node, no more are taken")
            if content.intent is not None and not maker.meets_intents:
                await self.resolver.for_change(table, key, decode_register(key, stored), deadline=self._patience())
                continue
            try:
                decided = step(content)
            except RequestError as error:
                self._requests.note(request.request, str(error), self._loop.time())
                await self._revealed(term, key)
                raise
            if decided.content is None or decided.is_rejected:
                version = NO_VERSION if stored is None else version_of(key, stored)
                told = Changed(decided.answer, decided.is_rejected, version)
                self._requests.note(request.request, Told(told), self._loop.time())
                await self._revealed(term, key)
                return told
            after = self._outboxes.of_write(table, key, content, decided.content)
            proposal = self._propose(term, table, key, after, before=stored, is_intact=True)
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
        await self._revealed(term, key)
        return done.changed

    async def read(self, sender: NodeId, request: ReadLed) -> Led:
        """Return the item as it is: chosen, and nothing acknowledged before the request came in is missing.

        Raises:
            RefusedError: this node does not lead in that epoch.
            UnavailableError: the item is not known, or the epoch not confirmed, in time.
        """
        table, group = await self._gate.admit(sender, request.map_epoch, request.table, request.key)
        return await self._read(self._term(group, request.epoch), table, request.key)

    def read_at_once(self, _sender: NodeId, request: ReadLed) -> Led | None:
        """Return what `read` does, None if that would have to wait: for other replicas, or for what is in flight.

        Raises:
            as `read`.
        """
        if request.map_epoch > self._topology.map.epoch:
            return None
        table, group = self._gate.held(request.table, request.key)
        term = self._term(group, request.epoch)
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
        return Led(value, version) if self._touches.knows(term, table, request.key, version) else None

    def begin_read(self, sender: NodeId, request: ReadLed) -> asyncio.Future[Reply] | Led | None:
        """Do as `read`, as a `net.transport.Beginner`, of an item that is known, and of which nothing is in flight.

        Raises:
            RefusedError: this node does not lead in that epoch.
        """
        if self._gate.is_behind(request.map_epoch):
            return None
        key = request.key
        table, group = self._gate.held(request.table, key)
        term = self._term(group, request.epoch)
        if len(term.led.replicas) == 1:
            return self.read_at_once(sender, request)
        found = None if term.flight.newest(key) is not None else self._known_now(term, table, key)
        if found is None or found[1].intent is not None:
            return None
        stored, content = found
        led = Led(content.value, NO_VERSION if stored is None else version_of(key, stored))
        if request.is_vouched and self._is_confirmed_by(sender, term, request.map_epoch):
            return led
        answer: asyncio.Future[Reply] = self._loop.create_future()
        confirmed = self._leadership.begin_to_confirm(term.led, deadline=self._patience())
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
        return await self._ranges.read(self._term(group, request.epoch), table, request)

    async def settle(self, table: Table, key: bytes, *, led: LedTerm, toward: NodeId | None) -> None:
        """Make the item known, and let ``toward``, or every other replica, hold it as it is.

        A replica that lacks it is sent it. If one holds a later version, left behind by an earlier leader, the item
        gets a new version, which outranks that. One that holds a damaged one asks itself (`service.settling`).

        Raises:
            RefusedError: this node leads in another epoch, or not at all.
            UnavailableError: too few replicas answered, or ``toward`` did not.
            UnknownOutcomeError: deposed before it was done.
        """
        term = self._term(led.group, led.epoch)
        for node in led.replicas if toward is None else (toward,):
            if node != self._asker.node:
                await self._settlement.settle(term, table, key, node)

    async def known(self, table: Table, key: bytes, *, led: LedTerm) -> bytes | None:
        """Make the item known; returns what is stored of it, as of the turn of the loop in which this returns.

        Raises:
            RefusedError: this node leads in another epoch, or not at all.
            UnavailableError: too few replicas answered.
        """
        return (await self._known(self._term(led.group, led.epoch), table, key))[0]

    async def chosen(self, table: Table, key: bytes, *, led: LedTerm) -> Register:
        """Return the item as it was in some turn of the loop after the call, once that is chosen.

        Raises:
            RefusedError: this node leads in another epoch, or not at all.
            UnavailableError: too few replicas answered.
        """
        term = self._term(led.group, led.epoch)
        _, head = await self._known(term, table, key)
        newest = term.flight.newest(key)
        if newest is not None:
            await self._chosen(term, newest)
        return head

    def amend(self, table: Table, key: bytes, amended: Callable[[Register], Content], *, led: LedTerm) -> bool:
        """Write, in this turn of the loop, what ``amended`` makes of a known item; that may be nothing new.

        Returns:
            whether that was possible: this node takes changes now, and knows the item.

        Raises:
            UnknownOutcomeError: this node's disk has failed.
        """
        term = self._terms.get(led.group)
        if term is None or term.led is not led:
            return False
        try:
            self._check_open(term)
            stored = self._engine.get(key)
            head = decode_register(key, stored)
        except (RefusedError, OverloadedError, CorruptionError):
            return False
        if not self._touches.knows(term, table, key, head.version):
            return False
        content = amended(head)
        if content != head.content:
            self._propose(term, table, key, content, before=stored, is_intact=True)
        return True

    def knows_all(self, table: Table, *, led: LedTerm) -> bool:
        """Tell whether every item of a table in this partition is known; what is not is walked in the background."""
        return self._touches.place(self._term(led.group, led.epoch), table).is_whole

    def is_in_flight(self, led: LedTerm, key: bytes) -> bool:
        """Tell whether a write of the item is on its way to a majority, or the item is being touched."""
        term = self._terms.get(led.group)
        return term is not None and (term.flight.newest(key) is not None or key in term.touching)

    async def quiesce(self, led: LedTerm, deadline: float) -> bool:
        """Take no changes any more; true once nothing is in flight, false at ``deadline`` if something is.

        A second after that, whether another leads or not, changes are taken again.
        """
        term = self._terms.get(led.group)
        if term is None or term.led is not led:
            return True
        term.closed_until = deadline + CLOSED_S
        is_quiet = await term.flight.idle(deadline)
        if not is_quiet:
            term.closed_until = 0.0
        return is_quiet

    async def run(self) -> None:
        """Make known what is not, in the background, while the node lives."""
        await self._touches.run()

    def close(self) -> None:
        """Give up what is in flight."""
        self._local.close()
        for term in list(self._terms.values()):
            self._deposed(term.led)

    # Terms

    def _elected(self, led: LedTerm) -> None:
        term: Term
        flight = Flight(
            led,
            self._asker,
            self._local,
            self._sending,
            learned=lambda error: self._learned(term, error),
            behind=lambda table, node: self.when_behind(led, table, node),
        )
        term = self._terms[led.group] = Term(led, flight)
        self._touches.begin(term)

    def _deposed(self, led: LedTerm) -> None:
        term = self._terms.get(led.group)
        if term is not None and term.led is led:
            del self._terms[led.group]
            self._touches.forget(term)
            term.flight.end()

    def _regrouped(self, led: LedTerm) -> None:
        term = self._terms.get(led.group)
        if term is not None and term.led is led:
            term.flight.regroup()

    def _learned(self, term: Term, error: RefusedError) -> None:
        if term.led.is_standing:  # else its group may have another number by now
            self._leadership.learned(term.led.group, error.epoch)

    def _term(self, group: Group, epoch: Epoch) -> Term:
        term = self._terms.get(group)
        if term is None or term.epoch != epoch or not term.led.is_standing:
            raise self._not_leading(group)
        return term

    def _check_open(self, term: Term) -> None:
        if not term.led.is_standing:
            raise self._not_leading(term.led.group)
        if term.closed_until and self._loop.time() < term.closed_until:
            raise self._not_leading(term.led.group)
        if term.flight.count >= IN_FLIGHT_MAX:
            raise OverloadedError(f"{IN_FLIGHT_MAX} writes of the partition are on their way, no more are taken")

    def _not_leading(self, group: Group) -> RefusedError:
        return not_leading(self._asker.node, group, self._leadership.known(group))

    def _forget_dropped(self, current: ClusterMap) -> None:
        kept = {table.id for table in current.tables}
        for term in self._terms.values():
            for table in [table for table in term.places if table not in kept]:
                del term.places[table]
                term.flight.forget_table(table)

    # One item

    def _known_now(self, term: Term, table: Table, key: bytes) -> tuple[bytes | None, Content] | None:
        """Return what is stored of an item, and what that says, if it is known and intact; else `_known` sees to it."""
        try:
            stored = self._engine.get(key)
            if stored is not None and is_of_epoch(stored, term.epoch_bytes):
                value = plain_value(key, stored)
                if value is not None:  # of nearly all, and a third of the time
                    return stored, Content(value)
            head = decode_register(key, stored)
        except CorruptionError:
            return None
        return (stored, head.content) if self._touches.knows(term, table, key, head.version) else None

    async def _known(self, term: Term, table: Table, key: bytes) -> tuple[bytes | None, Register]:
        """Return the head of a known item, and what is stored of it, as of this turn of the loop.

        Raises:
            RefusedError: deposed meanwhile.
            UnavailableError: too few replicas told what they hold.
        """
        for _ in range(LOOKS_MAX):
            if not term.led.is_standing:
                raise self._not_leading(term.led.group)
            try:
                stored = self._engine.get(key)
                head = decode_register(key, stored)
                if self._touches.knows(term, table, key, head.version):
                    return stored, head
            except CorruptionError:
                self._damage.met_row(table.id, key)
            await self._touches.touch(term, table, key)
        raise UnavailableError("the item cannot be read here; nothing was written, try again")

    def _propose(
        self, term: Term, table: Table, key: bytes, content: Content, *, before: bytes | None, is_intact: bool
    ) -> Proposal:
        """Write ``content`` in this turn of the loop, in the place of ``before``, and send it."""
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

    def _put_back(self, table: Table, damaged: bytes | None, proposal: Proposal) -> None:
        self._trees.write(((table.id, proposal.key, damaged, proposal.request.register),))

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

    async def _revealed(self, term: Term, key: bytes) -> None:
        """Return when what this node held under ``key`` at the call may be told: it is chosen, and the epoch stands.

        Raises:
            RefusedError: the epoch does not stand.
            UnavailableError: not in time.
        """
        newest = term.flight.newest(key)
        await self._confirmed(term)
        if newest is not None:
            await self._chosen(term, newest)

    def _confirmed(self, term: Term) -> Awaitable[None]:
        return self._leadership.confirm(term.led, deadline=self._patience())

    async def _chosen(self, term: Term, proposal: Proposal) -> None:
        if not await proposal.ended():
            if not term.led.is_standing:
                raise self._not_leading(term.led.group)
            raise UnavailableError("what the item is has not reached a majority in time, try again")

    async def _read(self, term: Term, table: Table, key: bytes) -> Led:
        for _ in range(LOOKS_MAX):
            _, head = await self._known(term, table, key)
            await self._revealed(term, key)
            if head.content.intent is None:
                return Led(head.content.value, head.version)
            value = await self._value(table, key, head)
            if not isinstance(value, Gone):
                return Led(value, head.version)
        raise UnavailableError(f"transactions hold the item again and again ({LOOKS_MAX} times), try again")

    async def _value(self, table: Table, key: bytes, head: Register) -> bytes | Gone | None:
        if head.content.intent is None:
            return head.content.value
        return await self.resolver.for_read(table, key, head, deadline=self._patience())

    def _patience(self) -> float:
        return self._loop.time() + PATIENCE_S
