"""Who may talk to whom: what each side of a peer connection says first, and when the other objects.

Two nodes talk when they speak the same protocol version and neither belongs to another cluster than
the other; a node that belongs to none yet ("") talks to all, that is how clusters are founded.
"""

from __future__ import annotations

from merganser.model.ids import NodeId
from merganser.net.frames import PROTOCOL_VERSION, Hello


class Identity:
    """This node, as it presents itself on every connection opened from now on."""

    __slots__ = ("cluster_id", "node_id")

    def __init__(self, node_id: NodeId, cluster_id: str) -> None:
        """Present ``node_id`` of ``cluster_id`` ("" while it belongs to none)."""
        self.node_id = node_id
        self.cluster_id = cluster_id

    def hello(self) -> Hello:
        """What to say first."""
        return Hello(PROTOCOL_VERSION, self.cluster_id, self.node_id)

    def objection(self, hello: Hello) -> str | None:
        """Why not to talk to whoever said ``hello``; None when there is no reason."""
        if hello.protocol_version != PROTOCOL_VERSION:
            return (
                f"node {hello.node_id} speaks peer protocol {hello.protocol_version} and node {self.node_id} speaks "
                f"{PROTOCOL_VERSION}: run the same release on both"
            )
        if hello.cluster_id and self.cluster_id and hello.cluster_id != self.cluster_id:
            return (
                f"node {hello.node_id} belongs to cluster {hello.cluster_id} and node {self.node_id} to "
                f"{self.cluster_id}: check the peer addresses, or start the newcomer with an empty data directory"
            )
        return None
