"""Items that expire: none goes before its time, and none stays long after it.

What is judged is what the owner of an item saw, who does one thing after another to it. Between two of these, nothing
can become of the item but that it expires, or that a write of unknown outcome is done. How early an item may go follows
from the clocks: a leader removes it when its own clock has passed the item's time by a margin, so none may be
missing before any clock of the cluster has shown that.

The state of a node is judged by its index of times: it has an entry for each register that expires, once it claims to.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from merganser.core.expiry import MARGIN_S

if TYPE_CHECKING:
    from merganser.sim.checkers.replicas import NodeState
    from merganser.sim.history import History

GONE_S: Final = 15.0
"""After its time and the margin, when all is well; nodes look twice a second here, and every five elsewhere."""


class Outcome(enum.Enum):
    """What a client knows of a request."""

    DONE = "done"
    UNDONE = "undone"
    UNKNOWN = "unknown"


class Expirable(msgspec.Struct, frozen=True):
    """A write of an item, or a consistent read of it, by its owner."""

    key: bytes
    value: bytes | None
    expires_at_s: int | None
    """By the value; None: never."""
    is_write: bool
    outcome: Outcome
    began_s: float
    ended_s: float
    latest_wall_s: float
    """The latest time that any clock of the cluster had shown by then."""
    is_settled: bool = False
    """All is well, and has been for so long that what is to expire has."""

    @property
    def is_acked(self) -> bool:
        """Tell whether this is a write that was acknowledged."""
        return self.is_write and self.outcome is Outcome.DONE

    @property
    def is_unknown(self) -> bool:
        """Tell whether this is a write of unknown outcome."""
        return self.is_write and self.outcome is Outcome.UNKNOWN


class _Item:
    """What an item may be."""

    def __init__(self, expires_from_s: float | None) -> None:
        self._expires_from_s = expires_from_s
        self._now: Expirable | None = None
        """The write that made it what it is for certain; None: there is none."""
        self._late: list[Expirable] = []
        """Writes that may yet be done."""

    def judge(self, record: Expirable) -> str | None:
        """Take note of what happened; returns what is wrong with it."""
        if record.is_write:
            if record.outcome is Outcome.DONE:
                self._now = record
            else:
                self._late.append(record)
            return None
        return self._judge_absence(record) if record.value is None else self._judge_value(record)

    def _judge_value(self, read: Expirable) -> str | None:
        if read.is_settled and read.expires_at_s is not None and self._is_overdue(read):
            return f"it is still there, {read.latest_wall_s - read.expires_at_s:.1f} s after its time"
        if self._now is not None and self._now.value == read.value:
            return None
        for write in self._late:
            if write.value == read.value:
                self._now = write
                return None
        return f"it is {read.value!r}, which it was not any more"

    def _is_overdue(self, read: Expirable) -> bool:
        assert read.expires_at_s is not None
        return read.expires_at_s + MARGIN_S + GONE_S <= read.latest_wall_s

    def _judge_absence(self, read: Expirable) -> str | None:
        now, self._now = self._now, None
        if now is None or now.value is None:
            return None
        if any(write.value is None or self._may_have_expired(write, read) for write in (now, *self._late)):
            return None
        return (
            f"it is gone, and was {now.value!r}; the latest time that a clock has shown is {read.latest_wall_s:.3f}, "
            f"items expire from {self._expires_from_s} s on, and it was read at {read.ended_s:.3f} s"
        )

    def _may_have_expired(self, write: Expirable, read: Expirable) -> bool:
        has_begun = self._expires_from_s is not None and read.ended_s >= self._expires_from_s
        return has_begun and write.expires_at_s is not None and write.expires_at_s + MARGIN_S <= read.latest_wall_s


def expiries_at_a_wrong_time(history: History) -> Iterator[str]:
    """Yield a sentence for each item that was gone too early, was there too late, or came back."""
    items: dict[bytes, _Item] = {}
    for record in history.items.expirables:
        item = items.setdefault(record.key, _Item(history.items.expires_from_s))
        wrong = item.judge(record)
        if wrong is not None:
            yield f"of {record.key!r}: {wrong}"


def times_not_indexed(states: Sequence[NodeState]) -> Iterator[str]:
    """Yield a sentence for each register that expires and is not in its node's index of times."""
    for state in states:
        for key in sorted(state.times.keys() - state.indexed_times.keys()):
            yield f"{state.node} has no entry for {key!r}, which expires at {state.times[key]}"
        for key in sorted(state.times.keys() & state.indexed_times.keys()):
            if state.times[key] not in state.indexed_times[key]:
                yield f"{state.node} has no entry for {key!r} at {state.times[key]}: {state.indexed_times[key]}"
