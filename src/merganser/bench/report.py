"""``merganser bench``: measure several mixes against one endpoint or a new local cluster, and print a table."""

from __future__ import annotations

import contextlib
import statistics
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

from merganser.bench.runner import Observed, Plan, Result, cpu_seconds, load, observe, summed
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
    cpu_ratio: tuple[float, float, float] | None = None
    """Least, median and most, over the rounds, of the CPU time of an operation over that of the first kind of table."""


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
    rounds: int,
    server_pids: Sequence[int],
    as_json: bool,
) -> None:
    """Load a table of each kind, measure each mix on one after the other in turn, drop the tables, print.

    The machine's speed drifts, so several kinds are compared in ``rounds``, which share ``duration_s``.

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
        mixes = _measured(plan, replications, put_shares, pids, rounds=rounds if len(replications) > 1 else 1)
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
        if mix.cpu_ratio is not None:
            least, median, most = mix.cpu_ratio
            console.print(
                f"{mix.name}: CPU {median:.2f} times {replications[0]} ({least:.2f} to {most:.2f}, {rounds} rounds)",
                highlight=False,
                markup=False,
            )
        if mix.result.errors:
            console.print(f"{mix.name}: the first error was {mix.result.first_error}", markup=False)


def _measured(
    plan: Plan, replications: Sequence[str | None], put_shares: Sequence[float], pids: Sequence[int], *, rounds: int
) -> list[Mix]:
    plan = msgspec.structs.replace(plan, duration_s=plan.duration_s / rounds)
    with contextlib.ExitStack() as tables:
        plans = [tables.enter_context(_loaded(plan, kind)) for kind in replications]
        time.sleep(SETTLE_S)
        mixes: list[Mix] = []
        for share, is_consistent in _mixes(put_shares):
            windows = [
                [
                    observe(
                        msgspec.structs.replace(one, put_share=share, is_consistent=is_consistent), server_pids=pids
                    )
                    for one in plans
                ]
                for _ in range(rounds)
            ]
            mixes += [
                _mix(kind, share, is_consistent, [row[place] for row in windows], [row[0] for row in windows])
                for place, kind in enumerate(replications)
            ]
        return mixes


@contextlib.contextmanager
def _loaded(plan: Plan, replication: str | None) -> Iterator[Plan]:
    """Make a table of its own, and drop it at the end."""
    plan = msgspec.structs.replace(plan, table=f"bench-{uuid.uuid4().hex[:8]}")
    create_table(plan.endpoints[0], plan.table, replication=replication)
    try:
        load(plan)
        yield plan
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


def _mix(
    replication: str | None,
    share: float,
    is_consistent: bool,
    windows: Sequence[Observed],
    of_first_kind: Sequence[Observed],
) -> Mix:
    reads = "consistent" if is_consistent else "eventual"
    name = "puts only" if share == 1.0 else f"{share:.0%} puts, {1 - share:.0%} {reads} gets"
    if replication is not None:
        name = f"{replication}: {name}"
    ratios = [
        mine / other
        for one, first in zip(windows, of_first_kind, strict=True)
        if one is not first and (mine := one.cpu_us_per_operation) and (other := first.cpu_us_per_operation)
    ]
    ratio = (min(ratios), statistics.median(ratios), max(ratios)) if ratios else None
    return Mix(replication, name, share, is_consistent, summed(windows), ratio)


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
