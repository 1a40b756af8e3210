"""What it takes to list the keys of a table by a native client: docs/internals/siblings.md tells its figures.

    python -m merganser.bench.listing                          # three real nodes on this machine, 100,000 keys
    python -m merganser.bench.listing --keys 10000 --turns 1

The table is filled, then listed some times, all keys each time. Told are the time until the last key is there, the CPU
that the nodes used meanwhile, and what they sent, to one another and to the client: what they wrote as the kernel
counts it (``wchar``, Linux), which is to sockets, as a list writes nothing to the disk. What else a node sends, to see
whether the others are alive, is among it: a few kB a second.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from merganser.bench.processes import family, usage
from merganser.client.client import Client
from merganser.client.tables import ValueTable
from merganser.model.errors import InvariantError
from merganser.node.local_cluster import LocalCluster

TABLE: Final = "listing"
VALUE_BYTES: Final = 1000
FILLED_AT_ONCE: Final = 100
TIMEOUT_S: Final = 30.0
MEGA: Final = 1e6


class Plan(msgspec.Struct, frozen=True):
    """What is measured."""

    keys: int = 100_000
    value_bytes: int = VALUE_BYTES
    nodes: int = 3
    turns: int = 3
    consistency: str = "QUORUM"


class Listed(msgspec.Struct, frozen=True):
    """What one list took."""

    seconds: float
    cpu_seconds: float
    """Of all nodes."""
    sent_bytes: int
    """By all nodes."""


async def measure(seeds: Sequence[str], pids: Sequence[int], plan: Plan) -> list[Listed]:
    """Return what lists of a table take that is made and filled, each of all keys.

    Args:
        seeds: peer addresses.
        pids: of the nodes.
        plan: what to list.

    Raises:
        InvariantError: a list is not what was put.
        MerganserError: the table cannot be made, filled or listed.
    """
    async with Client(seeds, timeout_s=TIMEOUT_S) as client:
        table = await client.create_table(TABLE)
        await _fill(table, plan)
        return [await _listed(client.table(TABLE, consistency=plan.consistency), pids, plan) for _ in range(plan.turns)]


async def _fill(table: ValueTable, plan: Plan) -> None:
    left, value = iter(range(plan.keys)), b"v" * plan.value_bytes

    async def work() -> None:
        for number in left:
            await table.put(f"key-{number:08}", value)

    await asyncio.gather(*(work() for _ in range(FILLED_AT_ONCE)))


async def _listed(table: ValueTable, pids: Sequence[int], plan: Plan) -> Listed:
    cpu_s, sent, began = usage(pids).cpu_seconds, sent_bytes(pids), time.perf_counter()
    found = [key async for key in table.keys()]  # noqa: SIM118  # no dictionary
    took = Listed(time.perf_counter() - began, usage(pids).cpu_seconds - cpu_s, sent_bytes(pids) - sent)
    if len(found) != plan.keys or len(set(found)) != plan.keys:
        raise InvariantError(f"{plan.keys} keys were put, {len(found)} are listed, {len(set(found))} of them different")
    return took


def sent_bytes(pids: Sequence[int]) -> int:
    """Return what processes and their children have written so far, to sockets and files."""
    total = 0
    for pid in family(pids):
        fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
        total += int(fields["wchar"])
    return total


def told(found: Sequence[Listed], plan: Plan) -> list[str]:
    """Return the figures as lines."""
    lines = [f"{plan.keys:,} keys of {plan.nodes} nodes", f"{'wall':>10}{'CPU':>10}{'sent':>12}"]
    lines += [f"{one.seconds:8.2f} s{one.cpu_seconds:8.2f} s{one.sent_bytes / MEGA:9.2f} MB" for one in found]
    return lines


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Plan()
    parser.add_argument("--keys", type=int, default=default.keys)
    parser.add_argument("--value-bytes", type=int, default=default.value_bytes)
    parser.add_argument("--nodes", type=int, default=default.nodes)
    parser.add_argument("--turns", type=int, default=default.turns, help="how often all keys are listed")
    parser.add_argument("--consistency", default=default.consistency)
    given = parser.parse_args()
    plan = Plan(given.keys, given.value_bytes, given.nodes, given.turns, given.consistency)
    with tempfile.TemporaryDirectory() as directory, LocalCluster(Path(directory), nodes=plan.nodes) as cluster:
        seeds = [node.addresses["peers"] for node in cluster.nodes]
        pids = [node.pid for node in cluster.nodes if node.pid is not None]
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(measure(seeds, pids, plan))
    sys.stdout.write("\n".join(told(found, plan)) + "\n")


if __name__ == "__main__":
    main()
