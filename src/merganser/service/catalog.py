"""Change the cluster map by compare-and-set, and keep up with changes made elsewhere.

The map is a register on the voters (`core.register`). A change reads the newest value with a majority,
computes the next, and has a majority accept it; whoever loses a race starts over from the winner's
map, so changes are applied one after another, each to the result of the last. Before a change is
reported, a majority of the voters has learned it, so asking a majority of them finds it. Everyone else
gets it pushed, and pulls what it missed by gossip.

Source: Rystsov 2018, "CASPaxos: Replicated State Machines without logs".
"""

from __future__ import annotations

import asyncio
import random

import msgspec

from merganser.core import cluster_map, snapshots
from merganser.core.quorum import ReadQuorum, Verdict
from merganser.core.register import (
    NO_BALLOT,
    AcceptRound,
    PrepareRound,
    next_ballot,
    others_needed,
    rejoining_ballot,
)
from merganser.model.cluster import ClusterMap, Table
from merganser.model.errors import (
    RequestError,
    StorageFailedError,
    TableNotFoundError,
    UnavailableError,
    UnknownOutcomeError,
)
from merganser.model.ids import NodeId
from merganser.model.messages import (
    Accept,
    Accepted,
    Ballot,
    FetchMap,
    MapIs,
    Prepare,
    Promise,
    Reply,
    Request,
)
from merganser.service.acceptor import Acceptor
from merganser.service.asking import Asker, Reading
from merganser.service.map_news import GOSSIP_INTERVAL_S, ROUND_TIMEOUT_S, MapNews
from merganser.service.table_changes import REPLICAS_DEFAULT as REPLICAS_DEFAULT
from merganser.service.table_changes import Change as Change
from merganser.service.table_changes import TableChanges
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.engine import Batch, Engine
from merganser.storage.values import seal, unseal

ROUND_HEDGE_S = 0.05
BACKOFF_S_MAX = 0.1
CHANGE_TIMEOUT_S = 5.0

_ROUND_KEY = keys.metadata_key("register_round")


def _too_few(answered: int, needed: int) -> UnavailableError:
    return UnavailableError(f"{answered} of the other voters of the cluster map answered, and {needed} are needed")


def _load_round(engine: Engine) -> int:
    stored = engine.get(_ROUND_KEY)
    return 0 if stored is None else msgspec.msgpack.decode(unseal(_ROUND_KEY, stored), type=int)


def _applied(change: Change, newest: ClusterMap) -> tuple[ClusterMap, RequestError | None]:
    """Return the next map, or ``newest`` and why not.

    A map that a refusal rests on may be one that nobody decided: it has to be decided like any other
    before the refusal is told, or a client could hear of a table that never comes to be.
    """
    try:
        return change(newest), None
    except RequestError as refusal:
        return newest, refusal


class Catalog(TableChanges):
    """This node's hand on the cluster map; see the module's docstring."""

    def __init__(self, topology: Topology, asker: Asker, engine: Engine, *, rng: random.Random) -> None:
        """Propose changes as the node of ``topology``; the rounds it has used are kept in ``engine``."""
        self._topology = topology
        self._asker = asker
        self._engine = engine
        self._rng = rng
        self.news = MapNews(topology, asker, rng=rng)
        self._loop = asyncio.get_running_loop()
        self._highest_seen = NO_BALLOT
        self._highest_used = _load_round(engine)
        self._refreshing: asyncio.Task[None] | None = None
        self.is_forgetful = False
        """This node has lost what it had synced, and proposes nothing until it has rejoined."""

    @property
    def current(self) -> ClusterMap:
        """The newest map known here."""
        return self._topology.map

    def tables(self, wire: str) -> list[Table]:
        """Return the tables of one wire known here, by name; not those that are being restored."""
        there = (t for t in self.current.tables if t.wire == wire and not snapshots.is_hidden(t))
        return sorted(there, key=lambda t: t.name)

    def known(self, wire: str, name: object) -> Table | None:
        """Return a table of that name that this node knows, without asking anybody."""
        return cluster_map.table_named(self.current, wire, name)

    async def table(self, wire: str, name: str, *, deadline: float, is_newest: bool = False) -> Table:
        """Return a table; one that is not known here is looked for at a majority of the voters.

        Args:
            wire: that owns the name.
            name: of the table.
            deadline: loop time.
            is_newest: it is to be as every change made it that was reported before this call, not as it is known here.

        Raises:
            TableNotFoundError: no change that was reported before this call made it.
            UnavailableError: it is not known here, or not well enough, and no majority of the voters answers.
        """
        known = cluster_map.table_named(self.current, wire, name)
        if known is not None and not is_newest:
            return known
        await self._refresh(deadline)
        known = cluster_map.table_named(self.current, wire, name)
        if known is None:
            raise TableNotFoundError(f"table {name} does not exist")
        return known

    async def change(self, change: Change, *, deadline: float) -> ClusterMap:
        """Apply ``change`` to the newest map and return the result, known to a majority of the voters.

        ``change`` may be called several times, each time with a newer map.

        Raises:
            whatever ``change`` raises; nothing was changed.
            UnavailableError: no majority of the voters; nothing was changed.
            UnknownOutcomeError: the change may still come into force.
        """
        is_offered, electing = False, self.current
        while self._loop.time() < deadline and (is_offered or self._is_majority_reachable):
            electing = max(electing, self.current, key=lambda known: known.epoch)
            ballot, voters = await self._ballot_to_use(is_offered=is_offered), _voters_of(electing)
            newest = await self._prepare(ballot, deadline, voters)
            if newest is not None and newest.voters != electing.voters:
                electing = newest  # though it may not be decided: what follows it is for a majority of its voters
                continue
            if newest is not None:
                wanted, refusal = _applied(change, newest)
                is_offered = is_offered or refusal is None
                if await self._accept(ballot, wanted, deadline, voters):
                    await self._spread_at_last(wanted, deadline)
                    if refusal is not None:
                        raise refusal
                    return wanted
            await asyncio.sleep(self._rng.uniform(0, BACKOFF_S_MAX))
        if is_offered:
            raise UnknownOutcomeError("no majority of the voters confirmed the change in time: it may still happen")
        raise UnavailableError("no majority of the voters answered; nothing was changed, try again")

    async def rejoin(self, acceptor: Acceptor, *, deadline: float) -> ClusterMap:
        """Propose and vote again after this node has lost what it had synced; see `core.register`.

        Returns:
            the newest map, which this node knows durably by then.

        Raises:
            UnavailableError: too few of the other voters answered; nothing has changed.
        """
        others = [voter for voter in self._voters() if voter != self._asker.node]
        is_voter = len(others) < len(self._voters())
        needed = others_needed(len(others) + 1) if is_voter else len(others) // 2 + 1
        first = await self._ask_some(others, Prepare(NO_BALLOT), deadline, needed)
        promised = [reply.promised for reply in first.values() if isinstance(reply, Promise)]
        if len(promised) < needed:
            raise _too_few(len(promised), needed)
        ballot = rejoining_ballot(promised, highest_used=self._highest_used, proposer=self._topology.me.number)
        await self._use(ballot)
        newest = await self._prepare(ballot, deadline, others, needed)
        if newest is None or not await self._accept(ballot, newest, deadline, others, needed):
            raise UnavailableError(f"fewer than {needed} of the other voters of the cluster map confirmed it")
        if is_voter:
            await acceptor.rejoin(ballot, newest)
        await self._topology.learn(newest)
        self.is_forgetful = False
        return newest

    async def look_for_news(self) -> None:
        """Ask a majority of the voters for news, as far as one answers; for a node that was away."""
        try:
            await self._refresh(self._loop.time() + ROUND_TIMEOUT_S)
        except UnavailableError:
            return

    async def keep_presence(self, wire_addresses: dict[str, str], *, speaks: int) -> None:
        """Have the map say where clients find this node, and what it speaks; tries until the voters agree."""
        while not self.tells_presence(wire_addresses, speaks=speaks):
            try:
                await self.change(
                    lambda current: cluster_map.with_presence(current, self._asker.node, wire_addresses, speaks=speaks),
                    deadline=self._loop.time() + CHANGE_TIMEOUT_S,
                )
            except (UnavailableError, UnknownOutcomeError):
                await asyncio.sleep(GOSSIP_INTERVAL_S * self._rng.uniform(0.8, 1.2))

    def tells_presence(self, wire_addresses: dict[str, str], *, speaks: int) -> bool:
        """Tell whether the map says that of this node already."""
        current = self.current
        return cluster_map.with_presence(current, self._asker.node, wire_addresses, speaks=speaks) is current

    async def _ballot_to_use(self, *, is_offered: bool) -> Ballot:
        kind = UnknownOutcomeError if is_offered else UnavailableError
        if self.is_forgetful:
            raise kind("this node has lost what its disk had, and has yet to hear from the other voters; ask another")
        ballot = next_ballot(self._highest_seen, highest_used=self._highest_used, proposer=self._topology.me.number)
        try:
            await self._use(ballot)
        except StorageFailedError as error:
            raise kind(f"this node can propose no change, ask another: {error}") from None
        return ballot

    async def _use(self, ballot: Ballot) -> None:
        """Note, durably, that ``ballot`` is used."""
        self._highest_used = ballot.round
        self._engine.commit(Batch().put(_ROUND_KEY, seal(_ROUND_KEY, msgspec.msgpack.encode(ballot.round))))
        await self._engine.durable()

    async def _prepare(
        self, ballot: Ballot, deadline: float, voters: list[NodeId] | None = None, required: int | None = None
    ) -> ClusterMap | None:
        voters = self._voters() if voters is None else voters
        votes = PrepareRound(voters, ballot, required=required)
        for voter, reply in (await self._ask_some(voters, Prepare(ballot), deadline, required)).items():
            if isinstance(reply, Promise):
                votes.promised(voter, reply)
        self._highest_seen = max(self._highest_seen, votes.highest_seen)
        return votes.value if votes.outcome is Verdict.SUCCEEDED else None

    async def _accept(
        self,
        ballot: Ballot,
        value: ClusterMap,
        deadline: float,
        voters: list[NodeId] | None = None,
        required: int | None = None,
    ) -> bool:
        voters = self._voters() if voters is None else voters
        votes = AcceptRound(voters, ballot, required=required)
        for voter, reply in (await self._ask_some(voters, Accept(ballot, value), deadline, required)).items():
            if isinstance(reply, Accepted):
                votes.accepted(voter, reply)
        self._highest_seen = max(self._highest_seen, votes.highest_seen)
        return votes.outcome is Verdict.SUCCEEDED

    async def _spread_at_last(self, newest: ClusterMap, deadline: float) -> None:
        try:
            await self.news.push(newest, deadline)
        except StorageFailedError as error:
            raise UnknownOutcomeError(f"the change was accepted, but this node cannot keep it: {error}") from None

    async def _refresh(self, deadline: float) -> None:
        """Learn what a majority of the voters knows now; callers share a round that began after all of them asked."""
        try:
            async with asyncio.timeout_at(deadline):
                if self._refreshing is not None:  # it may have asked before the news
                    await asyncio.wait({self._refreshing})
                await asyncio.shield(self._begin_refreshing())
        except TimeoutError:
            raise UnavailableError("the newest cluster map could not be read in time, try again") from None

    def _begin_refreshing(self) -> asyncio.Task[None]:
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._fetch_from_majority())
            self._refreshing.add_done_callback(self._refreshed)
        return self._refreshing

    async def _fetch_from_majority(self) -> None:
        deadline = self._loop.time() + ROUND_TIMEOUT_S
        voters: list[NodeId] = []
        while voters != self._voters():  # those who vote now know what was changed since
            voters = self._voters()
            replies = await self._ask_some(voters, FetchMap(self.current.epoch), deadline)
            if len(replies) <= len(voters) // 2:
                raise UnavailableError("no majority of the voters answers: the newest cluster map cannot be read")
            for reply in replies.values():
                if isinstance(reply, MapIs) and reply.map is not None:
                    await self._learn_of(reply.map)

    async def _learn_of(self, newer: ClusterMap) -> None:
        try:
            await self._topology.learn(newer)
        except StorageFailedError as error:
            raise UnavailableError(f"this node cannot keep a newer cluster map, ask another: {error}") from None

    def _refreshed(self, task: asyncio.Task[None]) -> None:
        self._refreshing = None
        if not task.cancelled():
            task.exception()  # every caller that waits gets the error itself

    async def _ask_some(
        self, voters: list[NodeId], request: Request, deadline: float, required: int | None = None
    ) -> dict[NodeId, Reply]:
        """Ask until ``required`` (None: a majority) have answered; returns the answers there are then."""
        timeout_s = min(ROUND_TIMEOUT_S, deadline - self._loop.time())
        asking = Reading(
            ReadQuorum(self._asker.nearest_first(voters), required=required or len(voters) // 2 + 1),
            ask=lambda node: self._asker.ask(node, request, timeout_s=timeout_s),
            hedge_s=ROUND_HEDGE_S,
            note_silence=self._asker.note_silence,
        )
        if asking.quorum.verdict is Verdict.OPEN:
            await asking.settled(self._loop.time() + timeout_s)
        return dict(asking.quorum.replies)  # those that are still to come would change it under the caller

    @property
    def _is_majority_reachable(self) -> bool:
        voters = self._voters()
        return sum(map(self._asker.is_reachable, voters)) > len(voters) // 2

    def _voters(self) -> list[NodeId]:
        return _voters_of(self.current)


def _voters_of(known: ClusterMap) -> list[NodeId]:
    return [node.id for node in known.nodes if node.number in known.voters]
