"""What this node leads: a term per group, from its election until another epoch is known, and what is in flight in it.

::

    elected --> open <--> closed for a while (another is to lead: nothing new, what is in flight ends)
                  |          |
                  +----------+--> deposed: waiters are told that the outcome is unknown
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from merganser.model.cluster import ClusterMap
from merganser.model.errors import OverloadedError, RefusedError
from merganser.model.ids import NodeId, TableId
from merganser.model.leadership import Epoch, Group
from merganser.service.asking import Asker
from merganser.service.first_touches import Term
from merganser.service.group_gate import not_leading
from merganser.service.in_flight import Flight, LocalAcks, Sending
from merganser.service.leadership import Leadership
from merganser.service.leadership import Led as LedTerm
from merganser.service.topology import Topology
from merganser.storage.engine import Engine

IN_FLIGHT_MAX = 4_096  # of one group; as many requests as a node takes on at once
CLOSED_S = 1.0
"""After the quiet that was asked for: then another leads, or this node takes changes again."""


class Terms:
    """The groups that this node leads; see the module's docstring."""

    def __init__(self, topology: Topology, asker: Asker, engine: Engine, leadership: Leadership) -> None:
        """Have none yet.

        Args:
            topology: tells which tables are gone.
            asker: sends what is in flight.
            engine: tells what of it is durable here.
            leadership: tells of elections and of their ends.
        """
        self.when_behind: Callable[[LedTerm, TableId, NodeId], None] = lambda _led, _table, _node: None
        """Told of a replica that lacks a write of a term, and will not be sent it again."""
        self.when_begun: Callable[[Term], None] = lambda _term: None
        self.when_ended: Callable[[Term], None] = lambda _term: None
        self._topology = topology
        self._asker = asker
        self._leadership = leadership
        self._loop = asyncio.get_running_loop()
        self._terms: dict[Group, Term] = {}
        self._local = LocalAcks(engine)
        self._sending = Sending(asker)
        leadership.when_elected(self._elected)
        leadership.when_deposed(self._deposed)
        leadership.quiesce = self.quiesce
        topology.when_changed(self._forget_dropped)
        leadership.when_regrouped(self._regrouped)

    def of_group(self, group: Group) -> Term | None:
        """Return the term in which this node leads a group, if it does."""
        return self._terms.get(group)

    def of(self, led: LedTerm) -> Term | None:
        """Return a term, if it lasts."""
        term = self._terms.get(led.group)
        return term if term is not None and term.led is led else None

    def standing(self, group: Group, epoch: Epoch) -> Term:
        """Return the term of a group in that epoch.

        Raises:
            RefusedError: this node does not lead in that epoch.
        """
        term = self._terms.get(group)
        if term is None or term.epoch != epoch or not term.led.is_standing:
            raise self.not_leading(group)
        return term

    def check_open(self, term: Term) -> None:
        """Check that a term takes changes.

        Raises:
            RefusedError: it is over, or about to be.
            OverloadedError: too much is in flight.
        """
        if not term.led.is_standing:
            raise self.not_leading(term.led.group)
        if term.closed_until and self._loop.time() < term.closed_until:
            raise self.not_leading(term.led.group)
        if term.flight.count >= IN_FLIGHT_MAX:
            raise OverloadedError(f"{IN_FLIGHT_MAX} writes of the partition are on their way, no more are taken")

    def not_leading(self, group: Group) -> RefusedError:
        """Return what says that this node does not lead a group, and who does as far as it knows."""
        known, map_epoch = self._leadership.known(group), self._topology.map.epoch
        return not_leading(self._asker.node, group, known, map_epoch=map_epoch)

    def learned(self, term: Term, error: RefusedError) -> None:
        """Take note of a refusal that names a later epoch."""
        if term.led.is_standing:  # else its group may have another number by now
            self._leadership.learned(term.led.group, error.epoch)

    def is_in_flight(self, led: LedTerm, key: bytes) -> bool:
        """Tell whether a write of the item is on its way to a majority, or the item is being touched."""
        term = self._terms.get(led.group)
        return term is not None and (term.flight.newest(key) is not None or key in term.touching)

    async def quiesce(self, led: LedTerm, deadline: float) -> bool:
        """Take no changes any more; true once nothing is in flight, false at ``deadline`` if something is.

        A second after that, whether another leads or not, changes are taken again.
        """
        term = self.of(led)
        if term is None:
            return True
        term.closed_until = deadline + CLOSED_S
        is_quiet = await term.flight.idle(deadline)
        if not is_quiet:
            term.closed_until = 0.0
        return is_quiet

    def close(self) -> None:
        """Give up what is in flight."""
        self._local.close()
        for term in list(self._terms.values()):
            self._deposed(term.led)

    def _elected(self, led: LedTerm) -> None:
        term: Term
        flight = Flight(
            led,
            self._asker,
            self._local,
            self._sending,
            learned=lambda error: self.learned(term, error),
            behind=lambda table, node: self.when_behind(led, table, node),
        )
        term = self._terms[led.group] = Term(led, flight)
        self.when_begun(term)

    def _deposed(self, led: LedTerm) -> None:
        term = self.of(led)
        if term is not None:
            del self._terms[led.group]
            self.when_ended(term)
            term.flight.end()

    def _regrouped(self, led: LedTerm) -> None:
        term = self.of(led)
        if term is not None:
            term.flight.regroup()

    def _forget_dropped(self, current: ClusterMap) -> None:
        kept = {table.id for table in current.tables}
        for term in self._terms.values():
            for table in [table for table in term.places if table not in kept]:
                del term.places[table]
                term.flight.forget_table(table)
