"""One probe of one member: pinged directly, then through others, then judged.

    direct --probe timeout--> indirect --end of the period--> silent
       |                         |
       +------- an ack ----------+--> answered

Answered or not, the next probe waits for the end of the period, so that the load of probing is constant.

Invariant: only an ack with the probe's number counts, from the member itself or from a relay that was asked.

Source: Das, Gupta, Motivala 2002, "SWIM", §3.1; Dadgar, Phillips, Currey 2018, "Lifeguard", §IV-A (nacks).
"""

from __future__ import annotations

from collections.abc import Sequence

from merganser.model.ids import NodeId


class Probe:
    """The probe of this period."""

    __slots__ = ("_nacks", "ends_s", "is_answered", "is_indirect", "number", "relays", "target", "timeout_at_s")

    def __init__(self, target: NodeId, number: int, *, timeout_at_s: float, ends_s: float) -> None:
        """Begin with a ping of that number to ``target``."""
        self.target = target
        self.number = number
        self.timeout_at_s = timeout_at_s
        self.ends_s = ends_s
        self.is_answered = False
        self.is_indirect = False
        self.relays: Sequence[NodeId] = ()
        self._nacks: list[NodeId] = []

    @property
    def due_s(self) -> float:
        """When to look at the probe next."""
        return self.ends_s if self.is_indirect or self.is_answered else self.timeout_at_s

    def ask_others(self, relays: Sequence[NodeId]) -> None:
        """Go on through ``relays``."""
        self.is_indirect = True
        self.relays = relays

    def acked(self, sender: NodeId, number: int) -> bool:
        """Record an ack; true if it is the one that answers the probe."""
        if number != self.number or self.is_answered or not (sender == self.target or sender in self.relays):
            return False
        self.is_answered = True
        return True

    def nacked(self, sender: NodeId, number: int) -> None:
        """Record that a relay is there and has not heard from the target."""
        if number == self.number and sender in self.relays and sender not in self._nacks:
            self._nacks.append(sender)

    @property
    def is_own_fault_likely(self) -> bool:
        """Tell of a silent target whether the fault may lie here: no relay to ask, or one of them silent too."""
        return len(self._nacks) < len(self.relays) or not self.relays
