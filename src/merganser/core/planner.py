"""Who is to own which partition next: the owners of a ring that has changed, as few of them changed as can be.

`plan` gives each member a number of partitions by its weight, takes away what some have too much, and lays it where it
goes best: any N neighbours on the ring lie on distinct nodes, on distinct machines, and in distinct zones, as far as
there are enough of them (a *window* is N, or how many there are if that is less).

Order of importance, most important first:

1. balance: a member owns its share by weight, rounded up or down;
2. no node, and no machine, twice within its window;
3. movement: what changes its owner is what some have too much, and beyond that only what 2 needs;
4. no zone twice within its window; before 3 if that is asked for.

A preference list skips repetitions on its walk (`core.ring`), so that replicas lie apart in any case; what a zone that
comes twice within a window costs is that some hold a few more replicas than others. Nothing moves to mend what cannot
be whole: some zone, say, has more than its window's part of the ring.

Where a ring was cut finer (`core.splitting`), neighbours that were one partition have one owner, and lie on one node
without any harm, as a walk skips repetitions. They are left together, or what is next to join would move half of the
ring only to bring them apart.

Pure and deterministic: every node that has the same map and members comes to the same plan.

Source: DeCandia 2007 §6.2, strategy 3; minimal movement is what its "randomly distributing" of partitions gives up.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import ParamSpec, TypeVar, cast

import msgspec

P = ParamSpec("P")
T = TypeVar("T")

REPLICAS = 3
"""The N that windows are for: that of nearly every table. A larger N has the first three of its replicas apart."""

_ROUNDS = 4
"""Of mending: each may make room for the next."""
_STEPS = 400
"""Of untangling; most that can be untangled at all are within fifty."""
_LOOKS = 256
"""Positions that are looked at in one step, if nothing is to be mended there."""
_TABU_STEPS = 9
"""How long a position stays as it is after a swap, so that the search does not go in circles."""
_NEVER = 1 << 62
"""More than any repetition costs."""


class Member(msgspec.Struct, frozen=True):
    """Who may own partitions."""

    number: int
    """1 to 2**32-1."""
    weight: float = 1.0
    """Share of the ring in relation to the others; above 0."""
    zone: str = ""
    fate: str = ""
    """Its machine; none: it is alone on one."""


def planning(
    owners: Sequence[int],
    members: Sequence[Member],
    *,
    n: int = REPLICAS,
    moves_for_zones: bool = False,
    siblings: int = 1,
) -> Generator[None, None, tuple[int, ...]]:
    """Return the number of the member that is to own each partition, after steps of some milliseconds.

    Of a ring of 16,384 partitions some steps take ten times as long. What is hard to lay out takes half a second in
    all: a ring of three after one of four has left, say.

    Args:
        owners: who owns each partition now, Q long; numbers that are no member's own nothing afterwards.
        members: at least one, numbers distinct; their order does not matter.
        n: how many neighbours are to lie apart.
        moves_for_zones: let partitions change their owner only to bring zones apart.
        siblings: how many neighbours were one partition before the ring was cut finer, a power of two.
    """
    assert members, "a ring has at least one member"
    members = sorted(members, key=lambda member: member.number)
    quotas = shares(owners, members)
    layout = _Layout(owners, members, quotas, n, siblings)
    layout.free_surplus()
    yield from layout.fill()
    for _ in range(_ROUNDS):
        if not (yield from layout.mend(moves_for_zones=moves_for_zones)):
            break
    yield from layout.untangle()
    return tuple(layout.owners)


def at_once(steps: Callable[P, Generator[None, None, T]]) -> Callable[P, T]:
    """Return a function that goes through all of ``steps`` without a pause."""

    @functools.wraps(steps)
    def run(*args: P.args, **named: P.kwargs) -> T:
        going = steps(*args, **named)
        while True:
            try:
                next(going)
            except StopIteration as end:
                return cast("T", end.value)

    return run


plan = at_once(planning)


def shares(owners: Sequence[int], members: Sequence[Member]) -> dict[int, int]:
    """Return how many partitions each member is to own, by number.

    The sum is Q, and each is its exact share rounded up or down. Who is rounded up: who owns more than the rounded down
    share already, so that it keeps them, then whose share is cut most.
    """
    weights = {member.number: Fraction(member.weight) for member in members}
    total = sum(weights.values())
    exact = {number: len(owners) * weight / total for number, weight in weights.items()}
    quotas = {number: int(share) for number, share in exact.items()}
    owned = Counter(owners)
    by_claim = sorted(
        (number for number in quotas if quotas[number] < exact[number]),
        key=lambda number: (owned[number] <= quotas[number], quotas[number] - exact[number], number),
    )
    for number in by_claim[: len(owners) - sum(quotas.values())]:
        quotas[number] += 1
    return quotas


def least_moves(owners: Sequence[int], members: Sequence[Member]) -> int:
    """Return how many partitions have to change their owner for balance alone."""
    owned = Counter(owners)
    quotas = shares(owners, members)
    return sum(max(0, count - quotas.get(number, 0)) for number, count in owned.items())


def repetitions(owners: Sequence[int], members: Sequence[Member], *, n: int = REPLICAS) -> dict[str, int]:
    """Return how many pairs of partitions within a window share their node, machine, or zone."""
    sides = _sides(members, n, shares(owners, members))
    found = {side.name: 0 for side in sides}
    for side in sides:
        for at in range(len(owners)):
            mine = side.of[owners[at]]
            found[side.name] += sum(
                side.of[owners[(at + step) % len(owners)]] == mine for step in range(1, min(side.window, len(owners)))
            )
    return found


class _Side(msgspec.Struct, frozen=True):
    """One of the things that neighbours are not to share."""

    name: str
    of: Mapping[int, str]
    window: int
    cost: int
    """Of a repetition: more than all that less important sides can cost two positions."""
    can_be_whole: bool
    """Nobody's part of the ring is too large for it."""


def _sides(members: Sequence[Member], n: int, quotas: Mapping[int, int]) -> tuple[_Side, ...]:
    base, count = 4 * n + 1, sum(quotas.values())
    names = {
        "zone": {member.number: member.zone for member in members},
        "machine": {member.number: member.fate or f"node {member.number}" for member in members},
        "node": {member.number: str(member.number) for member in members},
    }
    sides = []
    for rank, (name, of) in enumerate(names.items()):
        parts: Counter[str] = Counter()
        for number, quota in quotas.items():
            parts[of[number]] += quota
        window = min(n, len(parts))
        can_be_whole = max(parts.values()) <= -(-count // window)
        sides.append(_Side(name, of, window, base**rank, can_be_whole))
    return tuple(sides)


class _Prices(dict[int, dict[int, int]]):
    """What it costs that two members are neighbours at some distance, by the one and the other, if it costs anything.

    Found out for each member when it is first asked for.
    """

    def __init__(self, sides: Sequence[_Side], numbers: Sequence[int]) -> None:
        super().__init__()
        self._sides = sides
        self._numbers = numbers

    def __missing__(self, number: int) -> dict[int, int]:
        prices: dict[int, int] = {}
        for side in self._sides:
            mine = side.of[number]
            for other in self._numbers:
                if side.of[other] == mine:
                    prices[other] = prices.get(other, 0) + side.cost
        self[number] = prices
        return prices


class _Layout:
    """A ring being laid out anew."""

    def __init__(
        self, owners: Sequence[int], members: Sequence[Member], quotas: Mapping[int, int], n: int, siblings: int
    ) -> None:
        self._before = tuple(owners)
        self._siblings = siblings
        self._numbers = [member.number for member in members]
        self._quotas = quotas
        self._lacking = dict(quotas)
        """How many partitions each member is still to get."""
        self._sides = _sides(members, n, quotas)
        known = set(self._numbers)
        self.owners: list[int] = [owner if owner in known else 0 for owner in owners]
        """0: nobody yet."""
        for owner in self.owners:
            if owner:
                self._lacking[owner] -= 1
        self._near = self._nearness()
        self._moves_from = 1
        """What a swap has to save if partitions change their owner only for it."""

    def free_surplus(self) -> None:
        """Take from those who own too much: where neighbours are too alike, else as far apart as can be."""
        count = len(self.owners)
        apart = [count if owner else 0 for owner in self.owners]
        """Distance to the next position that nobody owns."""
        for at, owner in enumerate(self.owners):
            if not owner:
                self._note_free(at, apart)
        surplus = {number: -lack for number, lack in self._lacking.items() if lack < 0}
        owned: dict[int, list[int]] = {number: [] for number in surplus}
        for at, owner in enumerate(self.owners):
            if owner in owned:
                owned[owner].append(at)
        while surplus:
            number = max(surplus, key=lambda number: (surplus[number] / (self._quotas[number] or 1), -number))
            at = max(owned[number], key=lambda at: (self._cost(at, number), apart[at], -at))
            owned[number].remove(at)
            self.owners[at] = 0
            self._note_free(at, apart)
            surplus[number] -= 1
            self._lacking[number] += 1
            if not surplus[number]:
                del surplus[number]

    def fill(self) -> Iterator[None]:
        """Give what nobody owns to those who lack most, where it goes best, yielding before each."""
        for at in range(len(self.owners)):
            if not self.owners[at]:
                yield
                self._give(at)

    def mend(self, *, moves_for_zones: bool) -> Generator[None, None, bool]:
        """Swap owners where that makes windows better, yielding after each try; returns whether any swap did."""
        self._sides = tuple(side for side in self._sides if side.can_be_whole or side.name == "zone")
        self._near = self._nearness()
        self._moves_from = min(
            (side.cost for side in self._sides if side.can_be_whole and (side.name != "zone" or moves_for_zones)),
            default=_NEVER,
        )
        changed = [at for at, owner in enumerate(self.owners) if owner != self._before[at]]
        everywhere = range(len(self.owners))
        is_better = False
        for at in everywhere:
            cost = self._cost(at, self.owners[at])
            while cost and self._swap(at, everywhere if cost >= self._moves_from else changed):
                cost, is_better = self._cost(at, self.owners[at]), True
                yield
            if cost or at % _LOOKS == 0:
                yield
        return is_better

    def untangle(self) -> Iterator[None]:
        """Search on from where no single swap makes it better, through worse, for windows without a repetition.

        Yields after each step.

        A tabu search (Glover 1989): each step does the best swap for one bad position, whatever it costs, and leaves
        both positions alone for a while. The best layout on the way stays.
        """
        quiet_until: dict[int, int] = {}
        everywhere = range(len(self.owners))
        best, saved, most = list(self.owners), 0, 0
        for step in range(_STEPS):
            yield
            bad = [at for at in everywhere if self._cost(at, self.owners[at]) >= self._moves_from]
            if not bad:
                break
            at = bad[step % len(bad)]
            others = [
                other
                for other in everywhere
                if self.owners[other] != self.owners[at] and quiet_until.get(other, 0) <= step
            ]
            if not others:
                continue
            gain, _, other = self._best_swap(at, others)
            self.owners[at], self.owners[other] = self.owners[other], self.owners[at]
            quiet_until[at] = quiet_until[other] = step + _TABU_STEPS
            saved += gain
            if saved > most:
                best, most = list(self.owners), saved
        self.owners = best

    @staticmethod
    def _note_free(at: int, apart: list[int]) -> None:
        """Take note that nobody owns ``at``: whoever is nearer to it than to another such position lies around it."""
        count, apart[at] = len(apart), 0
        for way in 1, -1:
            for distance in range(1, count // 2 + 1):
                other = (at + way * distance) % count
                if apart[other] < distance:
                    break
                apart[other] = distance

    def _nearness(self) -> list[tuple[int, _Prices]]:
        """Return what neighbours cost at each distance at which anything counts."""
        largest = max((side.window for side in self._sides), default=1)
        return [
            (step, _Prices([side for side in self._sides if step < side.window], self._numbers))
            for step in range(1, min(largest, len(self.owners)))
        ]

    def _give(self, at: int) -> None:
        takers = [number for number in self._numbers if self._lacking[number] > 0]
        best = min(
            takers, key=lambda number: (self._cost(at, number), -self._lacking[number] / self._quotas[number], number)
        )
        self.owners[at] = best
        self._lacking[best] -= 1

    def _cost(self, at: int, number: int) -> int:
        """Return what it costs if ``number`` owns position ``at``, the others being as they are."""
        owners, count, cost = self.owners, len(self.owners), 0
        for step, prices in self._near:
            price_of = prices[number]
            for other in (at + step) % count, (at - step) % count:
                owner = owners[other]
                if owner in price_of and other != at:
                    if owner == number and self._are_left_together(at, other, owner):
                        continue
                    cost += price_of[owner]
        return cost

    def _are_left_together(self, one: int, other: int, owner: int) -> bool:
        """Tell whether two positions with one owner were one partition of that owner when this began."""
        return one // self._siblings == other // self._siblings and self._before[one] == self._before[other] == owner

    def _swap(self, at: int, others: Iterable[int]) -> bool:
        """Swap position ``at`` with that of ``others`` that gains most, if any does; returns whether one did.

        Of equal gains, the one that moves least.
        """
        best, gain, moves = -1, 0, 0
        for other in others:
            if self.owners[other] == self.owners[at]:
                continue
            saved = self._gain(at, other)
            if saved < gain or saved <= 0:
                continue
            moved = self._moved_by(at, other)
            if moved > 0 and saved < self._moves_from:
                continue
            if saved > gain or moved < moves:
                best, gain, moves = other, saved, moved
        if best < 0:
            return False
        self.owners[at], self.owners[best] = self.owners[best], self.owners[at]
        return True

    def _best_swap(self, at: int, others: Iterable[int]) -> tuple[int, int, int]:
        """Return gain, moves less, and position of what is best to swap with ``at``: the most of each in this order."""
        best = (-_NEVER, 0, -1)
        for other in others:
            gain = self._gain(at, other)
            if gain >= best[0]:
                best = max(best, (gain, -self._moved_by(at, other), other))
        return best

    def _gain(self, one: int, other: int) -> int:
        before = self._cost(one, self.owners[one]) + self._cost(other, self.owners[other])
        if not before:
            return 0
        self.owners[one], self.owners[other] = self.owners[other], self.owners[one]
        after = self._cost(one, self.owners[one]) + self._cost(other, self.owners[other])
        self.owners[one], self.owners[other] = self.owners[other], self.owners[one]
        return before - after

    def _moved_by(self, one: int, other: int) -> int:
        """Return how many more partitions have another owner than before if these two are swapped."""
        return sum(
            (self._before[at] != then) - (self._before[at] != now)
            for at, now, then in (
                (one, self.owners[one], self.owners[other]),
                (other, self.owners[other], self.owners[one]),
            )
        )


def moves(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Yield (partition, from, to) for each partition whose owner changes."""
    for partition, (old, new) in enumerate(zip(before, after, strict=True)):
        if old != new:
            yield partition, old, new
