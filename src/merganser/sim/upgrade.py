"""A rolling upgrade: machines that begin on an older version are restarted on the newest, one after another.

They are killed, which is the hardest way to be upgraded; what crashes them meanwhile brings them back on the version
they had. What the cluster map says is looked at before each step: it may never be of a version that a machine does not
speak.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from merganser.model.versions import NEWEST, OLDEST, SPOKEN, Versions
from merganser.sim.checkers import Violation
from merganser.sim.machine import Machine
from merganser.sim.nemeses.arena import Arena

DOWN_S = (0.02, 0.5)


class Upgrade:
    """That of one run; see the module's docstring."""

    def __init__(self, arena: Arena, older: int, *, every_s: tuple[float, float]) -> None:
        """Have the first ``older`` machines of ``arena``, which are not started yet, begin on the oldest version."""
        self._arena = arena
        self._older = arena.machines[:older]
        self._every_s = every_s
        for machine in self._older:
            machine.versions = Versions(newest=OLDEST)
        self.violations: list[Violation] = []

    async def run(self) -> None:
        """Upgrade all of them; returns when the last one has been started again."""
        for machine in self._older:
            await asyncio.sleep(self._arena.rng.uniform(*self._every_s))
            self._look()
            machine.versions = SPOKEN
            if machine.is_up:
                self._arena.crash([machine])
            self._arena.note("upgrade", f"{machine.address} is killed to be upgraded", of=[machine])
            await asyncio.sleep(self._arena.rng.uniform(*DOWN_S))
            self._arena.start([machine])
            self._arena.over()

    def _look(self) -> None:
        self.violations += [Violation("versions", told) for told in ahead_of_members(self._arena.machines)]


def ahead_of_members(machines: Sequence[Machine]) -> Iterator[str]:
    """Yield who knows a cluster map of a version that not all ``machines`` speak."""
    spoken = min(machine.versions.newest for machine in machines)
    for machine in machines:
        if machine.member is not None and machine.member.topology.map.version > spoken:
            version = machine.member.topology.map.version
            yield f"the map that {machine.address} knows is of version {version}, and one machine speaks {spoken}"


def behind_members(machines: Sequence[Machine]) -> Iterator[str]:
    """Yield who knows no cluster map of the newest version, now that all ``machines`` speak it and all is well."""
    for machine in machines:
        if machine.member is not None and machine.member.topology.map.version != NEWEST:
            yield f"the map that {machine.address} knows is of version {machine.member.topology.map.version} still"
