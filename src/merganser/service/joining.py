"""Join a cluster that exists: a fresh node asks any member to have the map name it.

The member changes the cluster map (`core.reshaping.with_member`) and answers with the result, which a majority of the
voters knows by then. The newcomer keeps that map and goes on as a member that owns nothing; an operator gives it a
share of the ring later (`core.reshaping.planned`). Asking again changes nothing, as the map knows a node by its id,
which its data directory keeps: a crash of either at any point is made good by asking again.

A node that was a member and has lost its map (``member_of``) takes the one of its cluster, and is added to none.

    fresh --a member has the map name me, and answers--> member
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from merganser.core import cluster_map, reshaping
from merganser.model.cluster import ClusterMap, NodeRecord
from merganser.model.errors import ConfigurationError, MerganserError, RefusedError, RequestError
from merganser.model.ids import NodeId
from merganser.model.messages import Introduce, Introduced, Join, Reply, Request
from merganser.net.transport import Transport, refusal_code
from merganser.service.catalog import CHANGE_TIMEOUT_S, Catalog
from merganser.service.founding import FRESH, first_map
from merganser.service.topology import Topology, load_map
from merganser.storage.engine import Engine

ASK_TIMEOUT_S = CHANGE_TIMEOUT_S + 1.0
ASK_AGAIN_S = 0.2
_FOR_GOOD = refusal_code(RequestError(""))


class Joining:
    """This fresh node on its way into a cluster; see the module's docstring."""

    def __init__(
        self,
        me: NodeRecord,
        door: str,
        engine: Engine,
        transport: Transport,
        *,
        rng: random.Random,
        progress: Callable[[str, str], None],
        member_of: str = "",
    ) -> None:
        """Join the cluster of the member whose peer port is ``door`` (host:port).

        ``progress`` is told why it takes longer; ``member_of`` is the cluster that this node belongs to already, "" if
        none.

        Raises:
            ConfigurationError: ``door`` is this node's own.
        """
        if door == me.peer_address:
            raise ConfigurationError(
                f"--join {door} is the peer address of this node: name that of a member of the cluster"
            )
        self._me = me
        self._door = door
        self._member_of = member_of
        self._engine = engine
        self._transport = transport
        self._rng = rng
        self._progress = progress
        self._map = load_map(engine, newest=transport.versions.newest)

    async def serve(self, _sender: NodeId, request: Request) -> Reply:
        """Answer other nodes as long as this one is not a member.

        Raises:
            RefusedError: anything but an introduction.
        """
        if isinstance(request, Introduce):
            return Introduced(self._me, self._map)
        raise RefusedError(FRESH, f"node {self._me.id} at {self._me.peer_address} is joining a cluster")

    async def membership(self) -> ClusterMap:
        """Return the map of the cluster this node belongs to, once it is durable here.

        Waits as long as it takes for the member to answer, and for most voters of its cluster.

        Raises:
            ConfigurationError: the cluster does not take this node, and says why.
        """
        if self._map is None:
            self._map = await first_map(self._engine, self._ask, ask_again_s=ASK_AGAIN_S, rng=self._rng)
        return self._map

    async def _ask(self) -> ClusterMap | None:
        """Ask the member once; returns a map that names this node, None if it has none to give yet."""
        request = Introduce(self._me, ()) if self._member_of else Join(self._me)
        try:
            reply = await self._transport.introduce(self._door, request, timeout_s=ASK_TIMEOUT_S)
        except MerganserError as error:
            if isinstance(error, RefusedError) and error.code == _FOR_GOOD:
                raise ConfigurationError(f"the cluster of {self._door} does not take this node: {error}") from None
            self._progress(self._door, str(error))
            return None
        found = reply.map if isinstance(reply, Introduced) else None
        if found is None:
            self._progress(self._door, "it is not a member of a cluster yet")
            return None
        cluster_map.check(found, newest=self._transport.versions.newest)
        self._check_own(found)
        return found

    def _check_own(self, found: ClusterMap) -> None:
        if self._member_of and found.cluster_id != self._member_of:
            raise ConfigurationError(
                f"{self._door} belongs to cluster {found.cluster_id}, and this node to {self._member_of}: join a "
                "member of its own cluster, or start with an empty data directory"
            )
        if cluster_map.node_by_id(found, self._me.id) is None:
            raise ConfigurationError(
                f"cluster {found.cluster_id} does not know this node ({self._me.id}) any more: start it with an empty "
                "data directory to have it join as a new one"
            )


async def admitted(topology: Topology, catalog: Catalog, request: Join) -> Introduced:
    """Have the map name the node that asks; returns what it needs to go on as a member.

    Raises:
        RequestError: it cannot be a member, and why.
        UnavailableError: no majority of the voters; nothing was changed.
        UnknownOutcomeError: it may still become one; it asks again.
    """
    deadline = asyncio.get_running_loop().time() + CHANGE_TIMEOUT_S
    joined = await catalog.change(lambda newest: reshaping.with_member(newest, request.node), deadline=deadline)
    return Introduced(topology.me, joined)
