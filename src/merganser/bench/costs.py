"""What a node costs that no load shows: its start, its idle memory, and what a million items come to.

A cold read is one after a restart with the page cache emptied of the node's files: `os.posix_fadvise` tells the kernel
to drop them, which it does for all that is on the disk, and needs no privilege. How much the node then reads from the
disk is told with the figure.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from merganser.bench.operations import SCAN
from merganser.bench.processes import usage
from merganser.bench.runner import Plan, Result, load, measure
from merganser.bench.setup import create_table, is_answering
from merganser.bench.workloads import named
from merganser.model.errors import ConfigurationError
from merganser.node.local_cluster import LocalCluster, LocalNode
from merganser.storage.rocks import open_database

IDLE_S = 3.0
SETTLE_S = 1.0  # what a start leaves to do is done
START_TIMEOUT_S = 30.0
ITEM_OVERHEAD_BYTES = len("pk" + "data")
_POLL_S = 0.002


def idle_cpu_ms(pids: Sequence[int]) -> float:
    """Return how many milliseconds of CPU time each of some servers takes in a second in which nobody asks anything."""
    before = usage(pids).cpu_seconds
    time.sleep(IDLE_S)
    return (usage(pids).cpu_seconds - before) * 1000 / IDLE_S / len(pids)


class Start(msgspec.Struct, frozen=True):
    """Medians of several starts."""

    new_s: float
    """From the start of the process to its first answer, of a node with an empty directory."""
    new_cpu_s: float
    """CPU time that it took by then."""
    again_s: float
    """The same, with what an earlier life left."""
    idle_bytes: int
    """Resident, a few seconds after the start, of a node that is a cluster by itself."""
    idle_of_three_bytes: int
    """The same of a node of a cluster of three, the largest of them."""
    idle_cpu_ms: float
    """CPU time that a node that is a cluster by itself takes in a second without requests."""


def measure_start(directory: Path, *, times: int) -> Start:
    """Start nodes under ``directory``, ``times`` each.

    Raises:
        ConfigurationError: one does not serve in half a minute.
    """
    new, new_cpu, again, idle, spent = [], [], [], [], []
    for number in range(times):
        cluster = LocalCluster(directory / f"{number}", nodes=1)
        try:
            new.append(_until_answered(cluster.nodes[0]))
            new_cpu.append(usage(_pids(cluster.nodes[0])).cpu_seconds)
            cluster.stop()
            again.append(_until_answered(cluster.nodes[0]))
            time.sleep(SETTLE_S)
            spent.append(idle_cpu_ms(_pids(cluster.nodes[0])))
            idle.append(_resident(cluster.nodes[0]))
        finally:
            cluster.stop()
    with LocalCluster(directory / "three") as three:
        time.sleep(IDLE_S)
        most = max(map(_resident, three.nodes))
    return Start(
        new_s=statistics.median(new),
        new_cpu_s=statistics.median(new_cpu),
        again_s=statistics.median(again),
        idle_bytes=round(statistics.median(idle)),
        idle_of_three_bytes=most,
        idle_cpu_ms=statistics.median(spent),
    )


def _until_answered(node: LocalNode) -> float:
    port = node.arguments[node.arguments.index("--dynamodb-port") + 1]
    began = time.perf_counter()
    node.start()
    while not is_answering(f"http://127.0.0.1:{port}"):
        if time.perf_counter() - began > START_TIMEOUT_S:
            raise ConfigurationError(f"the node in {node.directory} did not answer in {START_TIMEOUT_S:g} s")
        time.sleep(_POLL_S)
    return time.perf_counter() - began


def _resident(node: LocalNode) -> int:
    assert node.pid is not None
    return usage([node.pid]).resident_bytes


class Million(msgspec.Struct, frozen=True):
    """What so many small items came to, on one node."""

    items: int
    raw_bytes: int
    """Names and values of all attributes of all items, as DynamoDB counts them."""
    loaded_s: float
    loaded_cpu_us: float
    """Of the node, for each item."""
    loaded_written_bytes: int
    """By the node to its disk."""
    resident_bytes: int
    """At the end of the loading."""
    scan: Result
    """From one client, four segments."""
    cold: Result
    cold_read_bytes: int
    """From the disk, while that was measured, warm-up and all."""
    warm: Result
    warm_read_bytes: int
    disk_bytes: int
    """Of the database's directory, after all was compacted, node stopped."""


def measure_million(directory: Path, *, items: int, item_bytes: int, seconds: float) -> Million:
    """Load ``items`` of about ``item_bytes`` in all, scan them, read them cold and warm, compact them.

    Raises:
        ConfigurationError: the node or the load failed.
    """
    cluster = LocalCluster(directory, nodes=1)
    with cluster:
        node = cluster.nodes[0]
        plan = Plan(
            endpoints=(node.dynamodb_url,),
            table="million",
            items=items,
            item_bytes=max(1, item_bytes - ITEM_OVERHEAD_BYTES - len(f"item-{items - 1}")),
            connections=8,
            duration_s=seconds,
            workload=named("get"),
        )
        create_table(node.dynamodb_url, plan.table)
        before, began = usage(_pids(node)), time.perf_counter()
        load(plan)
        loaded_s, after = time.perf_counter() - began, usage(_pids(node))
        scanning = msgspec.structs.replace(plan, workload=named(SCAN), connections=4)
        scan = measure(scanning, server_pids=_pids(node))
        cluster.stop()
        empty_page_cache(node.directory)
        node.start()
        node.wait_until_ready()
        with _read_by(node) as cold_read:
            cold = measure(plan, server_pids=_pids(node))
        with _read_by(node) as warm_read:
            warm = measure(plan, server_pids=_pids(node))
    return Million(
        items=items,
        raw_bytes=sum(ITEM_OVERHEAD_BYTES + len(f"item-{item}") + plan.item_bytes for item in range(items)),
        loaded_s=loaded_s,
        loaded_cpu_us=(after.cpu_seconds - before.cpu_seconds) * 1e6 / items,
        loaded_written_bytes=after.written_bytes - before.written_bytes,
        resident_bytes=after.resident_bytes,
        scan=scan,
        cold=cold,
        cold_read_bytes=cold_read[0],
        warm=warm,
        warm_read_bytes=warm_read[0],
        disk_bytes=compacted_bytes(node.directory),
    )


def _pids(node: LocalNode) -> list[int]:
    return [node.pid] if node.pid is not None else []


@contextlib.contextmanager
def _read_by(node: LocalNode) -> Iterator[list[int]]:
    """Give a list that has, at the end, how many bytes ``node`` read from the disk meanwhile."""
    before = usage(_pids(node)).read_bytes
    read: list[int] = []
    yield read
    read.append(usage(_pids(node)).read_bytes - before)


def empty_page_cache(directory: Path) -> None:
    """Have the kernel forget what it keeps in memory of the files under ``directory``, which nobody writes."""
    for path in directory.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)  # what is not on the disk yet would stay
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def compacted_bytes(directory: Path) -> int:
    """Compact the database of a stopped node that lives in ``directory``; returns what its files take.

    Raises:
        ConfigurationError: there is no database.
    """
    found = list(directory.rglob("CURRENT"))
    if len(found) != 1:
        raise ConfigurationError(f"there are {len(found)} databases under {directory}, not one")
    path = found[0].parent
    database = open_database(path)
    database.flush()
    database.compact_range(None, None)
    database.close()
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
