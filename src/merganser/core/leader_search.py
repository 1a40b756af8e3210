"""Whom to ask next, while the leader of a group is looked for on behalf of one request.

Every answer of "not leading" names the latest epoch that whoever answers knows of. Where that is news, its leader is
asked at once. If not, the other replicas are asked, each once: one of them may know more. When all have been asked
the round is over, and the next begins after a pause, because somebody has to be elected first::

    asking --news--> asking the leader of that epoch --no news--> asking the others --all asked--> pausing
       ^                                                                                             |
       +----------------------------------------- after the pause -----------------------------------+

Who leads nothing in that epoch does nothing but answer, so asking too many harms nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from merganser.model.ids import NodeId
from merganser.model.leadership import NO_EPOCH, Epoch

PAUSE_S_MIN: Final = 0.02  # a leader that was elected a moment ago is found within a few round trips
PAUSE_S_MAX: Final = 0.2  # an election takes about a second: five to eight rounds for each request that waits for it


class LeaderSearch:
    """One search; see the module's docstring."""

    __slots__ = ("_asked", "_epoch", "_pause_s")

    def __init__(self) -> None:
        """Begin: nobody has been asked."""
        self._epoch = NO_EPOCH
        self._asked: list[NodeId] = []
        self._pause_s = PAUSE_S_MIN

    def next(self, epoch: Epoch, leader: NodeId | None, others: Callable[[], Iterable[NodeId]]) -> NodeId | None:
        """Return whom to ask; None when all have been asked, and a pause is due.

        Args:
            epoch: the latest that is known here.
            leader: who leads in it, None if nobody does or it is not known who.
            others: returns the replicas of the group, in the order in which they should be asked.
        """
        if epoch != self._epoch:
            self._epoch = epoch
            self._asked = []
        if leader is not None and leader not in self._asked:
            self._asked.append(leader)
            return leader
        for node in others():
            if node not in self._asked:
                self._asked.append(node)
                return node
        return None

    def pause_s(self) -> float:
        """End a round; returns how long to wait at most before the next."""
        self._asked = []
        pause_s = self._pause_s
        self._pause_s = min(2 * pause_s, PAUSE_S_MAX)
        return pause_s
