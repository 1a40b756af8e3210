"""``make demo``: load a real data set through boto3 while a node is killed, and see what is left.

Exit status 0 if every acknowledged item is read back at QUORUM through every node and no client saw an
error beyond the SDK's own retries; 1 otherwise.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import pairwise
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from demo.cities import TABLE, Item, cities
from demo.clients import client_of
from demo.workers import Written, read_back, write
from merganser.node.local_cluster import LocalCluster

WRITERS = 4
VICTIM = 1


def main() -> int:
    """Run the demo; returns the exit status."""
    console = Console()
    items = cities()
    with tempfile.TemporaryDirectory(prefix="merganser-demo-") as directory:
        began = time.monotonic()
        with LocalCluster(Path(directory), zones=("zone-1", "zone-2", "zone-3")) as cluster:
            console.print(f"three nodes serve after {time.monotonic() - began:.2f} s:")
            for number, node in enumerate(cluster.nodes, start=1):
                console.print(f"  node {number}: {node.dynamodb_url}, process {node.pid}")
            _create_table(cluster)
            written = _load(console, cluster, items)
            _restart_victim(console, cluster)
            wrong = _verify(console, cluster, items)
    return _report(console, items, written, wrong)


def _create_table(cluster: LocalCluster) -> None:
    client = client_of([cluster.nodes[0].dynamodb_url])
    client.create_table(
        TableName=TABLE,
        AttributeDefinitions=[
            {"AttributeName": "country", "AttributeType": "S"},
            {"AttributeName": "id", "AttributeType": "N"},
        ],
        KeySchema=[
            {"AttributeName": "country", "KeyType": "HASH"},
            {"AttributeName": "id", "KeyType": "RANGE"},
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    client.get_waiter("table_exists").wait(TableName=TABLE, WaiterConfig={"Delay": 1, "MaxAttempts": 30})


def _load(console: Console, cluster: LocalCluster, items: list[Item]) -> list[Written]:
    """Write everything; half way, kill a node."""
    endpoints = [node.dynamodb_url for node in cluster.nodes]
    spawn = multiprocessing.get_context("spawn")
    with spawn.Manager() as manager, ProcessPoolExecutor(WRITERS, mp_context=spawn) as pool, _progress(console) as bar:
        queue: Any = manager.Queue()
        task = bar.add_task(f"PutItem from {WRITERS} processes", total=len(items))
        futures = [pool.submit(write, endpoints, items[i::WRITERS], queue) for i in range(WRITERS)]
        is_killed = False
        while not bar.finished:
            bar.advance(task, _next_progress(queue, futures))
            if not is_killed and bar.tasks[0].completed >= len(items) / 2:
                victim = cluster.nodes[VICTIM]
                bar.console.print(f"  kill -9 of node {VICTIM + 1}, process {victim.pid}, half way")
                victim.kill()
                is_killed = True
        return [future.result() for future in futures]


def _restart_victim(console: Console, cluster: LocalCluster) -> None:
    began = time.monotonic()
    victim = cluster.nodes[VICTIM]
    victim.start()
    victim.wait_until_ready()
    console.print(f"  node {VICTIM + 1} serves again {time.monotonic() - began:.2f} s after its restart")


def _verify(console: Console, cluster: LocalCluster, items: list[Item]) -> list[str]:
    """Read everything at QUORUM through every node."""
    spawn = multiprocessing.get_context("spawn")
    with spawn.Manager() as manager, ProcessPoolExecutor(3, mp_context=spawn) as pool, _progress(console) as bar:
        queue: Any = manager.Queue()
        task = bar.add_task("reads at QUORUM, all through each node", total=len(items) * len(cluster.nodes))
        futures = [pool.submit(read_back, node.dynamodb_url, items, queue) for node in cluster.nodes]
        while not bar.finished:
            bar.advance(task, _next_progress(queue, futures))
        return [sentence for future in futures for sentence in future.result()]


def _next_progress(queue: Queue[int], futures: list[Future[Any]]) -> int:
    try:
        return queue.get(timeout=0.5)
    except Empty:
        for future in futures:
            if future.done():
                future.result()  # raises what ended the process
        return 0


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )


def _report(console: Console, items: list[Item], written: list[Written], wrong: list[str]) -> int:
    acks = sorted(ack for one in written for ack in one.acks)
    errors = [error for one in written for error in one.errors]
    latencies = sorted(seconds for _, seconds in acks)
    gap = max((after[0] - before[0] for before, after in pairwise(acks)), default=0.0)
    table = Table(title="three nodes, one killed with -9 half way through the load")
    table.add_column("what")
    table.add_column("result", justify="right")
    rows = [
        ("items written", f"{sum(one.items for one in written):,} of {len(items):,}"),
        ("retries by the SDK", f"{sum(one.retries for one in written):,}"),
        ("errors seen by clients", f"{len(errors):,}"),
        ("put latency p50", f"{latencies[len(latencies) // 2] * 1000:.1f} ms"),
        ("put latency p99", f"{latencies[int(len(latencies) * 0.99)] * 1000:.1f} ms"),
        ("longest time without an acknowledged write", f"{gap * 1000:.0f} ms"),
        ("items read at QUORUM, through each of 3 nodes", f"{len(items):,}"),
        ("items lost or different", f"{len(wrong):,}"),
    ]
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for sentence in (*errors[:5], *wrong[:5]):
        console.print(f"  {sentence}")
    is_good = not errors and not wrong and len(acks) == len(items)
    console.print("verdict: nothing lost" if is_good else "verdict: FAILED")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
