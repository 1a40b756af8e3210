"""Found a cluster from the addresses its nodes were given.

Every node of a new cluster starts with the same list of seeds, its own peer address among them. The
node at the smallest address is the founder: once it has heard from every seed that it is fresh, it
draws up the first cluster map, keeps it, and the others take it over. A restart at any point goes on
where it was; a node that has a map never takes another, and a founder that finds a map among the
seeds founds nothing. A node that was a member and has lost its map (`member_of`) waits for one of that cluster, and
founds none. How a node joins a cluster that exists: `service.joining`.

    fresh --all seeds fresh, and I am the founder--> member
    fresh --the founder has a map that names me----> member
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from merganser.core import cluster_map
from merganser.model.cluster import ClusterMap, NodeRecord
from merganser.model.errors import ConfigurationError, MerganserError, RefusedError
from merganser.model.ids import ClusterId, NodeId
from merganser.model.messages import Introduce, Introduced, Reply, Request
from merganser.net.transport import Transport
from merganser.service.topology import keep_first_map, load_map
from merganser.storage.engine import Engine

ASK_TIMEOUT_S = 1.0
ASK_AGAIN_S = 0.02

FRESH = "fresh_node"
OTHER_SEEDS = "other_seeds"
SAME_SEEDS = "give every node of the new cluster the same seeds, its own address among them"


class Founding:
    """This fresh node on its way to membership; see the module's docstring."""

    def __init__(
        self,
        me: NodeRecord,
        seeds: tuple[str, ...],
        engine: Engine,
        transport: Transport,
        *,
        partitions: int,
        rng: random.Random,
        progress: Callable[[str, str], None],
        member_of: str = "",
    ) -> None:
        """Found or await the cluster of ``seeds`` (host:port, this node's own address among them).

        ``progress`` is told of each seed that does not answer, and why; ``member_of`` is the cluster that this node
        belongs to already, "" if none.

        Raises:
            ConfigurationError: this node's address is not among the seeds, or no other could have the map.
        """
        self._seeds = tuple(sorted(set(seeds) or {me.peer_address}))
        if me.peer_address not in self._seeds:
            raise ConfigurationError(
                f"--seed lists {', '.join(self._seeds)}, but the peer address of this node is {me.peer_address}: "
                f"{SAME_SEEDS}"
            )
        self._me = me
        self._member_of = member_of
        self._engine = engine
        self._transport = transport
        self._partitions = partitions
        self._rng = rng
        self._progress = progress
        self._map = load_map(engine, newest=transport.versions.newest)
        if member_of and self._map is None and len(self._seeds) < 2:
            raise ConfigurationError(
                f"this node is a member of cluster {member_of} and has lost its database, and --seed names no other "
                "node that could have the data: name one, or bring the database back from a copy"
            )

    async def serve(self, _sender: NodeId, request: Request) -> Reply:
        """Answer other nodes as long as this one is not a member.

        Raises:
            RefusedError: anything but an introduction, or one of a node that was given other seeds.
        """
        if isinstance(request, Introduce):
            if self._map is None and request.seeds != self._seeds:
                raise RefusedError(OTHER_SEEDS, f"it was given the seeds {', '.join(self._seeds)}, {SAME_SEEDS}")
            return Introduced(self._me, self._map)
        raise RefusedError(FRESH, f"node {self._me.id} at {self._me.peer_address} is not a member of a cluster yet")

    async def membership(self) -> ClusterMap:
        """Return the map of the cluster this node belongs to, once it is durable here.

        Waits as long as it takes for the seeds to start.

        Raises:
            ConfigurationError: the seeds belong to a cluster that does not know this node, or were given other seeds.
        """
        if self._map is None:
            self._map = await first_map(self._engine, self._ask, ask_again_s=ASK_AGAIN_S, rng=self._rng)
        return self._map

    async def _ask(self) -> ClusterMap | None:
        met = await self._meet()
        return self._adopted(met) or (self._founded(met) if self._is_founder else None)

    @property
    def _is_founder(self) -> bool:
        return self._me.peer_address == self._seeds[0] and not self._member_of

    async def _meet(self) -> dict[str, Introduced]:
        """Ask the seeds this node depends on: all of them for the founder, the founder for the others."""
        others = [seed for seed in self._seeds if seed != self._me.peer_address]
        met: dict[str, Introduced] = {}
        introduce = Introduce(self._me, self._seeds)
        asked = {seed: self._transport.introduce(seed, introduce, timeout_s=ASK_TIMEOUT_S) for seed in others}
        for seed, future in asked.items():
            try:
                reply = await future
            except MerganserError as error:
                if isinstance(error, RefusedError) and error.code == OTHER_SEEDS:
                    raise ConfigurationError(f"{seed} refuses this node: {error}") from None
                self._progress(seed, str(error))
                continue
            if isinstance(reply, Introduced):
                met[seed] = reply
        return met

    def _adopted(self, met: dict[str, Introduced]) -> ClusterMap | None:
        for seed, introduced in met.items():
            existing = introduced.map
            if existing is None:
                continue
            cluster_map.check(existing, newest=self._transport.versions.newest)
            if self._member_of and existing.cluster_id != self._member_of:
                raise ConfigurationError(
                    f"{seed} belongs to cluster {existing.cluster_id}, and this node to {self._member_of}: name seeds "
                    "of its own cluster"
                )
            if cluster_map.node_by_id(existing, self._me.id) is None:
                raise ConfigurationError(
                    f"{seed} belongs to cluster {existing.cluster_id}, which does not know this node ({self._me.id}): "
                    "start the node with the data directory it had, or found a new cluster with other seeds"
                )
            return existing
        return None

    def _founded(self, met: dict[str, Introduced]) -> ClusterMap | None:
        if len(met) < len(self._seeds) - 1:
            return None
        members = [self._me, *(introduced.node for introduced in met.values())]
        return cluster_map.found(ClusterId(f"{self._rng.getrandbits(64):016x}"), members, self._partitions)


async def first_map(
    engine: Engine, ask: Callable[[], Awaitable[ClusterMap | None]], *, ask_again_s: float, rng: random.Random
) -> ClusterMap:
    """Return the first map of a node that has none, once somebody has it to give and it is durable here.

    Nobody may see it before: a crash can take it back.
    """
    while True:
        first = await ask()
        if first is not None:
            await keep_first_map(engine, first)
            return first
        await asyncio.sleep(ask_again_s * rng.uniform(0.5, 1.5))


def check_address(me: NodeRecord, current: ClusterMap) -> None:
    """Check that this node is where its cluster knows it to be.

    Raises:
        ConfigurationError: the data directory belongs to a node with another peer address, or of another data centre.
    """
    known = cluster_map.node_by_id(current, me.id)
    if known is None:
        raise ConfigurationError(f"cluster {current.cluster_id} does not know node {me.id}")
    if known.peer_address != me.peer_address:
        raise ConfigurationError(
            f"this data directory belongs to the node at {known.peer_address}, but the peer address of this node is "
            f"{me.peer_address}: start it with the host and --peer-port it had, or with --peer-advertise "
            f"{known.peer_address} if others still reach it there"
        )
    if me.data_center and known.data_center != me.data_center:
        place = f"in data centre {known.data_center!r}" if known.data_center else "in no data centre"
        raise ConfigurationError(
            f"--data-center is {me.data_center!r}, and this node is {place}, for good: start it without the option, or "
            "have a node with an empty data directory join there, and this one leave"
        )
