"""Run a measurement: processes that make load, and the CPU time the servers spent on it."""

from __future__ import annotations

import collections
import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from merganser.bench.histogram import Histogram
from merganser.bench.worker import Done, Failed, Ready, Said, Window, Work
from merganser.model.errors import ConfigurationError

_Message = TypeVar("_Message", Ready, Done)

WARM_UP_S = 1.0
"""Connections are open and caches warm well before; a short measurement warms up for as long as it lasts."""
START_TIMEOUT_S = 60.0
LOAD_TIMEOUT_S = 600.0
GRACE_S = 60.0
"""The last answers are on their way at the end of the window; the load's own requests give up after 30 s."""


class Plan(msgspec.Struct, frozen=True):
    """What to measure."""

    endpoints: tuple[str, ...]
    """Load is spread over them evenly."""
    table: str
    items: int = 10_000
    item_bytes: int = 1_000
    connections: int = 16
    """In all, but at least one for each process."""
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
    faults: dict[str, int] = {}
    """How many errors of each type."""


def load(plan: Plan) -> None:
    """Put every item once.

    Raises:
        ConfigurationError: a load process failed.
    """
    with _workers(plan, "load") as workers:
        for worker in workers:
            worker.hear(Done, LOAD_TIMEOUT_S)


class Observed(msgspec.Struct, frozen=True):
    """What was seen in one window."""

    done: tuple[Done, ...]
    """By each load process."""
    seconds: float
    cpu_seconds: float | None
    """Of all server processes; None if their ids are not known."""

    @property
    def cpu_us_per_operation(self) -> float | None:
        """What the servers spent on each answer; None if that is not known, or there was none."""
        operations = sum(one.operations for one in self.done)
        return None if self.cpu_seconds is None or not operations else self.cpu_seconds * 1e6 / operations


def measure(plan: Plan, *, server_pids: Sequence[int]) -> Result:
    """Read and write for the planned time, after a warm-up.

    Raises:
        ConfigurationError: a load process failed, or a server ended.
    """
    return summed([observe(plan, server_pids=server_pids)])


def observe(plan: Plan, *, server_pids: Sequence[int]) -> Observed:
    """Read and write for the planned time, after a warm-up; raises as `measure`."""
    with _workers(plan, "measure") as workers:
        for worker in workers:
            worker.hear(Ready, START_TIMEOUT_S)
        begin = time.monotonic() + min(WARM_UP_S, plan.duration_s)
        window = Window(begin, begin + plan.duration_s)
        for worker in workers:
            worker.tell(window)
        spent = _cpu_within(window, server_pids)
        done = tuple(worker.hear(Done, GRACE_S) for worker in workers)
    return Observed(done, plan.duration_s, spent if server_pids else None)


def summed(windows: Sequence[Observed]) -> Result:
    """Return what was seen in all of them together."""
    done = [one for window in windows for one in window.done]
    operations = sum(one.operations for one in done)
    seconds = sum(window.seconds for window in windows)
    spent = [window.cpu_seconds for window in windows if window.cpu_seconds is not None]
    return Result(
        operations=operations,
        errors=sum(one.errors for one in done),
        first_error=next((one.first_error for one in done if one.first_error), ""),
        seconds=seconds,
        throughput=operations / seconds,
        latency_us={"get": _latency([one.gets for one in done]), "put": _latency([one.puts for one in done])},
        server_cpu_us_per_operation=sum(spent) * 1e6 / operations if spent and operations else None,
        faults=dict(sum((collections.Counter(one.faults) for one in done), collections.Counter())),
    )


def _cpu_within(window: Window, server_pids: Sequence[int]) -> float:
    """Return the seconds of CPU that the servers spend in the window, at its end."""
    time.sleep(max(0.0, window.begin - time.monotonic()))
    before = sum(map(cpu_seconds, server_pids))
    time.sleep(max(0.0, window.end - time.monotonic()))
    return sum(map(cpu_seconds, server_pids)) - before


def cpu_seconds(pid: int) -> float:
    """Return user plus system time of a process so far, in steps of 10 ms.

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


class _Worker:
    """A load process; see `worker` for what is said."""

    def __init__(self, work: Work, task: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "merganser.bench.worker", task], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.tell(work)

    def tell(self, message: Work | Window) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # why it ended, it says
            self._process.stdin.write(msgspec.json.encode(message) + b"\n")
            self._process.stdin.flush()

    def hear(self, wanted: type[_Message], timeout_s: float) -> _Message:
        """Return its next word.

        Raises:
            ConfigurationError: it failed, or is silent.
        """
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], timeout_s)[0]:
            raise ConfigurationError(f"a load process said nothing for {timeout_s:g} s: try fewer connections")
        line = self._process.stdout.readline()
        said: Said = msgspec.json.decode(line, type=Said) if line else Failed("it ended without a word")
        if not isinstance(said, wanted):
            reason = said.reason if isinstance(said, Failed) else f"it said {said}"
            raise ConfigurationError(f"a load process failed: {reason}")
        return said

    def end(self) -> None:
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()


@contextlib.contextmanager
def _workers(plan: Plan, task: str) -> Iterator[list[_Worker]]:
    workers: list[_Worker] = []
    try:
        for work in plan_shares(plan):
            workers.append(_Worker(work, task))  # noqa: PERF401 - those begun are ended if one cannot begin
        yield workers
    finally:
        for worker in workers:
            worker.end()


def plan_shares(plan: Plan) -> list[Work]:
    """Return the work of each process: items, connections and endpoints dealt out evenly."""
    count = max(plan.processes, len(plan.endpoints))
    bounds = [plan.items * i // count for i in range(count + 1)]
    connections = [plan.connections * i // count for i in range(count + 1)]
    return [
        Work(
            endpoint=plan.endpoints[i % len(plan.endpoints)],
            table=plan.table,
            first_item=bounds[i],
            items=bounds[i + 1] - bounds[i],
            items_total=plan.items,
            item_bytes=plan.item_bytes,
            connections=max(1, connections[i + 1] - connections[i]),
            put_share=plan.put_share,
            is_consistent=plan.is_consistent,
            seed=i,
        )
        for i in range(count)
    ]
