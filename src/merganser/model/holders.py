"""Who holds a partition, and who will: what `core.ring` draws from a cluster map."""

from __future__ import annotations

import msgspec

from merganser.model.consistency import Need
from merganser.model.ids import NodeId


class Holders(msgspec.Struct, frozen=True):
    """The replicas of one partition, for one N."""

    members: tuple[NodeId, ...]
    """Those who serve, then the newcomers."""
    serving: tuple[NodeId, ...]
    next: tuple[NodeId, ...]
    """Who will serve; the same as ``serving`` unless a change is pending that concerns them."""
    quorum: int
    """How many members any other such number, and any majority of ``serving`` or ``next``, share one of."""
    meets: int
    """How many members meet every majority of ``serving``, though perhaps not each other."""

    @property
    def extra(self) -> int:
        """How many members more have to answer than if no change were pending, so that as many serving ones, and as
        many of the next ones, are among them."""
        if self.members is self.serving:
            return 0
        return len(self.members) - min(len(self.serving), len(self.next))

    def needed(self, need: Need, later: Need | None = None) -> Need:
        """Return what comes to ``need`` by the serving and to ``later`` by the next nodes, whichever members answer.

        ``later`` is the same level for as many replicas as there will be; None: that is the same.
        """
        if not self.extra:
            return need
        later = need if later is None else later
        besides, besides_next = len(self.members) - len(self.serving), len(self.members) - len(self.next)
        primaries = 0
        if need.primaries:
            primaries = min(max(need.primaries + besides, later.primaries + besides_next), len(self.members))
        nodes = max(need.nodes + besides, later.nodes + besides_next)
        return Need(primaries if need.is_strict else nodes, primaries)

    @property
    def newcomers(self) -> tuple[NodeId, ...]:
        """Who does not serve yet."""
        return self.members[len(self.serving) :]

    @property
    def staying(self) -> tuple[NodeId, ...]:
        """Who serves, and will."""
        return tuple(node for node in self.serving if node in self.next)

    @property
    def leaving(self) -> tuple[NodeId, ...]:
        """Who serves, and will not."""
        return tuple(node for node in self.serving if node not in self.next)
