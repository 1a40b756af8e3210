"""Who may talk to whom: what each side of a peer connection says first, and when the other objects.

Two nodes talk when there is a version that both speak (`model.versions`) and neither belongs to another cluster than
the other; a node that belongs to none yet ("") talks to all, that is how clusters are founded.
"""

from __future__ import annotations

from merganser.model.ids import NodeId
from merganser.model.versions import SPOKEN, Versions
from merganser.net.frames import Hello


class Identity:
    """This node, as it presents itself on every connection opened from now on."""

    __slots__ = ("cluster_id", "node_id", "versions")

    def __init__(self, node_id: NodeId, cluster_id: str, versions: Versions = SPOKEN) -> None:
        """Present ``node_id`` of ``cluster_id`` ("" while it belongs to none), which speaks ``versions``."""
        self.node_id = node_id
        self.cluster_id = cluster_id
        self.versions = versions

    def require(self, version: int) -> None:
        """Speak nothing older than ``version`` on connections opened from now on: the cluster uses that one."""
        self.versions = Versions(max(self.versions.oldest, version), self.versions.newest)

    def hello(self) -> Hello:
        """What to say first."""
        return Hello(self.versions.oldest, self.cluster_id, self.node_id, self.versions.newest)

    def version_with(self, hello: Hello) -> int | None:
        """Return the version to use with whoever said ``hello``, None if there is none."""
        return self.versions.common(hello.versions)

    def objection(self, hello: Hello) -> str | None:
        """Why not to talk to whoever said ``hello``; None when there is no reason."""
        if self.version_with(hello) is None:
            return (
                f"node {hello.node_id} speaks peer protocol {hello.versions} and node {self.node_id} speaks "
                f"{self.versions}: run a newer release on the one that speaks the older protocol"
            )
        if hello.cluster_id and self.cluster_id and hello.cluster_id != self.cluster_id:
            return (
                f"node {hello.node_id} belongs to cluster {hello.cluster_id} and node {self.node_id} to "
                f"{self.cluster_id}: check the peer addresses, or start the newcomer with an empty data directory"
            )
        return None
