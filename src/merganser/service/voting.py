"""What a replica answers those who want to lead, or do: promises, durably, of the epochs it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from merganser.core.leadership import Elections
from merganser.model.errors import RefusedError
from merganser.model.ids import NodeId, PartitionId, TableId
from merganser.model.leader_messages import Campaign, Confirm, Promised, Standing
from merganser.model.leadership import NO_EPOCH, Epoch, Group
from merganser.model.messages import Reply
from merganser.service.hash_trees import HashTrees
from merganser.service.partition_gate import STALE_EPOCH
from merganser.service.promises import Promises
from merganser.service.replica import NOT_A_REPLICA, check_known, check_placed
from merganser.service.topology import Topology


class Voting:
    """The votes of this node; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        promises: Promises,
        elections: Elections,
        trees: HashTrees,
        *,
        catch_up: Callable[[NodeId], Awaitable[None]],
        may_vote: Callable[[Group], bool],
    ) -> None:
        """Vote as ``elections`` says, with ``promises``.

        Args:
            topology: knows who is a replica of what.
            promises: of this node.
            elections: knows who leads.
            trees: whose roots go with a promise.
            catch_up: fetches a newer map from a peer.
            may_vote: whether this node's word counts.
        """
        self._topology = topology
        self._promises = promises
        self._elections = elections
        self._trees = trees
        self._catch_up = catch_up
        self._may_vote = may_vote
        self._loop = asyncio.get_running_loop()

    async def campaign(self, sender: NodeId, request: Campaign) -> Reply:
        """Promise the sender what it bids for, as far as nothing speaks against it, durably; or tell what would be.

        Raises:
            RefusedError: it or this node is not a replica, or the sender may not know of all indexes of the tables.
            StorageFailedError: it is unknown whether the promises will be remembered.
        """
        number = await self.admit(sender, request.map_epoch, [(request.n, partition) for partition, _ in request.bids])
        self._check_map(request)
        bids = [(Group(request.n, partition), Epoch(e, number)) for partition, e in request.bids]
        now_s = self._loop.time()
        wanted = {
            group: epoch
            for group, epoch in bids
            if epoch > self._promises.of(group)
            and self._may_vote(group)
            and self._elections.would_promise(group, epoch, now_s, is_handover=request.is_handover)
        }
        if request.is_poll:
            return Promised(tuple(wanted.get(group) or self._latest(group) for group, _ in bids), ())
        self._promises.promise(wanted.items())
        await self._promises.durable()
        check_placed(self._topology, request.map_epoch)
        promised = tuple(self._latest(group) for group, _ in bids)
        roots = (
            self.roots(group) if promise == epoch else ()
            for (group, epoch), promise in zip(bids, promised, strict=True)
        )
        return Promised(promised, tuple(roots))

    def _check_map(self, request: Campaign) -> None:
        """Return if the sender knows of every index that this node knows of: once a majority does, each leader does."""
        tables = self._topology.led_tables(request.n)
        since = max((index.since for table in tables for index in table.indexes), default=0)
        if request.map_epoch < since:
            epoch = self._topology.map.epoch
            message = f"the map of epoch {request.map_epoch} lacks an index of epoch {since}"
            raise RefusedError(STALE_EPOCH, message, map_epoch=epoch)

    def confirm_claims_at_once(self, sender: NodeId, request: Confirm) -> Standing | None:
        """Do as `confirm_claims`; None, nothing done, if a map or the disk would have to be waited for.

        Raises:
            RefusedError: it or this node is not a replica.
        """
        promises = self._promises
        if request.map_epoch > self._topology.map.epoch or not promises.is_durable:
            return None
        number = self._checked(sender, request.map_epoch, [(n, partition) for n, partition, _ in request.claims])
        standing: list[Epoch] = []
        for n, partition, epoch in request.claims:
            group = Group(n, partition)
            latest = self._latest(group)
            if latest < epoch and epoch.leader == number and self._may_vote(group):
                return None
            standing.append(latest)
        return Standing(tuple(standing))

    async def confirm_claims(self, sender: NodeId, request: Confirm) -> Reply:
        """Tell whether the epochs in which the sender leads still stand.

        Raises:
            RefusedError: it or this node is not a replica.
            StorageFailedError: it is unknown whether the promises will be remembered.
        """
        number = await self.admit(sender, request.map_epoch, [(n, partition) for n, partition, _ in request.claims])
        claims = [(Group(n, partition), epoch) for n, partition, epoch in request.claims]
        self._promises.promise(
            (group, epoch) for group, epoch in claims if epoch.leader == number and self._may_vote(group)
        )
        await self._promises.durable()
        check_placed(self._topology, request.map_epoch)
        return Standing(tuple(self._latest(group) for group, _ in claims))

    async def admit(self, sender: NodeId, map_epoch: int, groups: Sequence[tuple[int, PartitionId]]) -> int:
        """Return the number of ``sender`` once this node knows its map, and knows both as replicas of ``groups``.

        Raises:
            RefusedError: one of them is not.
        """
        if map_epoch > self._topology.map.epoch:
            await self._catch_up(sender)
        return self._checked(sender, map_epoch, groups)

    def _checked(self, sender: NodeId, map_epoch: int, groups: Sequence[tuple[int, PartitionId]]) -> int:
        check_known(self._topology, map_epoch)
        check_placed(self._topology, map_epoch)
        epoch, ring = self._topology.map.epoch, self._topology.ring
        for n, partition in groups:
            for node in (sender, self._topology.node):
                if not (0 <= partition < ring.partitions and ring.holds(node, partition, n)):
                    raise RefusedError(
                        NOT_A_REPLICA,
                        f"node {node} holds no replica of partition {partition} for n={n} at epoch {epoch}",
                        map_epoch=epoch,
                    )
        return self.member(sender)

    def member(self, node: NodeId) -> int:
        """Return the number of a member.

        Raises:
            RefusedError: it is none.
        """
        number = self._topology.number_of(node)
        if number is None:
            epoch = self._topology.map.epoch
            raise RefusedError(STALE_EPOCH, f"node {node} is no member at epoch {epoch}", map_epoch=epoch)
        return number

    def roots(self, group: Group) -> tuple[tuple[TableId, int], ...]:
        """Return the roots of the trees of the tables of a group, as far as they tell of every row."""
        tables = self._topology.led_tables(group.rule)
        roots = ((table.id, self._trees.root(table.id, group.partition)) for table in tables)
        return tuple((table, root) for table, root in roots if root is not None)

    def _latest(self, group: Group) -> Epoch:
        """Return what this node has promised, as far as its word counts."""
        return self._promises.of(group) if self._may_vote(group) else NO_EPOCH
