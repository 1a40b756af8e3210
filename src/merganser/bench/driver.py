"""The hot part of the load generator: keeps connections busy, and counts what is answered within a window.

Closed loop: each connection sends its next request when the last one was answered. Open loop: `arrivals`.

Requests are written and signed once per item and kept for a minute (a signature is good for minutes), as far as
``KEPT_BYTES_MAX`` goes; a get then costs the generator 10 to 15 µs, most of it in the kernel.
"""

from __future__ import annotations

import asyncio
import collections
import json
import random
import re
import time
from collections.abc import Sequence

import msgspec

from merganser.bench.arrivals import Alarm, Line, arrivals
from merganser.bench.choices import Inserted, chooser
from merganser.bench.connection import REQUEST_TIMEOUT_S, Connection
from merganser.bench.histogram import Histogram
from merganser.bench.operations import OPERATIONS, SCAN, Bodies
from merganser.bench.requests import Signer
from merganser.bench.workloads import Workload

KEPT_BYTES_MAX = 64 * 2**20
KEPT_S = 60.0
_WATCH_S = 1.0
_VALUE = re.compile(rb"\s*:\s*(\d+)")


class Work(msgspec.Struct, frozen=True):
    """What one process does."""

    endpoint: str
    table: str
    workload: Workload
    first_item: int
    items: int
    """The process loads this share of the items and reads and writes within all of ``items_total``."""
    items_total: int
    item_bytes: int
    connections: int
    first_connection: int
    """Of all the connections of all processes, which are numbered."""
    connections_total: int
    place: int
    """Of this process among ``processes``."""
    processes: int
    first_insert: int
    """Items that are inserted have numbers from here on."""
    rate: float = 0.0
    """Requests a second of this process, in open loop; 0: closed loop."""
    arrivals: str = "poisson"
    is_timed: bool = False
    """Whether to tell when each operation began, too."""

    @property
    def bodies(self) -> Bodies:
        """What writes the bodies of requests."""
        return Bodies(self.table, items=self.items_total, item_bytes=self.item_bytes, is_ranged=self.workload.is_ranged)


class Window(msgspec.Struct, frozen=True):
    """The time that counts, in seconds of the machine's monotonic clock."""

    begin: float
    end: float


class Counted(msgspec.Struct):
    """What was counted of one operation."""

    durations: dict[int, int]
    """By bucket of `Histogram`."""
    items: int = 0
    """That the answers brought."""
    times: list[tuple[float, float]] = []
    """If they were asked for: when each began, by the monotonic clock, and how long it took. Seconds."""


class Done(msgspec.Struct, frozen=True, tag=True):
    """What was answered within the window."""

    operations: dict[str, Counted]
    faults: dict[str, int] = {}
    """How many errors of each type."""
    first_error: str = ""
    written_items: int = 0
    unanswered: int = 0
    """Open loop: how many waited, for a connection or an answer, at the end. Their time so far is counted."""
    cpu_seconds: float = 0.0
    """Of this process."""


class Requests:
    """Requests for any item, written and signed, the recent ones kept."""

    def __init__(self, bodies: Bodies, signer: Signer, steps: Sequence[tuple[int, int, str]]) -> None:
        """Write requests for ``steps``: the number of an operation, that of a step, the operation's name."""
        self._bodies = bodies
        self._signer = signer
        self._writers = {(number, step): OPERATIONS[name].steps[step] for number, step, name in steps}
        self._kept: dict[tuple[int, int, int], bytes] = {}
        self._kept_bytes = 0
        self._fresh_until = 0.0

    def of(self, number: int, step: int, item: int, now: float) -> bytes:
        """Return the request of a step of an operation for ``item``."""
        if now > self._fresh_until:
            self._kept.clear()
            self._kept_bytes, self._fresh_until = 0, now + KEPT_S
        request = self._kept.get((number, step, item))
        if request is None:
            request = self.anew(number, step, item)
            if self._kept_bytes < KEPT_BYTES_MAX:
                self._kept[number, step, item] = request
                self._kept_bytes += len(request)
        return request

    def anew(self, number: int, step: int, item: int) -> bytes:
        """Return it and keep nothing: it is not asked for again."""
        target, body = self._writers[number, step]
        return self._signer.request(target, body(self._bodies, item))


class Lane:
    """A connection, and what is under way on it."""

    __slots__ = ("connection", "item", "number", "segment", "sent", "start_key", "started", "step")

    def __init__(self, connection: Connection, segment: int) -> None:
        """Have nothing under way."""
        self.connection = connection
        self.segment = segment
        self.start_key = b""
        self.number = 0
        self.step = 0
        self.item = 0
        self.started = 0.0
        """When the operation was to begin; its latency counts from then."""
        self.sent = 0.0
        """When its last request was sent; 0: nothing is under way."""


class Driver:
    """Drives connections until the end of a window."""

    def __init__(self, work: Work, signer: Signer) -> None:
        """Prepare; nothing is sent yet."""
        self._loop = asyncio.get_running_loop()
        self._work = work
        self._random = random.Random(work.place).random
        names = list(work.workload.mix)
        shares = [work.workload.mix[name] for name in names]
        self._bounds = [sum(shares[: place + 1]) for place in range(len(shares) - 1)]
        self._names = names
        self._operations = [OPERATIONS[name] for name in names]
        self._inserted = Inserted(
            loaded=work.items_total, first=work.first_insert, place=work.place, processes=work.processes
        )
        self._choose = chooser(
            work.workload.choice, work.items_total, random.Random(work.place + 1_000_003), self._inserted
        )
        self._bodies = work.bodies
        self._signer = signer
        steps = [(n, step, name) for n, name in enumerate(names) for step in range(len(OPERATIONS[name].steps))]
        self._requests = Requests(self._bodies, signer, steps)
        self._lanes: dict[Connection, Lane] = {}
        self._idle: list[Lane] = []
        self._line: Line | None = None
        self._alarm: Alarm | None = None
        self._window = Window(float("inf"), float("inf"))
        self._histograms = [Histogram() for _ in names]
        self._times: list[list[tuple[float, float]]] = [[] for _ in names]
        self._items = [0] * len(names)
        self._written = 0
        self._unanswered = 0
        self._faults: collections.Counter[str] = collections.Counter()
        self._first_error = ""
        self._under_way = 0
        """Lanes that wait for an answer."""
        self._is_over = False
        self._drained: asyncio.Future[None] = self._loop.create_future()

    def connection(self, host: str, port: int) -> Connection:
        """Return a connection that this will drive, to be opened before `start`."""
        connection = Connection(host, port, self._answered)
        self._lanes[connection] = Lane(connection, self._work.first_connection + len(self._lanes))
        return connection

    def start(self) -> None:
        """Begin to work; nothing is counted before `finish`."""
        now = time.monotonic()
        self._loop.call_later(_WATCH_S, self._watch)
        if not self._work.rate:
            for lane in self._lanes.values():
                self._begin(lane, now)
            return
        rng = random.Random(self._work.place + 2_000_003)
        self._line = Line(arrivals(self._work.arrivals, self._work.rate, start=now, rng=rng))
        self._idle.extend(self._lanes.values())
        self._alarm = Alarm(self._loop, self._serve_line)
        self._alarm.set(self._line.next_at)

    async def finish(self, window: Window) -> Done:
        """Count what is answered within ``window``, and return that once no request is under way any more.

        Raises:
            ConnectionError: a connection was lost, before or meanwhile.
            TimeoutError: an answer did not come.
        """
        self._window = window
        await self._until(window.begin)
        cpu_seconds = time.process_time()
        await self._until(window.end)
        cpu_seconds = time.process_time() - cpu_seconds
        self._is_over = True
        if self._line is not None:
            self._count_waiting(self._line)
        if self._alarm is not None:
            self._alarm.close()
        self._note_drained()
        await self._drained
        counted = {
            name: Counted(dict(histogram.counts), items, times)
            for name, histogram, items, times in zip(
                self._names, self._histograms, self._items, self._times, strict=True
            )
        }
        return Done(counted, dict(self._faults), self._first_error, self._written, self._unanswered, cpu_seconds)

    async def _until(self, when: float) -> None:
        await asyncio.wait([self._drained], timeout=max(0.0, when - time.monotonic()))
        if self._drained.done():
            self._drained.result()

    def _begin(self, lane: Lane, started: float) -> None:
        number = 0
        if self._bounds:
            drawn = self._random()
            while number < len(self._bounds) and drawn >= self._bounds[number]:
                number += 1
        lane.number, lane.step, lane.started = number, 0, started
        self._under_way += 1
        if self._names[number] == SCAN:
            segments = self._work.connections_total
            request = self._signer.request("Scan", self._bodies.scan(lane.segment, segments, lane.start_key))
        elif self._operations[number].is_insert:
            request = self._requests.anew(number, 0, self._inserted.give())
        else:
            lane.item = self._choose()
            request = self._requests.of(number, 0, lane.item, started)
        self._send(lane, request)

    def _send(self, lane: Lane, request: bytes) -> None:
        lane.sent = time.monotonic()
        if self._line is None and lane.step == 0:
            lane.started = lane.sent  # writing the request is no part of the latency
        try:
            lane.connection.send(request)
        except ConnectionError as error:
            self._fail(error)

    def _answered(self, connection: Connection, status: int, received: list[bytes]) -> None:
        now = time.monotonic()
        lane = self._lanes[connection]
        operation = self._operations[lane.number]
        if status == 200:
            if lane.step + 1 < len(operation.steps):
                lane.step += 1
                self._send(lane, self._requests.of(lane.number, lane.step, lane.item, now))
                return
            self._inserted.acknowledged += operation.is_insert
        elif status == 0:
            self._fail(ConnectionError(b"".join(received).decode(errors="replace")))
            return
        lane.sent = 0.0
        self._under_way -= 1
        answer = b"".join(received) if operation.is_counted or status != 200 else b""
        if self._names[lane.number] == SCAN:
            lane.start_key = last_key(answer)
        if self._window.begin <= now < self._window.end:
            self._count(lane, now, status, answer)
        elif self._line is not None and not self._is_over and lane.started < self._window.end <= now:
            self._count_unanswered(lane.number, lane.started)
        self._go_on(lane, now)

    def _count(self, lane: Lane, now: float, status: int, answer: bytes) -> None:
        operation = self._operations[lane.number]
        if status != 200:
            _head, _, body = answer.partition(b"\r\n\r\n")
            error = f"{operation.steps[lane.step][0]}: {status} {body[:200].decode(errors='replace')}"
            self._first_error = self._first_error or error
            self._faults[type_of(error)] += 1
            return
        self._record(lane.number, lane.started, now)
        self._written += operation.written
        if operation.is_counted:
            self._items[lane.number] += count_of(answer)

    def _go_on(self, lane: Lane, now: float) -> None:
        if self._is_over:
            self._note_drained()
        elif self._line is None:
            self._begin(lane, now)
        else:
            self._line.arrive(now)
            intended = self._line.take()
            if intended is None:
                self._idle.append(lane)
            else:
                self._begin(lane, intended)

    def _note_drained(self) -> None:
        if not self._under_way and not self._drained.done():
            self._drained.set_result(None)

    def _serve_line(self) -> None:
        assert self._line is not None
        assert self._alarm is not None
        self._line.arrive(time.monotonic())
        while self._idle and (intended := self._line.take()) is not None:
            self._begin(self._idle.pop(), intended)
        self._alarm.set(self._line.next_at)

    def _count_waiting(self, line: Line) -> None:
        """Count those who wait at the end of the window, for an answer or for a connection."""
        line.arrive(self._window.end)
        for lane in self._lanes.values():
            if lane.sent and lane.started < self._window.end:
                self._count_unanswered(lane.number, lane.started)
        while (intended := line.take()) is not None:  # what it would have asked for is not drawn yet
            self._count_unanswered(0, intended)

    def _count_unanswered(self, number: int, started: float) -> None:
        self._record(number, started, self._window.end)
        self._unanswered += 1

    def _record(self, number: int, started: float, now: float) -> None:
        self._histograms[number].record((now - started) * 1e6)
        if self._work.is_timed:
            self._times[number].append((started, now - started))

    def _watch(self) -> None:
        now = time.monotonic()
        if any(lane.sent and now - lane.sent > REQUEST_TIMEOUT_S for lane in self._lanes.values()):
            self._fail(TimeoutError(f"no answer for {REQUEST_TIMEOUT_S:g} s"))
        if not self._drained.done():
            self._loop.call_later(_WATCH_S, self._watch)

    def _fail(self, error: Exception) -> None:
        self._is_over = True
        if not self._drained.done():
            self._drained.set_exception(error)


def count_of(answer: bytes) -> int:
    """Return the ``Count`` in the answer to a Query or Scan; 0 if there is none."""
    found = _VALUE.match(answer, answer.rfind(b'"Count"') + len(b'"Count"'))
    return int(found[1]) if found else 0


def last_key(answer: bytes) -> bytes:
    """Return the ``LastEvaluatedKey`` in the answer to a Scan, as JSON; empty at the end of the segment."""
    at = answer.rfind(b'"LastEvaluatedKey"')
    if at < 0:
        return b""
    text = answer[answer.index(b"{", at) :].decode()
    _, end = json.JSONDecoder().raw_decode(text)
    return text[:end].encode()


def type_of(error: str) -> str:
    """Return the name of a DynamoDB error, or the status if it has none."""
    found = re.search(r'#(\w+)"', error)
    return found[1] if found else error.split()[1]
