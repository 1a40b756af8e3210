"""``merganser bench``: measure several mixes against one endpoint or a new local cluster, and print a table."""

from __future__ import annotations

import contextlib
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

import msgspec
from rich.console import Console
from rich.table import Table

from merganser.bench.runner import Plan, Result, cpu_seconds, load, measure
from merganser.bench.setup import create_table, drop_table
from merganser.model.cluster import Replication
from merganser.model.errors import ConfigurationError
from merganser.node.local_cluster import LocalCluster

SETTLE_S = 1.0  # background writes of the load phase end before the clock starts


class Mix(msgspec.Struct, frozen=True):
    """One line of the report."""

    replication: str | None
    """Of the table; None: whatever the endpoint makes."""
    name: str
    put_share: float
    is_consistent: bool
    result: Result


def run_bench(
    *,
    endpoints: Sequence[str],
    nodes: int,
    items: int,
    item_bytes: int,
    connections: int,
    processes: int,
    duration_s: float,
    put_shares: Sequence[float],
    replications: Sequence[str | None],
    server_pids: Sequence[int],
    as_json: bool,
) -> None:
    """Load a table of its own of each kind, measure each mix, drop the table, print.

    Raises:
        ConfigurationError: the endpoint is wrong or refuses.
    """
    _check(endpoints, server_pids)
    _check_replications(replications)
    with _servers(endpoints, nodes, server_pids) as (urls, pids):
        plan = Plan(
            endpoints=tuple(urls),
            table="",
            items=items,
            item_bytes=item_bytes,
            connections=connections,
            processes=processes,
            duration_s=duration_s,
        )
        mixes = [mix for kind in replications for mix in _measured(plan, kind, put_shares, pids)]
    if as_json:
        Console(soft_wrap=True, highlight=False).print(msgspec.json.format(msgspec.json.encode(mixes)).decode())
        return
    console = Console()
    console.print(
        f"{plan.items:,} items of {plan.item_bytes:,} bytes, {plan.connections} connections, "
        f"{len(plan.endpoints)} endpoint(s), {plan.duration_s:g} s each",
        highlight=False,
    )
    console.print(_table(mixes))
    for mix in mixes:
        if mix.result.errors:
            console.print(f"{mix.name}: the first error was {mix.result.first_error}", markup=False)


def _measured(plan: Plan, replication: str | None, put_shares: Sequence[float], pids: Sequence[int]) -> list[Mix]:
    plan = msgspec.structs.replace(plan, table=f"bench-{uuid.uuid4().hex[:8]}")
    create_table(plan.endpoints[0], plan.table, replication=replication)
    try:
        load(plan)
        time.sleep(SETTLE_S)
        return [_measure(plan, replication, share, is_consistent, pids) for share, is_consistent in _mixes(put_shares)]
    finally:
        drop_table(plan.endpoints[0], plan.table)


def _check(endpoints: Sequence[str], server_pids: Sequence[int]) -> None:
    for endpoint in endpoints:
        try:
            url = urlsplit(endpoint)
            is_good = bool(url.scheme == "http" and url.hostname and url.port)
        except ValueError:  # its port is no port
            is_good = False
        if not is_good:
            raise ConfigurationError(f"--endpoint must be http://HOST:PORT, not {endpoint!r}")
    for pid in server_pids:
        cpu_seconds(pid)


def _check_replications(replications: Sequence[str | None]) -> None:
    for one in replications:
        if one is not None and one not in get_args(Replication):
            raise ConfigurationError(f"--replication must be {' or '.join(get_args(Replication))}, not {one!r}")


def _mixes(put_shares: Sequence[float]) -> Iterator[tuple[float, bool]]:
    for share in put_shares:
        yield share, False
        if share < 1.0:
            yield share, True


def _measure(plan: Plan, replication: str | None, share: float, is_consistent: bool, pids: Sequence[int]) -> Mix:
    result = measure(msgspec.structs.replace(plan, put_share=share, is_consistent=is_consistent), server_pids=pids)
    reads = "consistent" if is_consistent else "eventual"
    name = "puts only" if share == 1.0 else f"{share:.0%} puts, {1 - share:.0%} {reads} gets"
    if replication is not None:
        name = f"{replication}: {name}"
    return Mix(replication, name, share, is_consistent, result)


@contextlib.contextmanager
def _servers(
    endpoints: Sequence[str], nodes: int, server_pids: Sequence[int]
) -> Iterator[tuple[Sequence[str], Sequence[int]]]:
    if endpoints:
        yield endpoints, server_pids
        return
    with (
        tempfile.TemporaryDirectory(prefix="merganser-bench-") as directory,
        LocalCluster(Path(directory), nodes=nodes) as cluster,
    ):
        yield [node.dynamodb_url for node in cluster.nodes], [node.pid for node in cluster.nodes if node.pid]


def _table(mixes: Sequence[Mix]) -> Table:
    """Return a table without lines, which fits on 80 columns; latencies in milliseconds."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("mix\n")
    for column in ("\nops/s", "get ms\np50", "\np99", "\np99.9", "put ms\np50", "\np99", "\np99.9"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("CPU µs\n/op", justify="right", no_wrap=True)
    table.add_column("\nerrors", justify="right", no_wrap=True)
    for mix in mixes:
        result = mix.result
        latencies = [
            f"{result.latency_us[kind][which] / 1000:.2f}" if result.latency_us[kind]["count"] else ""
            for kind in ("get", "put")
            for which in ("p50", "p99", "p99.9")
        ]
        cpu = result.server_cpu_us_per_operation
        table.add_row(
            mix.name, f"{result.throughput:,.0f}", *latencies, "" if cpu is None else f"{cpu:.0f}", f"{result.errors:,}"
        )
    return table
