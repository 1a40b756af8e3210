"""Answer a replica that compares a partition with this one (`core.exchange`).

An answer is a slice of background work or a few of them; it leaves only when what it tells of is durable. Only
replicas of one epoch compare. What was asked is checked before anything is done: who asks may be of another version.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence

from merganser.core.exchange import (
    LOOK_KEYS_MAX,
    MEET_KEYS_MAX,
    check_buckets,
    check_leaves,
    check_regions,
    check_stretches,
    check_tallies,
)
from merganser.core.hash_tree import LEVELS
from merganser.model.cluster import Table
from merganser.model.errors import CorruptionError, RefusedError
from merganser.model.ids import NodeId, PartitionId, TableId
from merganser.model.messages import (
    Exchanging,
    Fingerprints,
    Listed,
    ListKeys,
    LookAgain,
    LookAtTree,
    LookAtTwigs,
    Meet,
    Met,
    Nodes,
    Tallied,
    TalliedTogether,
    Tally,
    TallyTogether,
)
from merganser.service.compared_rows import ComparedRows
from merganser.service.hash_trees import HashTrees
from merganser.service.partition_gate import MALFORMED, PartitionGate
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.values import decode_row

READY_S = 20.0  # how long a peer waits for a tree that is being counted; half a million rows a second are
KEY_BYTES_MAX = 65_536  # far longer than any wire allows


class ExchangeAnswers:
    """The responder's side; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        trees: HashTrees,
        rows: ComparedRows,
        gate: PartitionGate,
        *,
        admit: Callable[[], Awaitable[None]],
    ) -> None:
        """Answer out of ``rows`` and ``trees``; ``admit`` waits while clients need this node more."""
        self._topology = topology
        self._trees = trees
        self._rows = rows
        self._gate = gate
        self._admit = admit
        self._loop = asyncio.get_running_loop()
        self.met = 0
        """Rows that were changed here because a peer asked."""

    async def look_at_tree(self, sender: NodeId, request: LookAtTree) -> Nodes:
        """Return nodes of this node's tree, counted first if need be.

        Raises:
            RefusedError: another epoch, no such table or node of a tree, or not a replica.
            UnavailableError: the tree is not ready yet.
        """
        table = await self._admitted(sender, request)
        if not 0 <= request.level < len(LEVELS) or len(request.positions) > LEVELS[request.level]:
            raise _malformed(f"a tree has {LEVELS} nodes on its levels")
        if not all(0 <= position < LEVELS[request.level] for position in request.positions):
            raise _malformed(f"positions on level {request.level} are 0 to {LEVELS[request.level] - 1}")
        await self._trees.ready(table, request.partition, deadline=self._loop.time() + READY_S)
        self._gate.held(request.map_epoch, request.table, request.partition)
        return Nodes(await self._rows.nodes(table.id, request.partition, request.level, request.positions))

    async def look_at_twigs(self, sender: NodeId, request: LookAtTwigs) -> Nodes:
        """Return twigs of this node's tree, counted first if need be.

        Raises:
            RefusedError: another epoch, no such table or leaves, or not a replica.
            UnavailableError: the tree is not ready yet.
            CorruptionError: the engine cannot read the leaves.
        """
        table = await self._admitted(sender, request)
        with _checking():
            check_leaves(request.leaves)
        await self._trees.ready(table, request.partition, deadline=self._loop.time() + READY_S)
        self._gate.held(request.map_epoch, request.table, request.partition)
        return Nodes(await self._rows.twigs(table.id, request.partition, request.leaves))

    async def tally(self, sender: NodeId, request: Tally) -> Tallied:
        """Return sums of a stretch's fingerprints.

        Raises:
            RefusedError: another epoch, no such table, stretch or number of buckets, or not a replica.
            CorruptionError: the engine cannot read the stretch.
        """
        table = await self._admitted(sender, request)
        with _checking():
            check_stretches((request.stretch,))
            check_buckets(request.buckets)
        return await self._rows.tally(table.id, request.partition, request.stretch, request.buckets, request.start)

    async def tally_together(self, sender: NodeId, request: TallyTogether) -> TalliedTogether:
        """Return sums of the fingerprints of several stretches.

        Raises:
            RefusedError: another epoch, no such table, stretches or numbers of buckets, or not a replica.
            CorruptionError: the engine cannot read the stretches.
        """
        table = await self._admitted(sender, request)
        with _checking():
            check_tallies(request.stretches, request.buckets)
        return await self._rows.tally_together(table.id, request.partition, request.stretches, request.buckets)

    async def list_keys(self, sender: NodeId, request: ListKeys) -> Listed:
        """Return keys and fingerprints.

        Raises:
            RefusedError: another epoch, no such table or stretches, or not a replica.
            CorruptionError: the engine cannot read the stretches.
        """
        table = await self._admitted(sender, request)
        with _checking():
            check_regions(request.regions)
        return await self._rows.page(table.id, request.partition, request.regions, request.start)

    async def look_again(self, sender: NodeId, request: LookAgain) -> Fingerprints:
        """Return what keys hold now.

        Raises:
            RefusedError: another epoch, no such table, keys of others, or not a replica.
        """
        table = await self._admitted(sender, request)
        self._check_keys(table.id, request.partition, request.keys, most=LOOK_KEYS_MAX)
        return Fingerprints(await self._rows.fingerprints(table.id, request.keys))

    async def meet(self, sender: NodeId, request: Meet) -> Met:
        """Become equal in some keys; returns once that is durable.

        Raises:
            RefusedError: another epoch, no such table, a leader-based one, keys of others, damaged rows, or not a
                replica.
            UnavailableError: this disk is too full for more rows; nothing was written.
            StorageFailedError: it is unknown whether it is durable.
        """
        table = self._gate.leaderless(await self._admitted(sender, request))
        self._check_keys(table.id, request.partition, [key for key, _ in request.rows], most=MEET_KEYS_MAX)
        if request.horizon_us < 0:
            raise _malformed("a horizon is not below 0")
        with _checking():
            for key, row in request.rows:
                if row is not None:
                    decode_row(key, row)
        meeting = self._rows.meet(table.id, request.partition, request.rows, other_us=request.horizon_us)
        self.met += meeting.changed
        await self._rows.durable()
        others = [
            (position, held)
            for position, (held, (_, sent)) in enumerate(zip(meeting.held, request.rows, strict=False))
            if held != sent and position not in meeting.unmet
        ]
        return Met(len(meeting.held), meeting.changed, tuple(others), meeting.unmet, meeting.horizon_us)

    async def _admitted(self, sender: NodeId, request: Exchanging) -> Table:
        """Go on in the turn in which the request is found to be of this epoch."""
        await self._admit()
        return await self._gate.admit_replica(sender, request.map_epoch, request.table, request.partition)

    def _check_keys(self, table: TableId, partition: PartitionId, wanted: Sequence[bytes], *, most: int) -> None:
        if not 1 <= len(wanted) <= most or len(set(wanted)) != len(wanted):
            raise _malformed(f"it must be of 1 to {most} keys, each once")
        with _checking():
            if not all(self._is_in(table, partition, key) for key in wanted):
                raise _malformed(f"not all keys are of partition {partition}")

    def _is_in(self, table: TableId, partition: PartitionId, key: bytes) -> bool:
        if len(key) > KEY_BYTES_MAX:
            raise CorruptionError(f"a key of {len(key)} bytes")
        return keys.table_in(key) == table and self._topology.ring.partition_of(keys.token_in(key)) == partition


@contextlib.contextmanager
def _checking() -> Iterator[None]:
    """Refuse a question whose bytes make no sense, instead of calling it damage of this disk."""
    try:
        yield
    except CorruptionError as error:
        raise _malformed(str(error)) from None


def _malformed(what: str) -> RefusedError:
    return RefusedError(MALFORMED, f"the question makes no sense here: {what}")
