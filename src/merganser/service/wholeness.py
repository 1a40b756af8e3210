"""Refuse what this node's disk cannot back, and bring back what it lost.

`check` is asked for each request while `is_refusing`; what is refused is `core.wholeness`'s to say. The disk is looked
at several times a second, so that a node that is short of room takes rows again by itself once there is some.

A node that opens with less than it had synced (`Engine.lost`) goes the way of `core.wholeness` in the background, again
from its beginning in each life, until `Engine.made_whole`. What it acknowledged to keep for others (hints) nobody can
bring back. An operator may `accept` the loss; then only the register has to be rejoined, if there are other voters.

Source: design §6; docs/internals/wholeness.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec

from merganser.core.wholeness import Condition, OfGroup, Place, Recovery
from merganser.model.cluster import ClusterMap, Table
from merganser.model.errors import InvariantError, MerganserError, RefusedError
from merganser.model.ids import PartitionId
from merganser.model.leader_messages import (
    Backfill,
    CompareLed,
    Drop,
    ReadRangeLed,
    Rejoin,
    Settle,
    TouchRange,
    TouchTree,
)
from merganser.model.leadership import Group
from merganser.model.messages import LookAgain, Request
from merganser.service.acceptor import Acceptor
from merganser.service.catalog import Catalog
from merganser.service.hash_trees import HashTrees
from merganser.service.horizons import Horizons
from merganser.service.purger import Purger
from merganser.service.restoring import Rejoining
from merganser.service.timestamps import Timestamps
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.engine import Batch, Engine
from merganser.storage.values import seal

LOOK_EVERY_S = 0.25  # how long rows are still taken, or refused, after the disk has changed
RETRY_S = 1.0
STEP_TIMEOUT_S = 5.0
PLACE_TIMEOUT_S = 120.0
AT_ONCE = 4  # partitions; each waits for the network and for fsyncs most of the time

_FORGETFUL_KEY = keys.metadata_key("forgetful")
"""There while this node has yet to rejoin the register after a loss that was accepted."""

NOBODY_ELSE = (
    "no other node has a copy of some partitions, so nobody can bring back what was lost: bring the data directory "
    "back from a copy, or start the node once with --accept-loss to go on with what is left"
)
NO_OTHER_VOTER = (
    "this node alone votes on the cluster map, so nobody can tell it what it has forgotten: start it once with "
    "--accept-loss to go on with the map it has"
)


class Progress(msgspec.Struct, frozen=True):
    """How far the way back is, for operators."""

    lost: str | None
    shortage: str | None
    failure: str | None
    has_rejoined: bool
    partitions_done: int
    partitions_left: int
    """Of leaderless tables."""
    groups_left: int
    """Partitions of leader-based tables."""
    in_the_way: list[str]


class Wholeness:
    """What this node's disk allows; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        engine: Engine,
        *,
        timestamps: Timestamps,
        catalog: Catalog,
        acceptor: Acceptor,
        horizons: Horizons,
        purger: Purger,
        trees: HashTrees,
        wall_us: Callable[[], int],
        admit: Callable[[], Awaitable[None]],
    ) -> None:
        """Look after ``engine``, as those above it need it."""
        self._topology = topology
        self._engine = engine
        self._timestamps = timestamps
        self._catalog = catalog
        self._acceptor = acceptor
        self._horizons = horizons
        self._purger = purger
        self._trees = trees
        self._wall_us = wall_us
        self._admit = admit
        self._loop = asyncio.get_running_loop()
        self._recovery = Recovery()
        self._problem: str | None = None
        self._group_problems: list[str] = []
        self._is_accepted = False
        topology.when_split(self._split)
        self.rejoining: Rejoining | None = None
        """Of leader-based tables, if this node knows how."""
        catalog.is_forgetful = engine.lost is not None or engine.get(_FORGETFUL_KEY) is not None
        self._look()

    def check(self, request: Request) -> None:
        """Return if the disk is well enough for ``request``.

        Raises:
            RefusedError: it is not; nothing was written.
        """
        self._look()
        refusal = self.condition.objection(request, self._is_group_whole)
        if refusal is not None:
            code, words = refusal
            raise RefusedError(code, f"node {self._topology.node}: {words}", map_epoch=self._topology.map.epoch)

    async def background(self) -> None:
        """Return when background work that writes rows may go on: there is room, and clients need the node less."""
        while self._engine.shortage is not None:  # noqa: ASYNC110  # nobody tells when there is room
            await asyncio.sleep(LOOK_EVERY_S)
        await self._admit()

    def progress(self) -> Progress:
        """Return how the disk is and how far the way back."""
        return Progress(
            lost=self._engine.lost,
            shortage=self._engine.shortage,
            failure=self._engine.failure,
            has_rejoined=not self._catalog.is_forgetful,
            partitions_done=self._recovery.done,
            partitions_left=len(self._recovery.left),
            groups_left=0 if self.rejoining is None else len(self.rejoining.left()),
            in_the_way=[
                *([self._problem] if self._problem else []),
                *self._recovery.problems,
                *self._group_problems,
            ],
        )

    async def accept(self) -> str | None:
        """Go on with what is left, before anything is served; returns what was lost, None if nothing was.

        The rows, that is. Accepted a second time, while too few other voters can be heard, this node votes from what
        it remembers.

        Raises:
            StorageFailedError: it is unknown whether that will be remembered.
        """
        lost = self._engine.lost
        if lost is None:
            was_forgetful, self._catalog.is_forgetful = self._catalog.is_forgetful, False
            await self._remember()
            return "what this node voted for" if was_forgetful else None
        self._is_accepted = True
        self._forget_trees()
        if self.rejoining is not None:
            await self.rejoining.accept_loss()
        await self._horizons.accept_loss(self._places(self._topology.map)[0])
        if self._other_voters():
            self._engine.commit(Batch().put(_FORGETFUL_KEY, seal(_FORGETFUL_KEY, b"")))
            await self._engine.durable()
        else:
            self._catalog.is_forgetful = False
        return lost

    @property
    def has_lost(self) -> bool:
        """Tell whether something is lost that has not come back, and whose loss nobody has accepted."""
        return self._engine.lost is not None and not self._is_accepted

    def _is_group_whole(self, request: OfGroup) -> bool:
        if isinstance(request, LookAgain):
            table = self._topology.table(request.table)
            if table is not None and not table.has_leaders:
                return True
        return self.rejoining is not None and self.rejoining.is_whole(_group_of(request, self._topology))

    async def watch(self) -> None:
        """Look at the disk for as long as the node lives."""
        while True:
            self._look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def recover(self) -> None:
        """Go all the way back, however long it takes; returns at once if nothing is lost."""
        if self._is_accepted:  # the clock first: the flag that it was lost goes with the loss
            steps = [self._recover_clock, self._finish, self._rejoin]
        elif self._engine.lost is None:
            steps = [self._rejoin]
        elif self._other_voters():  # then the newest map is known, and which seals may have been lost
            steps = [self._rejoin, self._doubt, self._recover_all, self._finish]
        else:
            steps = [self._doubt, self._recover_all, self._rejoin, self._finish]
        for step in steps:
            while (problem := await self._problem_of(step)) is not None:
                self._problem = problem
                await asyncio.sleep(RETRY_S)
            self._problem = None

    async def _problem_of(self, step: Callable[[], Awaitable[str | None]]) -> str | None:
        try:
            return await step()
        except InvariantError:
            raise
        except TimeoutError:
            return "a step took too long, it is tried again"
        except MerganserError as error:
            return str(error)

    async def _doubt(self) -> None:
        """Vouch for nothing, and take no client write of the past: seals may be among what was lost.

        Only with a clock that is not known to be wrong: it is what tells how new a seal can have been.
        """
        await self._recover_clock()
        self._forget_trees()
        held, others = self._places(self._topology.map)
        await self._horizons.lose_everything(held, others, sealed_us=self._wall_us())

    async def _recover_clock(self) -> None:
        """Mint once, which makes a ceiling durable that lies above all that was minted."""
        await self._timestamps.recover(self._loop.time() + STEP_TIMEOUT_S)

    async def _rejoin(self) -> str | None:
        if not self._catalog.is_forgetful:
            return None
        if not self._other_voters():
            return NO_OTHER_VOTER
        for node in self._topology.map.nodes:
            if node.id != self._topology.node:
                await self._catalog.news.catch_up(node.id)
        await self._catalog.rejoin(self._acceptor, deadline=self._loop.time() + STEP_TIMEOUT_S)
        await self._remember()
        return None

    async def _remember(self) -> None:
        """Forget that this node was forgetful."""
        self._engine.commit(Batch().delete(_FORGETFUL_KEY))
        await self._engine.durable()
        self._look()

    async def _recover_all(self) -> str | None:
        """Become whole in all partitions, of leaderless and of leader-based tables, as neither waits for the other."""
        problems = await asyncio.gather(self._recover_rows(), self._recover_groups())
        return "; ".join(problem for problem in problems if problem is not None) or None

    async def _recover_groups(self) -> str | None:
        """Be made whole by the leader of each group that this node is in by its newest map."""
        if self.rejoining is None:
            return None
        left = self.rejoining.left()
        problems = await asyncio.gather(*(self._recover_some_groups(left[i::AT_ONCE]) for i in range(AT_ONCE)))
        self._group_problems = list(dict.fromkeys(problem for some in problems for problem in some))
        left = self.rejoining.left()
        return f"{len(left)} groups are left" if left else None

    async def _recover_some_groups(self, groups: list[Group]) -> list[str]:
        problems: list[str] = []
        for group in groups:
            await self.background()
            problem = await self._problem_of(partial(self._recover_group, group))
            if problem is not None:
                problems.append(problem)
        return problems

    async def _recover_group(self, group: Group) -> str | None:
        if len(self._topology.ring.holders(group.partition, group.rule).serving) < 2:
            return NOBODY_ELSE
        assert self.rejoining is not None
        await self.rejoining.rejoin(group, deadline=self._loop.time() + PLACE_TIMEOUT_S)
        return None

    async def _recover_rows(self) -> str | None:
        """Become equal to all other replicas of all that this node holds by its newest map."""
        self._recovery.hold(self._places(self._topology.map)[0])
        left = self._recovery.left
        await asyncio.gather(*(self._recover_some(left[i::AT_ONCE]) for i in range(AT_ONCE)))
        self._recovery.hold(self._places(self._topology.map)[0])
        return f"{len(self._recovery.left)} partitions are left" if self._recovery.left else None

    async def _recover_some(self, places: list[Place]) -> None:
        for table_id, partition in places:
            table = self._topology.table(table_id)
            if table is None:
                continue
            await self.background()
            partitions = self._topology.ring.partitions
            problem = await self._problem_of(partial(self._recover_place, table, partition))
            if self._topology.ring.partitions != partitions:  # it is another place by now
                return
            self._recovery.tried((table_id, partition), problem)

    async def _recover_place(self, table: Table, partition: PartitionId) -> str | None:
        replicas = self._topology.ring.preference_list(partition, table.rule)
        if len(replicas) < 2:
            return NOBODY_ELSE
        if self._horizons.of(table.id, partition).is_whole:
            await self._horizons.lose_everything([(table.id, partition)], [], sealed_us=0)
        return await self._purger.recover(table, partition, deadline=self._loop.time() + PLACE_TIMEOUT_S)

    async def _finish(self) -> None:
        await self._engine.made_whole()
        self._look()

    def _split(self, _batch: Batch, factor: int) -> Callable[[], None]:
        return lambda: self._recovery.split(factor)

    def _places(self, current: ClusterMap) -> tuple[list[Place], list[Place]]:
        """Return what this node holds a replica of, and the rest: of leaderless tables, as no others have horizons."""
        held = [(table.id, partition) for table, partition in self._topology.held() if not table.has_leaders]
        own = frozenset(held)
        leaderless = [table.id for table in current.tables if not table.has_leaders]
        everywhere = [(table, PartitionId(p)) for table in leaderless for p in range(current.partitions)]
        return held, [place for place in everywhere if place not in own]

    def _forget_trees(self) -> None:
        """Have the trees of leader-based tables counted anew: images may tell of rows that are gone."""
        for table, partition in self._topology.held():
            if table.has_leaders:
                self._trees.forget(table.id, partition)

    def _other_voters(self) -> list[int]:
        current = self._topology.map
        return [number for number in current.voters if number != self._topology.me.number]

    def _look(self) -> None:
        engine = self._engine
        lost = None if self._is_accepted else engine.lost
        self.condition = Condition(engine.failure, engine.shortage, lost, self._catalog.is_forgetful)
        self.is_refusing = not self.condition.is_well


def _group_of(request: OfGroup, topology: Topology) -> Group:
    """Return the group that a request is of, as far as this node knows; one without members if it does not."""
    if isinstance(request, Rejoin):
        return Group(request.n, request.partition)
    table = topology.table(request.table)
    n = 0 if table is None else table.rule
    if isinstance(request, Settle | CompareLed | Drop | TouchTree | LookAgain | Backfill):
        return Group(n, request.partition)
    key = request.start if isinstance(request, TouchRange | ReadRangeLed) else request.key
    return Group(n, topology.ring.partition_of(keys.token_in(key)) if len(key) >= keys.TOKEN_END else PartitionId(0))
