"""Anti-entropy of leader-based tables: whoever leads a group compares with each follower, and settles what differs.

Nobody else knows which of two registers is right, or whether there is a later one, so nothing is ever copied between
replicas behind the leader's back. The comparison is that of leaderless tables (`core.exchange`); for each key that
differs the leader makes the item known, and sends it on (`Leader.settle`): both sides end equal, byte for byte.

A pair is compared once per interval, and soon

- after an election in which the follower had another root, or was not heard;
- after the leader has given up sending a write to it;
- after it has come back, what it has missed by what this leader knows before all else.

Newcomers are not compared until they serve: they lack everything, and are given it (`service.moving`). Compared as well
they took more of this node's background work than all that.

Several are compared at a time: a replica that was away differs in hundreds of places.

Source: design §5; docs/internals/anti-entropy.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from functools import partial
from typing import cast

from merganser.core.repair_schedule import Pair, RepairSchedule
from merganser.model.cluster import ClusterMap, Table
from merganser.model.errors import InvariantError, MerganserError, UnavailableError
from merganser.model.ids import NodeId, PartitionId, TableId
from merganser.model.leader_messages import Compared, ComparedWith, CompareLed
from merganser.model.leadership import Epoch, Group
from merganser.net.transport import Traffic
from merganser.service.anti_entropy import EXCHANGE_TIMEOUT_S, REPAIR_INTERVAL_S, AntiEntropy, Comparison
from merganser.service.asking import Asker
from merganser.service.group_gate import not_leading
from merganser.service.leader import Leader
from merganser.service.leader_based import LeaderBased
from merganser.service.leadership import Leadership, Led
from merganser.service.partition_gate import PartitionGate
from merganser.service.topology import Topology

AT_ONCE = 8  # each waits for the network, or between its two looks, most of the time
SETTLED_AT_ONCE = 32  # a round trip or two each
WATCH_S = 0.5
"""Between two looks at who is there: a replica that comes back is compared within some two of them."""
FIRST_S = 60.0
"""How much earlier than the rest is due what a replica that has come back is known to lack."""
SOON_S = 2.0
"""After a reason to believe that two differ: what is on its way has arrived by then, or will not."""


class LedRepair:
    """Compares what this node leads; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        anti_entropy: AntiEntropy,
        leadership: Leadership,
        leader: Leader,
        leader_based: LeaderBased,
        gate: PartitionGate,
        *,
        rng: random.Random,
        interval_s: float = REPAIR_INTERVAL_S,
    ) -> None:
        """Compare what ``leadership`` says is led here, each once per ``interval_s``."""
        self._topology = topology
        self._asker = asker
        self._anti_entropy = anti_entropy
        self._leadership = leadership
        self._leader = leader
        self._leader_based = leader_based
        self._gate = gate
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._schedule = RepairSchedule(interval_s)
        self._soon: list[Pair] = []
        """To be hastened once they are planned."""
        self._missed: dict[Pair, None] = {}
        """Where a write was given up that was for a replica that is away."""
        self._is_stale = True
        self._there: dict[NodeId, bool] = {}
        self._under_way: dict[asyncio.Task[None], None] = {}
        self._news = asyncio.Event()
        leadership.when_elected(self._elected)
        leadership.when_deposed(self._deposed)
        leader.terms.when_behind = self._is_behind
        topology.when_changed(self._map_changed)
        topology.when_split(lambda _batch, _factor: self._forget)

    def every(self, interval_s: float) -> None:
        """Compare each once per ``interval_s`` from now on."""
        self._schedule.every(interval_s, now_s=self._loop.time())
        self._news.set()

    # In the background

    async def run(self) -> None:
        """Begin what is due, for as long as the node lives."""
        try:
            while True:
                self._watch()
                self._plan()
                while len(self._under_way) < AT_ONCE:
                    pair = self._schedule.begin(self._loop.time())
                    if pair is None:
                        break
                    self._begin(pair)
                await self._rest()
        finally:
            for task in self._under_way:
                task.cancel()

    def _begin(self, pair: Pair) -> None:
        task = self._loop.create_task(self._compare_now(pair))
        self._under_way[task] = None
        task.add_done_callback(lambda _: self._news.set())

    async def _rest(self) -> None:
        """Return when something has ended, or is news, or a look at the peers is due.

        Raises:
            Exception: what ended a comparison, and is our bug.
        """
        next_s, look_s = self._schedule.next_s, self._loop.time() + WATCH_S
        self._news.clear()
        is_full = len(self._under_way) >= AT_ONCE
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(look_s if next_s is None or is_full else min(look_s, next_s)):
                await self._news.wait()
        for task in [task for task in self._under_way if task.done()]:
            del self._under_way[task]
            task.result()

    async def _compare_now(self, pair: Pair) -> None:
        table_id, partition, peer = pair
        table, began_s, problem = self._topology.table(table_id), self._loop.time(), "out of reach"
        if table is not None and self._is_there(peer):
            comparison = await self._compare(table, partition, peer, deadline=began_s + EXCHANGE_TIMEOUT_S)
            problem = comparison.problem or ""
        now_s = self._loop.time()
        if problem:
            self._schedule.failed(pair, now_s=now_s)
        else:
            self._schedule.completed(pair, began_s=began_s, now_s=now_s, share=self._rng.random())

    def oldest_comparison_s(self, table: Table) -> float | None:
        """Return when that was which is longest ago of those this node leads, by the loop; None: one never was."""
        return self._schedule.oldest_s(table.id)

    # What is to be compared

    def _elected(self, led: Led) -> None:
        self._is_stale = True
        for table in self._topology.led_tables(led.group.rule):
            roots = led.roots.get(table.id, {})
            own = roots.get(self._topology.node)
            for peer in led.followers(self._topology.node):
                if own is None or roots.get(peer) != own:
                    self._soon.append((table.id, led.group.partition, peer))
        self._news.set()

    def _deposed(self, led: Led) -> None:
        self._is_stale = True
        for table in self._topology.led_tables(led.group.rule):
            for peer in led.followers(self._topology.node):
                self._missed.pop((table.id, led.group.partition, peer), None)

    def _forget(self) -> None:
        """Plan anew: what was planned, and missed, was of partitions that have other numbers now."""
        self._schedule.keep((), now_s=self._loop.time(), share=self._rng.random)
        self._soon, self._missed = [], {}

    def _map_changed(self, _current: ClusterMap) -> None:
        self._is_stale = True
        self._news.set()

    def _is_behind(self, led: Led, table: TableId, peer: NodeId) -> None:
        pair = table, led.group.partition, peer
        if self._is_there(peer):
            self._schedule.hasten(pair, due_s=self._loop.time() + SOON_S)
        else:  # all is compared when it comes back, and were it before the next look
            self._there[peer] = False
            self._missed[pair] = None

    def _plan(self) -> None:
        if self._is_stale:
            self._is_stale = False
            pairs = [
                (table.id, led.group.partition, peer)
                for led in self._leadership.leading()
                for table in self._topology.led_tables(led.group.rule)
                for peer in led.serving
                if peer != self._topology.node
            ]
            self._schedule.keep(pairs, now_s=self._loop.time(), share=self._rng.random)
        soon, self._soon = self._soon, []
        for pair in soon:
            self._schedule.hasten(pair, due_s=self._loop.time() + SOON_S)

    def _watch(self) -> None:
        """Hasten what is to be compared with whoever has come back."""
        for peer in [node.id for node in self._topology.map.nodes if node.id != self._topology.node]:
            is_there, was_there = self._is_there(peer), self._there.get(peer, True)
            self._there[peer] = is_there
            if is_there and not was_there:
                now = self._loop.time()
                for pair in self._schedule.pairs_with(peer):
                    self._schedule.hasten(pair, due_s=now - FIRST_S if pair in self._missed else now)
                self._missed = {pair: None for pair in self._missed if pair[2] != peer}

    def _is_there(self, peer: NodeId) -> bool:
        return self._asker.is_reachable(peer) and peer not in self._asker.doubted  # one that hangs keeps its links

    # One comparison

    async def _compare(
        self, table: Table, partition: PartitionId, peer: NodeId, *, deadline: float, is_dry_run: bool = False
    ) -> Comparison:
        settle = partial(self._settle, table, partition, peer)
        return await self._anti_entropy.compare(
            table, partition, peer, deadline=deadline, is_dry_run=is_dry_run, settle=settle
        )

    async def _settle(self, table: Table, partition: PartitionId, peer: NodeId, wanted: Sequence[bytes]) -> int:
        led = self._leadership.led(Group(table.rule, partition))
        if led is None:
            raise UnavailableError(f"this node leads partition {partition} no more")
        for at in range(0, len(wanted), SETTLED_AT_ONCE):
            some = wanted[at : at + SETTLED_AT_ONCE]
            ended = await asyncio.gather(
                *(self._leader.settle(table, key, led=led, toward=peer) for key in some), return_exceptions=True
            )
            for error in ended:
                if error is not None:
                    raise error
        return len(wanted)

    async def bring_up(self, table: Table, partition: PartitionId, peer: NodeId, *, deadline: float) -> None:
        """Return once ``peer`` holds all that was known to this leader of the partition when this began.

        Raises:
            MerganserError: it does not, or this node leads no more.
        """
        settle = partial(self._settle, table, partition, peer)
        await self._anti_entropy.synchronise(table, partition, peer, deadline=deadline, settle=settle)

    # When an operator asks

    async def compare_led(self, sender: NodeId, request: CompareLed) -> Compared:
        """Compare a partition that this node leads with each other replica now.

        Raises:
            RefusedError: another map, no such table, or another node leads.
        """
        table = await self._gate.admit_replica(sender, request.map_epoch, request.table, request.partition)
        group = Group(table.rule, request.partition)
        led = self._leadership.led(group)
        if led is None:
            raise not_leading(self._topology.node, group, self._leadership.known(group))
        deadline = self._loop.time() + request.timeout_ms / 1000
        return Compared(
            tuple(
                [
                    _told(
                        self._topology.number_of(peer) or 0,
                        await self._compare(
                            table, request.partition, peer, deadline=deadline, is_dry_run=request.is_dry_run
                        ),
                    )
                    for peer in led.followers(self._topology.node)
                ]
            )
        )

    async def compare_everywhere(
        self, table: Table, partition: PartitionId, *, deadline: float, is_dry_run: bool
    ) -> dict[NodeId, Comparison]:
        """Have the leader of a partition compare itself with each other replica; returns what came of it by replica."""
        timeout_ms = max(0, int((deadline - self._loop.time()) * 1000))

        def question(epoch: Epoch) -> CompareLed:
            return CompareLed(self._topology.map.epoch, table.id, partition, epoch, is_dry_run, timeout_ms)

        try:
            answer = await self._leader_based.ask(table, partition, question, deadline=deadline, traffic=Traffic.BULK)
        except InvariantError:
            raise
        except MerganserError as error:
            replicas = self._topology.ring.preference_list(partition, table.rule)
            return {node: _failed(str(error)) for node in replicas if node != self._topology.node}
        found = {self._topology.node_of(peer.number): _heard(peer) for peer in cast("Compared", answer).peers}
        return {node: comparison for node, comparison in found.items() if node is not None}


def _told(number: int, comparison: Comparison) -> ComparedWith:
    return ComparedWith(
        number,
        comparison.differing,
        comparison.in_flight,
        comparison.met_there,
        comparison.listed,
        comparison.damaged,
        comparison.sent_bytes,
        comparison.received_bytes,
        comparison.problem,
    )


def _heard(peer: ComparedWith) -> Comparison:
    return Comparison(
        differing=peer.differing,
        in_flight=peer.in_flight,
        met_here=0,
        met_there=peer.changed,
        listed=peer.listed,
        damaged=peer.damaged,
        sent_bytes=peer.sent_bytes,
        received_bytes=peer.received_bytes,
        problem=peer.problem,
    )


def _failed(problem: str) -> Comparison:
    return Comparison(
        differing=0,
        in_flight=0,
        met_here=0,
        met_there=0,
        listed=0,
        damaged=(),
        sent_bytes=0,
        received_bytes=0,
        problem=problem,
    )
