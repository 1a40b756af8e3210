"""``merganser bench``: measure workloads on one or several endpoints, or a new local cluster, and tell."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

import msgspec
from rich.console import Console
from rich.table import Table

from merganser.bench.arrivals import ARRIVALS
from merganser.bench.compare import Line, Spread, Subject, Tables, compare
from merganser.bench.floors import measure_storage
from merganser.bench.plot import plot
from merganser.bench.processes import MIB, usage
from merganser.bench.runner import Latency, Plan
from merganser.bench.workloads import Workload
from merganser.model.cluster import Replication
from merganser.model.errors import ConfigurationError
from merganser.node.local_cluster import LocalCluster

_COMPARED = re.compile(r"(?P<name>[^=]+)=(?P<urls>[^@]+)(?:@(?P<pids>\d+(?:,\d+)*))?")


def run_bench(
    *,
    subjects: Sequence[Subject],
    nodes: int,
    workloads: Sequence[Workload],
    replications: Sequence[str | None],
    plan: Plan,
    rounds: int,
    has_floor: bool,
    as_json: bool,
    is_plotted: bool,
) -> None:
    """Load a table of each kind on each subject, measure the workloads on one after the other in turn, tell.

    Args:
        subjects: what to measure; none: a new local cluster of ``nodes``.
        nodes: its size.
        workloads: what to do.
        replications: kinds of tables; each subject is measured with each.
        plan: how; its endpoints, table and workload do not count.
        rounds: how often they take turns within the duration, if there are several, or a floor.
        has_floor: measure the floors too.
        as_json: print JSON.
        is_plotted: draw the latencies under the table.

    Raises:
        ConfigurationError: an endpoint is wrong or refuses.
    """
    _check(subjects, replications, plan)
    with tempfile.TemporaryDirectory(prefix="merganser-bench-") as directory:
        floor = measure_storage(Path(directory)) if has_floor else None
        with _served(subjects, Path(directory) / "cluster", nodes) as served:
            kinds = [of_kind(subject, kind) for subject in served for kind in replications]
            turns = rounds if len(kinds) > 1 or has_floor else 1
            with Tables() as tables:
                lines = compare(kinds, workloads, plan, tables=tables, rounds=turns, floor=floor)
    if as_json:
        Console(soft_wrap=True, highlight=False).print(msgspec.json.format(msgspec.json.encode(lines)).decode())
        return
    console = Console(highlight=False)
    console.print(f"{plan.items:,} items of {plan.item_bytes:,} bytes, {plan.connections} connections{_pace(plan)}")
    console.print(table_of(lines, is_named=len(kinds) > 1 or has_floor))
    for text in remarks(lines):
        console.print(text, markup=False)
    if floor is not None:
        console.print(f"floors: {floor.told()}")
    if is_plotted:
        console.print(latency_plot(lines), markup=False)


def compared(text: str) -> Subject:
    """Return the subject that ``NAME=URL[,URL…][@PID[,PID…]]`` names.

    Raises:
        ConfigurationError: it is not of that form.
    """
    found = _COMPARED.fullmatch(text)
    if found is None:
        raise ConfigurationError(f"--compare must be NAME=URL[,URL][@PID[,PID]], not {text!r}")
    pids = tuple(int(pid) for pid in (found["pids"] or "").split(",") if pid)
    return Subject(found["name"], tuple(found["urls"].split(",")), pids)


def of_kind(subject: Subject, replication: str | None) -> Subject:
    """Return ``subject`` with tables of that kind."""
    if replication is None:
        return subject
    name = f"{subject.name}, {replication}" if subject.name else replication
    return msgspec.structs.replace(subject, name=name, replication=replication)


def _check(subjects: Sequence[Subject], replications: Sequence[str | None], plan: Plan) -> None:
    for subject in subjects:
        for endpoint in subject.endpoints:
            _check_endpoint(endpoint)
        usage(subject.pids)
    names = [subject.name for subject in subjects]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"--compare needs a name for each endpoint, not {', '.join(names)}")
    for one in replications:
        if one is not None and one not in get_args(Replication):
            raise ConfigurationError(f"--replication must be {' or '.join(get_args(Replication))}, not {one!r}")
    if plan.arrivals not in ARRIVALS:
        raise ConfigurationError(f"--arrivals must be {' or '.join(ARRIVALS)}, not {plan.arrivals!r}")


def _check_endpoint(endpoint: str) -> None:
    try:
        url = urlsplit(endpoint)
        is_good = bool(url.scheme == "http" and url.hostname and url.port)
    except ValueError:  # its port is no port
        is_good = False
    if not is_good:
        raise ConfigurationError(f"--endpoint must be http://HOST:PORT, not {endpoint!r}")


@contextlib.contextmanager
def _served(subjects: Sequence[Subject], directory: Path, nodes: int) -> Iterator[Sequence[Subject]]:
    if subjects:
        yield subjects
        return
    with LocalCluster(directory, nodes=nodes) as cluster:
        yield [of_cluster(cluster)]


def of_cluster(cluster: LocalCluster, name: str = "") -> Subject:
    """Return a local cluster as a subject."""
    return Subject(
        name, tuple(node.dynamodb_url for node in cluster.nodes), tuple(node.pid for node in cluster.nodes if node.pid)
    )


def _pace(plan: Plan) -> str:
    return f", {plan.rate:,.0f} requests/s offered, {plan.arrivals} arrivals" if plan.rate else ""


def table_of(lines: Sequence[Line], *, is_named: bool) -> Table:
    """Return a table without lines, which fits on 80 columns; latencies in milliseconds.

    Under a workload that mixes operations there is a row for the latencies of each.
    """
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("")
    for column in ("ops/s", "p50 ms", "p99", "p99.9", "CPU µs", "load µs", "MiB", "written"):
        table.add_column(column, justify="right", no_wrap=True)
    for line in lines:
        result = line.result
        table.add_row(
            f"{line.subject}: {line.workload}" if is_named and line.subject else line.workload,
            f"{result.throughput:,.0f}",
            *_milliseconds(result.all_us),
            _or_blank(result.server_cpu_us_per_operation, "{:.0f}"),
            f"{result.generator_cpu_us_per_operation:.0f}",
            _or_blank(result.server_resident_bytes and result.server_resident_bytes / MIB, "{:.0f}"),
            _or_blank(result.written_bytes_per_byte, "{:.2f}"),
        )
        if len(result.latency_us) > 1:
            for name, latency in result.latency_us.items():
                table.add_row(
                    f"  {name}", f"{latency.count / result.seconds:,.0f}", *_milliseconds(latency), style="dim"
                )
    return table


def remarks(lines: Sequence[Line]) -> Iterator[str]:
    """Yield what the table has no column for: items a second, ratios, errors."""
    for line in lines:
        about = f"{line.subject}: {line.workload}" if line.subject else line.workload
        if line.result.items_per_second:
            yield f"{about}: {line.result.items_per_second:,.0f} items/s"
        if line.of_first:
            yield f"{about}: {_ratios(line.of_first)} times the first"
        if line.of_floor:
            yield f"{about}: {_ratios(line.of_floor)} times the floor"
        if line.result.unanswered:
            yield f"{about}: {line.result.unanswered:,} still waited at the end"
        if line.result.errors:
            yield f"{about}: {line.result.errors:,} errors; the first was {line.result.first_error}"


def latency_plot(lines: Sequence[Line]) -> str:
    """Return a plot of what share of all requests took longer than what; a curve for each line.

    Raises:
        ConfigurationError: plotille is not installed.
    """
    curves = {
        f"{line.subject}: {line.workload}" if line.subject else line.workload: [
            (1 / share, us / 1000)
            for share, us in (
                (0.5, line.result.all_us.p50),
                (0.01, line.result.all_us.p99),
                (0.001, line.result.all_us.p999),
            )
        ]
        for line in lines
    }
    return plot(curves, x="one in so many", y="ms or longer")


def _ratios(ratios: dict[str, Spread]) -> str:
    return ", ".join(
        f"{name} {spread.median:.3g} ({spread.least:.3g} to {spread.most:.3g})" for name, spread in ratios.items()
    )


def _milliseconds(latency: Latency) -> list[str]:
    if not latency.count:
        return [""] * 3
    return [f"{us / 1000:.2f}" for us in (latency.p50, latency.p99, latency.p999)]


def _or_blank(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
