"""Whom to ask next, while the leader of a group is looked for on behalf of one request, and what follows from failures.

Every answer of "not leading" names the latest epoch that whoever answers knows of. Where that is news, its leader is
asked at once. If not, the other replicas are asked, each once: one of them may know more. When all have been asked
the round is over, and the next begins after a pause, because somebody has to be elected first::

    asking --news--> asking the leader of that epoch --no news--> asking the others --all asked--> pausing
       ^                                                                                             |
       +----------------------------------------- after the pause -----------------------------------+

Who leads nothing in that epoch does nothing but answer, so asking too many harms nobody.

What follows from a failure (`course`) depends on whether something may be done::

    failure        of who does not lead    of the leader: read     change    change that may be done already
    NOT_LEADING    search                  search                  search    give up
    OF_REQUEST     tell                    tell                    tell      give up
    BUSY           search                  tell                    tell      insist
    NOT_SENT       search                  search                  search    insist
    UNDONE         search                  search                  search    give up
    LOST           search                  search                  insist    insist
    UNKNOWN        search                  search                  give up   give up

To search again is to draw a new id; to insist, to send the same request to the same leader in the same epoch. What is
said about a later copy says nothing of the first, so of a change that may be done nothing but an answer is believed.

Source: docs/internals/leader.md.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import Final

from merganser.model.ids import NodeId
from merganser.model.leadership import NO_EPOCH, Epoch

PAUSE_S_MIN: Final = 0.02  # a leader that was elected a moment ago is found within a few round trips
PAUSE_S_MAX: Final = 0.2  # an election takes about a second: five to eight rounds for each request that waits for it


class Failure(enum.Enum):
    """How a question failed; nothing is done unless that is said."""

    NOT_LEADING = "refused by one who does not lead in that epoch"
    OF_REQUEST = "what it asks for makes no sense, or a transaction holds the item"
    BUSY = "whoever was asked has too much to do"
    NOT_SENT = "it has not left this node"
    UNDONE = "failed otherwise"
    LOST = "sent, and not answered: it may be done"
    UNKNOWN = "whoever was asked does not know, or what it says is not understood: it may be done"


class Course(enum.Enum):
    """What to do about it."""

    SEARCH = "try again, with whoever leads"
    TELL = "tell the client, for whom nothing is done"
    INSIST = "ask the same of the same"
    GIVE_UP = "tell the client that the outcome is unknown"


_MENDED = frozenset((Failure.BUSY, Failure.NOT_SENT, Failure.LOST))
"""Those after which the same node may yet answer."""


def course(failure: Failure, *, is_read: bool, is_leader: bool, is_insisting: bool = False) -> Course:
    """Return what follows from the failure of a question.

    Args:
        failure: how it failed.
        is_read: it does no harm when it is repeated.
        is_leader: the node that was asked is the leader of the epoch that the question names.
        is_insisting: it was the copy of a change that may be done.
    """
    is_done_perhaps = is_leader and not is_read and failure in (Failure.LOST, Failure.UNKNOWN)
    if is_insisting or is_done_perhaps:
        return Course.INSIST if failure in _MENDED else Course.GIVE_UP
    if failure is Failure.OF_REQUEST or (failure is Failure.BUSY and is_leader):
        return Course.TELL
    return Course.SEARCH


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
