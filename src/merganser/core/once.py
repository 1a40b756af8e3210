"""Which requests were done, so that one that comes again is answered as it was and not done a second time.

::

    unknown --note()--> known --keep_s--> forgotten

Whoever repeats a request does so within ``keep_s`` of the first time. A node that was stopped for longer, and finds the
repeated request in a socket when it goes on, has not forgotten it: a gap between two calls counts for a second at most.
What cannot be remembered must not be done: it is the caller who looks at `is_full` before it does anything.

Outcomes that weigh much are kept while there is room; then the oldest of them are kept without what makes them heavy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

GAP_S_MAX = 1.0

O = TypeVar("O")  # noqa: E741  # an outcome


class Once(Generic[O]):
    """What became of requests, by their ids."""

    def __init__(
        self,
        *,
        keep_s: float,
        most: int,
        weight_max: int = 0,
        weight_of: Callable[[O], int] = lambda _outcome: 0,
        lightened: Callable[[O], O] = lambda outcome: outcome,
    ) -> None:
        """Remember at most ``most`` requests, each for ``keep_s``.

        Args:
            keep_s: how long.
            most: how many.
            weight_max: of all outcomes together.
            weight_of: an outcome; 0: it is not worth making lighter.
            lightened: returns what is remembered of an outcome instead.
        """
        self._keep_s = keep_s
        self._weight_max = weight_max
        self._weight_of = weight_of
        self._lightened = lightened
        self._heavy: deque[tuple[bytes, int]] = deque()
        self._weight = 0
        self._most = most
        self._outcomes: dict[bytes, O] = {}
        self._order: deque[tuple[float, bytes]] = deque()
        self._last = 0.0
        self._age = 0.0

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._outcomes)

    def of(self, request: bytes) -> O | None:
        """Return what became of a request, None if it was never done."""
        return self._outcomes.get(request)

    def is_full(self, now: float) -> bool:
        """Forget the old; tell whether there is room for no other."""
        self._forget_old(now)
        return len(self._order) >= self._most

    def note(self, request: bytes, outcome: O, now: float) -> None:
        """Remember what became of ``request``, unless that is known already; forget the old."""
        self._forget_old(now)
        if request in self._outcomes:
            return
        self._outcomes[request] = outcome
        self._order.append((self._age + self._keep_s, request))
        self._weigh(request, outcome)

    def replace(self, request: bytes, outcome: O) -> None:
        """Remember another outcome of ``request``, if it is not forgotten yet."""
        if request in self._outcomes:
            self._outcomes[request] = outcome
            self._weigh(request, outcome)

    def _weigh(self, request: bytes, outcome: O) -> None:
        """Make room for ``outcome`` among those that weigh much; what is forgotten by then is the first to go."""
        weight = self._weight_of(outcome)
        if not weight:
            return
        self._heavy.append((request, weight))
        self._weight += weight
        while self._weight > self._weight_max:
            oldest, weight = self._heavy.popleft()
            self._weight -= weight
            if oldest in self._outcomes:
                self._outcomes[oldest] = self._lightened(self._outcomes[oldest])

    def _forget_old(self, now: float) -> None:
        self._age += min(now - self._last, GAP_S_MAX)
        self._last = now
        order = self._order
        while order and order[0][0] <= self._age:
            del self._outcomes[order.popleft()[1]]
