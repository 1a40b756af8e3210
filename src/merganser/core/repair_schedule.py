"""Which two replicas are to compare which partition next, and who of them begins.

Each two replicas of a partition compare it once per interval. Of the two, the one that comes earlier on the preference
list begins: over the whole ring that is the same share for every node. What is new is spread over an interval; a
comparison that failed is tried again soon, then less and less soon, but twice an interval at least::

    new --spread--> waiting --due--> (comparing) --completed--> waiting, for 0.8 to 1 interval since it began
                       ^                  |
                       +--failed, soon----+

Whoever has reason to believe that two replicas differ hastens their comparison, or has it done once more if it is under
way.

Source: design §4.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Sequence

import msgspec

from merganser.model.ids import NodeId, PartitionId, TableId

RETRY_S = 5.0

Pair = tuple[TableId, PartitionId, NodeId]
"""What to compare with whom."""


def begins_with(node: NodeId, replicas: Sequence[NodeId]) -> Sequence[NodeId]:
    """Return with whom ``node`` begins a comparison, given a preference list; nobody if it is not on it."""
    return replicas[replicas.index(node) + 1 :] if node in replicas else ()


class _Planned(msgspec.Struct):
    due_s: float
    failures: int = 0
    completed_s: float | None = None
    is_under_way: bool = False
    is_wanted_again: bool = False
    """As soon as the one that is under way has ended."""


class RepairSchedule:
    """The comparisons that one node begins; see the module's docstring."""

    def __init__(self, interval_s: float) -> None:
        """Plan each comparison once in ``interval_s``."""
        self._interval_s = interval_s
        self._planned: dict[Pair, _Planned] = {}
        self._queue: list[tuple[float, Pair]] = []

    def every(self, interval_s: float, *, now_s: float) -> None:
        """Plan in another interval from now on; what is due later than that is due by then."""
        self._interval_s = interval_s
        for pair, planned in list(self._planned.items()):
            if not planned.is_under_way and planned.due_s > now_s + interval_s:
                self._plan(pair, _Planned(now_s + interval_s, planned.failures, planned.completed_s))

    def keep(self, pairs: Iterable[Pair], *, now_s: float, share: Callable[[], float]) -> None:
        """Plan for exactly ``pairs``; ``share`` draws from 0 to 1 when in the interval a new one is due first."""
        wanted = set(pairs)
        for gone in [pair for pair in self._planned if pair not in wanted]:
            del self._planned[gone]
        for new in sorted(wanted - self._planned.keys()):
            self._plan(new, _Planned(now_s + share() * self._interval_s))

    def due(self, now_s: float) -> Pair | None:
        """Return the comparison that has been due longest; tell what became of it before asking again."""
        next_s = self.next_s
        return self._queue[0][1] if next_s is not None and next_s <= now_s else None

    def begin(self, now_s: float) -> Pair | None:
        """Return what `due` does, and no more until it is told what became of it: for several at a time."""
        pair = self.due(now_s)
        if pair is not None:
            planned = self._planned[pair]
            planned.due_s, planned.is_under_way = math.inf, True
        return pair

    def hasten(self, pair: Pair, *, due_s: float) -> None:
        """Have a comparison that is planned due by ``due_s``, or again when the one under way has ended."""
        planned = self._planned.get(pair)
        if planned is None:
            return
        if planned.is_under_way:
            planned.is_wanted_again = True
        elif planned.due_s > due_s:
            self._plan(pair, _Planned(due_s, completed_s=planned.completed_s))

    def pairs_with(self, peer: NodeId) -> list[Pair]:
        """Return what is to be compared with one peer."""
        return [pair for pair in self._planned if pair[2] == peer]

    @property
    def next_s(self) -> float | None:
        """When the next comparison is due; None if there is none to plan."""
        while self._queue and not self._is_current(*self._queue[0]):
            heapq.heappop(self._queue)
        return self._queue[0][0] if self._queue else None

    def completed(self, pair: Pair, *, began_s: float, now_s: float, share: float) -> None:
        """Plan the next one; ``share``, drawn from 0 to 1, keeps nodes from running in step."""
        if pair in self._planned:
            due_s = began_s + self._interval_s * (0.8 + 0.2 * share)
            if self._planned[pair].is_wanted_again:
                due_s = now_s
            self._plan(pair, _Planned(due_s, completed_s=now_s))

    def failed(self, pair: Pair, *, now_s: float) -> None:
        """Try again soon."""
        if pair in self._planned:
            failures = self._planned[pair].failures + 1
            wait_s = min(RETRY_S * 2.0 ** min(failures - 1, 20), self._interval_s / 2)
            if self._planned[pair].is_wanted_again:
                wait_s, failures = min(wait_s, RETRY_S), 0
            self._plan(pair, _Planned(now_s + wait_s, failures, self._planned[pair].completed_s))

    def oldest_s(self, table: TableId) -> float | None:
        """Return when the comparison of ``table`` that is longest ago was completed; None: one never was."""
        moments = [planned.completed_s for pair, planned in self._planned.items() if pair[0] == table]
        return None if None in moments or not moments else min(moment for moment in moments if moment is not None)

    def _plan(self, pair: Pair, planned: _Planned) -> None:
        self._planned[pair] = planned
        heapq.heappush(self._queue, (planned.due_s, pair))

    def _is_current(self, due_s: float, pair: Pair) -> bool:
        planned = self._planned.get(pair)
        return planned is not None and planned.due_s == due_s
