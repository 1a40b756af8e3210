"""How long clients wait while partitions move: real nodes, a steady load, a node that joins, and one replaced.

    python -m merganser.bench.growing --items 200000

Requests come at half the rate that a closed loop reached (``--share``), as a Poisson process, whether or not answers
do, and their latency counts from then on. *Before* and *after* are windows in which nothing moves; *during* are those
that lie within the operation from its beginning to its end. A node is replaced after it was killed, so what is before
that is a cluster that has lost one.

RocksDB compacts when some memtables have been filled: at a thousand requests a second, half of them puts of 1 KB, once
in a minute and a half, for seconds. Windows that are shorter together have one or not by chance, and are compared with
one that has.

A machine that others use has stalls of its own, which are the 99th of a hundred requests in any of these windows. A
`Witness` tells of them; the figures *in clear time* are those of the requests that did not begin in one or about it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from merganser.bench.histogram import Histogram
from merganser.bench.runner import Latency, Observed, Plan, Result, latency, load, measure, observe, summed
from merganser.bench.setup import create_table
from merganser.bench.takeover import wait_until_spread
from merganser.bench.witness import Slow, Witness, is_clear
from merganser.bench.workloads import mixed
from merganser.model.errors import ConfigurationError
from merganser.node.local_cluster import LocalCluster, LocalNode

TABLE = "growing"
CONNECTIONS = 48
PACED_CONNECTIONS = 256
"""In open loop: with few, one stall makes a line that takes seconds to end, and it is the line that is measured."""
SATURATION_S = 5.0
OPERATION_TIMEOUT_S = 1_800.0


Window = tuple[Observed, tuple[Slow, ...]]
"""What clients saw, and when the machine was slow."""


class Phase(msgspec.Struct, frozen=True):
    """What clients saw while something was so."""

    name: str
    result: Result
    """Of all windows together."""
    clear: Latency
    """Of all operations that began in clear time."""
    slow_s: float
    """How long a core was slow, of itself."""

    @classmethod
    def of(cls, name: str, windows: Sequence[Window]) -> Phase:
        """Sum windows up."""
        clear = Histogram()
        for observed, slow in windows:
            for started, took in (
                each for done in observed.done for one in done.operations.values() for each in one.times
            ):
                if is_clear(started, slow):
                    clear.record(took * 1e6)
        slow_s = sum(one.end - one.begin for _observed, slow in windows for one in slow)
        return cls(name, summed([observed for observed, _slow in windows]), latency(clear), slow_s)


class Report(msgspec.Struct, frozen=True):
    """What one operation came to."""

    operation: str
    seconds: float
    phases: tuple[Phase, ...]
    """Before, during, after."""

    @property
    def rise(self) -> float:
        """How many times as long as before the 99th of a hundred requests took while partitions moved."""
        before, during, _after = (phase.result.all_us.p99 for phase in self.phases)
        return during / before

    @property
    def rise_when_clear(self) -> float:
        """As `rise`, in clear time."""
        before, during, _after = (phase.clear.p99 for phase in self.phases)
        return during / before if before else float("nan")


class Operation:
    """A command of an operator, under way."""

    def __init__(self, *arguments: str, admin: str) -> None:
        """Begin."""
        command = (sys.executable, "-m", "merganser.cli", *arguments, "--yes", "--admin", admin)
        self._began = time.monotonic()
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.seconds = 0.0

    def is_over(self) -> bool:
        """Tell whether it is done.

        Raises:
            ConfigurationError: it has failed, or goes on and on.
        """
        status = self._process.poll()
        if status is None:
            if time.monotonic() - self._began > OPERATION_TIMEOUT_S:
                self._process.kill()
                raise ConfigurationError(f"an operation is not done after {OPERATION_TIMEOUT_S:g} s")
            return False
        self.seconds = self.seconds or time.monotonic() - self._began
        if status:
            assert self._process.stdout is not None
            raise ConfigurationError(f"an operation failed: {self._process.stdout.read()}")
        return True

    def end(self) -> None:
        """Watch it no longer."""
        self._process.kill()
        self._process.communicate()


def measure_operation(
    name: str, plan: Plan, begin: Callable[[], Operation], *, pids: Callable[[], Sequence[int]], windows: int
) -> Report:
    """Measure before, during and after an operation, with ``plan``, whose duration is that of a window.

    Raises:
        ConfigurationError: the operation failed, or was over before it could be seen; a load process failed.
    """
    before = [_watched(plan, pids()) for _ in range(windows)]
    operation = begin()
    try:
        during: list[Window] = []
        while not operation.is_over():
            seen = _watched(plan, pids())
            if not operation.is_over():
                during.append(seen)
    finally:
        operation.end()
    if not during:
        raise ConfigurationError(f"{name} took {operation.seconds:.1f} s: give more items, or shorter windows")
    after = [_watched(plan, pids()) for _ in range(windows)]
    phases = (("before", before), ("during", during), ("after", after))
    return Report(name, operation.seconds, tuple(Phase.of(when, seen) for when, seen in phases))


def _watched(plan: Plan, pids: Sequence[int]) -> Window:
    with Witness() as witness:
        observed = observe(plan, server_pids=pids)
    return observed, witness.slow


def run_growing(
    cluster: LocalCluster,
    *,
    items: int,
    share: float,
    rate: float | None = None,
    window_s: float,
    windows: int,
    replication: str,
    put_share: float,
    tell: Callable[[str], None],
) -> list[Report]:
    """Measure a fourth node that joins ``cluster``, and another in the place of one that was killed.

    Args:
        cluster: of three nodes, empty.
        items: to be loaded first, of 1 KB.
        share: of what a closed loop reaches is offered.
        rate: in requests a second, is offered in place of that.
        window_s: of one window.
        windows: before, and after.
        replication: of the table.
        put_share: of the requests.
        tell: told of what is being done, and of what came of it.

    Raises:
        ConfigurationError: as `measure_operation`.
    """

    def pids() -> list[int]:
        return [node.pid for node in cluster.nodes if node.pid is not None]

    first, second, third = cluster.nodes
    plan = Plan(
        endpoints=tuple(node.dynamodb_url for node in cluster.nodes),
        table=TABLE,
        items=items,
        connections=CONNECTIONS,
        duration_s=SATURATION_S,
        workload=mixed(put_share),
    )
    create_table(first.dynamodb_url, TABLE, replication=replication)
    load(plan)
    tell(f"{items:,} items of {plan.item_bytes:,} bytes are loaded")
    if replication == "leader":
        wait_until_spread(cluster)
    most = measure(plan, server_pids=pids())
    paced = msgspec.structs.replace(
        plan, rate=rate or most.throughput * share, duration_s=window_s, connections=PACED_CONNECTIONS, is_timed=True
    )
    if not Witness().is_allowed:
        tell("not allowed to watch the machine itself (CAP_SYS_NICE): all time is taken for clear")
    tell(f"saturated at {most.throughput:,.0f}/s, offered {paced.rate:,.0f}/s")

    fourth = _added(cluster)

    def join() -> Operation:
        return Operation("join", fourth.addresses["peers"], admin=first.addresses["admin"])

    reports = [measure_operation("join", paced, join, pids=pids, windows=windows)]
    tell(told(reports[-1]))
    fifth = _added(cluster)
    second.kill()
    _wait_until_known_to_be_away(first, "2")
    left = msgspec.structs.replace(paced, endpoints=(first.dynamodb_url, third.dynamodb_url, fourth.dynamodb_url))

    def replace() -> Operation:
        return Operation("replace", "2", "--by", fifth.addresses["peers"], admin=first.addresses["admin"])

    reports.append(measure_operation("replace", left, replace, pids=pids, windows=windows))
    tell(told(reports[-1]))
    return reports


def _added(cluster: LocalCluster) -> LocalNode:
    node = cluster.add_node()
    node.start()
    node.wait_until_ready()
    return node


def _wait_until_known_to_be_away(asked: LocalNode, number: str) -> None:
    """Return once the loss of a node would be believed."""
    command = (
        sys.executable,
        "-m",
        "merganser.cli",
        "remove",
        number,
        "--dry-run",
        "--admin",
        asked.addresses["admin"],
    )
    deadline = time.monotonic() + 60.0
    while "is alive" in " ".join(subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()):
        if time.monotonic() > deadline:
            raise ConfigurationError(f"node {number} was killed, and is alive for the others a minute later")
        time.sleep(0.2)


def told(report: Report) -> str:
    """Return a report as lines for people."""
    lines = [
        f"{report.operation}: {report.seconds:.1f} s; p99 rises {report.rise:.2f} times, "
        f"in clear time {report.rise_when_clear:.2f} times"
    ]
    for phase in report.phases:
        result, all_us, clear = phase.result, phase.result.all_us, phase.clear
        puts, cpu = result.latency_us.get("put", all_us), result.server_cpu_us_per_operation
        lines.append(
            f"  {phase.name:7} {result.seconds:4.0f} s, {result.throughput:6,.0f}/s: {_told_latency(all_us)}, "
            f"puts p99 {puts.p99 / 1000:7.2f} ms, CPU {0 if cpu is None else cpu:5.0f} µs, "
            f"errors {result.faults or 'none'}"
        )
        lines.append(
            f"    in clear time ({clear.count / max(1, all_us.count):.0%} of them; the machine was slow for "
            f"{phase.slow_s:.1f} s): {_told_latency(clear)}"
        )
    return "\n".join(lines)


def _told_latency(seen: Latency) -> str:
    return f"p50 {seen.p50 / 1000:6.2f} ms, p99 {seen.p99 / 1000:7.2f} ms, p99.9 {seen.p999 / 1000:7.2f} ms"


def main() -> None:
    """Measure a new local cluster and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=200_000, help="of 1 KB")
    parser.add_argument("--share", type=float, default=0.5, help="of what a closed loop reaches")
    parser.add_argument("--rate", type=float, help="requests a second, in place of --share")
    parser.add_argument("--window", type=float, default=10.0, help="seconds")
    parser.add_argument("--windows", type=int, default=9, help="before and after")
    parser.add_argument("--replication", choices=("leader", "leaderless"), default="leader")
    parser.add_argument("--puts", type=float, default=0.5, help="share of them, the others are eventual gets")
    given = parser.parse_args()

    def tell(text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    with (
        tempfile.TemporaryDirectory(prefix="merganser-growing-") as directory,
        LocalCluster(Path(directory) / "cluster", nodes=3) as cluster,
    ):
        run_growing(
            cluster,
            items=given.items,
            share=given.share,
            rate=given.rate,
            window_s=given.window,
            windows=given.windows,
            replication=given.replication,
            put_share=given.puts,
            tell=tell,
        )


if __name__ == "__main__":
    main()
