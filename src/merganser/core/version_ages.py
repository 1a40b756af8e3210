"""How old registers are at least, known without looking at any wall clock.

Whoever leads marks now and then which version is the latest::

    marks:   0 s: v3        60 s: v17        120 s: v17     --> at 130 s, v5 is at least 70 s old, v2 130 s, v18 nothing

Everything up to a marked version was written before the mark. What an earlier leader wrote is as old as the first mark
of this term, as versions compare epoch first. So nothing is ever taken for older than it is, whatever clocks show; what
is of an earlier term is taken for younger.
"""

from __future__ import annotations

from collections import deque

from merganser.model.register import Version


class VersionAges:
    """Of the registers of one group, in one term."""

    __slots__ = ("_marks", "_most_s")

    def __init__(self, *, most_s: float) -> None:
        """Tell apart ages up to ``most_s``; what is older is that old at least."""
        self._most_s = most_s
        self._marks: deque[tuple[float, Version]] = deque()

    def mark(self, latest: Version, now_s: float) -> None:
        """Note that nothing later than ``latest`` has been written yet."""
        self._marks.append((now_s, latest))
        while len(self._marks) > 1 and self._marks[1][0] <= now_s - self._most_s:
            self._marks.popleft()

    def age_s(self, version: Version, now_s: float) -> float:
        """Return how long ago ``version`` was written, at least."""
        for at_s, latest in self._marks:
            if version <= latest:
                return now_s - at_s
        return 0.0
