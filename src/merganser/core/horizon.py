"""When a tombstone may be dropped, and why nothing it buried comes back.

Each replica keeps a *horizon* per (table, partition): a time H, HLC microseconds, such that

    (*) this replica holds every write at or before H that was ever taken anywhere, or what buried it.

So from H backwards its silence means something: what it does not hold there was deleted or expired, on purpose.
Whoever has a horizon may therefore drop tombstones and expired cells up to it (`rows.purged`), and need take nothing
from before it any more, except from one who can say the same.

A *round*, led by one replica, raises the horizon of all of them to H, a time well in the past::

    sealing --every node sealed, no hint <= H left--> levelling --all replicas on one horizon-->
        gathering --leader holds all--> spreading --everyone holds all--> completing

1. *Seal* (every node of the map): no client write at or before H is taken any more; its coordinator stamps it anew.
   Repairs (read repair, anti-entropy, hints on their way out) still are. So what exists at or before H can only
   spread, not grow, and once no node holds a hint from before H all of it lies on the replicas.
2. *Level*: a replica whose horizon is lower than that of another (the authority) synchronises with it first and
   adopts its horizon. Else a stale row, as from an old disk, could reach two replicas by way of each other while the
   authority has long dropped what buried it.
3. *Synchronise* the leader with each other replica, then with each again: first it gathers, then it spreads.
4. *Complete* (every replica): (*) holds for H here. Replicas need not complete together: (*) speaks of one only.

The states of one replica's standing, all durable except for adopting::

            sealed()                completed(), adopted()            purge
    open ------------> sealed <H ---------------------------> horizon H -------> purged up to H
      ^                                                         |
      +------------------ adopted() ---- not whole <-----------+  doubted(): rows may have vanished
                                                                  distrusted(): tombstones may have

A replica about to adopt a horizon takes, from then on, nothing from before it but from one who vouches for as
much: a row that has been compared already must not change behind the comparison's back.

Invariants:
- sealed_us >= horizon_us >= purged_us; sealed_us never falls; horizon_us falls only by `doubted` and `distrusted`;
- a replica that is not whole has no horizon and answers no reads;
- a tombstone leaves a replica only when that replica's own horizon has passed it, never because the authority lacks it:
  without the horizon it would be open to late copies of what the tombstone buried;
- a horizon is bound to the vow (one life of the process, no doubt meanwhile) that was given when the round sealed.

Source: design §4; Cassandra drops tombstones after gc_grace_seconds, CASSANDRA-6434 only those that were repaired.
The whole argument is told in docs/internals/tombstones.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from merganser.core import causal_rows, rows
from merganser.core.crdt import counters
from merganser.model.ids import NodeId
from merganser.model.messages import A_CLIENTS
from merganser.model.row import Cell, Row
from merganser.model.timestamp import BEGINNING, Timestamp

_WRITER_MAX = 2**32 - 1
_NOTHING = Row(())


class Standing(msgspec.Struct, frozen=True):
    """What one node has promised and knows about one (table, partition); the default is that of a newcomer."""

    sealed_us: int = 0
    """No client write at or before this time is taken."""
    horizon_us: int = 0
    """As (*) above; 0: none."""
    purged_us: int = 0
    """Tombstones up to here are gone."""
    is_whole: bool = True
    """False: rows may be missing that no tombstone explains."""

    def sealed(self, until_us: int) -> Standing:
        """Return the standing of a node that promised to take no client write at or before ``until_us``."""
        if until_us <= self.sealed_us:
            return self
        return msgspec.structs.replace(self, sealed_us=until_us)

    def can_complete(self, horizon_us: int) -> bool:
        """Tell whether a round for ``horizon_us`` can have counted on this replica."""
        return self.is_whole and self.sealed_us >= horizon_us

    def completed(self, horizon_us: int) -> Standing:
        """Return the standing after a round for ``horizon_us``."""
        assert self.can_complete(horizon_us)
        return self._raised_to(horizon_us)

    def adopted(self, horizon_us: int) -> Standing:
        """Return the standing of a replica that has become equal, up to ``horizon_us``, to one who vouches for it."""
        assert self.sealed_us >= horizon_us
        whole = self if self.is_whole else msgspec.structs.replace(self, is_whole=True)
        return whole._raised_to(horizon_us)

    def purged(self, until_us: int) -> Standing:
        """Return the standing after a purge up to ``until_us``."""
        assert until_us <= self.horizon_us
        if until_us <= self.purged_us:
            return self
        return msgspec.structs.replace(self, purged_us=until_us)

    def doubted(self) -> Standing:
        """Return the standing of a replica some of whose rows may have vanished.

        One that never had a horizon is merely behind, as any replica may be.
        """
        if self.horizon_us == 0:
            return self
        return msgspec.structs.replace(self, horizon_us=0, purged_us=0, is_whole=False)

    def distrusted(self) -> Standing:
        """Return the standing of a replica that may lack tombstones which it would need, having had a horizon or not.

        That is one that took a row on the word of others who are further, or less far, than itself (`core.healing`).
        """
        return msgspec.structs.replace(self, horizon_us=0, purged_us=0, is_whole=False)

    def _raised_to(self, horizon_us: int) -> Standing:
        if horizon_us <= self.horizon_us:
            return self
        return msgspec.structs.replace(self, horizon_us=horizon_us)


NEWCOMER = Standing()


def right_after(horizon_us: int) -> Timestamp:
    """Return the timestamp that a write has to exceed to be taken."""
    return Timestamp(horizon_us, _WRITER_MAX)


def taken(row: Row, *, newest_us: int, sealed_us: int, floor_us: int, vouched_us: int) -> Row | None:
    """Return what a replica takes of a row it was sent; ``row`` itself if all; None: nothing.

    Args:
        row: a client's write has one timestamp throughout.
        newest_us: the row's latest time.
        sealed_us: the replica's.
        floor_us: the replica's horizon, or the one it is about to adopt.
        vouched_us: `messages.A_CLIENTS`, or the horizon of whoever held the row.
    """
    if vouched_us == A_CLIENTS:
        return row if newest_us > sealed_us else None
    return admissible(row, horizon_us=floor_us, vouched_us=vouched_us)


def admissible(incoming: Row, *, horizon_us: int, vouched_us: int) -> Row | None:
    """Return what a replica takes of a repair; None: nothing.

    Args:
        incoming: the row that was sent.
        horizon_us: the replica's own, or the one it is about to adopt.
        vouched_us: the horizon of whoever sent it.
    """
    if horizon_us == 0:  # none, and not the year 1970
        return incoming
    if vouched_us >= horizon_us:
        return rows.purged(incoming, horizon_us)
    return later(incoming, horizon_us)


def later(row: Row, horizon_us: int) -> Row | None:
    """Return what ``row`` says of the time after ``horizon_us``; ``row`` itself if that is all; None if nothing."""
    if row.context:
        return causal_rows.later(row, horizon_us, stays=counters.is_base)
    cells = row.cells
    if any(cell.written_at.micros <= horizon_us for cell in cells):
        cells = tuple(cell for cell in cells if cell.written_at.micros > horizon_us)
    deleted_at = BEGINNING if row.deleted_at.micros <= horizon_us else row.deleted_at
    if not cells and deleted_at == BEGINNING:
        return None
    return row if cells is row.cells and deleted_at == row.deleted_at else Row(cells, deleted_at)


def agreed(answers: Iterable[tuple[Row | None, int]]) -> Row | None:
    """Return what replicas say together, given the row and the horizon of each; None if there is nothing.

    Of the time up to the highest horizon only those who have it speak; of the time after it, all do.
    """
    held = list(answers)
    highest = max((horizon_us for _, horizon_us in held), default=0)
    said = [_said(row, horizon_us, highest) for row, horizon_us in held if row is not None]
    merged: Row | None = None
    for row in said:
        if row is not None:
            merged = row if merged is None else rows.merge(merged, row)
    return merged


def lacks(held: Row | None, row: Row | None) -> bool:
    """Tell whether ``row`` would tell a replica that holds ``held`` anything."""
    if row is None:
        return False
    return held is None or not rows.covers(held, row)


def met(held: Row | None, other: Row | None, *, horizon_us: int, floor_us: int, other_us: int) -> Row | None:
    """Return what a replica is to hold once it has met what another holds of the same key; None: nothing.

    If the other is an authority (its horizon is higher), what is from before that horizon and the authority lacks
    goes; tombstones and expired cells stay until the replica's own horizon has passed them.

    Args:
        held: this replica's row; returned itself if nothing changes.
        other: the other's row.
        horizon_us: this replica's horizon.
        floor_us: the same, or the horizon that it is about to adopt.
        other_us: the other's horizon.
    """
    taken = None if other is None else admissible(other, horizon_us=floor_us, vouched_us=other_us)
    if held is None:
        return taken
    kept = _without_leftovers(held, other or _NOTHING, other_us) if other_us > horizon_us else held
    merged = kept if taken is None else rows.merge(kept, taken)
    if merged == held:
        return held
    return merged if merged != _NOTHING else None


def is_due(*, age_us: int, interval_us: int, rank: int) -> bool:
    """Tell whether a replica that looks at each partition once per interval is to lead a round now.

    The first replica of the preference list does, every time; the next ones when those before them have failed to, as
    they would if they reach others less well.

    Args:
        age_us: of the replica's own horizon.
        interval_us: between two rounds.
        rank: place on the preference list, 0 first.
    """
    return age_us * 4 >= interval_us * (3 + 4 * rank)


def highest_first(horizons: Mapping[NodeId, int]) -> list[NodeId]:
    """Return the replicas in the order in which one that lost rows is to synchronise with them."""
    return sorted(horizons, key=lambda node: (-horizons[node], node))


class Round:
    """What a round's leader has heard: who has sealed, who lags, what each has vowed."""

    def __init__(self, *, nodes: Sequence[NodeId], replicas: Sequence[NodeId], horizon_us: int) -> None:
        """Open a round for ``horizon_us``; ``nodes`` are all of the map, ``replicas`` among them."""
        self.horizon_us = horizon_us
        self._nodes = tuple(nodes)
        self._replicas = tuple(replicas)
        self._sealed: set[NodeId] = set()
        self._horizons: dict[NodeId, int] = {}
        self._whole: set[NodeId] = set()
        self.vows: dict[NodeId, int] = {}

    def sealed(self, node: NodeId, *, horizon_us: int, is_whole: bool, has_hints: bool, vow: int) -> None:
        """Note what ``node`` answered to the seal, or to being levelled.

        The first vow counts: one given anew later belongs to another life, or to a time after doubt.
        """
        if not has_hints:
            self._sealed.add(node)
        if node in self._replicas:
            self._horizons[node] = horizon_us
            self.vows.setdefault(node, vow)
            (self._whole.add if is_whole else self._whole.discard)(node)

    @property
    def waiting_for(self) -> tuple[NodeId, ...]:
        """Nodes that have not sealed yet, or hold hints from before."""
        return tuple(node for node in self._nodes if node not in self._sealed)

    @property
    def authority_us(self) -> int:
        """The highest horizon among the replicas that vouch for theirs."""
        return max((self._horizons[node] for node in self._replicas if node in self._whole), default=0)

    @property
    def lagging(self) -> tuple[NodeId, ...]:
        """Replicas that have to be levelled before any row may be gathered."""
        return tuple(
            node for node in self._replicas if node not in self._whole or self._horizons[node] < self.authority_us
        )

    def teachers(self, lagging: NodeId) -> list[NodeId]:
        """Return with whom ``lagging`` is to synchronise, in that order.

        One authority is enough for a replica that holds all its rows. One that lost some has to ask all the others:
        what it and one more replica had acknowledged may be on no third one.
        """
        others = highest_first({node: self._horizons[node] for node in self._replicas if node != lagging})
        return others[:1] if lagging in self._whole else others


def _without_leftovers(held: Row, authority: Row, horizon_us: int) -> Row:
    known = frozenset(authority.cells)
    names = frozenset([cell.name for cell in authority.cells] if authority.context else ())
    """Of a causal row: it has seen the cell, whose value may have been raised since (`core.crdt.counters`)."""

    def stays(cell: Cell) -> bool:
        is_known = cell in known or cell.name in names
        return is_known or cell.written_at.micros > horizon_us or rows.is_over(cell, horizon_us)

    return (
        held if all(map(stays, held.cells)) else msgspec.structs.replace(held, cells=tuple(filter(stays, held.cells)))
    )


def _said(row: Row, horizon_us: int, highest: int) -> Row | None:
    if highest == 0:
        return row
    return rows.purged(row, highest) if horizon_us == highest else later(row, highest)
