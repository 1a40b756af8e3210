"""An event loop on virtual time: one seed decides the order of everything.

One ready callback runs at a time. Now and then a seeded draw lets a later one go first, within what
asyncio promises: callbacks keep their order among themselves, and so does each task. When nothing is
ready, time jumps to the next timer. Threads and sockets do not exist; work for an executor is done
inline after a virtual delay.

A power cut is modelled by `Incarnation`: every task and callback carries the incarnation of the
machine it belongs to in its context, and once that is dead the loop drops them where they stand. No
``except`` and no ``finally`` of theirs ever runs.

A machine that is stopped (SIGSTOP) and goes on is modelled in the same way: while its incarnation is paused,
the loop holds back what is its own, and runs it in the old order once it is resumed. Time does not wait.
"""

from __future__ import annotations

import asyncio
import collections
import contextvars
import hashlib
import heapq
import inspect
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

T = TypeVar("T")

STEPS_MAX = 5_000_000  # a scenario takes some 100,000; beyond this it loops
CANCELLED_MAX = 100  # as asyncio's own loop has it
EXECUTOR_DELAY_S = (1e-5, 2e-3)
OVERTAKING = 0.3  # share of steps at which a later callback may go first


class Incarnation:
    """One life of one simulated machine."""

    def __init__(self, name: str) -> None:
        """Begin a life of the machine ``name``."""
        self.name = name
        self.is_dead = False
        self.is_paused = False
        self.held: list[asyncio.Handle] = []
        """What would have run while it is paused, in order."""


INCARNATION: contextvars.ContextVar[Incarnation | None] = contextvars.ContextVar("incarnation", default=None)


class SimulationError(Exception):
    """The simulation itself cannot go on: nothing can run, or it never ends."""


class _NoSelector:
    def close(self) -> None:
        """Do nothing; the base class closes its selector."""


class _Timer(asyncio.TimerHandle):
    """Of two timers of one moment, neither is less, and comparing them looks no further."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __lt__(self, other: object) -> bool:
        return False

    __hash__ = object.__hash__


class SimulatedLoop(asyncio.BaseEventLoop):
    """A loop without sockets and threads; see the module's docstring."""

    # the base class's own, which typeshed leaves out
    _ready: collections.deque[Any]
    _scheduled: list[Any]  # here pairs of a time and a timer, which are compared without a call into Python
    _timer_cancelled_count: int

    def __init__(self, rng: random.Random) -> None:
        """Draw every choice from ``rng``."""
        super().__init__()
        self._rng = rng
        self._now_s = 0.0
        self._steps = 0
        self._trace = hashlib.blake2b(digest_size=16)
        self._abandoned: list[asyncio.Handle] = []  # kept, so that no finaliser runs what a power cut has stopped
        self._selector = _NoSelector()
        self._clock_resolution = 1e-9
        self.errors: list[BaseException] = []
        self.timeline: list[str] = []
        """What was told, a sentence each."""

    def time(self) -> float:
        """Return virtual seconds since the loop was made."""
        return self._now_s

    def call_at(  # type: ignore[override]  # typeshed ties the arguments to the callback
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Call ``callback`` at a virtual time."""
        timer: Any = _Timer(when, callback, args, self, context)
        heapq.heappush(self._scheduled, (when, timer))
        timer._scheduled = True
        return cast("asyncio.TimerHandle", timer)

    def note(self, *what: object) -> None:
        """Add ``what``, at this moment, to the trace."""
        self._trace.update(repr((round(self._now_s, 9), what)).encode())

    def tell(self, sentence: str) -> None:
        """Add a sentence for people, with the time, to the timeline and to the trace."""
        self.note(sentence)
        self.timeline.append(f"{self._now_s:9.4f} s  {sentence}")

    @property
    def trace(self) -> str:
        """A digest of everything noted so far: equal for equal runs."""
        return self._trace.hexdigest()

    def spawn(self, incarnation: Incarnation, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start ``work`` as a task that dies with ``incarnation``."""
        task: asyncio.Task[T] = self.create_task(work, context=_context_of(incarnation))
        return task

    def create_task(self, coro: Any, **options: Any) -> Any:
        """Start ``coro`` as a task; after the end, when what was abandoned is collected, nothing starts any more."""
        if not self.is_closed():
            task: asyncio.Task[Any] = super().create_task(coro, **options)
            return task
        coro.close()
        ended = self.create_future()
        ended.cancel()
        return ended

    def call_in(self, incarnation: Incarnation, callback: Callable[..., object], *args: Any) -> None:
        """Call ``callback`` soon, as something that dies and pauses with ``incarnation``."""
        self.call_soon(callback, *args, context=_context_of(incarnation))

    def resume(self, incarnation: Incarnation) -> None:
        """Let ``incarnation`` go on where it was paused: its timers are overdue, its messages unread."""
        incarnation.is_paused = False
        self._ready.extendleft(reversed(incarnation.held))  # before what is its own and ready since
        incarnation.held.clear()

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run ``main`` to its end and throw away whatever else was going on."""
        try:
            return self.run_until_complete(main)
        finally:
            for task in asyncio.all_tasks(self):
                _abandon(task)
            self._ready.clear()
            self._scheduled.clear()
            self.close()

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Run ``func`` on the loop after a virtual delay, as if a thread had taken that long."""
        future = self.create_future()

        def work() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(func(*args))
            except Exception as error:  # noqa: BLE001  # this is the root of the simulated thread
                future.set_exception(error)

        self.call_later(self._rng.uniform(*EXECUTOR_DELAY_S), work)
        return future

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what nobody handled, for the scenario to look at."""
        error = context.get("exception")
        self.errors.append(error if error is not None else SimulationError(context["message"]))

    def _run_once(self) -> None:
        self._wake_timers()
        if not self._ready:
            return
        handle = self._pick()
        if handle._cancelled:
            return
        incarnation = handle._context.get(INCARNATION)
        if incarnation is not None and incarnation.is_dead:
            self._abandoned.append(handle)
            return
        if incarnation is not None and incarnation.is_paused:
            incarnation.held.append(handle)
            return
        self._steps += 1
        if self._steps > STEPS_MAX:
            raise SimulationError(f"no end after {STEPS_MAX} steps, at {self._now_s:.3f} s")
        handle._run()

    def _wake_timers(self) -> None:
        if self._timer_cancelled_count > CANCELLED_MAX and 2 * self._timer_cancelled_count > len(self._scheduled):
            self._drop_cancelled()
        scheduled = self._scheduled
        while scheduled and scheduled[0][1]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(scheduled)[1]._scheduled = False
        if not self._ready:
            if not scheduled:
                raise SimulationError(f"nothing can run at {self._now_s:.3f} s")
            self._now_s = max(self._now_s, scheduled[0][0])
        while scheduled and scheduled[0][0] <= self._now_s:
            _, timer = heapq.heappop(scheduled)
            timer._scheduled = False
            if timer._cancelled:
                self._timer_cancelled_count -= 1
            else:
                self._ready.append(timer)

    def _drop_cancelled(self) -> None:
        """Forget timers that were cancelled: nearly all are deadlines of requests that were answered."""
        for _, timer in self._scheduled:
            timer._scheduled = not timer._cancelled
        self._scheduled = [entry for entry in self._scheduled if entry[1]._scheduled]
        heapq.heapify(self._scheduled)
        self._timer_cancelled_count = 0

    def _pick(self) -> Any:
        ready = self._ready
        if len(ready) == 1 or self._rng.random() >= OVERTAKING:
            return ready.popleft()
        candidates = self._candidates()
        chosen = candidates[self._rng.randrange(len(candidates))]
        handle = ready[chosen]
        del ready[chosen]
        return handle

    def _candidates(self) -> list[int]:
        """Each task has at most one step ready; plain callbacks keep their order, so only the first may go."""
        candidates: list[int] = []
        has_plain = False
        for index, handle in enumerate(self._ready):
            if isinstance(getattr(handle._callback, "__self__", None), asyncio.Task):
                candidates.append(index)
            elif not has_plain:
                candidates.append(index)
                has_plain = True
        return candidates

    def _check_closed(self) -> None:
        """Allow abandoned coroutines to be collected after the end."""

    def _process_events(self, event_list: Any) -> None:
        """There are no sockets."""

    def _write_to_self(self) -> None:
        """There are no threads to wake the loop for."""


def _context_of(incarnation: Incarnation) -> contextvars.Context:
    context = contextvars.copy_context()
    context.run(INCARNATION.set, incarnation)
    return context


def _abandon(task: asyncio.Task[Any]) -> None:
    """Let ``task`` be collected without a word: that it never ended, or never began, is on purpose."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    work = task.get_coro()
    if not inspect.iscoroutine(work):
        return
    of_its_own = () if work.cr_frame is None else tuple(work.cr_frame.f_locals.values())  # what it was to wait for
    for one in (work, *filter(inspect.iscoroutine, of_its_own)):
        if inspect.getcoroutinestate(one) == inspect.CORO_CREATED:
            one.close()
