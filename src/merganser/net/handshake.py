"""Who may talk to whom: what each side of a peer connection says first, and when the other objects.

Two nodes talk when there is a version that both speak (`model.versions`) and neither belongs to another cluster than
the other; a node that belongs to none yet ("") talks to all, that is how clusters are founded.

A client (`merganser.client`) is told by its greeting, and is no node: it may ask what `model.client_messages` lists.
What a cluster has agreed on not to speak among its nodes any more, an older client may still.
"""

from __future__ import annotations

from merganser.model.ids import NodeId
from merganser.model.versions import SPOKEN, Versions
from merganser.net.frame_bodies import Hello


class Identity:
    """This node, or client, as it presents itself on every connection opened from now on."""

    __slots__ = ("_spoken", "cluster_id", "is_client", "node_id", "versions")

    def __init__(
        self, node_id: NodeId, cluster_id: str, versions: Versions = SPOKEN, *, is_client: bool = False
    ) -> None:
        """Present ``node_id`` of ``cluster_id`` ("" while it belongs to none), which speaks ``versions``."""
        self.node_id = node_id
        self.cluster_id = cluster_id
        self.versions = versions
        self.is_client = is_client
        self._spoken = versions

    def require(self, version: int) -> None:
        """Speak nothing older than ``version`` on connections opened from now on: the cluster uses that one."""
        self.versions = Versions(max(self.versions.oldest, version), self.versions.newest)

    def hello(self, *, to_client: bool = False) -> Hello:
        """What to say first."""
        versions = self._spoken if to_client else self.versions
        return Hello(versions.oldest, self.cluster_id, self.node_id, versions.newest, self.is_client)

    def version_with(self, hello: Hello) -> int | None:
        """Return the version to use with whoever said ``hello``, None if there is none."""
        return self._versions_with(hello).common(hello.versions)

    def objection(self, hello: Hello) -> str | None:
        """Why not to talk to whoever said ``hello``; None when there is no reason."""
        if self.version_with(hello) is None:
            return (
                f"{_name(hello.node_id, is_client=hello.is_client)} speaks peer protocol {hello.versions} and "
                f"{_name(self.node_id, is_client=self.is_client)} speaks {self._versions_with(hello)}: run a newer "
                "release on the one that speaks the older protocol"
            )
        if hello.cluster_id and self.cluster_id and hello.cluster_id != self.cluster_id:
            return (
                f"{_name(hello.node_id, is_client=hello.is_client)} belongs to cluster {hello.cluster_id} and "
                f"{_name(self.node_id, is_client=self.is_client)} to {self.cluster_id}: check the peer addresses, or "
                "start the newcomer with an empty data directory"
            )
        return None

    def _versions_with(self, hello: Hello) -> Versions:
        return self._spoken if hello.is_client else self.versions


def _name(node_id: str, *, is_client: bool) -> str:
    return f"client {node_id}" if is_client else f"node {node_id}"
