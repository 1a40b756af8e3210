"""What a client knows of the cluster, and whom it would ask for a key: pure.

The map is the part that `FetchRing` brings (`service.client_requests.for_clients`). Whoever knows none, or an old one,
is served as well: any node coordinates any key, and tells the epoch that it knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from merganser.core import cluster_map
from merganser.core.nearness import Nearness
from merganser.core.ring import Ring
from merganser.core.token import token_of
from merganser.model.cluster import KEY_VALUE_WIRE, ClusterMap
from merganser.model.errors import CorruptionError
from merganser.model.ids import NodeId

REPLICAS_GUESSED = 3
"""Of a table that the client's map does not name: it was made since."""
OTHERS_MAX = 2
"""Nodes that are no replica of the key and are asked when no replica can be: they may see what the client does not."""


class Routes:
    """The newest map that a client knows; see the module's docstring."""

    def __init__(self) -> None:
        """Know nothing."""
        self.map: ClusterMap | None = None
        self._ring: Ring | None = None
        self._rules: dict[str, int] = {}

    @property
    def epoch(self) -> int:
        """Of the map, 0 without one."""
        return 0 if self.map is None else self.map.epoch

    @property
    def addresses(self) -> Mapping[NodeId, str]:
        """Where each node is asked, host:port."""
        return {} if self.map is None else {node.id: node.peer_address for node in self.map.nodes}

    def learn(self, newer: ClusterMap) -> bool:
        """Take ``newer`` if it is; tells whether it was.

        Raises:
            CorruptionError: it is no map, or that of another cluster.
        """
        cluster_map.check(newer, newest=newer.version)  # what is new in later versions is none of a client's business
        if self.map is not None and newer.cluster_id != self.map.cluster_id:
            raise CorruptionError(f"a map of cluster {newer.cluster_id} reached a client of {self.map.cluster_id}")
        if newer.epoch <= self.epoch:
            return False
        self.map = newer
        self._ring = Ring(newer)
        self._rules = {table.name: table.rule for table in newer.tables if table.wire == KEY_VALUE_WIRE}
        return True

    def candidates(self, table: str, key: bytes | None, nearness: Nearness, now_s: float) -> list[NodeId]:
        """Return whom to ask in turn: the replicas of ``key``, nearest first, then some that are none.

        ``key`` None: what any node does as well.
        """
        if self.map is None or self._ring is None:
            return []
        replicas = self.replicas(table, key)
        first = nearness.order(replicas, now_s)
        others = [node.id for node in self.map.nodes if node.id not in replicas]
        return [*first, *(nearness.order(others, now_s)[: OTHERS_MAX if replicas else None])]

    def replicas(self, table: str, key: bytes | None) -> Sequence[NodeId]:
        """Return who serves ``key``; nobody in particular if it is None."""
        if self._ring is None or key is None:
            return ()
        rule = self._rules.get(table, REPLICAS_GUESSED)
        return self._ring.holders(self._ring.partition_of(token_of(key)), rule).serving
