"""A bucket of tokens: so much a second, saved up for a while, and spent when it is known how much something took.

What is asked for is let in while anything is left, whatever it turns out to take; what it takes beyond that is a debt,
which has to be paid by time before the next is let in. That is how DynamoDB does it: nothing is too large to be done
once in a while, and over time no more is done than was paid for.
"""

from __future__ import annotations

from typing import Final

BURST_S: Final = 300.0
"""For so long unused tokens are saved up (Amazon DynamoDB Developer Guide, "Burst capacity")."""


class TokenBucket:
    """Tokens of one kind; it begins with those of a second."""

    __slots__ = ("_at_s", "_left", "_per_s")

    def __init__(self, per_s: float, now_s: float) -> None:
        """Gain ``per_s`` tokens a second; ``now_s`` is of any clock that never goes back."""
        self._per_s = per_s
        self._left = per_s
        self._at_s = now_s

    def is_open(self, now_s: float) -> bool:
        """Tell whether anything is let in."""
        self._gain(now_s)
        return self._left > 0

    def take(self, tokens: float, now_s: float) -> None:
        """Spend what something took."""
        self._gain(now_s)
        self._left -= tokens

    def become(self, per_s: float, now_s: float) -> None:
        """Gain another number of tokens a second from now on; what would not have been saved up by that is lost."""
        if per_s != self._per_s:
            self._gain(now_s)
            self._per_s = per_s
            self._left = min(self._left, per_s * BURST_S)

    def _gain(self, now_s: float) -> None:
        self._left = min(self._left + (now_s - self._at_s) * self._per_s, self._per_s * BURST_S)
        self._at_s = now_s
