"""What goes wrong in a run, one module a family; each fault is a coroutine that hurts, waits and undoes.

A nemesis is a set of faults. It runs in one to three lanes at a time, each drawing one fault after another, so
that faults overlap: a machine restarts while a link of it is cut, and its clock jumps meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from merganser.model.errors import ConfigurationError
from merganser.sim.nemeses import (
    clocks,
    crashes,
    data_centers,
    disks,
    drains,
    losses,
    membership,
    moves,
    partitions,
    pauses,
    rot,
    storms,
)
from merganser.sim.nemeses.arena import Arena

Fault = Callable[[Arena], Awaitable[None]]

FAMILIES: dict[str, tuple[Fault, ...]] = {
    "partitions": (
        partitions.halves,
        partitions.one_way,
        partitions.one_link,
        partitions.bridge,
        partitions.flapping,
        partitions.resets,
    ),
    "crashes": (crashes.one, crashes.several, crashes.everything, crashes.again_and_again),
    "pauses": (pauses.one, pauses.several, pauses.stutter),
    "storms": (storms.loss, storms.delay, storms.disorder, storms.all_at_once),
    "disks": (disks.slow, disks.short, disks.full, disks.failing),
    "losses": (losses.log_cut, losses.log_gone),
    "clocks": (clocks.jump, clocks.drift),
    "rot": (rot.one_row, rot.several_rows, rot.again_and_again),
}
NEMESES: dict[str, tuple[tuple[Fault, ...], ...]] = {
    "none": (),
    **{name: (family,) for name, family in FAMILIES.items()},
    "all": tuple(FAMILIES.values()),
    "moves": ((moves.weights, moves.zones, moves.cancelled),),
    "policies": ((moves.policies, moves.policies, moves.policies_cancelled),),
    "zones-of-tables": ((moves.zones_of_tables,),),
    "splits": ((moves.split, moves.split, moves.shares),),
    "membership": (
        (membership.joins, membership.joins, membership.leaves, membership.is_lost, membership.is_replaced),
    ),
    "drains": ((drains.one, drains.several, drains.restarted),),
    "data-centers": ((data_centers.cut_off, data_centers.cut_off, data_centers.power),),
}
"""By name, the families of faults; a family is drawn first, then a fault of it. Moves, policies, splits, membership
and drains are no faults and not among all, nor are those of data centres, which few runs have (``all+moves``)."""


def families_of(name: str) -> tuple[tuple[Fault, ...], ...]:
    """Return the families of the nemesis ``name``; several may be joined, as in ``crashes+disks``.

    Raises:
        ConfigurationError: there is no such nemesis.
    """
    for part in name.split("+"):
        if part not in NEMESES:
            raise ConfigurationError(
                f"no nemesis is called {part!r}: choose from {', '.join(NEMESES)}, or join some by +"
            )
    return tuple(family for part in name.split("+") for family in NEMESES[part])


LANES = (1, 1, 2, 3)
EVERY_S = (0.1, 1.0)


class Nemesis:
    """The faults of one run."""

    def __init__(self, name: str, arena: Arena, *, every_s: tuple[float, float] = EVERY_S) -> None:
        """Hurt ``arena`` with the faults of the nemesis ``name``, resting ``every_s`` between two in a lane."""
        self.arena = arena
        self._every_s = every_s
        self._families = families_of(name)
        self._lanes: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin; `stop` ends it."""
        if self._families:
            lanes = self.arena.rng.choice(LANES)
            self._lanes = [asyncio.get_running_loop().create_task(self._lane()) for _ in range(lanes)]

    async def stop(self) -> None:
        """Begin no more faults, undo those under way and heal the rest."""
        for lane in self._lanes:
            lane.cancel()
        for lane in self._lanes:
            try:
                await lane
            except asyncio.CancelledError:
                continue
        self.arena.heal()

    async def _lane(self) -> None:
        rng = self.arena.rng
        while True:
            await asyncio.sleep(rng.uniform(*self._every_s))
            await rng.choice(rng.choice(self._families))(self.arena)
            self.arena.over()
