"""Count the answers of one request to the nodes of one key, and say when the client may hear.

A primary of a write is in one of three places, a node of a read in one of four. A fallback of a write is
enlisted when it is sent the hint for a primary that is away, and so is the coordinator when it keeps
hints itself::

    write:   pending --acked()----> acked            enlisted --hinted()------> holds it
             pending --failed()---> failed           enlisted --hint_failed()-> forgotten

    read:    unasked --> pending --answered()-> replied
                         pending --failed()---> failed

The verdict is given once, as soon as it is certain: SUCCEEDED when ``required`` distinct nodes have
answered and ``required_primaries`` of them are primaries, HOPELESS when too few are left that still could. Where a
request has *parts* (`core.levels`), groups of replicas that each have to give a number of answers, all have to.
Answers after that are still recorded: a late ack saves a hint, a late reply may show a stale replica.

Invariants: each node is in exactly one place; a verdict other than OPEN never changes; what comes from
a node that is not pending (repeated, forged, after its failure) changes nothing; a node that holds the
write twice, as a primary and as a fallback of another, counts once.

Source: DeCandia 2007 §4.5, §4.6 (sloppy quorum); the preference list annotated primary or fallback: riak_kv.
Asking another replica when answers are slow: Dean and Barroso 2013, "The Tail at Scale", hedged requests.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from typing import Generic, TypeVar

from merganser.model.consistency import Part
from merganser.model.ids import NodeId

R = TypeVar("R")


class Verdict(enum.Enum):
    """What is certain about a request so far."""

    OPEN = "open"
    SUCCEEDED = "succeeded"
    HOPELESS = "hopeless"


class WriteQuorum:
    """The acks of one write."""

    __slots__ = (
        "_enlisted",
        "_failed",
        "_holders",
        "_parts",
        "_pending",
        "_required",
        "_required_primaries",
        "primary_acks",
        "verdict",
    )

    def __init__(
        self,
        replicas: Sequence[NodeId],
        *,
        required: int,
        required_primaries: int = 0,
        parts: Sequence[Part] = (),
    ) -> None:
        """Open the count.

        Args:
            replicas: the primaries, no duplicates.
            required: nodes that make a success, at least 1; more than there are replicas is hopeless.
            required_primaries: how many of them must be primaries.
            parts: some of the primaries, and how many of those must be among them, each.
        """
        self._pending = set(replicas)
        assert required >= 1
        assert len(self._pending) == len(replicas)
        self._failed: set[NodeId] = set()
        self._enlisted: dict[NodeId, int] = {}
        self._holders: set[NodeId] = set()
        self._required = required
        self._required_primaries = required_primaries
        self.primary_acks = 0
        """Primaries that have the write durably."""
        self._parts = tuple(parts)
        is_possible = len(replicas) >= max(required, required_primaries) and self._can_parts_be_met()
        self.verdict = Verdict.OPEN if is_possible else Verdict.HOPELESS

    @property
    def acks(self) -> int:
        """Distinct nodes that have the write durably, be it as a hint."""
        return len(self._holders)

    def acked(self, replica: NodeId) -> bool:
        """Record that ``replica`` has the write durably; true if that settled the verdict."""
        if replica not in self._pending:
            return False
        self._pending.remove(replica)
        self._holders.add(replica)
        self.primary_acks += 1
        return self._has_succeeded()

    def failed(self, replica: NodeId) -> bool:
        """Record that ``replica`` refused or went away; true if that settled the verdict.

        Whoever stands in for it is enlisted before, or the verdict may be that it is hopeless.
        """
        if replica not in self._pending:
            return False
        self._pending.remove(replica)
        self._failed.add(replica)
        return self._is_now_hopeless()

    def enlist(self, fallback: NodeId) -> None:
        """Expect a hint to be stored on ``fallback``; once for each hint, if it is to store several."""
        self._enlisted[fallback] = self._enlisted.get(fallback, 0) + 1

    def hinted(self, fallback: NodeId) -> bool:
        """Record that ``fallback`` keeps a hint durably; true if that settled the verdict."""
        if fallback not in self._enlisted:
            return False
        del self._enlisted[fallback]
        self._holders.add(fallback)
        return self._has_succeeded()

    def hint_failed(self, fallback: NodeId) -> bool:
        """Record that ``fallback`` did not store one of its hints; true if that settled the verdict."""
        if fallback not in self._enlisted:
            return False
        self._enlisted[fallback] -= 1
        if not self._enlisted[fallback]:
            del self._enlisted[fallback]
        return self._is_now_hopeless()

    def has_acked(self, replica: NodeId) -> bool:
        """Tell whether one of the replicas has the write durably, as a primary."""
        return replica not in self._pending and replica not in self._failed

    def is_pending(self, replica: NodeId) -> bool:
        """Tell whether an answer of ``replica`` would still count."""
        return replica in self._pending

    @property
    def is_complete(self) -> bool:
        """Tell whether every node that was asked has answered or failed."""
        return not self._pending and not self._enlisted

    def silent(self) -> frozenset[NodeId]:
        """Return the primaries that need a hint if nothing more is heard."""
        return frozenset(self._pending | self._failed)

    def _has_succeeded(self) -> bool:
        if self.verdict is not Verdict.OPEN or len(self._holders) < self._required:
            return False
        if self.primary_acks < self._required_primaries:
            return False
        if self._parts and any(sum(map(self.has_acked, part.members)) < part.required for part in self._parts):
            return False
        self.verdict = Verdict.SUCCEEDED
        return True

    def _is_now_hopeless(self) -> bool:
        if self.verdict is not Verdict.OPEN:
            return False
        possible_primaries = self.primary_acks + len(self._pending)
        possible = len(self._holders | self._pending | self._enlisted.keys())
        if possible >= self._required and possible_primaries >= self._required_primaries and self._can_parts_be_met():
            return False
        self.verdict = Verdict.HOPELESS
        return True

    def _can_parts_be_met(self) -> bool:
        return not self._parts or all(
            sum(node not in self._failed for node in part.members) >= part.required for part in self._parts
        )


class ReadQuorum(Generic[R]):
    """The replies to one read, of whatever kind, and whom to ask next."""

    __slots__ = (
        "_first",
        "_order",
        "_parts",
        "_pending",
        "_primaries",
        "_required",
        "_required_primaries",
        "_unasked",
        "replies",
        "verdict",
    )

    def __init__(
        self,
        nodes: Sequence[NodeId],
        *,
        required: int,
        primaries: Collection[NodeId] | None = None,
        required_primaries: int = 0,
        parts: Sequence[Part] = (),
    ) -> None:
        """Open the count, with the nodes of `first` pending.

        Args:
            nodes: whom to ask, best first, no duplicates.
            required: replies that make a success, at least 1; more than there are nodes is hopeless.
            primaries: which of the nodes are primaries, the others being fallbacks; None: all.
            required_primaries: how many replies must be from primaries, at most ``required``.
            parts: some of the nodes, and how many of those must reply, each; ``required`` is the sum of their numbers.
        """
        assert required >= max(1, required_primaries)
        assert len(set(nodes)) == len(nodes)
        self._order = tuple(nodes)
        self._primaries = primaries
        self._required = required
        self._required_primaries = 0
        self._parts = tuple(parts)
        self._first = self._order[:required]
        self._unasked = self._order[required:]
        if primaries is not None:
            self._required_primaries = required_primaries
            self._first = self._enough_primaries_first()
            self._unasked = tuple(node for node in self._order if node not in self._first)
        if parts:
            self._first = tuple(node for part in parts for node in self._in(part)[: part.required])
            self._unasked = tuple(node for node in self._order if node not in self._first)
        self._pending = set(self._first)
        self.replies: dict[NodeId, R] = {}
        """What each node replied, in order of arrival."""
        self.verdict = Verdict.OPEN if self._is_possible() else Verdict.HOPELESS

    def first(self) -> tuple[NodeId, ...]:
        """Return the nodes to ask at once: the first ``required``, enough primaries among them."""
        return self._first

    def answered(self, node: NodeId, reply: R) -> bool:
        """Record what ``node`` replied; true if that settled the verdict."""
        if node not in self._pending:
            return False
        self._pending.remove(node)
        self.replies[node] = reply
        if len(self.replies) < self._required or self.verdict is not Verdict.OPEN:
            return False
        if self._required_primaries and self._primaries_in(self.replies) < self._required_primaries:
            return False
        if self._parts and any(map(self._lacks_replies, self._parts)):
            return False
        self.verdict = Verdict.SUCCEEDED
        return True

    def failed(self, node: NodeId) -> NodeId | None:
        """Record that ``node`` will not reply; return the one to ask instead, None if there is none."""
        if node not in self._pending:
            return None
        self._pending.remove(node)
        if self.verdict is Verdict.OPEN and not self._is_possible():
            self.verdict = Verdict.HOPELESS
        if self._parts:
            return self._ask_next_in([part for part in self._parts if node in part.members])
        expected_primaries = self._primaries_in(self.replies) + self._primaries_in(self._pending)
        return self._ask_next(only_primaries=expected_primaries < self._required_primaries)

    def waiting_for(self) -> tuple[NodeId, ...]:
        """Return the nodes that were asked and have neither replied nor failed."""
        return tuple(node for node in self._order if node in self._pending)

    def hedge(self, *, only_primaries: bool = False) -> NodeId | None:
        """Return one more node to ask because the others are slow, None if there is none or no need."""
        if self._parts:
            return self._ask_next_in([part for part in self._parts if self._lacks_replies(part)])
        return self._ask_next(only_primaries=only_primaries)

    def _in(self, part: Part) -> list[NodeId]:
        return [node for node in self._order if node in part.members]

    def _lacks_replies(self, part: Part) -> bool:
        return sum(node in self.replies for node in part.members) < part.required

    def _enough_primaries_first(self) -> tuple[NodeId, ...]:
        must = [node for node in self._order if self._is_primary(node)][: self._required_primaries]
        others = [node for node in self._order if node not in must][: self._required - len(must)]
        return tuple(node for node in self._order if node in must or node in others)

    def _is_possible(self) -> bool:
        if len(self.replies) + len(self._pending) + len(self._unasked) < self._required:
            return False
        if self._parts:
            left = {*self.replies, *self._pending, *self._unasked}
            return all(sum(node in left for node in part.members) >= part.required for part in self._parts)
        if not self._required_primaries:
            return True
        return self._primaries_in((*self.replies, *self._pending, *self._unasked)) >= self._required_primaries

    def _ask_next(self, *, only_primaries: bool) -> NodeId | None:
        if self.verdict is not Verdict.OPEN:
            return None
        for node in self._unasked:
            if self._is_primary(node) or not only_primaries:
                self._unasked = tuple(other for other in self._unasked if other != node)
                self._pending.add(node)
                return node
        return None

    def _ask_next_in(self, parts: Sequence[Part]) -> NodeId | None:
        if self.verdict is not Verdict.OPEN:
            return None
        for node in self._unasked:
            if any(node in part.members for part in parts):
                self._unasked = tuple(other for other in self._unasked if other != node)
                self._pending.add(node)
                return node
        return None

    def _is_primary(self, node: NodeId) -> bool:
        return self._primaries is None or node in self._primaries

    def _primaries_in(self, nodes: Collection[NodeId]) -> int:
        return sum(map(self._is_primary, nodes))
