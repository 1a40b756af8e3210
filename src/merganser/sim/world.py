"""A simulated cluster to play with: machines, network, and a way to run a coroutine against them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from merganser.model.cluster import Conflicts, Replication, Table
from merganser.model.errors import InvariantError
from merganser.model.index import IndexRequest
from merganser.model.policy import Policy
from merganser.service.member import Member
from merganser.sim.loop import SimulatedLoop
from merganser.sim.machine import Machine
from merganser.sim.network import SimulatedNetwork
from merganser.sim.witness import Witness
from merganser.storage.memory import MemoryEngine

T = TypeVar("T")

UP_TIMEOUT_S = 60.0
POLL_S = 0.01
GONE_S = 0.5
"""What a node that is a member no more may take to end."""


class World:
    """Everything of one run; one seed decides what happens in it."""

    def __init__(
        self,
        seed: int,
        *,
        machines: int = 3,
        zones: int = 3,
        data_centers: int = 0,
        partitions: int = 16,
        engine_type: type[MemoryEngine] = MemoryEngine,
    ) -> None:
        """Put ``machines`` on a network, in ``data_centers`` in turn if there are any; none is started."""
        self.rng = random.Random(seed)
        self.loop = SimulatedLoop(self.rng)
        self._count = machines
        self.network = SimulatedNetwork(self.loop, self.rng)
        self.witness = Witness()
        self._zones = zones
        self._data_centers = data_centers
        self._partitions = partitions
        self._engine_type = engine_type
        seeds = tuple(f"machine-{i}:7700" for i in range(machines))
        self.machines = [
            Machine(
                self.loop,
                self.network,
                self.rng,
                address=address,
                zone=f"zone-{i // (data_centers or 1) % zones}",
                data_center=self._data_center(i),
                seeds=seeds,
                partitions=partitions,
                witness=self.witness,
                engine_type=engine_type,
            )
            for i, address in enumerate(seeds)
        ]
        for machine in self.machines:
            machine.when_gone = self._gone
            self._note_place(machine)

    def run(self, play: Callable[[World], Coroutine[Any, Any, T]]) -> T:
        """Run ``play(world)`` to its end, on virtual time; a world runs once."""
        return self.loop.run(play(self))

    async def start(self) -> None:
        """Start every machine that is down and return when all are members."""
        for machine in self.machines:
            if not machine.is_up:
                machine.start()
        for machine in list(self.machines):
            await self.up(machine)

    async def up(self, machine: Machine) -> Member:
        """Return the machine's member once it is one.

        Raises:
            InvariantError: it did not come up.
        """
        deadline = self.loop.time() + UP_TIMEOUT_S
        while machine.member is None:
            if machine.errors:
                raise machine.errors[0]
            if self.loop.time() > deadline:
                raise InvariantError(f"{machine.address} did not come up in {UP_TIMEOUT_S} s")
            await asyncio.sleep(POLL_S)
        return machine.member

    def add_machine(
        self, *, join: str | None = None, zone: str | None = None, data_center: str | None = None
    ) -> Machine:
        """Put one machine more on the network, not started, which joins that of the machine at ``join`` (the first)."""
        number = self._count
        self._count += 1
        machine = Machine(
            self.loop,
            self.network,
            self.rng,
            address=f"machine-{number}:7700",
            zone=f"zone-{number // (self._data_centers or 1) % self._zones}" if zone is None else zone,
            data_center=self._data_center(number) if data_center is None else data_center,
            seeds=(),
            partitions=self._partitions,
            join=self.machines[0].address if join is None else join,
            witness=self.witness,
            engine_type=self._engine_type,
        )
        machine.when_gone = self._gone
        self._note_place(machine)
        self.machines.append(machine)
        return machine

    def _data_center(self, number: int) -> str:
        return f"dc-{number % self._data_centers}" if self._data_centers else ""

    def _note_place(self, machine: Machine) -> None:
        if machine.data_center:
            self.network.data_centers[machine.address] = machine.data_center

    def retire(self, machine: Machine) -> None:
        """Cut the power of a machine that is never to be started again, and forget it."""
        if machine in self.machines:
            self.machines.remove(machine)
        if machine.is_up:
            machine.crash()

    def _gone(self, machine: Machine) -> None:
        """Forget a machine that is a member no more, and end it soon."""
        if machine in self.machines:
            self.machines.remove(machine)
            self.loop.tell(f"{machine.address} is a member no more")
        self.loop.call_later(GONE_S, self.retire, machine)

    async def table(
        self,
        name: str = "t",
        *,
        n: int = 3,
        replication: Replication = "leaderless",
        indexes: Sequence[IndexRequest] = (),
        conflicts: Conflicts = "lww",
        wire: str = "sim",
        policy: Policy | None = None,
    ) -> Table:
        """Create a table through the first machine."""
        machine = self.machines[0]
        member = await self.up(machine)
        deadline = self.loop.time() + UP_TIMEOUT_S
        return await machine.spawn(
            member.catalog.create_table(
                wire=wire,
                name=name,
                n=n,
                definition=b"",
                unique_id=f"{self.rng.getrandbits(64):016x}",
                deadline=deadline,
                replication=replication,
                indexes=indexes,
                conflicts=conflicts,
                policy=policy,
            )
        )

    def cut_off(self, lonely: Machine) -> None:
        """Lose everything to and from one machine until the network heals."""
        for other in self.machines:
            self.network.cut(lonely.address, other.address)
            self.network.cut(other.address, lonely.address)

    def errors(self) -> list[BaseException]:
        """Return what nobody handled, on the loop and on the machines."""
        return [*self.loop.errors, *(error for machine in self.machines for error in machine.errors)]
