"""Lead one round that raises the horizon of a partition, step by step as in `core.horizon`.

::

    seal (all nodes, again until none holds hints)
      -> level (those who lag) -> gather -> spread -> complete (all replicas)

What it gives up, at any step, leaves nothing behind but seals.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, cast

from merganser.core.horizon import Round
from merganser.model.cluster import Table
from merganser.model.errors import MerganserError, PeerLostError, RefusedError
from merganser.model.ids import NodeId, PartitionId
from merganser.model.messages import Complete, Level, Reply, Request, Seal, Sealed
from merganser.net.transport import Traffic
from merganser.service.asking import Asker
from merganser.service.topology import Topology

ANSWER_TIMEOUT_S = 5.0
RETRY_S = 0.5


class Synchronise(Protocol):
    """Make two replicas of a partition equal, both ways, up to what both held when it began."""

    async def __call__(self, table: Table, partition: PartitionId, peer: NodeId, /, *, deadline: float) -> None:
        """Return once both hold it durably, every row of it.

        Raises:
            MerganserError: they are not known to be equal.
        """


class PurgeRound:
    """One round; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        table: Table,
        partition: PartitionId,
        horizon_us: int,
        *,
        deadline: float,
        catch_up: Callable[[NodeId], Awaitable[None]],
        synchronise: Synchronise,
    ) -> None:
        """Lead a round for ``horizon_us`` (0: only ask how far the replicas are) until ``deadline``, loop time."""
        self._topology = topology
        self._asker = asker
        self._table = table
        self._partition = partition
        self._horizon_us = horizon_us
        self._deadline = deadline
        self._catch_up = catch_up
        self._synchronise = synchronise
        self._loop = asyncio.get_running_loop()
        self._me = topology.node
        self._epoch = topology.map.epoch
        self.replicas = topology.ring.preference_list(partition, table.rule)
        nodes = [node.id for node in topology.map.nodes]
        self._round = Round(nodes=nodes, replicas=self.replicas, horizon_us=horizon_us)

    async def run(self) -> str | None:
        """Return why the round did not complete everywhere, None if it did."""
        while self._round.waiting_for:
            await self.seal(self._round.waiting_for)
            if self._round.waiting_for:
                await asyncio.sleep(RETRY_S)
        for lagging in sorted(self._round.lagging, key=lambda node: node != self._me):
            await self._level(lagging)
        if self._round.lagging:
            return f"{', '.join(self._round.lagging)} cannot follow the others"
        for _ in ("gather", "spread"):
            for replica in self.replicas:
                if replica != self._me:
                    await self._synchronise(self._table, self._partition, replica, deadline=self._deadline)
        return await self._complete()

    async def seal(self, nodes: Sequence[NodeId]) -> None:
        """Ask ``nodes`` to seal, all at once, and note what they answer."""
        request = Seal(self._epoch, self._table.id, self._partition, self._horizon_us)
        for node, answer in (await self._ask_all(dict.fromkeys(nodes, request))).items():
            if isinstance(answer, RefusedError) and answer.map_epoch > self._epoch:
                await self._catch_up(node)
                raise answer
            if isinstance(answer, Sealed):
                self._note(node, answer)

    async def level_only(self, node: NodeId) -> str | None:
        """Level ``node`` if it lags, once all replicas have said how far they are."""
        silent = [replica for replica in self.replicas if replica not in self._round.vows]
        if silent:
            return f"{', '.join(silent)} does not answer"
        if node in self._round.lagging:
            await self._level(node)
        return None

    async def _level(self, node: NodeId) -> None:
        left_s = self._deadline - self._loop.time()
        request = Level(
            self._epoch,
            self._table.id,
            self._partition,
            self._round.authority_us,
            tuple(self._round.teachers(node)),
            int(left_s * 1000),
        )
        answer = await self._asker.ask(node, request, timeout_s=left_s, traffic=Traffic.BULK)
        self._note(node, cast("Sealed", answer))

    async def _complete(self) -> str | None:
        """Tell all replicas, again and again until they have answered; those that refuse will adopt it some day."""
        refused: dict[NodeId, str] = {}
        waiting = set(self.replicas)
        while waiting:
            requests: dict[NodeId, Request] = {
                node: Complete(self._epoch, self._table.id, self._partition, self._horizon_us, self._round.vows[node])
                for node in self.replicas
                if node in waiting
            }
            for node, answer in (await self._ask_all(requests)).items():
                if isinstance(answer, RefusedError):
                    refused[node] = str(answer)
                if not isinstance(answer, MerganserError) or isinstance(answer, RefusedError):
                    waiting.discard(node)
            if waiting:
                await asyncio.sleep(RETRY_S)
        return "; ".join(f"{node}: {reason}" for node, reason in sorted(refused.items())) or None

    async def _ask_all(self, requests: Mapping[NodeId, Request]) -> dict[NodeId, Reply | MerganserError]:
        timeout_s = max(0.0, min(ANSWER_TIMEOUT_S, self._deadline - self._loop.time()))
        futures = {node: self._asker.ask(node, request, timeout_s=timeout_s) for node, request in requests.items()}
        if futures:
            await asyncio.wait(futures.values())
        return {node: _answer_of(future) for node, future in futures.items()}

    def _note(self, node: NodeId, answer: Sealed) -> None:
        self._round.sealed(
            node,
            horizon_us=answer.horizon_us,
            is_whole=answer.is_whole,
            has_hints=answer.has_hints,
            vow=answer.vow,
        )


def _answer_of(future: asyncio.Future[Reply]) -> Reply | MerganserError:
    if future.cancelled():
        return PeerLostError("no answer in time")
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, MerganserError):
        return error
    raise error
