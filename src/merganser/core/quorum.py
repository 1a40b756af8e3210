"""Count the answers of one request to the replicas of one key, and say when the client may hear.

A replica of a write is in one of three places, one of a read in one of four::

    write:              pending --acked()----> acked
                        pending --failed()---> failed

    read:   unasked --> pending --answered()-> replied
                        pending --failed()---> failed

The verdict is given once, as soon as it is certain: SUCCEEDED when ``required`` replicas have answered,
HOPELESS when too few are left that still could. Answers after that are still recorded: a late
ack saves a hint, a late reply may show a stale replica.

Invariants: each replica is in exactly one place; a verdict other than OPEN never changes; what comes from
a node that is not pending (repeated, forged, after its failure) changes nothing.

Source: DeCandia 2007 §4.5, §4.6. Asking another replica when answers are slow: Dean and Barroso 2013,
"The Tail at Scale", hedged requests.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Generic, TypeVar

from merganser.model.ids import NodeId

R = TypeVar("R")


class Verdict(enum.Enum):
    """What is certain about a request so far."""

    OPEN = "open"
    SUCCEEDED = "succeeded"
    HOPELESS = "hopeless"


class WriteQuorum:
    """The acks of one write."""

    __slots__ = ("_failed", "_pending", "_required", "acks", "verdict")

    def __init__(self, replicas: Sequence[NodeId], *, required: int) -> None:
        """Open the count.

        Args:
            replicas: where the write goes, no duplicates.
            required: acks that make a success, at least 1; more than there are replicas is hopeless.
        """
        self._pending = set(replicas)
        assert required >= 1
        assert len(self._pending) == len(replicas)
        self._failed: set[NodeId] = set()
        self._required = required
        self.acks = 0
        """Replicas that have the write durably."""
        self.verdict = Verdict.OPEN if len(replicas) >= required else Verdict.HOPELESS

    def acked(self, replica: NodeId) -> bool:
        """Record that ``replica`` has the write durably; true if that settled the verdict."""
        if replica not in self._pending:
            return False
        self._pending.remove(replica)
        self.acks += 1
        if self.acks != self._required or self.verdict is not Verdict.OPEN:
            return False
        self.verdict = Verdict.SUCCEEDED
        return True

    def failed(self, replica: NodeId) -> bool:
        """Record that ``replica`` refused or went away; true if that settled the verdict."""
        if replica not in self._pending:
            return False
        self._pending.remove(replica)
        self._failed.add(replica)
        if self.acks + len(self._pending) >= self._required or self.verdict is not Verdict.OPEN:
            return False
        self.verdict = Verdict.HOPELESS
        return True

    def is_pending(self, replica: NodeId) -> bool:
        """Tell whether an answer of ``replica`` would still count."""
        return replica in self._pending

    def silent(self) -> frozenset[NodeId]:
        """Return the replicas that need a hint if nothing more is heard."""
        return frozenset(self._pending | self._failed)


class ReadQuorum(Generic[R]):
    """The replies to one read, of whatever kind, and whom to ask next."""

    __slots__ = ("_asked", "_order", "_pending", "_possible", "_required", "replies", "verdict")

    def __init__(self, replicas: Sequence[NodeId], *, required: int) -> None:
        """Open the count, with the replicas of `first` pending.

        Args:
            replicas: whom to ask, best first, no duplicates.
            required: replies that make a success, at least 1; more than there are replicas is hopeless.
        """
        assert required >= 1
        assert len(set(replicas)) == len(replicas)
        self._order = tuple(replicas)
        self._required = required
        self._asked = min(required, len(replicas))
        self._pending = set(self._order[: self._asked])
        self._possible = len(replicas)
        self.replies: dict[NodeId, R] = {}
        """What each replica replied, in order of arrival."""
        self.verdict = Verdict.OPEN if len(replicas) >= required else Verdict.HOPELESS

    def first(self) -> tuple[NodeId, ...]:
        """Return the replicas to ask at once: the first ``required``."""
        return self._order[: self._required]

    def answered(self, replica: NodeId, reply: R) -> bool:
        """Record what ``replica`` replied; true if that settled the verdict."""
        if replica not in self._pending:
            return False
        self._pending.remove(replica)
        self.replies[replica] = reply
        if len(self.replies) != self._required or self.verdict is not Verdict.OPEN:
            return False
        self.verdict = Verdict.SUCCEEDED
        return True

    def failed(self, replica: NodeId) -> NodeId | None:
        """Record that ``replica`` will not reply; return the one to ask instead, None if there is none."""
        if replica not in self._pending:
            return None
        self._pending.remove(replica)
        self._possible -= 1
        if self._possible < self._required and self.verdict is Verdict.OPEN:
            self.verdict = Verdict.HOPELESS
        return self._ask_next()

    def waiting_for(self) -> tuple[NodeId, ...]:
        """Return the replicas that were asked and have neither replied nor failed."""
        return tuple(replica for replica in self._order if replica in self._pending)

    def hedge(self) -> NodeId | None:
        """Return one more replica to ask because the others are slow, None if there is none or no need."""
        return self._ask_next()

    def _ask_next(self) -> NodeId | None:
        if self.verdict is not Verdict.OPEN or self._asked == len(self._order):
            return None
        replica = self._order[self._asked]
        self._asked += 1
        self._pending.add(replica)
        return replica
