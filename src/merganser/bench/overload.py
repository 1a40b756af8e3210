"""What a local cluster does under many times the load it can take: goodput, errors, memory, and how it is afterwards.

    python -m merganser.bench.overload --connections 3000 --duration 15

Three measurements of the same mix: at capacity, under overload, and at capacity again. In an overload every
connection asks again as soon as it was answered, or refused: worse than any SDK, which would wait.
"""

from __future__ import annotations

import argparse
import http.client
import sys
import tempfile
import threading
import time
from pathlib import Path

import msgspec
import orjson

from merganser.bench.processes import resident_mib
from merganser.bench.runner import Plan, Result, load, measure
from merganser.bench.setup import create_table
from merganser.node.local_cluster import LocalCluster, LocalNode

CAPACITY_CONNECTIONS = 48
"""Enough to keep three nodes on a few cores busy, and few enough that nothing queues for long."""
SAMPLE_S = 0.1


class Phase(msgspec.Struct, frozen=True):
    """One measurement."""

    name: str
    connections: int
    result: Result
    memory_mib: tuple[float, ...]
    """The most that each node had resident."""


class Report(msgspec.Struct, frozen=True):
    """The three, and what the nodes say of the bounds."""

    before: Phase
    overload: Phase
    after: Phase
    loads: list[dict[str, float]]
    """`service.admission.Load` of each node at the end."""

    @property
    def goodput(self) -> float:
        """Share of the capacity that was served under overload."""
        return self.overload.result.throughput / self.before.result.throughput

    @property
    def offered(self) -> float:
        """How many times as many requests arrived under overload as were served at capacity."""
        result = self.overload.result
        return (result.operations + result.errors) / result.seconds / self.before.result.throughput


class Memory:
    """The most memory that processes have resident, looked at now and then."""

    def __init__(self, pids: list[int]) -> None:
        """Look at ``pids``."""
        self.most_mib = [0.0] * len(pids)
        self._pids = pids
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Memory:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._is_over.wait(SAMPLE_S):
            for index, pid in enumerate(self._pids):
                self.most_mib[index] = max(self.most_mib[index], resident_mib(pid))


def run_overload(
    cluster: LocalCluster, *, connections: int, processes: int, duration_s: float, item_bytes: int = 1000
) -> Report:
    """Measure ``cluster``, which runs.

    Raises:
        ConfigurationError: a load process failed, or a node ended.
    """
    plan = Plan(
        endpoints=tuple(node.dynamodb_url for node in cluster.nodes),
        table="overload",
        items=2_000,
        item_bytes=item_bytes,
        connections=CAPACITY_CONNECTIONS,
        processes=processes,
        duration_s=duration_s / 3,
    )
    create_table(plan.endpoints[0], plan.table)
    load(plan)
    before = _phase("at capacity", cluster, plan)
    flood = msgspec.structs.replace(plan, connections=connections, duration_s=duration_s)
    overload = _phase("overloaded", cluster, flood)
    time.sleep(1.0)  # what was under way ends
    after = _phase("afterwards", cluster, plan)
    return Report(before, overload, after, [load_of(node) for node in cluster.nodes])


def load_of(node: LocalNode) -> dict[str, float]:
    """Return what a node says of its load."""
    connection = http.client.HTTPConnection(node.addresses["admin"], timeout=10.0)
    try:
        connection.request("GET", "/status")
        found: dict[str, float] = orjson.loads(connection.getresponse().read())["load"]
    finally:
        connection.close()
    return found


def _phase(name: str, cluster: LocalCluster, plan: Plan) -> Phase:
    pids = [node.pid for node in cluster.nodes if node.pid]
    with Memory(pids) as memory:
        result = measure(plan, server_pids=pids)
    return Phase(name, plan.connections, result, tuple(memory.most_mib))


def told(report: Report) -> str:
    """Return the report as lines for people."""
    lines = [f"offered {report.offered:.1f} times the capacity; goodput {report.goodput:.0%} of it"]
    for phase in (report.before, report.overload, report.after):
        result = phase.result
        memory = ", ".join(f"{mib:.0f}" for mib in phase.memory_mib)
        latency = result.latency_us
        lines.append(
            f"{phase.name:12} {phase.connections:5} connections: {result.throughput:7,.0f} served/s, "
            f"p50 get {latency['get'].p50 / 1000:.1f} ms, put {latency['put'].p50 / 1000:.1f} ms, "
            f"p99 get {latency['get'].p99 / 1000:.0f} ms, put {latency['put'].p99 / 1000:.0f} ms, "
            f"errors {result.faults or 'none'}, at most {memory} MiB"
        )
    lines += [f"load of node {number}: {load}" for number, load in enumerate(report.loads, start=1)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure a new local cluster and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--connections", type=int, default=3000)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--duration", type=float, default=15.0, help="seconds of overload")
    parser.add_argument("--item-bytes", type=int, default=1000)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="merganser-overload-") as directory,
        LocalCluster(Path(directory), nodes=3) as cluster,
    ):
        report = run_overload(
            cluster,
            connections=given.connections,
            processes=given.processes,
            duration_s=given.duration,
            item_bytes=given.item_bytes,
        )
    sys.stdout.write(told(report))


if __name__ == "__main__":
    main()
