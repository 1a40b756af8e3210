"""Rows with a dot of their own, which go out once.

A replica may have sealed the time of a write, because the coordinator's clock is far behind; a plain write then goes
out again with a later timestamp (`Coordinator.write_row`). A row whose cells are named by dots does not: who had read
and replaced, or removed, what it brings would find that there once more, under the later dots.
"""

from __future__ import annotations

from collections.abc import Callable

from merganser.model.errors import UnavailableError
from merganser.model.row import Row
from merganser.model.timestamp import Timestamp


class SentOnce:
    """One such row."""

    __slots__ = ("_make", "has_begun")

    def __init__(self, make: Callable[[Timestamp], Row]) -> None:
        """Send what ``make`` returns for the timestamp of the write."""
        self._make = make
        self.has_begun = False

    def stamped(self, timestamp: Timestamp) -> Row:
        """Return the row.

        Raises:
            UnavailableError: it has been sent already.
        """
        if self.has_begun:
            raise UnavailableError("a replica takes no writes of that time any more, so it may have reached too few")
        self.has_begun = True
        return self._make(timestamp)
