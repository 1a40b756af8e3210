"""What travels between peers, one to a frame (`net.frames`); apart, as mypyc takes no such classes (docs/adr/0014)."""

from __future__ import annotations

import msgspec

from merganser.model.messages import Reply, Request
from merganser.model.versions import Versions


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The first frame of either side; its first three fields are as in every version there was."""

    oldest_version: int
    cluster_id: str
    """"" while the node belongs to no cluster."""
    node_id: str
    newest_version: int = 0
    """0: the oldest is the only one, as it was in version 2."""
    is_client: bool = False
    """Whoever says it is no node: it is answered, but asks only what is for clients (`model.client_messages`)."""

    @property
    def versions(self) -> Versions:
        """What the peer speaks."""
        return Versions(self.oldest_version, max(self.oldest_version, self.newest_version))


class Rejected(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Said instead of a `Hello` to a caller that will not be served; the connection closes."""

    message: str


class Call(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """A request."""

    id: int
    """Never used twice on a connection."""
    timeout_ms: int
    """Time that remained when the frame was made."""
    body: Request


class Answer(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """The reply to the call of the same id."""

    id: int
    body: Reply


class Unreadable(msgspec.Struct, frozen=True):
    """Never sent: what a node takes a call for whose request it cannot decode (`net.unreadable`)."""

    id: int
    why: str


Sent = Hello | Rejected | Call | Answer
Frame = Sent | Unreadable
