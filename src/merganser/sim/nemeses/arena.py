"""Where faults happen: the cluster, the dice, and the count of what was done to it.

Every fault is undone by the one who began it, also when it is cut short, so faults of several kinds may
overlap on one machine. `heal` makes sure in the end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

from merganser.service.topology import load_map
from merganser.sim.history import Trouble
from merganser.sim.machine import Machine
from merganser.sim.network import Conditions
from merganser.sim.world import World

LASTS_S = (0.1, 1.5)  # clients work for a few seconds, and give up on a request after two


class Arena:
    """A cluster under faults; see the module's docstring."""

    def __init__(
        self, world: World, *, loss: float, clock_jump_s: float, lasts_s: tuple[float, float] = LASTS_S
    ) -> None:
        """Hurt the machines of ``world``: storms lose up to ``loss``, clocks are off up to ``clock_jump_s``.

        Each fault lasts for as long as is drawn from ``lasts_s``.
        """
        self._lasts_s = lasts_s
        self._world = world
        self.rng = world.rng
        self.machines = world.machines
        """Those that are members, or to be; they come and go."""
        self.loss = loss
        self.clock_jump_s = clock_jump_s
        self.faults: Counter[str] = Counter()
        """How often each was injected."""
        self.losses = 0
        """How often the log of a machine was cut."""
        self._network = world.network
        self._loop = world.loop
        self.troubles: list[Trouble] = []
        self._under_way: dict[asyncio.Task[Any] | None, list[Trouble]] = {}
        self.has_other_members = False
        """Machines have come or gone, or others hold what some have held: the map in the end does not tell who did."""
        self._storms: list[Conditions] = []
        self.unfinished: list[Callable[[], Awaitable[bool]]] = []
        """What has to be done for all to be well in the end."""

    def note(
        self,
        fault: str,
        sentence: str,
        *,
        of: Sequence[Machine] | None = None,
        is_lasting: bool = False,
        is_partial: bool = False,
    ) -> None:
        """Count one ``fault`` and tell what happens.

        Args:
            fault: its name.
            sentence: what happens.
            of: whom it hurts; every link it touches begins or ends there. None: everyone.
            is_lasting: until all is healed, and not only until the fault is undone.
            is_partial: those it hurts still hear some of the others, and are heard by some.
        """
        self.faults[fault] += 1
        self._loop.tell(f"fault: {sentence}")
        nodes = None if of is None else frozenset(machine.node for machine in of)
        trouble = Trouble(nodes, self._loop.time(), is_partial=is_partial)
        self.troubles.append(trouble)
        self._under_way.setdefault(None if is_lasting else asyncio.current_task(), []).append(trouble)

    def over(self, *, is_healed: bool = False) -> None:
        """Note that the faults of the task that runs are undone; all of them if ``is_healed``."""
        for task in list(self._under_way) if is_healed else [asyncio.current_task()]:
            for trouble in self._under_way.pop(task, ()):
                trouble.ended_s = self._loop.time()

    def tell(self, sentence: str) -> None:
        """Tell of something that is not a fault."""
        self._loop.tell(sentence)

    async def pass_time(self) -> None:
        """Return after the time a fault lasts."""
        await asyncio.sleep(self.rng.uniform(*self._lasts_s))

    @contextlib.contextmanager
    def cut(self, links: Iterable[tuple[Machine, Machine]]) -> Iterator[None]:
        """Lose everything from the first to the second machine of each of ``links``."""
        addresses = [(sender.address, receiver.address) for sender, receiver in links]
        for sender, receiver in addresses:
            self._network.cut(sender, receiver)
        try:
            yield
        finally:
            for sender, receiver in addresses:
                self._network.mend(sender, receiver)
            self.tell("these links are well again")

    def reset(self, links: Iterable[tuple[Machine, Machine]]) -> None:
        """Break the connections between the two machines of each of ``links``."""
        for one, other in links:
            self._network.reset(one.address, other.address)

    @contextlib.contextmanager
    def storm(self, conditions: Conditions) -> Iterator[None]:
        """Have the network behave so, and as badly as every other storm under way."""
        self._storms.append(conditions)
        self._network.conditions = _worst(self._storms)
        try:
            yield
        finally:
            self._storms.remove(conditions)
            self._network.conditions = _worst(self._storms)
            self.tell("the storm is over")

    @contextlib.contextmanager
    def paused(self, victims: Sequence[Machine]) -> Iterator[None]:
        """Stop ``victims``; another fault may start or stop them in between."""
        for machine in victims:
            if machine.is_up:
                machine.pause()
        try:
            yield
        finally:
            for machine in victims:
                machine.resume()
            self.tell(f"{addresses(victims)} go on")

    def up(self) -> list[Machine]:
        """Return the machines that run."""
        return [machine for machine in self.machines if machine.is_up]

    def is_everyone_whole(self) -> bool:
        """Tell whether no machine has lost anything that it has not got back, and none is about to."""
        return all(machine.engine.lost is None and not machine.disk.is_log_to_be_cut for machine in self.machines)

    def crash(self, victims: Sequence[Machine]) -> None:
        """Cut the power of ``victims`` at one moment."""
        for machine in victims:
            machine.crash()

    def start(self, machines: Sequence[Machine]) -> None:
        """Start those of ``machines`` that are down."""
        for machine in machines:
            if not machine.is_up:
                machine.start()
                self.tell(f"{machine.address} starts")

    def add_machine(self) -> Machine:
        """Start a fresh machine like the others, which joins them through one that is a member."""
        like = self.machines[0]
        self.has_other_members = True
        machine = self._world.add_machine(join=self.rng.choice(self.machines).address)
        machine.limits = like.limits
        machine.repair_interval_s, machine.purge_interval_s = like.repair_interval_s, like.purge_interval_s
        machine.purge_margin_us, machine.scrub_interval_s = like.purge_margin_us, like.scrub_interval_s
        self.tell(f"{machine.address} is new")
        machine.start()
        return machine

    def retire(self, machine: Machine) -> None:
        """Lose a machine for good, with its disk."""
        self.has_other_members = True
        self._world.retire(machine)

    def are_all_members(self) -> bool:
        """Tell whether no machine has yet to become a member, through another one."""
        return all(load_map(machine.engine) is not None for machine in self.machines)

    async def until_done(self, attempt: Callable[[], Awaitable[bool]]) -> None:
        """Try until ``attempt`` says that it is done; goes on after the run, if it must, when all is well again."""
        self.unfinished.append(attempt)
        await asyncio.sleep(self.rng.uniform(0.0, 2.0))
        await self._until(attempt)
        self.unfinished.remove(attempt)

    async def finish(self) -> None:
        """Do what was begun and cut short by the end of the run."""
        for attempt in self.unfinished:
            await self._until(attempt)

    async def _until(self, attempt: Callable[[], Awaitable[bool]]) -> None:
        is_done = await attempt()
        while not is_done:
            await asyncio.sleep(self.rng.uniform(0.1, 1.0))
            is_done = await attempt()

    def heal(self) -> None:
        """End whatever is left: links, clocks, pauses, disks, machines that are down."""
        self._network.heal()
        for machine in self.machines:
            machine.set_clock_right()
            machine.resume()
            machine.disk.heal()
            if machine.is_up and machine.engine.failure is not None:
                self.crash([machine])
        self.start(self.machines)
        self.over(is_healed=True)


def both_ways(some: Iterable[Machine], others: Sequence[Machine]) -> list[tuple[Machine, Machine]]:
    """Return every link between ``some`` and ``others``, in both directions."""
    pairs = [(one, other) for one in some for other in others]
    return pairs + [(other, one) for one, other in pairs]


def addresses(machines: Iterable[Machine]) -> str:
    """Return the machines in words."""
    return ", ".join(machine.address for machine in machines) or "nobody"


def _worst(storms: Sequence[Conditions]) -> Conditions:
    well = Conditions()
    return Conditions(
        delay_s=max((storm.delay_s for storm in storms), key=lambda delay_s: delay_s[1], default=well.delay_s),
        loss=max((storm.loss for storm in storms), default=well.loss),
        duplication=max((storm.duplication for storm in storms), default=well.duplication),
    )
