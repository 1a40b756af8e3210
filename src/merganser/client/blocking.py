"""What makes a class for programs without asyncio of one for asyncio: nothing but the names of its methods.

::

    class SyncRegister(Blocking[Register]):
        get = waiting(Register.get)
        assign = waiting(Register.assign)

Arguments, their defaults and their types, and docstrings are those of the asynchronous method; so nothing is written
twice, and nothing can be forgotten in one of two places.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast

from merganser.client.errors import ClosedError
from merganser.model.errors import UnknownOutcomeError

A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)
B = TypeVar("B")
P = ParamSpec("P")
T = TypeVar("T")


class Runner:
    """A thread with an event loop, from `start` to `stop`, or until the process ends. Any thread may `run` on it."""

    def __init__(self) -> None:
        """Be stopped."""
        self._lock = threading.RLock()  # the collector may end an iterator, which runs work, where this is held
        """Held to begin work, and to stop: nothing begins on a loop that has stopped, what had begun is given up."""
        self._running: tuple[asyncio.AbstractEventLoop, threading.Thread] | None = None

    @property
    def is_running(self) -> bool:
        """Tell whether there is a thread."""
        return self._running is not None

    def start(self) -> None:
        """Have a thread."""
        assert self._running is None
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="merganser client", daemon=True)
        thread.start()
        self._running = loop, thread

    def stop(self) -> None:
        """Have none any more; what is under way on it is given up."""
        with self._lock:
            running, self._running = self._running, None
        if running is None:  # another thread has stopped it
            return
        loop, thread = running
        asyncio.run_coroutine_threadsafe(_given_up(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return what ``work`` comes to on the thread.

        Raises:
            ClosedError: there is none; or it is the one that asks, and would wait for itself.
            UnknownOutcomeError: it was stopped meanwhile.
            and as ``work``.
        """
        with self._lock:
            if self._running is None:
                raise ClosedError("the client is not open: open() it, or use it in a with statement")
            loop, thread = self._running
            if threading.current_thread() is thread:
                raise ClosedError("merge and change functions cannot use the client that calls them")
            running: concurrent.futures.Future[T] = asyncio.run_coroutine_threadsafe(_awaited(work), loop)
        try:
            return running.result()
        except concurrent.futures.CancelledError:
            raise UnknownOutcomeError("another thread closed the client: what was asked may have been done") from None
        except BaseException:  # KeyboardInterrupt in this thread: nobody wants the answer any more
            running.cancel()
            raise


class Blocking(Generic[A_co]):
    """What belongs to an asynchronous object, and waits for it."""

    def __init__(self, runner: Runner, of: A_co) -> None:
        """Have ``of`` work on ``runner``."""
        self._runner = runner
        self._of = of


def waiting(method: Callable[Concatenate[A, P], Awaitable[T]]) -> Callable[Concatenate[Blocking[A], P], T]:
    """Return a method that waits for ``method``, and returns what it comes to."""

    @functools.wraps(method)
    def wait(self: Blocking[A], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._runner.run(lambda: method(self._of, *args, **kwargs))

    return wait


def handing_out(
    method: Callable[Concatenate[A, P], B], wrap: Callable[[Runner, B], T]
) -> Callable[Concatenate[Blocking[A], P], T]:
    """Return a method that hands out what ``method`` does, wrapped: nothing has to be waited for."""

    @functools.wraps(method)
    def hand_out(self: Blocking[A], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return wrap(self._runner, method(self._of, *args, **kwargs))

    return hand_out


def waiting_for_one(
    method: Callable[Concatenate[A, P], Awaitable[B]], wrap: Callable[[Runner, B], T]
) -> Callable[Concatenate[Blocking[A], P], T]:
    """Return a method that waits for ``method``, and hands out what that does, wrapped."""

    @functools.wraps(method)
    def wait(self: Blocking[A], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return wrap(self._runner, self._runner.run(lambda: method(self._of, *args, **kwargs)))

    return wait


def one_by_one(
    method: Callable[Concatenate[A, P], AsyncIterator[T]],
) -> Callable[Concatenate[Blocking[A], P], Iterator[T]]:
    """Return a method that yields what ``method`` does; the next is asked for when it is wanted."""

    @functools.wraps(method)
    def iterate(self: Blocking[A], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        found = cast("AsyncGenerator[T, None]", method(self._of, *args, **kwargs))
        try:
            while some := self._runner.run(lambda: _some(found)):
                yield from some
        finally:
            with contextlib.suppress(ClosedError, UnknownOutcomeError):  # the client was closed, which ends it as well
                self._runner.run(found.aclose)

    return iterate


_SOME = 64
"""That are fetched in one visit to the other thread."""


async def _some(found: AsyncIterator[T]) -> list[T]:
    some: list[T] = []
    async for one in found:
        some.append(one)
        if len(some) == _SOME:
            break
    return some


async def _given_up() -> None:
    """Cancel all that runs on this loop beside this, end its generators, and return when all have ended."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()


async def _awaited(work: Callable[[], Awaitable[Any]]) -> Any:
    return await work()
