"""``make bench``: everything that `docs/performance.md` tells, measured again.

    python -m merganser.bench.suite                       # all sections, into the page and its JSON
    python -m merganser.bench.suite --only one-node       # some; the others keep the figures that they have
    python -m merganser.bench.suite --scale 0.1 --page ''  # a tenth of the time and of the items, printed only

Each section starts the servers that it needs on this machine, and stops them. All that is compared takes turns within
it (`compare`), and the floors are measured in it, so that a section stands by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from merganser.bench import figures, goals
from merganser.bench.compare import Line, Subject, Tables, compare
from merganser.bench.costs import SETTLE_S, idle_cpu_ms, measure_million, measure_start
from merganser.bench.exchange import compare_costs
from merganser.bench.figures import Fact, Section
from merganser.bench.floors import Storage, measure_storage
from merganser.bench.peers import all_served
from merganser.bench.plot import plot
from merganser.bench.processes import MIB
from merganser.bench.report import of_cluster, of_kind
from merganser.bench.runner import Plan
from merganser.bench.workloads import Workload, mixed, named
from merganser.model.build import BUILD
from merganser.model.errors import ConfigurationError
from merganser.node.local_cluster import LocalCluster

READS_AND_WRITES = (mixed(0.05), mixed(0.5))
OF_A_CLUSTER = (
    *map(named, ("get", "consistent-get", "put", "conditional-put", "update")),
    *READS_AND_WRITES,
    *(named(f"ycsb-{letter}") for letter in "abcdef"),
    *map(named, ("page", "batch-get", "batch-write", "transact-get", "transact-write")),
)
SIZES = (100, 1_000, 10_000, 100_000)
LOADS = (0.25, 0.5, 0.75, 0.9)
"""Of what the closed loop reached."""
MILLION = 1_000_000


class Run(NamedTuple):
    """What a section has to work with."""

    directory: Path
    """For it alone."""
    floor: Storage
    scale: float
    tell: Callable[[str], None]
    pure: str = ""
    """A Python with a Merganser of pure Python, measured as well where that is cheap; none: it is not."""

    def plan(self, *, turn_s: float, rounds: int, items: int = 10_000, connections: int = 16) -> Plan:
        """Return a plan for turns that take about ``turn_s``, and a table of ``items`` of 1 KB."""
        return Plan(
            endpoints=(),
            table="",
            items=max(1_000, round(items * self.scale)),
            connections=connections,
            duration_s=max(0.2, turn_s * self.scale) * rounds,
        )

    def compare(
        self,
        subjects: Sequence[Subject],
        workloads: Sequence[Workload],
        plan: Plan,
        *,
        tables: Tables,
        rounds: int,
        has_floor: bool = True,
    ) -> list[Line]:
        """Compare, and tell of each workload."""
        floor = self.floor if has_floor else None
        lines = compare(subjects, workloads, plan, tables=tables, rounds=rounds, floor=floor)
        for line in lines:
            cpu = line.result.server_cpu_us_per_operation
            self.tell(
                f"  {line.workload}, {line.item_bytes:,} bytes, {line.connections} connections, {line.subject}: "
                f"{line.result.throughput:,.0f}/s, p50 {line.result.all_us.p50 / 1000:.2f} ms"
                + ("" if cpu is None else f", CPU {cpu:.0f} µs")
            )
        return lines


def _one_node(run: Run) -> Section:
    rounds = 3
    lines: list[Line] = []
    with (
        LocalCluster(run.directory / "node", nodes=1) as cluster,
        _pure(run) as pure,
        all_served(run.directory, tell=run.tell) as peers,
        Tables() as tables,
    ):
        subjects = [of_cluster(cluster, "merganser"), *pure, *peers]
        for connections in (16, 64):
            plan = run.plan(turn_s=1.0, rounds=rounds, items=2_000, connections=connections)
            lines += run.compare(subjects, (named("get"), named("put")), plan, tables=tables, rounds=rounds)
        paging = run.plan(turn_s=1.0, rounds=rounds, items=2_000)
        lines += run.compare(subjects, (named("page"),), paging, tables=tables, rounds=rounds)
    return Section(
        "One node beside other servers",
        "One node with its data on disk, every acknowledged write fsynced; the others keep theirs in memory. One load "
        f"process, the two cores shared. {rounds} rounds of turns, after a warm-up each.",
        tuple(lines),
        floor=run.floor,
    )


@contextlib.contextmanager
def _pure(run: Run) -> Iterator[list[Subject]]:
    """Serve with a Merganser of pure Python, if there is one."""
    if not run.pure:
        yield []
        return
    with LocalCluster(run.directory / "pure", nodes=1, python=run.pure) as cluster:
        yield [of_cluster(cluster, "merganser, pure Python")]


def _three_nodes(run: Run) -> Section:
    rounds = 2
    with LocalCluster(run.directory / "cluster") as cluster, Tables() as tables:
        cluster_ = of_cluster(cluster)
        kinds = [of_kind(cluster_, "leader"), of_kind(cluster_, "leaderless")]
        plan = run.plan(turn_s=1.0, rounds=rounds, connections=48)
        lines = run.compare(kinds[:1], OF_A_CLUSTER, plan, tables=tables, rounds=rounds)
        both = (named("get"), named("consistent-get"), named("put"), *READS_AND_WRITES)
        lines += run.compare(kinds, both, plan, tables=tables, rounds=rounds, has_floor=False)
    return Section(
        "Three nodes",
        "N = 3, clients of all three nodes on the same two cores, three load processes. CPU is of all nodes together. "
        "At the end, both kinds of tables take turns.",
        tuple(lines),
        floor=run.floor,
    )


def _sizes(run: Run) -> Section:
    lines: list[Line] = []
    with LocalCluster(run.directory / "node", nodes=1) as cluster, Tables() as tables:
        for item_bytes in SIZES:
            plan = run.plan(turn_s=1.5, rounds=1, items=min(10_000, 50_000_000 // item_bytes))
            plan = msgspec.structs.replace(plan, item_bytes=item_bytes)
            lines += run.compare(
                [of_cluster(cluster, "merganser")], (named("get"), named("put")), plan, tables=tables, rounds=1
            )
    return Section("Sizes of items", "One node; the echo answers as many bytes.", tuple(lines), floor=run.floor)


def _open_loop(run: Run) -> Section:
    lines: list[Line] = []
    with LocalCluster(run.directory / "cluster") as cluster, Tables() as tables:
        subject = of_cluster(cluster, "merganser")
        plan = run.plan(turn_s=2.0, rounds=1, items=2_000, connections=64)
        (most, _) = run.compare([subject], (mixed(0.05),), plan, tables=tables, rounds=1)
        for share in LOADS:
            paced = msgspec.structs.replace(plan, rate=most.result.throughput * share)
            lines += run.compare([subject], (mixed(0.05),), paced, tables=tables, rounds=1)[:1]
    told = [(line.rate, line.result.all_us) for line in lines]
    curves = {
        "p50": [(rate, latency.p50 / 1000) for rate, latency in told],
        "p99": [(rate, latency.p99 / 1000) for rate, latency in told],
        "p99.9": [(rate, latency.p999 / 1000) for rate, latency in told],
    }
    return Section(
        "Latency at a given load",
        "Three nodes, open loop: requests come as a Poisson process whether or not answers do, and their latency "
        f"counts from then. Offered are shares of the {most.result.throughput:,.0f}/s of the closed loop.",
        tuple(lines),
        plot=plot(curves, x="requests a second offered", y="ms", is_x_linear=True),
        floor=run.floor,
    )


def _scale(run: Run) -> Section:
    rounds = 3
    with (
        LocalCluster(run.directory / "three", nodes=3) as three,
        LocalCluster(run.directory / "nine", nodes=9) as nine,
        Tables() as tables,
    ):
        subjects = [
            msgspec.structs.replace(subject, endpoints=subject.endpoints[:3])
            for subject in (of_cluster(three, "3 nodes"), of_cluster(nine, "9 nodes"))
        ]
        time.sleep(SETTLE_S)
        idle = [Fact(f"CPU of an idle node of {one.name}", idle_cpu_ms(one.pids), "ms a second") for one in subjects]
        plan = run.plan(turn_s=1.0, rounds=rounds, connections=48)
        lines = run.compare(subjects, (named("get"), named("put"), mixed(0.5)), plan, tables=tables, rounds=rounds)
    return Section(
        "More nodes",
        "The same load, through three nodes of either cluster; both run on the same two cores, so what can grow is the "
        "work for each operation. What nodes do without being asked is in it as well.",
        tuple(lines),
        tuple(idle),
        floor=run.floor,
    )


def _start(run: Run) -> Section:
    found = measure_start(run.directory, times=5 if run.scale >= 1 else 1)
    return Section(
        "Starting and idling",
        "From the start of the process until a signed request was answered.",
        facts=(
            Fact("start with an empty directory", found.new_s, "s", note=f"{found.new_cpu_s:.2f} s of CPU time"),
            Fact("start again", found.again_s, "s"),
            Fact("resident memory of an idle node", found.idle_bytes / 1e6, "MB"),
            Fact("CPU of an idle node", found.idle_cpu_ms, "ms a second"),
            Fact("resident memory of an idle node of three, the largest", found.idle_of_three_bytes / 1e6, "MB"),
        ),
    )


def _million(run: Run) -> Section:
    items = max(1_000, round(MILLION * run.scale))
    found = measure_million(run.directory, items=items, item_bytes=200, seconds=max(0.5, 5.0 * run.scale))
    scan_floor = 1e6 / run.floor.iterate_us
    return Section(
        f"{items:,} items of 200 bytes",
        "One node. Loaded in batches of 25 over 8 connections; scanned by one client in four segments; read at random "
        "after a restart with the page cache emptied of the node's files (`posix_fadvise`), and once more; then the "
        "node was stopped and RocksDB compacted.",
        facts=(
            Fact("loaded", items / found.loaded_s, "items/s"),
            Fact("CPU for an item loaded", found.loaded_cpu_us, "µs", found.loaded_cpu_us / run.floor.put_us),
            Fact("written to the disk by then", found.loaded_written_bytes / found.raw_bytes, "bytes per byte stored"),
            Fact("resident then", found.resident_bytes / MIB, "MiB"),
            Fact("scanned", found.scan.items_per_second, "items/s", scan_floor / found.scan.items_per_second),
            Fact(
                "cold get, p50",
                found.cold.all_us.p50 / 1000,
                "ms",
                note=f"p99 {found.cold.all_us.p99 / 1000:.2f} ms, {found.cold.throughput:,.0f}/s, 8 connections; "
                f"{found.cold_read_bytes / MIB:,.0f} MiB came from the disk",
            ),
            Fact(
                "warm get, p50",
                found.warm.all_us.p50 / 1000,
                "ms",
                note=f"p99 {found.warm.all_us.p99 / 1000:.2f} ms, {found.warm.throughput:,.0f}/s; "
                f"{found.warm_read_bytes / MIB:,.0f} MiB came from the disk",
            ),
            Fact("on disk after compaction", found.disk_bytes / found.raw_bytes, "bytes per byte stored"),
        ),
        floor=run.floor,
    )


def _anti_entropy(run: Run) -> Section:
    rows, differing = max(1_000, round(MILLION * run.scale)), 1_000 if run.scale >= 1 else 100
    measured = asyncio.run(compare_costs(run.directory, rows=rows, differing=differing, value_bytes=200))
    facts: list[Fact] = []
    for one in measured:
        if one.rows:
            facts.append(Fact("hash-tree upkeep of a write", one.seconds * 1e6 / one.rows, "µs", note="of one thread"))
            continue
        facts.append(Fact(one.name, one.seconds, "s", note=f"CPU {one.cpu_seconds:.3f} s of both"))
        if one.wire_bytes:
            note = f"{one.listed:,} keys listed, {one.met:,} rows sent"
            facts.append(Fact(f"{one.name}: on the wire", one.wire_bytes, "bytes", note=note))
    return Section(
        "Anti-entropy",
        f"Two nodes, one partition of {rows:,} rows of 200 bytes (`python -m merganser.bench.exchange`).",
        facts=tuple(facts),
    )


SECTIONS: dict[str, Callable[[Run], Section]] = {
    "one-node": _one_node,
    "three-nodes": _three_nodes,
    "sizes": _sizes,
    "open-loop": _open_loop,
    "scale": _scale,
    "start": _start,
    "million": _million,
    "anti-entropy": _anti_entropy,
}


def measure_section(name: str, *, scale: float, tell: Callable[[str], None], pure: str = "") -> Section:
    """Measure one section; see `Run` for what is given.

    Raises:
        ConfigurationError: a server cannot be started, or refuses.
    """
    load, began = os.getloadavg()[0], time.monotonic()
    tell(f"{name}:")
    with tempfile.TemporaryDirectory(prefix="merganser-bench-") as directory:
        floor = measure_storage(Path(directory))
        (place := Path(directory) / name).mkdir()
        section = SECTIONS[name](Run(place, floor, scale, tell, pure))
    return msgspec.structs.replace(
        section,
        taken=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        machine=_machine(),
        load=load,
        seconds=time.monotonic() - began,
        scale=scale,
    )


def _machine() -> str:
    cores = len(os.sched_getaffinity(0))
    return (
        f"{cores} cores of {_processor()}, Linux {platform.release()}, CPython {platform.python_version()}, "
        f"Merganser {BUILD}"
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def _tell(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Measure; each section is in the page and the JSON as soon as it is measured."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # servers are stopped on the way out
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--only", action="append", choices=list(SECTIONS), help="a section; repeat")
    parser.add_argument("--page", default="docs/performance.md", help="whose tables are written; '': none")
    parser.add_argument("--scale", type=float, default=1.0, help="of times and numbers of items")
    parser.add_argument(
        "--pure", default="", metavar="PYTHON", help="with a Merganser of pure Python, to be told beside"
    )
    given = parser.parse_args()
    page = Path(given.page) if given.page else None
    try:
        if page is not None:
            figures.check_page(page)
        failed = _run(given.only or list(SECTIONS), page, given.scale, given.pure)
    except ConfigurationError as error:
        sys.exit(f"merganser: {error}")
    if failed:
        sys.exit(f"merganser: not measured: {', '.join(failed)}")


def _run(names: Sequence[str], page: Path | None, scale: float, pure: str) -> list[str]:
    """Measure sections; returns those that could not be, of which the reason is told."""
    failed: list[str] = []
    kept = page.with_suffix(".json") if page is not None else None
    found = figures.read(kept) if kept is not None else figures.Figures()
    for name in names:
        try:
            section = measure_section(name, scale=scale, tell=_tell, pure=pure)
        except ConfigurationError as error:
            _tell(f"  {name} is left as it was: {error}")
            failed.append(name)
            continue
        found = figures.Figures({**found.sections, name: section})
        if page is None or kept is None:
            _tell(figures.markdown(section))
        else:
            figures.write(found, kept)
            figures.put_into_page(found, list(SECTIONS), page, opening=goals.markdown(found))
    return failed


if __name__ == "__main__":
    main()
