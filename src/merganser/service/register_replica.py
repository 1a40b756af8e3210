"""A replica of leader-based tables: keeps what leaders send, and tells them what it keeps.

Each request is of an epoch, and each answer a promise to refuse earlier ones (`service.promises`). A register
never goes back to an earlier version, so repeated, late and reordered messages are harmless; an answer leaves only
when what it says is durable.

A stored register that is damaged is refused, to readers and to leaders, and noted. What is sent does not replace it: it
may be late, and what was damaged may have been acknowledged after it. `service.settling` asks what does.

Source: design §5; docs/internals/leader.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from merganser.core.hash_tree import LEAF_LEVEL, LEAVES
from merganser.model.errors import CorruptionError, InvariantError, MerganserError, RefusedError, StorageFailedError
from merganser.model.ids import NodeId, TableId
from merganser.model.leader_messages import Copies, Drop, Kept, Replicate, Touch, TouchRange, TouchTree
from merganser.model.leadership import Epoch, Group
from merganser.model.messages import Done, Found, Nodes, Reply, Request, Rows
from merganser.model.refusal import Refused
from merganser.model.register import NO_VERSION, Version
from merganser.net.transport import refused
from merganser.service.damage import Damage
from merganser.service.durable_answers import DurableAnswers
from merganser.service.generations import Generations
from merganser.service.group_gate import GroupGate
from merganser.service.hash_trees import HashTrees
from merganser.service.promises import Promises
from merganser.service.replica import NOT_A_REPLICA, check_placed
from merganser.service.topology import Topology
from merganser.storage.engine import Engine
from merganser.storage.registers import is_later, is_tombstone, version_of
from merganser.storage.values import check_row

_DONE = Done()
_ALL_KEPT = Kept(())


class RegisterReplica:
    """This node's registers; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        engine: Engine,
        promises: Promises,
        generations: Generations,
        trees: HashTrees,
        damage: Damage,
        *,
        durable_answers: DurableAnswers,
        catch_up: Callable[[NodeId], Awaitable[None]],
    ) -> None:
        """Keep registers in ``engine``, for which ``durable_answers`` wait.

        ``catch_up`` fetches a newer cluster map from a peer.
        """
        self.check: Callable[[Request], None] = lambda _request: None
        """Raises a RefusedError if the disk is not well enough for one of several; it was asked for those that come
        alone."""
        self.check_standstill: Callable[[], None] = lambda: None
        """Raises while no tombstone may be dropped."""
        self._topology = topology
        self._gate = GroupGate(topology, catch_up=catch_up)
        self._engine = engine
        self._promises = promises
        self._generations = generations
        self._trees = trees
        self._damage = damage
        self._durable_answers = durable_answers

    async def touch(self, sender: NodeId, request: Touch) -> Found:
        """Return what is stored under a key, durably.

        Raises:
            RefusedError: not a replica of the key, no such table, or a later epoch is promised.
            CorruptionError: what is stored is damaged.
            StorageFailedError: it is unknown whether what is stored, or the promise, is durable.
        """
        _, group = await self._gate.admit(sender, request.map_epoch, request.table, request.key)
        check_placed(self._topology, request.map_epoch)
        await self._promises.admit(group, request.epoch)
        stored, _ = self._held(request.table, request.key)
        if not self._engine.is_durable(request.key):
            await self._engine.durable()
        return Found(stored)

    async def touch_range(self, sender: NodeId, request: TouchRange) -> Rows:
        """Return a page of a range within one partition, durably; at least one row if there is any.

        Raises:
            as `touch`; CorruptionError if the first row is damaged, before others the page ends.
        """
        table, start, end = request.table, request.start, request.end
        _, group = await self._gate.admit_range(sender, request.map_epoch, table, start, end)
        check_placed(self._topology, request.map_epoch)
        await self._promises.admit(group, request.epoch)
        page = self._page(request)
        if not self._engine.is_all_durable:
            await self._engine.durable()
        return page

    async def touch_tree(self, sender: NodeId, request: TouchTree) -> Nodes:
        """Return the leaves of a hash tree, of durable rows; none unless the tree tells of every row of the partition.

        Raises:
            as `touch`.
        """
        table, partition = request.table, request.partition
        _, group = await self._gate.admit_partition(sender, request.map_epoch, table, partition)
        check_placed(self._topology, request.map_epoch)
        await self._promises.admit(group, request.epoch)
        if self._trees.root(table, partition) is None:
            return Nodes(())
        leaves = self._trees.nodes(table, partition, LEAF_LEVEL, range(LEAVES))
        if not self._engine.is_all_durable:
            await self._engine.durable()
        return Nodes(leaves)

    async def replicate(self, sender: NodeId, request: Replicate) -> Done:
        """Keep a register unless a later version is kept; returns once what is kept is durable.

        Raises:
            RefusedError: not a replica of the key, no such table, a later epoch is promised, or a later generation has
                begun; nothing was written.
            CorruptionError: the register is damaged, or what is stored is; nothing was written.
            StorageFailedError: it is unknown whether it is durable.
        """
        self._keep(request, self._admitted(request) or await self._admit(sender, request))
        if not self._engine.is_durable(request.key):
            await self._engine.durable()
        return _DONE

    def begin_replicate(self, _sender: NodeId, request: Replicate) -> asyncio.Future[Reply] | Done | None:
        """Do as `replicate`, as a `net.transport.Beginner`."""
        group = self._admitted(request)
        if group is None:
            return None
        self._keep(request, group)
        return _DONE if self._engine.is_durable(request.key) else self._durable_answers.after(_DONE)

    async def replicate_together(self, sender: NodeId, request: Copies) -> Kept:
        """Do each of several copies as `replicate` would; returns once all that is kept is durable.

        Raises:
            StorageFailedError: it is unknown whether any of it is durable.
        """
        refusals: list[tuple[int, Refused]] = []
        for place, copy in enumerate(request.copies):
            try:
                self.check(copy)
                self._keep(copy, self._admitted(copy) or await self._admit(sender, copy))
            except (InvariantError, StorageFailedError):
                raise
            except MerganserError as error:
                refusals.append((place, refused(error)))
        if not self._engine.is_all_durable:
            await self._engine.durable()
        return Kept(tuple(refusals)) if refusals else _ALL_KEPT

    def begin_replicate_together(self, _sender: NodeId, request: Copies) -> asyncio.Future[Reply] | Kept | None:
        """Do as `replicate_together`, as a `net.transport.Beginner`; what is left undone may be done in part."""
        refusals: list[tuple[int, Refused]] = []
        for place, copy in enumerate(request.copies):
            try:
                self.check(copy)
                group = self._admitted(copy)
                if group is None:  # those before it are kept already, which keeps nothing twice
                    return None
                self._keep(copy, group)
            except (InvariantError, StorageFailedError):
                raise
            except MerganserError as error:
                refusals.append((place, refused(error)))
        kept = Kept(tuple(refusals)) if refusals else _ALL_KEPT
        return kept if self._engine.is_all_durable else self._durable_answers.after(kept)

    def _admitted(self, request: Replicate) -> Group | None:
        """Return the group of a register that may be kept at once, as nearly all; None: `_admit` sees to it."""
        if self._gate.is_behind(request.map_epoch):
            return None
        _, group = self._gate.held(request.table, request.key)
        return group if self._promises.stands(group, request.epoch) else None

    async def _admit(self, sender: NodeId, request: Replicate) -> Group:
        """Return the group of a register once its epoch is promised, durably."""
        if self._gate.is_behind(request.map_epoch):
            await self._gate.catch_up(sender)
        if request.map_epoch < self._topology.map.placed:
            check_placed(self._topology, request.map_epoch)
        _, group = self._gate.held(request.table, request.key)
        check_row(request.key, request.register)
        await self._promises.admit(group, request.epoch)
        return group

    async def drop(self, sender: NodeId, request: Drop) -> Done:
        """Drop tombstones that all replicas hold, where they are still what is held; take nothing sent before.

        Raises:
            RefusedError: not a replica, no such table, keys of another partition, a later epoch is promised, or a later
                generation has begun; nothing was dropped.
            UnavailableError: a snapshot is being taken; nothing was dropped.
            StorageFailedError: it is unknown whether it is durable.
        """
        table, partition = request.table, request.partition
        _, group = await self._gate.admit_partition(sender, request.map_epoch, table, partition)
        check_placed(self._topology, request.map_epoch)
        if any(self._gate.held(table, key)[1] != group for key, _ in request.tombstones):
            raise RefusedError(NOT_A_REPLICA, f"not all of these keys are of partition {partition}")
        await self._promises.admit(group, request.epoch)
        self.check_standstill()
        self._generations.check(group, request.epoch, request.generation)
        self._generations.begin(group, (Epoch(*request.epoch), request.generation))
        self._trees.write(
            (table, key, stored, None)
            for key, version in request.tombstones
            if (stored := self._tombstone(table, key, version)) is not None
        )
        await self._engine.durable()
        return _DONE

    def _held(self, table: TableId, key: bytes) -> tuple[bytes | None, Version]:
        """Return what is stored under ``key``, and its version.

        Raises:
            CorruptionError: it is damaged, which is noted.
        """
        try:
            stored = self._engine.get(key)
            if stored is None:
                return None, NO_VERSION
            check_row(key, stored)
            return stored, version_of(key, stored)
        except CorruptionError:
            self._damage.met_row(table, key)
            raise

    def _keep(self, request: Replicate, group: Group) -> None:
        """Keep a register of a group whose epoch stands, in this turn of the loop."""
        table, key, register = request.table, request.key, request.register
        check_row(key, register)
        self._generations.check(group, request.epoch, request.generation)
        try:
            stored = self._engine.get(key)
            if stored is not None:
                check_row(key, stored)
                if not is_later(key, register, stored):
                    return
        except CorruptionError:
            self._held(table, key)  # raises, and notes it, if it is what is held here that is damaged
            raise
        self._trees.put(table, group.partition, key, stored, register)

    def _tombstone(self, table: TableId, key: bytes, version: Version) -> bytes | None:
        """Return what is stored under ``key`` if that is a tombstone of just that version."""
        try:
            stored, held = self._held(table, key)
        except CorruptionError:
            return None
        return stored if stored is not None and held == version and is_tombstone(key, stored) else None

    def _page(self, request: TouchRange) -> Rows:
        page: list[tuple[bytes, bytes]] = []
        bytes_left, key = request.bytes_max, None
        try:
            for key, stored in self._engine.scan(request.start, request.end):
                if page and (len(page) >= request.rows_max or bytes_left <= 0):
                    return Rows(tuple(page), is_last=False)
                check_row(key, stored)
                page.append((key, stored))
                bytes_left -= len(key) + len(stored)
        except CorruptionError:
            if key is None or (page and page[-1][0] == key):  # it was well: what comes after it cannot be read
                self._damage.met_somewhere(request.table, request.start, request.end)
            else:
                self._damage.met_row(request.table, key)
            if page:
                return Rows(tuple(page), is_last=False)
            raise
        return Rows(tuple(page), is_last=True)
