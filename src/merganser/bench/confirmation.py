"""What it costs to ask a majority before a consistent read is answered: two clusters, one of which does not ask.

    python -m merganser.bench.confirmation

The second cluster answers from its leader at once, which is what a lease would save at the very most, and wrong: a
leader that was deposed without knowing it would answer with old values. Both take the same load in turn.
"""

from __future__ import annotations

import argparse
import runpy
import sys
import tempfile
import uuid
from pathlib import Path
from statistics import median

from merganser.bench.runner import Plan, Result, load, measure
from merganser.bench.setup import create_table
from merganser.bench.takeover import wait_until_spread
from merganser.bench.workloads import named
from merganser.node.local_cluster import LocalCluster
from merganser.service.confirming import Confirmations, Term

UNCHECKED = "--as-if-nobody-else-could-lead"


async def _believe(_self: Confirmations, _term: Term, *, deadline: float) -> None:
    """Stand in for `Confirmations.confirm`."""


def _serve_unchecked() -> None:
    """Be the ``merganser`` command that follows ``UNCHECKED``, without the check."""
    Confirmations.confirm = _believe  # type: ignore[method-assign, assignment]
    sys.argv = ["merganser", *sys.argv[sys.argv.index("serve") :]]
    runpy.run_module("merganser.cli", run_name="__main__")


def _plan(cluster: LocalCluster, connections: int, seconds: float, items: int) -> Plan:
    urls = tuple(node.dynamodb_url for node in cluster.nodes)
    plan = Plan(
        endpoints=urls,
        table=f"bench-{uuid.uuid4().hex[:8]}",
        items=items,
        connections=connections,
        duration_s=seconds,
        workload=named("consistent-get"),
    )
    create_table(urls[0], plan.table, replication="leader")
    wait_until_spread(cluster)
    load(plan)
    return plan


def _told(name: str, connections: int, results: list[Result]) -> str:
    cpu_us = [result.server_cpu_us_per_operation or 0.0 for result in results]
    p50_ms = median(result.all_us.p50 for result in results) / 1000
    return (
        f"{connections:4} connections, {name:9}: CPU µs of all servers per read {min(cpu_us):.0f} (least), "
        f"{median(cpu_us):.0f} (median); p50 {p50_ms:.2f} ms"
    )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--connections", type=int, nargs="+", default=[3, 16, 64])
    parser.add_argument("--items", type=int, default=5_000)
    arguments = parser.parse_args()
    unchecked = (sys.executable, "-m", "merganser.bench.confirmation", UNCHECKED)
    with (
        tempfile.TemporaryDirectory() as directory,
        LocalCluster(Path(directory) / "asks") as asks,
        LocalCluster(Path(directory) / "believes", prefix=unchecked) as believes,
    ):
        for connections in arguments.connections:
            clusters = {"asks": asks, "believes": believes}
            plans = {
                name: _plan(cluster, connections, arguments.seconds, arguments.items)
                for name, cluster in clusters.items()
            }
            results: dict[str, list[Result]] = {name: [] for name in clusters}
            for _ in range(arguments.rounds):
                for name, cluster in clusters.items():
                    pids = [node.pid for node in cluster.nodes if node.pid is not None]
                    results[name].append(measure(plans[name], server_pids=pids))
            for name, found in results.items():
                print(_told(name, connections, found))  # noqa: T201


if __name__ == "__main__":
    if UNCHECKED in sys.argv:
        _serve_unchecked()
    else:
        main()
