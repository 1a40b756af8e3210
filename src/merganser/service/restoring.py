"""Make a replica whole again that has lost registers and promises: both sides of it, group by group.

::

    lost --Rejoin--> leader: all others say that its epoch stands --> every item known -->
         <--Restore, as far as the replica differs--                (core.exchange)
         <--MadeWhole-- promised, durable: whole

While it is lost, the replica answers nothing in the group, promises nothing and acks nothing. What it did before is
what has to be made good:

- *What it acknowledged*, in any epoch, is part of majorities. The leader has read as many replicas without it as meet
  each of these, or has written it itself; so all of it is in what the leader holds once every item is known, and the
  exchange that begins after that gives it to the replica.
- *What it promised* may be later than the leader's epoch. Who bids for an epoch promises it to himself first, durably,
  and is one of the others, as a bid ends with the life of whoever makes it. Each of them says, after the replica has
  asked, that it has promised nothing later than the leader's epoch: so no bid was under way that the replica's
  forgotten promise could help to win, and none that it won.

So it is a replica that has promised this epoch, and holds at least what it acknowledged, as if it had been away.
That is why *all* others have to be there: of five, a majority without the replica might leave out the one whose bid it
has promised something.

Of *two* replicas none can be elected without the other. But every majority was both, and whoever else may have bid is
the other: so it needs to lead nothing, and gives what it holds, with what it has promised last.

A token that the replica draws in each life tells messages of an earlier life apart: what it was given then, it may
have lost again.

Source: design §6; docs/internals/wholeness.md; Liskov 2012, "Viewstamped Replication Revisited", §4.3 (recovery).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice

import msgspec

from merganser.core.exchange import Exchange
from merganser.core.policy_changes import Forks
from merganser.core.splitting import halves
from merganser.model.cluster import Table
from merganser.model.errors import (
    CorruptionError,
    InvariantError,
    MerganserError,
    RefusedError,
    UnavailableError,
)
from merganser.model.ids import NodeId, PartitionId
from merganser.model.leader_messages import Confirm, MadeWhole, Rejoin, Restore, Standing
from merganser.model.leadership import NO_EPOCH, Epoch, Group
from merganser.model.messages import Done, Reply, Request
from merganser.net.transport import Traffic
from merganser.service.anti_entropy import AntiEntropy
from merganser.service.asking import Asker, error_of
from merganser.service.damage import Damage
from merganser.service.generations import Generations
from merganser.service.group_gate import not_leading
from merganser.service.hash_trees import HashTrees
from merganser.service.leader import Leader
from merganser.service.leader_based import LeaderBased
from merganser.service.leadership import Leadership, Led
from merganser.service.partition_gate import PartitionGate
from merganser.service.promises import Promises
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.engine import Batch, Engine
from merganser.storage.registers import decode_register

CONFIRM_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 10.0  # of a page of 256 KB, or an fsync, on a busy disk
PAGE_BYTES = 256 * 1024
SLICE_ROWS = 256  # decoded between two turns of the loop: about a millisecond
LEAP = 1_000_000  # epochs; there is one for each failure of a leader
PASSES_MAX = 16  # each puts `core.exchange.DAMAGED_MAX` damaged registers right, as well as all else

TOO_EARLY = "too_early"
"""The replica has not asked to be made whole, or not in this life, or is whole."""


class _Gift(msgspec.Struct, frozen=True):
    """To whom all of a group is given, and as what."""

    node: NodeId
    request: Rejoin
    epoch: Epoch
    led: Led | None
    """None: this node is the other one of two."""

    @property
    def group(self) -> Group:
        return Group(self.request.n, self.request.partition)


class Restorer:
    """A leader that makes others whole; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        engine: Engine,
        promises: Promises,
        generations: Generations,
        trees: HashTrees,
        damage: Damage,
        anti_entropy: AntiEntropy,
        leadership: Leadership,
        leader: Leader,
        gate: PartitionGate,
    ) -> None:
        """Give what ``engine`` holds."""
        self._topology = topology
        self._asker = asker
        self._engine = engine
        self._trees = trees
        self._damage = damage
        self._promises = promises
        self._generations = generations
        self._anti_entropy = anti_entropy
        self._leadership = leadership
        self._leader = leader
        self._gate = gate
        self._loop = asyncio.get_running_loop()
        self._under_way: dict[tuple[Group, NodeId], None] = {}
        self.restored = 0
        """Groups in which another was made whole, since the start."""

    async def rejoin(self, sender: NodeId, request: Rejoin) -> Done:
        """Make the sender whole in one group; returns when it knows.

        Raises:
            RefusedError: another map, not a replica, or another node leads.
            UnavailableError: not everybody is there, or not every item is known yet: to be asked for again.
        """
        group, deadline = Group(request.n, request.partition), self._loop.time() + request.timeout_ms / 1000
        tables = await self._tables(sender, request)
        gift = self._gift(sender, request)
        place = (group, sender)
        if place in self._under_way:
            raise UnavailableError(f"{sender} is being made whole in partition {group.partition}")
        self._under_way[place] = None
        try:
            async with asyncio.timeout_at(deadline):
                await self._restore(gift, tables, deadline)
        except TimeoutError:
            raise UnavailableError(f"it took too long to make partition {group.partition} whole") from None
        finally:
            del self._under_way[place]
        self.restored += 1
        return Done()

    def _gift(self, sender: NodeId, request: Rejoin) -> _Gift:
        group = Group(request.n, request.partition)
        led, serving = self._leadership.led(group), self._topology.ring.holders(group.partition, group.rule).serving
        if len(serving) == 2 and sender in serving:
            return _Gift(sender, request, self._promises.of(group), None)
        if led is None or not led.is_standing or sender not in led.replicas:
            raise not_leading(self._topology.node, group, self._leadership.known(group))
        return _Gift(sender, request, led.epoch, led)

    async def _tables(self, sender: NodeId, request: Rejoin) -> Sequence[Table]:
        tables = self._topology.led_tables(request.n)
        for table in tables:
            await self._gate.admit_replica(sender, request.map_epoch, table.id, request.partition)
        return tables

    async def _restore(self, gift: _Gift, tables: Sequence[Table], deadline: float) -> None:
        request, partition = gift.request, gift.request.partition
        if gift.led is not None:
            await self._check_standing(gift.node, gift.led)
        await self._promises.durable()
        for table in tables:
            if gift.led is not None and not self._leader.knows_all(table, led=gift.led):
                raise UnavailableError(f"not every item of partition {partition} is known to its leader yet")
            await self._trees.ready(table, partition, deadline=deadline)
            if self._trees.is_flawed(table.id, partition):
                self._damage.met_somewhere(table.id, *self._topology.partition_range(table, partition, partition))
                raise UnavailableError(f"rows of partition {partition} are damaged on node {self._topology.node}, too")
            await self._give_all(gift, table, deadline)
        if gift.led is not None and not gift.led.is_standing:
            raise not_leading(self._topology.node, gift.group, self._leadership.known(gift.group))
        self._gate.at(request.map_epoch)  # a table that came meanwhile would have been left out
        await self._ask(
            gift.node,
            MadeWhole(
                request.map_epoch, request.n, partition, gift.epoch, request.token, self._generations.of(gift.group)
            ),
        )

    async def _check_standing(self, lost: NodeId, led: Led) -> None:
        """Return once all other replicas have said that they have promised nothing later.

        Raises:
            UnavailableError: they have not.
        """
        others = [node for node in led.followers(self._topology.node) if node != lost]
        question = Confirm(self._topology.map.epoch, ((led.group.rule, led.group.partition, led.epoch),))
        asked = {node: self._asker.ask(node, question, timeout_s=CONFIRM_TIMEOUT_S) for node in others}
        if asked:
            await asyncio.wait(asked.values())
        missing: list[NodeId] = []
        for node, answer in asked.items():
            promised = _promised_in(answer)
            if promised != led.epoch:
                missing.append(node)
            if promised > led.epoch:
                self._leadership.learned(led.group, promised)
        if missing:
            raise UnavailableError(
                f"partition {led.group.partition} waits for {', '.join(missing)}: away, or not whole, or led by another"
            )

    async def _give_all(self, gift: _Gift, table: Table, deadline: float) -> None:
        """Return once the replica holds, durably, what this node held of a table at the call, or something later."""
        give = partial(self._give, gift, table)
        for _ in range(PASSES_MAX):
            walk = Exchange(confirms=False, meets=True)
            partition, node = gift.request.partition, gift.node
            await self._anti_entropy.begun(table, partition, node, walk, deadline, settle=give).run()
            if not walk.damaged:
                return
            await give(walk.damaged)
        raise UnavailableError(f"too much of partition {gift.request.partition} is damaged on {gift.node}")

    async def _give(self, gift: _Gift, table: Table, wanted: Sequence[bytes]) -> int:
        page: list[tuple[bytes, bytes | None]] = []
        size = 0
        for key in wanted:
            register = await self._held(gift, table, key)
            page.append((key, register))
            size += len(key) + len(register or b"")
            if size >= PAGE_BYTES:
                await self._send(gift, table, page)
                page, size = [], 0
        if page:
            await self._send(gift, table, page)
        return len(wanted)

    async def _held(self, gift: _Gift, table: Table, key: bytes) -> bytes | None:
        if gift.led is not None:
            return await self._leader.known(table, key, led=gift.led)
        register = self._engine.get(key)
        decode_register(key, register)
        return register

    async def _send(self, gift: _Gift, table: Table, page: Sequence[tuple[bytes, bytes | None]]) -> None:
        request = gift.request
        restore = Restore(request.map_epoch, table.id, request.partition, gift.epoch, request.token, tuple(page))
        await self._ask(gift.node, restore)

    async def _ask(self, node: NodeId, request: Request) -> None:
        await self._asker.ask(node, request, timeout_s=ANSWER_TIMEOUT_S, traffic=Traffic.BULK)


class Rejoining:
    """A replica that has lost something; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        engine: Engine,
        promises: Promises,
        generations: Generations,
        trees: HashTrees,
        leader_based: LeaderBased,
        gate: PartitionGate,
        *,
        rng: random.Random,
        has_lost: Callable[[], bool],
    ) -> None:
        """Have ``engine`` made whole while ``has_lost``."""
        self._topology = topology
        self._asker = asker
        self._engine = engine
        self._promises = promises
        self._generations = generations
        self._trees = trees
        self._leader_based = leader_based
        self._gate = gate
        self._has_lost = has_lost
        self._token = rng.getrandbits(62)
        self._loop = asyncio.get_running_loop()
        self._whole: dict[Group, None] = {}
        topology.when_split(self._split)
        topology.when_forked(self._fork)

    def is_whole(self, group: Group) -> bool:
        """Tell whether this node's word counts in a group."""
        return group in self._whole or not self._has_lost()

    def left(self) -> list[Group]:
        """Return the groups in which this node is not whole."""
        held = ((table, partition) for table, partition in self._topology.held() if table.has_leaders)
        groups = dict.fromkeys(Group(table.rule, partition) for table, partition in held)
        return [group for group in groups if not self.is_whole(group)]

    async def rejoin(self, group: Group, *, deadline: float) -> None:
        """Have the leader of a group make this node whole in it.

        Raises:
            MerganserError: it did not, or nobody leads.
        """
        table = self._topology.led_tables(group.rule)[0]
        map_epoch, timeout_ms = self._topology.map.epoch, max(0, int((deadline - self._loop.time()) * 1000))

        def question(epoch: Epoch) -> Rejoin:
            return Rejoin(map_epoch, group.rule, group.partition, epoch, self._token, timeout_ms)

        serving = self._topology.ring.holders(group.partition, group.rule).serving
        if len(serving) == 2 and self._topology.node in serving:
            other = next(node for node in serving if node != self._topology.node)
            await self._asker.ask(other, question(NO_EPOCH), timeout_s=timeout_ms / 1000, traffic=Traffic.BULK)
        else:
            await self._leader_based.ask(table, group.partition, question, deadline=deadline, traffic=Traffic.BULK)

    async def accept_loss(self) -> None:
        """Take what is left for all there is, and promise in each group an epoch that lies above all that was promised.

        Nobody leads in it: so a new one begins, whose leader learns what this node holds. Of its own epochs this node
        can have forgotten some, but not a million.

        Raises:
            StorageFailedError: it is unknown whether that will be remembered.
        """
        me = self._topology.me.number
        floors: dict[Group, int] = {}
        for table, partition in self._topology.held():
            if table.has_leaders:
                group = Group(table.rule, partition)
                found = await self._highest_number(table, partition)
                floors[group] = max(found, floors.get(group, 0), self._promises.of(group).number)
        self._promises.promise((group, Epoch(number + LEAP, me)) for group, number in floors.items())
        await self._promises.durable()

    async def _highest_number(self, table: Table, partition: PartitionId) -> int:
        """Return the number of the latest epoch in which a register was written that is left here."""
        found = 0
        position, end = self._topology.partition_range(table, partition, partition)
        while True:
            try:
                page = list(islice(self._engine.scan(position, end), SLICE_ROWS))
            except CorruptionError:  # what cannot be read may be higher, and not by as much
                return found
            for key, stored in page:
                with contextlib.suppress(CorruptionError):
                    found = max(found, decode_register(key, stored).version.number)
            if len(page) < SLICE_ROWS:
                return found
            position = keys.after(page[-1][0])
            await asyncio.sleep(0)

    async def restore(self, sender: NodeId, request: Restore) -> Done:
        """Hold what the leader holds; returns once that is durable.

        Raises:
            RefusedError: another map, not a replica, not asked for, or a later epoch is promised.
            CorruptionError: a register is damaged.
        """
        table = await self._gate.admit_replica(sender, request.map_epoch, request.table, request.partition)
        for key, register in request.registers:
            decode_register(key, register)
            self._gate.check_key(table, request.partition, key)
        group = Group(table.rule, request.partition)
        await self._admit(group, request.epoch, request.token)  # from here on it is one turn of the loop
        self._gate.held(request.map_epoch, request.table, request.partition)
        changes = []
        for key, register in request.registers:
            stored = self._stored(key)
            if stored != register:
                changes.append((table.id, key, stored, register))
        if changes:
            self._trees.replace(table.id, request.partition, changes)
        await self._engine.durable()
        return Done()

    async def made_whole(self, _sender: NodeId, request: MadeWhole) -> Done:
        """Take part in a group again.

        Raises:
            RefusedError: another map, not asked for, or a later epoch is promised.
        """
        self._gate.at(request.map_epoch)
        group = Group(request.n, request.partition)
        await self._admit(group, request.epoch, request.token)
        epoch, generation = request.generation
        self._generations.begin(group, (Epoch(*epoch), generation))
        await self._engine.durable()
        self._gate.at(request.map_epoch)
        self._check_asked(group, request.token)
        self._promises.check(group, Epoch(*request.epoch))
        self._whole[group] = None
        return Done()

    async def _admit(self, group: Group, epoch: Epoch, token: int) -> None:
        """Promise ``epoch``, so that what an earlier leader gives comes too late from now on.

        Raises:
            RefusedError: this life has not asked for it, or a later epoch is promised.
        """
        self._check_asked(group, token)
        await self._promises.admit(group, Epoch(*epoch))
        self._promises.check(group, Epoch(*epoch))
        self._check_asked(group, token)

    def _split(self, _batch: Batch, factor: int) -> Callable[[], None]:
        """Take each part of a partition for what the partition was: its promises and rows are those of the whole."""
        whole = {Group(group.rule, part): None for group in self._whole for part in halves(group.partition, factor)}

        def take() -> None:
            self._whole = whole

        return take

    def _fork(self, forks: Forks) -> None:
        """Take the groups of new rules for what those before them were; see `Topology.when_forked`."""
        for group in list(self._whole):
            for new in (new for new, old in forks if group.rule == old):
                self._whole[Group(new, group.partition)] = None

    def _check_asked(self, group: Group, token: int) -> None:
        if token != self._token or self.is_whole(group):
            raise RefusedError(TOO_EARLY, f"node {self._topology.node} has not asked to be made whole, or is by now")

    def _stored(self, key: bytes) -> bytes | None:
        try:
            return self._engine.get(key)
        except CorruptionError:
            return None


def _promised_in(answer: asyncio.Future[Reply]) -> Epoch:
    """Return what a replica says that it has promised; NO_EPOCH if it does not say.

    Raises:
        InvariantError: our bug.
    """
    error = error_of(answer)
    if error is not None and (isinstance(error, InvariantError) or not isinstance(error, MerganserError)):
        raise error
    reply = None if error is not None else answer.result()
    return Epoch(*reply.promised[0]) if isinstance(reply, Standing) and reply.promised else NO_EPOCH
