"""Run a measurement: processes that make load, and the CPU time the servers spent on it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from merganser.bench.histogram import Histogram
from merganser.bench.worker import Done, Work
from merganser.model.errors import ConfigurationError

PROCESS_GRACE_S = 120.0


class Plan(msgspec.Struct, frozen=True):
    """What to measure."""

    endpoints: tuple[str, ...]
    """Load is spread over them evenly."""
    table: str
    items: int = 10_000
    item_bytes: int = 1_000
    connections: int = 16
    """In all."""
    processes: int = 1
    duration_s: float = 10.0
    put_share: float = 0.5
    is_consistent: bool = False


class Result(msgspec.Struct, frozen=True):
    """What was measured; latencies in microseconds."""

    operations: int
    errors: int
    first_error: str
    seconds: float
    throughput: float
    latency_us: dict[str, dict[str, float]]
    server_cpu_us_per_operation: float | None
    """User and system time of all server processes; None if their ids are not known."""


def load(plan: Plan) -> None:
    """Put every item once."""
    _run(plan, ["load"])


def measure(plan: Plan, *, server_pids: Sequence[int]) -> Result:
    """Read and write for the planned time."""
    before = sum(map(cpu_seconds, server_pids))
    outputs = _run(plan, ["measure"])
    spent = sum(map(cpu_seconds, server_pids)) - before
    done = [msgspec.json.decode(output, type=Done) for output in outputs]
    operations = sum(one.operations for one in done)
    return Result(
        operations=operations,
        errors=sum(one.errors for one in done),
        first_error=next((one.first_error for one in done if one.first_error), ""),
        seconds=max(one.seconds for one in done),
        throughput=sum(one.operations / one.seconds for one in done),
        latency_us={"get": _latency([one.gets for one in done]), "put": _latency([one.puts for one in done])},
        server_cpu_us_per_operation=spent * 1e6 / operations if server_pids and operations else None,
    )


def cpu_seconds(pid: int) -> float:
    """Return user plus system time of a process so far.

    Raises:
        ConfigurationError: there is no such process.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        raise ConfigurationError(f"--pid {pid}: there is no such process") from None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _latency(parts: list[dict[int, int]]) -> dict[str, float]:
    histogram = Histogram()
    for part in parts:
        histogram.merge(Histogram(part))
    return {
        "count": histogram.total,
        "p50": histogram.percentile(0.5),
        "p99": histogram.percentile(0.99),
        "p99.9": histogram.percentile(0.999),
    }


def _run(plan: Plan, arguments: list[str]) -> list[bytes]:
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "merganser.bench.worker", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in plan_shares(plan)
    ]
    deadline = time.monotonic() + plan.duration_s + PROCESS_GRACE_S
    try:
        for worker, work in zip(workers, plan_shares(plan), strict=True):
            assert worker.stdin is not None
            worker.stdin.write(msgspec.json.encode(work))
            worker.stdin.close()
            worker.stdin = None
        outputs = [worker.communicate(timeout=max(1.0, deadline - time.monotonic()))[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    if any(worker.returncode not in (0, -9) or not output for worker, output in zip(workers, outputs, strict=True)):
        raise ConfigurationError("a load process failed; its error is above")
    return outputs


def plan_shares(plan: Plan) -> list[Work]:
    """Return the work of each process: items, connections and endpoints dealt out evenly."""
    count = max(plan.processes, len(plan.endpoints))
    bounds = [plan.items * i // count for i in range(count + 1)]
    return [
        Work(
            endpoint=plan.endpoints[i % len(plan.endpoints)],
            table=plan.table,
            first_item=bounds[i],
            items=bounds[i + 1] - bounds[i],
            items_total=plan.items,
            item_bytes=plan.item_bytes,
            connections=max(1, plan.connections // count),
            duration_s=plan.duration_s,
            put_share=plan.put_share,
            is_consistent=plan.is_consistent,
            seed=i,
        )
        for i in range(count)
    ]
