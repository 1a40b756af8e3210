"""Several servers, or kinds of tables, under the same load in turn, so that a drift of the machine meets all of them.

Each workload is measured in rounds; in a round each *subject* has its turn, and the floor too if there is one. A figure
is compared with the first subject's, and with the floor's, of the same round; what is told is the median of the rounds
and the extremes.

The floor is an HTTP echo (`floors`). Where a workload writes, its CPU time is the echo's and one RocksDB put for each
item, and its latency the echo's and one fsync.
"""

from __future__ import annotations

import contextlib
import statistics
import time
import uuid
from collections.abc import Iterator, Sequence

import msgspec

from merganser.bench.floors import Echo, Storage, answer_bytes
from merganser.bench.operations import OPERATIONS, SCAN
from merganser.bench.runner import Plan, Result, load, observe, summed
from merganser.bench.setup import create_table, drop_table
from merganser.bench.workloads import Workload

SETTLE_S = 1.0  # background writes of the load phase end before the clock starts


class Subject(msgspec.Struct, frozen=True):
    """What is measured."""

    name: str
    endpoints: tuple[str, ...]
    pids: tuple[int, ...] = ()
    """Of the servers; none: what they use is not known."""
    replication: str | None = None
    """Of the table; None: whatever the endpoint makes."""


class Spread(msgspec.Struct, frozen=True):
    """A ratio, over the rounds."""

    least: float
    median: float
    most: float


class Line(msgspec.Struct, frozen=True):
    """One subject under one workload."""

    subject: str
    workload: str
    connections: int
    item_bytes: int
    rate: float
    result: Result
    of_first: dict[str, Spread] = {}
    """"throughput", "cpu", "p50" and "p99" over those of the first subject; empty for itself."""
    of_floor: dict[str, Spread] = {}
    """The same over the floor's; empty if none was measured."""


class Tables:
    """The loaded tables of all subjects; a context manager that drops them."""

    def __init__(self) -> None:
        """Have none yet."""
        self._open = contextlib.ExitStack()
        self._names: dict[tuple[str, bool, int, int], str] = {}

    def __enter__(self) -> Tables:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Drop all."""
        self._open.close()

    def of(self, subject: Subject, workload: Workload, plan: Plan) -> Plan:
        """Return ``plan`` for ``workload`` on the subject's table of such items, which is loaded the first time.

        Raises:
            ConfigurationError: the server cannot be reached, or refuses.
        """
        key = subject.name, workload.is_ranged, plan.items, plan.item_bytes
        mine = msgspec.structs.replace(plan, endpoints=subject.endpoints, workload=workload)
        if key not in self._names:
            self._names[key] = self._open.enter_context(_loaded(mine, subject.replication))
            time.sleep(SETTLE_S)
        return msgspec.structs.replace(mine, table=self._names[key])


@contextlib.contextmanager
def _loaded(plan: Plan, replication: str | None) -> Iterator[str]:
    plan = msgspec.structs.replace(plan, table=f"bench-{uuid.uuid4().hex[:8]}")
    create_table(plan.endpoints[0], plan.table, replication=replication, is_ranged=plan.workload.is_ranged)
    try:
        load(plan)
        yield plan.table
    finally:
        drop_table(plan.endpoints[0], plan.table)


def compare(
    subjects: Sequence[Subject],
    workloads: Sequence[Workload],
    plan: Plan,
    *,
    tables: Tables,
    rounds: int,
    floor: Storage | None = None,
) -> list[Line]:
    """Measure every subject under every workload, in ``rounds`` that share the duration of ``plan``.

    Args:
        subjects: at least one; the first is what the others are compared with.
        workloads: one after the other.
        plan: everything else; its endpoints, table and workload do not count.
        tables: those that are loaded already, and will be.
        rounds: at least one.
        floor: of the storage; None: no floor is measured.

    Raises:
        ConfigurationError: a server cannot be reached, refuses or ends.
    """
    return [
        line
        for workload in workloads
        for line in _compared(subjects, workload, tables, plan, rounds=rounds, floor=floor)
    ]


def _compared(
    subjects: Sequence[Subject],
    workload: Workload,
    tables: Tables,
    plan: Plan,
    *,
    rounds: int,
    floor: Storage | None,
) -> Iterator[Line]:
    turn_s = plan.duration_s / rounds
    turn = msgspec.structs.replace(plan, duration_s=turn_s)
    takes = {subject: tables.of(subject, workload, turn) for subject in subjects}
    with contextlib.ExitStack() as stack:
        if floor is not None and SCAN not in workload.mix:
            echo = stack.enter_context(Echo(answer_bytes(workload, plan.item_bytes)))
            ground = Subject("HTTP echo", (echo.url,), (echo.pid,))
            takes[ground] = msgspec.structs.replace(turn, endpoints=ground.endpoints, workload=workload)
        windows = [
            {
                subject: observe(msgspec.structs.replace(take, round=number), server_pids=subject.pids)
                for subject, take in takes.items()
            }
            for number in range(rounds)
        ]
    results = {subject: [summed([turns[subject]]) for turns in windows] for subject in takes}
    floors = [
        _with_storage(result, workload, floor)
        for subject, turns in results.items()
        if floor is not None and subject not in subjects
        for result in turns
    ]
    for subject, found in results.items():
        is_subject = subject in subjects
        yield Line(
            subject=subject.name,
            workload=workload.name,
            connections=plan.connections,
            item_bytes=plan.item_bytes,
            rate=plan.rate,
            result=summed([turns[subject] for turns in windows]),
            of_first=_ratios(found, results[subjects[0]]) if is_subject and subject != subjects[0] else {},
            of_floor=_ratios(found, floors) if is_subject and floors else {},
        )


def _with_storage(echo: Result, workload: Workload, floor: Storage) -> Result:
    """Return the floor of ``workload``: the echo, and what storing takes where it writes."""
    written = sum(share * OPERATIONS[name].written for name, share in workload.mix.items())
    writing = sum(share for name, share in workload.mix.items() if OPERATIONS[name].written)
    latency = echo.all_us
    return msgspec.structs.replace(
        echo,
        server_cpu_us_per_operation=(echo.server_cpu_us_per_operation or 0.0) + written * floor.put_us,
        all_us=msgspec.structs.replace(
            latency,
            p50=latency.p50 + (floor.fsync_us if writing >= 0.5 else 0.0),
            p99=latency.p99 + (floor.fsync_us if writing >= 0.01 else 0.0),
        ),
    )


def _ratios(turns: Sequence[Result], others: Sequence[Result]) -> dict[str, Spread]:
    pairs = list(zip(turns, others, strict=True))
    found: dict[str, list[tuple[float | None, float | None]]] = {
        "throughput": [(one.throughput, other.throughput) for one, other in pairs],
        "cpu": [(one.server_cpu_us_per_operation, other.server_cpu_us_per_operation) for one, other in pairs],
        "p50": [(one.all_us.p50, other.all_us.p50) for one, other in pairs],
        "p99": [(one.all_us.p99, other.all_us.p99) for one, other in pairs],
    }
    ratios = {name: [one / other for one, other in both if one and other] for name, both in found.items()}
    return {
        name: Spread(min(values), statistics.median(values), max(values)) for name, values in ratios.items() if values
    }
