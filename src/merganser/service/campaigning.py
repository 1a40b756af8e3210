"""Bid for groups: ask their replicas whether they would promise an epoch, then for the promises.

    bids --poll--> those that would be won --own promise, durable--> campaign --majority--> elected

One message to each replica for all bids of the same replicas. What wins is `core.leadership`'s to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from merganser.core.leadership import Elections, Tally
from merganser.model.errors import MerganserError
from merganser.model.ids import NodeId, TableId
from merganser.model.leader_messages import Campaign, Promised
from merganser.model.leadership import Epoch, Group
from merganser.model.messages import Reply
from merganser.service.asking import Asker, error_of
from merganser.service.promises import Promises
from merganser.service.topology import Topology
from merganser.service.voting import Voting

POLL_TIMEOUTS_S = (0.1, 0.2, 0.4)
"""Of one poll after the other. Nothing is written for an answer: late, it was lost, or a loop is busy."""

CAMPAIGN_TIMEOUTS_S = (0.2, 0.4, 0.8, 1.6)
"""Likewise. A disk slower than the first has synced the promise by the next, and the replica says so at once."""

Roots = Mapping[TableId, Mapping[NodeId, int]]
"""Of the hash trees of the replicas of a group, by table."""


class _Roots(dict[Group, dict[TableId, dict[NodeId, int]]]):
    """What the replicas of the groups of a campaign tell with their promises."""

    def __init__(self, groups: Iterable[Group], placed: int) -> None:
        super().__init__((group, {}) for group in groups)
        self.placed = placed
        """Epoch of the map that says who the replicas are."""


class Campaigning:
    """The bids of this node; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        promises: Promises,
        elections: Elections,
        voting: Voting,
        *,
        elected: Callable[[Group, Epoch, Roots, int], None],
        learned: Callable[[Group, Epoch], None],
    ) -> None:
        """Bid as ``elections`` says; ``elected`` is told of what is won, with what epoch of the map places the replicas
        that have promised, ``learned`` of later epochs met."""
        self._topology = topology
        self._asker = asker
        self._promises = promises
        self._elections = elections
        self._voting = voting
        self._elected = elected
        self._learned = learned
        self._loop = asyncio.get_running_loop()

    def together(self, groups: Iterable[Group]) -> list[list[Group]]:
        """Return those of ``groups`` that can be bid for together: of the same n and the same replicas."""
        together: dict[tuple[int, tuple[int, ...]], list[Group]] = {}
        for group in groups:
            electorate = tuple(sorted(self._elections.replicas(group)))
            together.setdefault((group.rule, electorate), []).append(group)
        return list(together.values())

    async def bid(self, bids: dict[Group, Epoch], *, is_handover: bool, partitions: int) -> None:
        """Poll for ``bids``, and campaign for those that would be won; all have the same replicas.

        A group that its leader hands over has nobody to lose: it is not polled for. Once there are more than
        ``partitions``, as many as when the bids were made, they are for groups of other numbers, and given up.
        """
        try:
            promising = bids if is_handover else await self._poll(bids, partitions)
            if promising and not self._is_cut(partitions):
                await self._campaign(promising, is_handover=is_handover)
        except MerganserError:  # the disk has failed, or the map has changed: nothing more is won
            return
        finally:
            if not self._is_cut(partitions):
                self._elections.bid_ended(bids, self._loop.time())

    def _is_cut(self, partitions: int) -> bool:
        return self._topology.ring.partitions != partitions

    async def _poll(self, bids: dict[Group, Epoch], partitions: int) -> dict[Group, Epoch]:
        """Return the bids that would be won, some with higher numbers."""
        me = self._topology.me.number
        promising: dict[Group, Epoch] = {}
        for timeout_s in POLL_TIMEOUTS_S:
            tally = self._tally(bids)
            tally.promised(me, bids)
            await self._ask(tally, is_poll=True, timeout_s=timeout_s)
            if self._is_cut(partitions):
                break
            promising.update(tally.won)
            too_low = dict.fromkeys(group for group, _later in tally.met if group not in tally.won)
            higher = {group: Epoch(self._elections.known(group).number + 1, me) for group in too_low}
            bids = higher if promising else {**tally.open, **higher}  # what can be won does not wait for silent ones
            if not bids:
                break
        return promising

    async def _campaign(self, bids: dict[Group, Epoch], *, is_handover: bool) -> None:
        """Promise ``bids`` to this node itself, ask the others for theirs, and lead what is won."""
        placed = self._topology.map.placed
        self._promises.promise(bids.items())
        await self._promises.durable()
        for timeout_s in CAMPAIGN_TIMEOUTS_S:
            if self._topology.map.placed != placed:  # those who have promised are no quorum any more, perhaps
                break
            bids = {group: epoch for group, epoch in bids.items() if self._promises.of(group) == epoch}
            tally, roots = self._tally(bids), _Roots(bids, placed)
            self._elect(tally.promised(self._topology.me.number, bids), tally, roots)
            await self._ask(tally, is_poll=False, is_handover=is_handover, timeout_s=timeout_s, roots=roots)
            bids = tally.open
            if not bids:
                break

    async def _ask(
        self, tally: Tally, *, timeout_s: float, is_poll: bool, is_handover: bool = False, roots: _Roots | None = None
    ) -> None:
        """Ask the replicas of the bids until all is settled or nobody is left."""
        waiting: dict[int, tuple[asyncio.Future[Reply], list[Group]]] = {}
        for number in self._elections.peers:
            bids, node = tally.bids_of(number), self._topology.node_of(number)
            if bids and node is not None:
                request = Campaign(
                    self._topology.map.epoch,
                    next(iter(bids)).rule,
                    tuple((group.partition, epoch.number) for group, epoch in bids.items()),
                    is_poll=is_poll,
                    is_handover=is_handover,
                )
                waiting[number] = self._asker.ask(node, request, timeout_s=timeout_s), list(bids)
        partitions = self._topology.ring.partitions
        while waiting and not tally.is_settled:
            await asyncio.wait([asked for asked, _ in waiting.values()], return_when=asyncio.FIRST_COMPLETED)
            if self._is_cut(partitions):  # what they tell is of groups of other numbers
                return
            for number in [number for number, (asked, _) in waiting.items() if asked.done()]:
                self._count(number, *waiting.pop(number), tally, roots)

    def _count(
        self, number: int, asked: asyncio.Future[Reply], groups: list[Group], tally: Tally, roots: _Roots | None
    ) -> None:
        reply = None if error_of(asked) is not None else asked.result()
        if not isinstance(reply, Promised) or len(reply.promised) != len(groups):
            tally.failed(number)
            return
        if roots is not None:
            self._collect(number, groups, reply, roots)
        met = len(tally.met)
        news = tally.promised(number, dict(zip(groups, reply.promised, strict=True)))
        for group, epoch in tally.met[met:]:
            self._learned(group, epoch)
        if roots is not None:
            self._elect(news, tally, roots)

    def _collect(self, number: int, groups: list[Group], reply: Promised, roots: _Roots) -> None:
        node = self._topology.node_of(number)
        if node is not None and len(reply.roots) == len(groups):
            for group, of_tables in zip(groups, reply.roots, strict=True):
                for table, root in of_tables:
                    roots[group].setdefault(table, {})[node] = root

    def _elect(self, groups: Iterable[Group], tally: Tally, roots: _Roots) -> None:
        for group in groups:
            for table, root in self._voting.roots(group):
                roots[group].setdefault(table, {})[self._topology.node] = root
            self._elected(group, tally.won[group], roots[group], roots.placed)

    def _tally(self, bids: Mapping[Group, Epoch]) -> Tally:
        quorums = {group: self._elections.quorum(group) for group in bids}
        return Tally(bids, {group: self._elections.replicas(group) for group in bids}, quorums)
