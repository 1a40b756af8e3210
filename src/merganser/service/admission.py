"""What this node takes on: client requests, reads and writes of rows, and background work. Decided in `core.admission`
and `core.request_gate`.

    client request --`requests`--> operation(s) of the coordinator --`operations`--> replicas --`begin`--> engine

One timer takes the lag of the loop and runs the controllers while there is anything to do; an idle node has none.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, NoReturn, ParamSpec, Protocol, Self, TypeVar

from merganser.core.admission import (
    FOREGROUND,
    LED,
    TICK_S,
    AdmissionLimits,
    BackgroundShare,
    Measured,
    is_busy,
)
from merganser.core.request_gate import Entry, RequestGate
from merganser.model.errors import OverloadedError
from merganser.model.leader_messages import Change, Copies, Replicate, TouchRange
from merganser.model.load import Load
from merganser.model.messages import Apply, Hint, ReadRange, Request
from merganser.model.value_messages import FindTagged, ListRange
from merganser.service.steps import UNASKED

P = ParamSpec("P")
T = TypeVar("T")

_PAGES = frozenset((ReadRange, ListRange, FindTagged, TouchRange))
"""Whose answers take as long as they are large."""

_SIZES: dict[type, Callable[[Any], int]] = {
    Apply: lambda request: len(request.row),
    Hint: lambda request: len(request.row),
    Replicate: lambda request: len(request.register),
    Copies: lambda request: sum([len(copy.register) for copy in request.copies]),
    Change: lambda request: len(request.payload),
}
"""Of what writes bring along."""

_UNCOUNTED = -1.0
_NEVER = float("inf")
_TIMER_S = 0.001  # libuv's timers are of whole milliseconds, and half of one is a turn of the loop at once


class Requests:
    """Client requests being served: an asynchronous context for each; see `core.request_gate`."""

    def __init__(self, limits: AdmissionLimits, wake: Callable[[], None]) -> None:
        """Serve within ``limits``; ``wake`` starts the timer that calls `tick`."""
        self.gate = RequestGate(limits)
        self._limits = limits
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[asyncio.Future[None], float] = {}
        """When the patience of each is over, oldest first."""

    def enter(self) -> Coroutine[Any, Any, None] | None:
        """Take a place; returns what to await for it, if it has to be waited for. Whoever has one must `leave`.

        Raises:
            OverloadedError: there is no place for it, now or, when that is awaited, later.
        """
        self._wake()
        entry = self.gate.enter()
        if entry is Entry.SERVED:
            return None
        if entry is Entry.REFUSED:
            raise self._refusal()
        place = self._loop.create_future()
        self._waiting[place] = self._loop.time() + self._limits.patience_s
        return self._wait(place)

    def leave(self) -> None:
        """Give the place to the next."""
        self.gate.leave()
        if self._waiting:
            self._let_in()

    async def __aenter__(self) -> None:
        """Return when the request may be served; raises as `enter`."""
        turn = self.enter()
        if turn is not None:
            await turn

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave."""
        self.leave()

    def tick(self, *, count: int, seconds: float) -> None:
        """Adapt the limit, let in whom it allows, refuse whose patience is over.

        Args:
            count: reads and writes of rows that ended since the last tick.
            seconds: what they took, together.
        """
        self.gate.limit.update(count=count, seconds=seconds, in_flight=self.gate.in_flight, was_full=self.gate.was_full)
        self.gate.was_full = bool(self._waiting)
        self._let_in()
        now = self._loop.time()
        while self._waiting:
            oldest = next(iter(self._waiting))
            if self._waiting[oldest] > now:
                break
            del self._waiting[oldest]
            self.gate.gives_up()
            if not oldest.done():
                oldest.set_exception(self._refusal())

    async def _wait(self, place: asyncio.Future[None]) -> None:
        try:
            await place
        except asyncio.CancelledError:
            if self._waiting.pop(place, None) is not None:
                self.gate.gives_up()
            elif not place.cancelled() and place.exception() is None:  # let in and cancelled in the same turn
                self.leave()
            raise

    def _let_in(self) -> None:
        while self._waiting and self.gate.calls_next():
            newest, _ = self._waiting.popitem()
            if newest.done():  # cancelled in this turn of the loop
                self.gate.leave()
            else:
                newest.set_result(None)

    def _refusal(self) -> OverloadedError:
        return OverloadedError(
            f"this node serves {self.gate.in_flight} requests at once and {self.gate.waiting} wait for their turn; "
            "this one was not begun, try again later"
        )


class UnderWay:
    """Counts what is under way, as a context, and refuses what is beyond the bound."""

    __slots__ = ("_most", "_what", "count", "ended", "most", "refused", "seconds", "time")

    def __init__(self, what: str, most: int) -> None:
        """Allow ``most``, called ``what`` in errors."""
        self.time = asyncio.get_running_loop().time
        self._what = what
        self._most = most
        self.count = 0
        self.most = 0
        self.refused = 0
        self.ended = 0
        self.seconds = 0.0
        """Of those that were `timed` since somebody set these two to zero: how many, and what they took together."""

    def __enter__(self) -> Self:
        """Take a place.

        Raises:
            OverloadedError: all are taken.
        """
        if self.count >= self._most:
            self.refuse()
        self.count += 1
        if self.count > self.most:  # max() costs twice as much
            self.most = self.count
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give it back."""
        self.count -= 1

    def refuse(self) -> NoReturn:
        """Count a refusal.

        Raises:
            OverloadedError: always.
        """
        self.refused += 1
        raise OverloadedError(f"{self.count} {self._what} are under way, no more are taken")


class Bounded(Protocol):
    """Whoever has methods that are `counted`."""

    @property
    def under_way(self) -> UnderWay:
        """Where they are counted."""


B = TypeVar("B", bound=Bounded)


def counted(
    method: Callable[Concatenate[B, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[B, P], Coroutine[Any, Any, T]]:
    """Let ``method`` run only while there is room for it; raises OverloadedError before it does anything."""

    @functools.wraps(method)
    async def run(self: B, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.under_way:
            return await method(self, *args, **kwargs)

    return run


def timed(
    method: Callable[Concatenate[B, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[B, P], Coroutine[Any, Any, T]]:
    """As `counted`, and note how long ``method`` took: it should always take about as long."""

    @functools.wraps(method)
    async def run(self: B, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.under_way as under_way:
            began = under_way.time()
            try:
                return await method(self, *args, **kwargs)
            finally:
                under_way.ended += 1
                under_way.seconds += under_way.time() - began

    return run


class Admission:
    """What this node takes on; see the module's docstring."""

    def __init__(self, limits: AdmissionLimits | None = None) -> None:
        """Take on what ``limits`` allow."""
        self._limits = limits or AdmissionLimits()
        self._loop = asyncio.get_running_loop()
        self._share = BackgroundShare(self._limits)
        self.requests = Requests(self._limits, self._wake)
        self.operations = UnderWay("reads and writes through this node", self._limits.operations_max)
        self._served = UnderWay("reads and writes of this replica", self._limits.served_max)
        self._led = UnderWay("reads and writes of items that this node leads", self._limits.led_max)
        self._served_bytes = 0
        self._most_served_bytes = 0
        self._ended = 0
        self._late = 0
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._lag_s = 0.0
        self._slice_ended = -_NEVER
        """When the last slice was over, by loop time."""
        self._slice_s = 0.0
        """What it took."""
        self._is_slice_open = False

    def begin(self, request: Request) -> float:
        """Take on a peer's ``request``; returns what `end` needs to know.

        Raises:
            OverloadedError: there is no place for it; nothing was done.
        """
        kind = type(request)
        limits = self._limits
        if kind in FOREGROUND:
            served, most, bytes_max = self._served, limits.served_max, limits.served_bytes_max
        elif kind in LED:
            served, most, bytes_max = self._led, limits.led_max, limits.served_bytes_max // 2
        else:
            return _UNCOUNTED
        if served.count >= most:
            served.refuse()
        size_of = _SIZES.get(kind)
        if size_of is not None:
            self._take_bytes(served, size_of(request), bytes_max)
        served.count += 1
        if served.count > served.most:
            served.most = served.count
        if self._timer is None:
            self._wake()
        return self._loop.time()

    def passes(self, request: Request) -> bool:
        """Tell whether there is a place for a peer's read that is answered in this turn of the loop, and takes none."""
        if type(request) in LED:
            return self._led.count < self._limits.led_max
        if self._served.count >= self._limits.served_max:
            return False
        self._ended += type(request) not in _PAGES
        return True

    def end(self, request: Request, began: float) -> None:
        """Note that ``request`` was answered."""
        if began == _UNCOUNTED:
            return
        kind = type(request)
        size_of = _SIZES.get(kind)
        if size_of is not None:
            self._served_bytes -= size_of(request)
        if kind in LED:  # these wait for others
            self._led.count -= 1
            self._led.ended += not (isinstance(request, Change) and request.kind in UNASKED)
            return
        self._served.count -= 1
        if kind not in _PAGES:
            self._ended += 1
            if self._loop.time() - began > self._limits.latency_target_s:
                self._late += 1

    def has_room_to_lead(self, size: int) -> bool:
        """Tell whether this node may lead a change of ``size`` bytes for one of its own clients: `begin_leading`."""
        limits = self._limits
        return (
            self._led.count < limits.led_max
            and self.operations.count < limits.operations_max
            and self._served_bytes + size <= limits.served_bytes_max // 2
        )

    def begin_leading(self, size: int) -> None:
        """Take it on, as an operation of a client and as `begin` does a `Change`."""
        self._served_bytes += size
        if self._served_bytes > self._most_served_bytes:
            self._most_served_bytes = self._served_bytes
        for counted in (self._led, self.operations):
            counted.count += 1
            if counted.count > counted.most:
                counted.most = counted.count
        if self._timer is None:
            self._wake()

    def end_leading(self, size: int, seconds: float, *, is_asked: bool) -> None:
        """Note that it has ended, how long it took, and whether a client waited for it."""
        self._served_bytes -= size
        self._led.count -= 1
        operations = self.operations
        operations.count -= 1
        if is_asked:
            operations.ended += 1
            operations.seconds += seconds

    async def background(self) -> None:
        """Return when a slice of background work, some milliseconds of it, may begin.

        To be awaited between slices by whatever clients do not wait for. Returns after ten seconds at the latest,
        so that nothing is put off for ever. What the caller does before it waits for something else is the slice, with
        the first steps of tasks that it begins: the longer these two turns of the loop took, whatever else was in them,
        the later the next one begins.
        """
        began = self._loop.time()
        await asyncio.sleep(0)
        while (now := self._loop.time()) < began + self._limits.slice_wait_max_s:
            gap_s = self._share.gap_s(self._slice_s)
            if self.is_busy:
                await asyncio.sleep(TICK_S)
            elif not gap_s:
                break
            elif self._is_slice_open:
                await asyncio.sleep(0)
            elif now < self._slice_ended + gap_s:
                await asyncio.sleep(max(_TIMER_S, self._slice_ended + gap_s - now))
            else:
                break
        self._is_slice_open = True
        self._loop.call_soon(self._loop.call_soon, self._end_slice, now)

    def _end_slice(self, began: float) -> None:
        self._is_slice_open = False
        self._slice_ended = self._loop.time()
        self._slice_s = self._slice_ended - began

    @property
    def is_asked(self) -> bool:
        """Tell whether clients ask this node for something, or others ask it as a leader, more than now and then."""
        return self._share.is_asked

    def _take_bytes(self, served: UnderWay, size: int, most: int) -> None:
        held = self._served_bytes + size
        if held > most:
            served.refused += 1
            raise OverloadedError(
                f"writes of {self._served_bytes} bytes are under way on this replica, no more are taken"
            )
        self._served_bytes = held
        if held > self._most_served_bytes:
            self._most_served_bytes = held

    @property
    def is_busy(self) -> bool:
        """Tell whether background work has to wait just now."""
        gate = self.requests.gate
        return (
            is_busy(gate.in_flight, gate.limit.value)
            or is_busy(self.operations.count, self._limits.operations_max)
            or is_busy(self._served.count, self._limits.served_max)
            or is_busy(self._led.count, self._limits.led_max)
        )

    def load(self) -> Load:
        """Return what is going on."""
        gate = self.requests.gate
        return Load(
            requests_in_flight=gate.in_flight,
            requests_limit=gate.limit.value,
            requests_waiting=gate.waiting,
            requests_refused=gate.refused,
            most_requests_in_flight=gate.most_in_flight,
            most_requests_waiting=gate.most_waiting,
            operations=self.operations.count,
            operations_refused=self.operations.refused,
            most_operations=self.operations.most,
            served=self._served.count,
            served_bytes=self._served_bytes,
            served_refused=self._served.refused,
            most_served=self._served.most,
            most_served_bytes=self._most_served_bytes,
            led=self._led.count,
            led_refused=self._led.refused,
            most_led=self._led.most,
            background_share=self._share.value,
            lag_s=self._lag_s,
            unloaded_s=gate.limit.unloaded_s,
        )

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _wake(self) -> None:
        if self._timer is None:
            self._due = self._loop.time() + TICK_S
            self._timer = self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        self._lag_s = max(0.0, self._loop.time() - self._due)
        self._share.update(
            Measured(
                self._lag_s,
                served=self._ended,
                late=self._late,
                asked=self.operations.ended + self._led.ended,
                is_busy=self.is_busy,
            )
        )
        self._ended = self._late = self._led.ended = 0
        self.requests.tick(count=self.operations.ended, seconds=self.operations.seconds)
        self.operations.ended, self.operations.seconds = 0, 0.0
        self._timer = None
        if not self._is_idle:
            self._wake()

    @property
    def _is_idle(self) -> bool:
        gate = self.requests.gate
        share = self._share
        return share.value == 1.0 and not (
            share.is_asked or gate.in_flight or gate.waiting or self._served.count or self._led.count
        )
