"""How long nobody leads after a leader is gone: whole simulated clusters, with default settings.

One machine after another is hit, at a random moment, while all is well and leaders are spread evenly. What is measured
is the time until others lead every group that it led, and confirm their epochs with a majority.

``python -m merganser.sim.takeover`` prints the table of docs/internals/leadership.md.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable

import msgspec
from rich.console import Console
from rich.table import Table

from merganser.model.leadership import Group
from merganser.service.leadership import Leadership
from merganser.sim.detection import quantile
from merganser.sim.machine import Machine
from merganser.sim.network import Conditions
from merganser.sim.world import World

PARTITIONS = 32
PATIENCE_S = 60.0
POLL_S = 0.002
LOOK_S = 0.05
"""Between two looks whether leaders are spread again."""


def _crash(world: World, machine: Machine) -> None:
    world.network.unnoticed_share = 0.0
    machine.crash()


def _vanish(world: World, machine: Machine) -> None:
    world.network.unnoticed_share = 1.0
    machine.crash()


def _pause(world: World, machine: Machine) -> None:
    machine.pause()


def _cut_off(world: World, machine: Machine) -> None:
    world.cut_off(machine)


FAULTS: dict[str, Callable[[World, Machine], None]] = {
    "process killed": _crash,
    "machine gone": _vanish,
    "stopped": _pause,
    "cut off": _cut_off,
}


class Findings(msgspec.Struct):
    """What the faults of one kind came to."""

    without_leader_s: list[float] = []
    """From each fault until others lead all that its victim led."""
    away_s: list[float] = []
    """From the end of each fault until leaders are spread evenly again."""


def leadership(machine: Machine) -> Leadership | None:
    """Return that of a machine that runs, None if it does not."""
    return None if machine.member is None or machine.is_paused else machine.member.leader_tables.leadership


async def measure(world: World, fault: Callable[[World, Machine], None], *, faults: int, loss: float) -> Findings:
    """Hit machines of a fresh ``world`` ``faults`` times."""
    findings = Findings()
    await world.start()
    await world.table(replication="leader")
    conditions = Conditions(loss=loss)
    world.network.conditions = conditions
    await _until(lambda: is_even(world), LOOK_S)
    for _ in range(faults):
        await asyncio.sleep(world.rng.uniform(0.0, 2.0))
        await _until(lambda: is_even(world), LOOK_S)
        victim = world.rng.choice(world.machines)
        own = leadership(victim)
        assert own is not None
        groups = [led.group for led in own.leading()]
        began = world.loop.time()
        fault(world, victim)
        others = [machine for machine in world.machines if machine is not victim]
        await _until(lambda: are_led(others, groups), POLL_S)  # noqa: B023
        findings.without_leader_s.append(world.loop.time() - began)
        began = world.loop.time()
        if not victim.is_up:
            victim.start()
            await world.up(victim)
        victim.resume()
        world.network.heal()
        world.network.conditions = conditions
        await _until(lambda: is_even(world), LOOK_S)
        findings.away_s.append(world.loop.time() - began)
    return findings


def are_led(machines: list[Machine], groups: list[Group]) -> bool:
    """Tell whether each of ``groups`` is led by one of ``machines``."""
    running = [own for machine in machines if (own := leadership(machine)) is not None]
    return all(any(own.led(group) is not None for own in running) for group in groups)


def is_even(world: World) -> bool:
    """Tell whether every group is led by its owner and by nobody else."""
    led = led_by_owners = 0
    for machine in world.machines:
        own = leadership(machine)
        if own is None or machine.member is None:
            return False
        ring, terms = machine.member.topology.ring, own.leading()
        led += len(terms)
        led_by_owners += sum(ring.owner(term.group.partition) == machine.node for term in terms)
    return led == led_by_owners == PARTITIONS


async def _until(is_so: Callable[[], bool], poll_s: float) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110  # virtual time
            await asyncio.sleep(poll_s)


HEADINGS = ("fault", "nodes", "loss", "without leader p50", "p99", "most", "faults", "even again p50", "p99")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m merganser.sim.takeover", description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[3, 5], help="sizes of cluster")
    parser.add_argument("--loss", type=float, nargs="+", default=[0.0, 0.05], help="shares of messages lost")
    parser.add_argument("--faults", type=int, default=100, help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    console = Console(width=120)
    began = time.perf_counter()
    table = Table(*HEADINGS, box=None)
    for nodes in given.nodes:
        for loss in given.loss:
            for name, fault in FAULTS.items():
                world = World(given.seed, machines=nodes, partitions=PARTITIONS)
                findings = world.run(lambda world: measure(world, fault, faults=given.faults, loss=loss))  # noqa: B023
                table.add_row(
                    name,
                    f"{nodes}",
                    f"{loss:.0%}",
                    *(f"{quantile(findings.without_leader_s, share):.2f} s" for share in (0.5, 0.99, 1.0)),
                    f"{len(findings.without_leader_s)}",
                    *(f"{quantile(findings.away_s, share):.1f} s" for share in (0.5, 0.99)),
                )
    console.print(table)
    console.print(f"{time.perf_counter() - began:.0f} s", highlight=False)


if __name__ == "__main__":
    main()
