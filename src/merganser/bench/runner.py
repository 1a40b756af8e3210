"""Run a measurement: processes that make load, and what the servers used for it."""

from __future__ import annotations

import collections
import contextlib
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

import msgspec

from merganser.bench.driver import Done, Window, Work
from merganser.bench.histogram import Histogram
from merganser.bench.processes import usage
from merganser.bench.worker import Failed, Ready, Said
from merganser.bench.workloads import Workload, mixed
from merganser.model.errors import ConfigurationError

_Message = TypeVar("_Message", Ready, Done)

WARM_UP_S = 0.5
"""Connections are open and caches warm well before; a short measurement warms up for as long as it lasts."""
START_TIMEOUT_S = 60.0
LOAD_TIMEOUT_S = 600.0
GRACE_S = 60.0
"""The last answers are on their way at the end of the window; the load's own requests give up after 30 s."""
INSERTS_MAX = 100_000_000
"""Of one measurement: the next one's have numbers beyond."""


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
    workload: Workload = mixed(0.5)
    rate: float = 0.0
    """Requests a second in open loop; 0: closed loop."""
    arrivals: str = "poisson"
    round: int = 0
    """How many measurements have inserted before."""
    is_timed: bool = False
    """Whether to keep when each operation began."""


class Latency(msgspec.Struct, frozen=True):
    """Microseconds."""

    count: int
    p50: float
    p99: float
    p999: float


class Result(msgspec.Struct, frozen=True):
    """What was measured."""

    operations: int
    """Answered."""
    errors: int
    first_error: str
    seconds: float
    throughput: float
    """Operations a second."""
    items_per_second: float
    """That Queries and Scans brought."""
    latency_us: dict[str, Latency]
    """Of each operation of the workload."""
    all_us: Latency
    """Of all of them."""
    generator_cpu_us_per_operation: float
    server_cpu_us_per_operation: float | None
    """User and system time of all server processes and their children; None if their ids are not known."""
    server_resident_bytes: int | None
    """Of all of them, at the end."""
    written_bytes_per_byte: float | None
    """Bytes that all server processes sent to the disk for each byte of data in the writes that were answered."""
    unanswered: int = 0
    """Open loop: requests that still waited at the end; their time so far is among the latencies."""
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
    item_bytes: int
    cpu_seconds: float | None
    """Of all server processes; None if their ids are not known."""
    written_bytes: int
    resident_bytes: int


def measure(plan: Plan, *, server_pids: Sequence[int]) -> Result:
    """Work for the planned time, after a warm-up.

    Raises:
        ConfigurationError: a load process failed, or a server ended.
    """
    return summed([observe(plan, server_pids=server_pids)])


def observe(plan: Plan, *, server_pids: Sequence[int]) -> Observed:
    """Work for the planned time, after a warm-up; raises as `measure`."""
    with _workers(plan, "measure") as workers:
        for worker in workers:
            worker.hear(Ready, START_TIMEOUT_S)
        begin = time.monotonic() + min(WARM_UP_S, plan.duration_s)
        window = Window(begin, begin + plan.duration_s)
        for worker in workers:
            worker.tell(window)
        _sleep_until(window.begin)
        before = usage(server_pids)
        _sleep_until(window.end)
        after = usage(server_pids)
        done = tuple(worker.hear(Done, GRACE_S) for worker in workers)
    return Observed(
        done,
        plan.duration_s,
        plan.item_bytes,
        after.cpu_seconds - before.cpu_seconds if server_pids else None,
        after.written_bytes - before.written_bytes,
        after.resident_bytes,
    )


def summed(windows: Sequence[Observed]) -> Result:
    """Return what was seen in all of them together."""
    done = [one for window in windows for one in window.done]
    histograms: dict[str, Histogram] = {}
    for one in done:
        for name, counted in one.operations.items():
            histograms.setdefault(name, Histogram()).merge(Histogram(counted.durations))
    everything = Histogram()
    for histogram in histograms.values():
        everything.merge(histogram)
    unanswered = sum(one.unanswered for one in done)
    operations = everything.total - unanswered
    seconds = sum(window.seconds for window in windows)
    spent = [window.cpu_seconds for window in windows if window.cpu_seconds is not None]
    stored = sum(one.written_items for one in done) * windows[0].item_bytes
    faults = sum((collections.Counter(one.faults) for one in done), collections.Counter[str]())
    return Result(
        operations=operations,
        errors=faults.total(),
        first_error=next((one.first_error for one in done if one.first_error), ""),
        seconds=seconds,
        throughput=operations / seconds,
        items_per_second=sum(counted.items for one in done for counted in one.operations.values()) / seconds,
        latency_us={name: latency(histogram) for name, histogram in histograms.items()},
        all_us=latency(everything),
        generator_cpu_us_per_operation=sum(one.cpu_seconds for one in done) * 1e6 / max(operations, 1),
        server_cpu_us_per_operation=sum(spent) * 1e6 / operations if spent and operations else None,
        server_resident_bytes=windows[-1].resident_bytes if spent else None,
        written_bytes_per_byte=sum(window.written_bytes for window in windows) / stored if spent and stored else None,
        unanswered=unanswered,
        faults=dict(faults),
    )


def _sleep_until(when: float) -> None:
    time.sleep(max(0.0, when - time.monotonic()))


def latency(histogram: Histogram) -> Latency:
    """Return what a histogram says."""
    return Latency(histogram.total, *map(histogram.percentile, (0.5, 0.99, 0.999)))


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
    """Return the work of each process: items, connections, rate and endpoints dealt out evenly."""
    count = max(plan.processes, len(plan.endpoints))
    items = [plan.items * i // count for i in range(count + 1)]
    total = max(plan.connections, count)
    connections = [total * i // count for i in range(count + 1)]
    return [
        Work(
            endpoint=plan.endpoints[i % len(plan.endpoints)],
            table=plan.table,
            workload=plan.workload,
            first_item=items[i],
            items=items[i + 1] - items[i],
            items_total=plan.items,
            item_bytes=plan.item_bytes,
            connections=connections[i + 1] - connections[i],
            first_connection=connections[i],
            connections_total=total,
            place=i,
            processes=count,
            first_insert=plan.items + plan.round * INSERTS_MAX,
            rate=plan.rate / count,
            arrivals=plan.arrivals,
            is_timed=plan.is_timed,
        )
        for i in range(count)
    ]
