"""Who keeps a write for a primary that is away, for how long, and what becomes of it.

A hint is a row and the name of the primary it is for. Life of the duty to one primary of one write::

    waiting --acked-------------------------------------------> done
       |
       +--failed, or silent for `silence_s`--> first live fallback --refused, failed--> next ... --> coordinator
                                                       |                                               |
                                                    stored                              stored, or nobody keeps it

A fallback serves one primary of a write only, so that a write that is away from two primaries is on two other
nodes. The coordinator is the last resort, for as many as it must, if the table may be kept where it is. What nobody
keeps is left to read repair and anti-entropy.

A keeper takes hints while it has room, and new keys for a target only until the oldest hint for that target is
`HINT_WINDOW_S` old: a node that is away for longer gets what it missed by anti-entropy, which is cheaper for
much data. What is stored is kept until the target acks it.

Source: DeCandia 2007 §4.6; the window: Cassandra's `max_hint_window`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable

from merganser.model.errors import ClockSkewError, CorruptionError, RefusedError, RequestError
from merganser.model.ids import NodeId

HINT_BYTES_MAX = 2**30  # a million rows of 1 KB: some minutes of a node's writes at full speed, hours at a usual rate
HINT_WINDOW_S = 3 * 3600  # as Cassandra's: most nodes that come back at all are back by then

SILENCE_S_MIN = 0.05  # an ack on a healthy network takes a few milliseconds; a busy disk adds some tens
SILENCE_S_MAX = 1.0  # a primary that needs longer than this for most of its acks is as good as away
SILENCE_IN_P95 = 2.0

WINDOW_MIN = 4
WINDOW_STEP = 4
WINDOW_MAX = 128  # with 2 ms for a window, 64,000 hints a second: more than a node takes from clients
SLOW_S = 0.1  # for a window of acks, which share one fsync

BACKOFF_S_MIN = 1.0
BACKOFF_S_MAX = 60.0  # a target that answers and refuses everything has to be put right by an operator

HINTS_FULL = "hints_full"
HINT_WINDOW_OVER = "hint_window_over"
NOT_KEPT_HERE = "not_kept_here"
"""The table may not be where this node is."""

_NO_SUCH_TABLE = "no_such_table"
_NOT_A_REPLICA = "not_a_replica"
_NEVER = frozenset(("clock_skew", "corruption"))
"""Codes of refusals that the same row would meet again."""
_REFUSES_THE_ROW = _NEVER | {_NO_SUCH_TABLE, _NOT_A_REPLICA}


class StandIns:
    """Which node keeps the hint for which primary of one write."""

    __slots__ = ("_coordinator", "_fallbacks", "_last_resort_of")

    def __init__(self, fallbacks: Iterable[NodeId], *, coordinator: NodeId | None) -> None:
        """Choose among ``fallbacks``, best first; ``coordinator`` is None if it may keep nothing of the table."""
        self._fallbacks = iter(fallbacks)
        self._coordinator = coordinator
        self._last_resort_of: set[NodeId] = set()

    def next_for(self, primary: NodeId, is_live: Callable[[NodeId], bool]) -> NodeId | None:
        """Return who is to keep the hint for ``primary`` now; None when all have been tried.

        Call it again for the same primary when that node did not.
        """
        for fallback in self._fallbacks:
            if is_live(fallback):
                return fallback
        if self._coordinator is None or primary in self._last_resort_of:
            return None
        self._last_resort_of.add(primary)
        return self._coordinator


def silence_s(p95_s: float | None, *, left_s: float) -> float:
    """Return how long a primary may take to ack before a fallback is asked to stand in for it.

    Args:
        p95_s: what 95 of 100 of its acks took at most; None if too few are known.
        left_s: time until the deadline of the write when it began.
    """
    patience_s = min(max(SILENCE_S_MIN, SILENCE_IN_P95 * (p95_s or 0.0)), SILENCE_S_MAX)
    return min(patience_s, left_s / 2)


def deserves_hint(error: BaseException, *, map_epoch: int) -> bool:
    """Tell whether the row may be taken later by the primary that failed with ``error``.

    Args:
        error: how the primary's ack failed.
        map_epoch: that of the write; a replica that misses the table of a newer map has yet to hear of it.
    """
    if isinstance(error, RefusedError):
        if error.code == _NO_SUCH_TABLE:
            return error.map_epoch < map_epoch
        return error.code not in _NEVER
    return not isinstance(error, ClockSkewError | CorruptionError | RequestError)


def objection(
    *, hint_bytes: int, stored_bytes: int, is_known_key: bool, oldest_us: int | None, now_us: int
) -> tuple[str, str] | None:
    """Return why a keeper takes no such hint (code and message), None if it does.

    Args:
        hint_bytes: what the hint would add.
        stored_bytes: what is stored already, for all targets.
        is_known_key: whether a hint for that key and target is merely brought up to date.
        oldest_us: when the oldest hint of the target was stored; None if there is none.
        now_us: the same clock, now.
    """
    if stored_bytes + hint_bytes > HINT_BYTES_MAX:
        return HINTS_FULL, f"{stored_bytes} bytes of hints are stored here, and {HINT_BYTES_MAX} are allowed"
    if is_known_key or oldest_us is None or now_us - oldest_us <= HINT_WINDOW_S * 1_000_000:
        return None
    return HINT_WINDOW_OVER, f"the oldest hint for that node is {(now_us - oldest_us) // 1_000_000} s old"


class Fate(enum.Enum):
    """What becomes of a hint after an attempt to deliver it."""

    DELIVERED = "the target has it durably"
    KEPT = "the target refused this row; the next may go"
    PAUSED = "the target is away or overloaded; none may go for now"
    MOVED = "the target does not hold the key in a newer map, which is to be fetched"


def fate(error: BaseException | None, *, map_epoch: int) -> Fate:
    """Return what becomes of a hint whose delivery ended with ``error``, None for an ack."""
    if error is None:
        return Fate.DELIVERED
    if isinstance(error, RefusedError):
        if error.code in (_NO_SUCH_TABLE, _NOT_A_REPLICA) and error.map_epoch > map_epoch:
            return Fate.MOVED
        return Fate.KEPT if error.code in _REFUSES_THE_ROW else Fate.PAUSED
    return Fate.KEPT if isinstance(error, ClockSkewError | CorruptionError) else Fate.PAUSED


class Pace:
    """How many hints may be under way to one target, by additive increase and multiplicative decrease.

    Slow acks and refusals halve the window, quick ones widen it: the target's own requests come first.
    Source: Jacobson 1988, "Congestion Avoidance and Control".
    """

    __slots__ = ("window",)

    def __init__(self) -> None:
        """Start carefully: the target has just come back."""
        self.window = WINDOW_MIN

    def acked_in(self, seconds: float) -> None:
        """Note that a full window was acked in that time."""
        if seconds > SLOW_S:
            self.held_up()
        else:
            self.window = min(self.window + WINDOW_STEP, WINDOW_MAX)

    def held_up(self) -> None:
        """Note that the target refused, was slow, or went away."""
        self.window = max(self.window // 2, WINDOW_MIN)


def backoff_s(fruitless: int) -> float:
    """Return how long to leave a target alone after so many passes in a row, at least 1, that delivered nothing."""
    return min(BACKOFF_S_MIN * 2.0 ** min(fruitless - 1, 10), BACKOFF_S_MAX)
