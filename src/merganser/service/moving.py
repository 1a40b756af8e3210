"""This node's part in changes of who holds what (`core.reshaping`): those who come are given everything.

For each place (a partition of a table) that is about to change, or has just changed, somebody sees to it:

- of leaderless tables each of those who will hold it. A newcomer meets every row with all who hold it now, one who
  stays with those who leave;
- of leader-based tables the leader; one who stays, if anybody does who is not lost for ever. It has its epoch
  confirmed by the replicas as they are now, knows every item, and brings up all who come; of those who stay as many as
  make most of the next replicas with it, and all that are there once nobody comes any more, before any row is removed.

Why a place that is done may be flipped: whoever was met or has confirmed takes nothing any more that is asked by the
placement before (`service.replica.check_placed`), so that from then on every write reaches a quorum of the serving
*and* of the next replicas; and what was written before lies on a majority of the serving ones, all that have it meet
with every newcomer, and each newcomer takes the place of one who leaves. A leader knows the latest of each item, most
of the next replicas have that, itself among them, and no leader before it can write any more.

Nothing of this is kept: a node that restarts does it again, which costs little where all are equal.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence

from merganser.core.leadership import majority
from merganser.model.cluster import ClusterMap, Table
from merganser.model.errors import InvariantError, MerganserError, UnavailableError
from merganser.model.holders import Holders
from merganser.model.ids import NodeId, PartitionId, TableId
from merganser.model.leadership import Group
from merganser.model.messages import AskMoves, Moves
from merganser.service.anti_entropy import EXCHANGE_TIMEOUT_S, AntiEntropy
from merganser.service.asking import Asker
from merganser.service.copying import Copying
from merganser.service.leader import Leader
from merganser.service.leadership import Leadership
from merganser.service.led_repair import LedRepair
from merganser.service.leftovers import Leftovers
from merganser.service.topology import Topology

AT_ONCE = 4  # places; each waits for the network, and for its turn, most of the time
AGAIN_S = 0.5
CONFIRM_S = 1.0

Place = tuple[TableId, PartitionId]


class Moving:
    """This node's part; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        anti_entropy: AntiEntropy,
        leadership: Leadership,
        leader: Leader,
        led_repair: LedRepair,
        copying: Copying,
        leftovers: Leftovers,
        *,
        hints: Callable[[], int],
        has_misplaced_hints: Callable[[], bool],
        is_well: Callable[[], bool],
    ) -> None:
        """Do it with the means of this node's repair.

        ``hints`` tells how many this node keeps for others, ``has_misplaced_hints`` whether it may not keep some of
        them, ``is_well`` whether its disk is.
        """
        self._topology = topology
        self._asker = asker
        self._anti_entropy = anti_entropy
        self._leadership = leadership
        self._leader = leader
        self._led_repair = led_repair
        self.copying = copying
        self._copied: dict[tuple[Place, NodeId], None] = {}
        self.leftovers = leftovers
        self._hints = hints
        self._has_misplaced_hints = has_misplaced_hints
        self._has_kept_misplaced = False
        self._is_well = is_well
        self._loop = asyncio.get_running_loop()
        self._placed = topology.map.placed
        self._done: dict[Place, None] = {}
        self._problem = ""
        self._news = asyncio.Event()
        topology.when_changed(self._look_at)

    async def run(self) -> None:
        """Do what there is to do, for as long as the node lives."""
        while True:
            self._news.clear()
            is_all = await self._work()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if is_all else AGAIN_S):
                    await self._news.wait()

    async def answer(self, _sender: NodeId, _request: AskMoves) -> Moves:
        """Tell how far this node is, by the map it knows."""
        return Moves(
            self._topology.map.placed,
            tuple(self._done) if self._placed == self._topology.map.placed else (),
            self._leads_leaving(),
            self.leftovers.count(),
            self._hints_to_tell(),
            self._is_well(),
            self._problem,
        )

    def _hints_to_tell(self) -> int:
        current = self._topology.map
        if current.operation is None or current.operation.policy is None:
            return self._hints()
        if current.pending is None and not current.settling and self._has_misplaced_hints():
            self._has_kept_misplaced = True
            self._news.set()
        return int(self._has_kept_misplaced)

    async def _erase_hints(self) -> None:
        """Have hints that might not be kept here leave the files as well, once they are handed on."""
        if self._has_kept_misplaced and not self._has_misplaced_hints():
            await self.leftovers.erase_hints()
            self._has_kept_misplaced = False

    def _look_at(self, current: ClusterMap) -> None:
        if current.placed != self._placed:
            self._placed, self._done, self._copied, self._problem = current.placed, {}, {}, ""
        self._news.set()

    async def _work(self) -> bool:
        """Return whether nothing is left to do by the map of now."""
        current = self._topology.map
        if current.pending is None and not current.settling:
            with contextlib.suppress(MerganserError):  # the engine has told whoever is to know
                await self.leftovers.clear()
                await self._erase_hints()
            return self.leftovers.count() == 0 and not self._has_kept_misplaced
        due = [
            (table, partition) for table, partition in self._topology.held() if (table.id, partition) not in self._done
        ]
        due = [(table, partition) for table, partition in due if self._is_concerned(current, table, partition)]
        places = iter(due)
        results = await asyncio.gather(*(self._go_through(places) for _ in range(AT_ONCE)), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        is_all = all(result is True for result in results)
        if is_all and self._topology.map is current:
            self._problem = ""
        return is_all

    async def _go_through(self, places: Iterator[tuple[Table, PartitionId]]) -> bool:
        is_all = True
        for table, partition in places:
            is_all = await self._see_to(table, partition) and is_all
        return is_all

    async def _see_to(self, table: Table, partition: PartitionId) -> bool:
        """Return whether a place is done; if it is somebody else's to do, it may become this node's."""
        placed = self._topology.map.placed
        try:
            if table.has_leaders:
                is_done = await self._see_to_led(table, partition)
            else:
                is_done = await self._meet_all(table, partition)
        except InvariantError:
            raise
        except MerganserError as error:
            if self._topology.map.placed == placed:
                self._problem = f"partition {partition} of {table.name}: {error}"
            return False
        if is_done and self._topology.map.placed == placed == self._placed:
            self._done[table.id, partition] = None
        return is_done

    def _is_concerned(self, current: ClusterMap, table: Table, partition: PartitionId) -> bool:
        if current.pending is None:
            return partition in current.settling
        return self._topology.ring.holders(partition, table.rule).extra > 0

    # Leaderless

    async def _meet_all(self, table: Table, partition: PartitionId) -> bool:
        holders, me = self._topology.ring.holders(partition, table.rule), self._topology.node
        if me not in holders.next or (not holders.extra and me != self._first_there(holders.members)):
            return False
        is_asking_all = me in holders.newcomers or not holders.extra
        peers = [node for node in (holders.members if is_asking_all else holders.leaving) if node != me]
        met = (*await self._bring(table, partition, peers, self._meet), me)
        self._check(met, must=holders.leaving, most_of=holders.serving if is_asking_all else ())
        return True

    async def _meet(self, table: Table, partition: PartitionId, peer: NodeId) -> None:
        deadline = self._loop.time() + EXCHANGE_TIMEOUT_S
        await self._anti_entropy.synchronise(table, partition, peer, deadline=deadline)

    def _first_there(self, nodes: Sequence[NodeId]) -> NodeId | None:
        return next((node for node in nodes if self._asker.is_reachable(node)), None)

    # Leader-based

    async def _see_to_led(self, table: Table, partition: PartitionId) -> bool:
        holders, me = self._topology.ring.holders(partition, table.rule), self._topology.node
        led = self._leadership.led(Group(table.rule, partition))
        if led is None or self._is_to_hand_over(holders):
            return False
        await self._leadership.confirm(led, deadline=self._loop.time() + CONFIRM_S)
        if not self._leader.knows_all(table, led=led):
            raise UnavailableError("its leader does not know every item yet")
        peers = [node for node in holders.next if node != me]
        first = holders.newcomers or peers
        met = await self._bring(table, partition, first, self._bring_up)
        for peer in peers:
            if peer not in first and not _are_most((*met, me), holders.next):
                met += await self._bring(table, partition, [peer], self._bring_up)
        if not led.is_standing:
            raise UnavailableError("another node has begun to lead")
        self._check((*met, me), must=holders.newcomers, most_of=holders.next)
        return True

    async def _bring_up(self, table: Table, partition: PartitionId, peer: NodeId) -> None:
        copy = ((table.id, partition), peer)
        if copy not in self._copied and peer in self._topology.ring.holders(partition, table.rule).newcomers:
            await self.copying.copy(table, partition, peer)
            self._copied[copy] = None
        deadline = self._loop.time() + EXCHANGE_TIMEOUT_S
        await self._led_repair.bring_up(table, partition, peer, deadline=deadline)

    def _leads_leaving(self) -> int:
        ring = self._topology.ring
        groups = (led.group for led in self._leadership.leading())
        return sum(self._is_to_hand_over(ring.holders(group.partition, group.rule)) for group in groups)

    def _is_to_hand_over(self, holders: Holders) -> bool:
        """Tell whether this node leaves while somebody stays who may lead: one who is lost for ever never will."""
        return self._topology.node not in holders.next and not all(map(self._is_lost, holders.staying))

    # Both

    async def _bring(
        self,
        table: Table,
        partition: PartitionId,
        peers: Sequence[NodeId],
        meet: Callable[[Table, PartitionId, NodeId], Awaitable[None]],
    ) -> list[NodeId]:
        """Meet all of ``peers`` that are there; returns those."""
        met = []
        for peer in peers:
            if self._asker.is_reachable(peer) and not self._is_lost(peer):
                await meet(table, partition, peer)
                met.append(peer)
        return met

    def _check(self, met: Sequence[NodeId], *, must: Sequence[NodeId], most_of: Sequence[NodeId]) -> None:
        """Return if all of ``must``, unless they are lost for ever, and a majority of ``most_of`` were met.

        Raises:
            UnavailableError: not.
        """
        missed = [node for node in must if node not in met and not self._is_lost(node)]
        if missed:
            raise UnavailableError(f"node {missed[0]} is away")
        if most_of and not _are_most(met, most_of):
            raise UnavailableError(f"most of nodes {', '.join(most_of)} are away")

    def _is_lost(self, node: NodeId) -> bool:
        operation, number = self._topology.map.operation, self._topology.number_of(node)
        return operation is not None and number in operation.lost


def _are_most(some: Sequence[NodeId], of: Sequence[NodeId]) -> bool:
    return sum(node in some for node in of) >= majority(len(of))
