"""What a client saves by asking a replica of its key itself, in the place of any node: client-driven coordination.

    python -m merganser.bench.coordination                    # five real nodes on this machine, one client
    python -m merganser.bench.coordination --seeds a:7700,b:7700    # a cluster that there is
    python -m merganser.bench.coordination --simulated        # on the simulated network: the same on every machine

Two native clients take turns, in both orders alike: one asks a replica (`Client`), the other any node, as behind a load
balancer (``coordinated="any"``), which is a replica of N of the nodes. Keys are drawn, reads and writes alternate; a
request that is not answered counts nothing and is told. Source: DeCandia 2007 §6.4 and its table 2.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, get_args

import msgspec
import uvloop

from merganser.bench.histogram import Histogram
from merganser.client.client import Client
from merganser.client.session import Coordinated
from merganser.client.tables import ValueTable
from merganser.model.errors import MerganserError
from merganser.node.local_cluster import LocalCluster
from merganser.sim.native_clients import native_client
from merganser.sim.world import World

TABLE: Final = "coordination"
VALUE: Final = b"v" * 1000
WAYS: Final[tuple[Coordinated, ...]] = get_args(Coordinated)
CALLED: Final[dict[Coordinated, str]] = {"replica": "by a replica", "any": "by any node"}
PERCENTILES: Final = (0.5, 0.99)
READY_S: Final = 30.0
FILLED_AT_ONCE: Final = 50


class Figures:
    """What one of the clients saw."""

    def __init__(self) -> None:
        """Have seen nothing."""
        self.reads = Histogram()
        self.writes = Histogram()
        self.failed = 0
        self.hedges = 0


class Plan(msgspec.Struct, frozen=True):
    """What is measured."""

    keys: int = 1000
    at_once: int = 4
    """Requests of one client; each is followed by the next."""
    turns: int = 10
    """Of each client."""
    turn_s: float = 1.0
    consistency: str = "QUORUM"


async def compare(
    clients: dict[Coordinated, Client], plan: Plan, *, clock: Callable[[], float], rng: random.Random
) -> dict[Coordinated, Figures]:
    """Return what ``clients`` see, which take turns on a table that is made, filled and dropped.

    Raises:
        MerganserError: the table cannot be made, filled or dropped.
    """
    first = clients[WAYS[0]]
    table = await first.create_table(TABLE, conflicts="lww", timeout_s=READY_S)
    names = [f"key-{number}" for number in range(plan.keys)]
    for at in range(0, len(names), FILLED_AT_ONCE):
        filled = names[at : at + FILLED_AT_ONCE]
        await asyncio.gather(*(table.put(name, VALUE, timeout_s=READY_S) for name in filled))
    found = {way: Figures() for way in WAYS}
    for turn in range(-1, plan.turns):  # the first, which opens connections, counts for nothing
        for way in WAYS if turn % 2 else tuple(reversed(WAYS)):
            figures = Figures() if turn < 0 else found[way]
            until, client = clock() + plan.turn_s, clients[way]
            used = client.table(TABLE, consistency=plan.consistency)
            hedges = client.hedges
            asking = [_ask(used, names, figures, until, clock, rng) for _ in range(plan.at_once)]
            await asyncio.gather(*asking)
            figures.hedges += client.hedges - hedges
    await first.drop_table(TABLE, timeout_s=READY_S)
    return found


async def _ask(
    table: ValueTable,
    names: Sequence[str],
    figures: Figures,
    until: float,
    clock: Callable[[], float],
    rng: random.Random,
) -> None:
    while clock() < until:
        name = rng.choice(names)
        await _timed(table.get(name), figures.reads, figures, clock)
        await _timed(table.put(name, VALUE), figures.writes, figures, clock)


async def _timed(
    request: Awaitable[object], histogram: Histogram, figures: Figures, clock: Callable[[], float]
) -> None:
    began = clock()
    try:
        await request
    except MerganserError:
        figures.failed += 1
        return
    histogram.record((clock() - began) * 1e6)


def told(found: dict[Coordinated, Figures]) -> list[str]:
    """Return the figures as lines."""
    lines = [f"{'':14}" + "".join(f"{f'{what} p{share * 100:g}':>12}" for what, share in _columns())]
    for way in WAYS:
        cells = [f"{_of(found[way], what).percentile(share) / 1000:.2f} ms" for what, share in _columns()]
        asked = found[way].reads.total + found[way].writes.total
        aside = f"{asked:,} requests, {found[way].hedges} hedged, {found[way].failed} failed"
        lines.append(f"{CALLED[way]:14}" + "".join(f"{cell:>12}" for cell in cells) + f"   {aside}")
    saved = [
        1 - _of(found["replica"], what).percentile(share) / max(_of(found["any"], what).percentile(share), 1e-9)
        for what, share in _columns()
    ]
    lines.append(f"{'saved':14}" + "".join(f"{f'{share:.0%}':>12}" for share in saved))
    return lines


def _columns() -> list[tuple[str, float]]:
    return [(what, share) for what in ("read", "write") for share in PERCENTILES]


def _of(figures: Figures, what: str) -> Histogram:
    return figures.reads if what == "read" else figures.writes


async def _over_tcp(seeds: Sequence[str], plan: Plan, rng: random.Random) -> dict[Coordinated, Figures]:
    async with contextlib.AsyncExitStack() as stack:
        clients = {way: await stack.enter_async_context(Client(seeds, coordinated=way)) for way in WAYS}
        return await compare(clients, plan, clock=time.perf_counter, rng=rng)


def simulated(plan: Plan, *, nodes: int = 5, seed: int = 1) -> dict[Coordinated, Figures]:
    """Return what two clients see on a simulated network, in virtual time."""
    world = World(seed, machines=nodes)
    found: dict[Coordinated, Figures] = {}

    async def script(world: World) -> None:
        for machine in world.machines:
            machine.start()
        for machine in world.machines:
            await world.up(machine)
        async with _simulated_clients(world) as clients:
            found.update(await compare(clients, plan, clock=world.loop.time, rng=random.Random(seed)))

    world.run(script)
    return found


@contextlib.asynccontextmanager
async def _simulated_clients(world: World) -> AsyncIterator[dict[Coordinated, Client]]:
    async with contextlib.AsyncExitStack() as stack:
        yield {
            way: await stack.enter_async_context(native_client(world, f"client-{way}", coordinated=way)) for way in WAYS
        }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Plan()
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--seeds", help="host:port of peer ports of a running cluster, with commas; none: a new one")
    where.add_argument("--simulated", action="store_true", help="on the simulated network, in virtual time")
    parser.add_argument("--nodes", type=int, default=5, help="of the new, or simulated, cluster [5]")
    parser.add_argument("--keys", type=int, default=default.keys)
    parser.add_argument("--at-once", type=int, default=default.at_once, help="requests of the client at a time")
    parser.add_argument("--turns", type=int, default=default.turns, help="of each of the two")
    parser.add_argument("--turn-s", type=float, default=default.turn_s)
    parser.add_argument("--consistency", default=default.consistency)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    plan = Plan(given.keys, given.at_once, given.turns, given.turn_s, given.consistency)
    rng = random.Random(given.seed)
    if given.simulated:
        found = simulated(plan, nodes=given.nodes, seed=given.seed)
    else:
        with contextlib.ExitStack() as stack:
            seeds = given.seeds.split(",") if given.seeds else _new_cluster(stack, given.nodes)
            runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
            found = runner.run(_over_tcp(seeds, plan, rng))
    sys.stdout.write("\n".join(told(found)) + "\n")


def _new_cluster(stack: contextlib.ExitStack, nodes: int) -> list[str]:
    directory = stack.enter_context(tempfile.TemporaryDirectory())
    cluster = stack.enter_context(LocalCluster(Path(directory) / "cluster", nodes=nodes))
    return [node.addresses["peers"] for node in cluster.nodes]


if __name__ == "__main__":
    main()
