"""Begin work at once, and make a task of it only if it has to wait.

A task costs some microseconds, and a turn of the loop before it begins. Most reads need neither: what they ask for is
here. So the first step of a coroutine is run like a function; what has ended then is an answer, what waits is handed to
a task that goes on from there::

    begin --first step--> ended
                  |
                  +--> waits --task--> ended

This is what ``asyncio.eager_task_factory`` does from Python 3.12 on, without the task for what ends at once.

While the first step runs, `asyncio.current_task` is what stands for the task to come, so that time limits
(`asyncio.timeout`) that it sets reach that. Work may begin work.
"""

from __future__ import annotations

import asyncio
import types
from asyncio import current_task
from asyncio.tasks import _enter_task, _leave_task  # documented for those who make tasks of their own
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar, cast

T = TypeVar("T")


class _TaskToCome:
    """Stands for the task of work that has begun; there is one by the time that anybody calls."""

    __slots__ = ("task",)

    def __init__(self) -> None:
        self.task: asyncio.Task[Any] | None = None

    def cancel(self, msg: object = None) -> bool:
        return self.task is not None and self.task.cancel(msg)

    def cancelling(self) -> int:
        return 0 if self.task is None else self.task.cancelling()

    def uncancel(self) -> int:
        return 0 if self.task is None else self.task.uncancel()


def begin(work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> asyncio.Task[None] | None:
    """Run ``work``, which reports its own errors, until it ends or waits; returns the task that goes on with it.

    Raises:
        BaseException: the first step did; CancelledError is an end like any other.
    """
    try:
        return _rest_of(work, loop)
    except StopIteration:
        return None
    except asyncio.CancelledError:
        return None


def begin_answer(work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> asyncio.Future[T]:
    """Run ``work`` until it ends or waits; returns the future of what it returns or raises."""
    try:
        return _rest_of(work, loop)
    except StopIteration as end:
        ended: asyncio.Future[T] = loop.create_future()
        ended.set_result(end.value)
    except asyncio.CancelledError:
        ended = loop.create_future()
        ended.cancel()
    except Exception as error:  # noqa: BLE001 - as a task would
        ended = loop.create_future()
        ended.set_exception(error)
    return ended


def _rest_of(work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> asyncio.Task[T]:
    """Run the first step of ``work``; returns the task of the rest, and raises what the step did."""
    beginner = current_task(loop)
    if beginner is not None:
        _leave_task(loop, beginner)
    to_come: Any = _TaskToCome()
    _enter_task(loop, to_come)
    try:
        awaited = work.send(None)
    finally:
        _leave_task(loop, to_come)
        if beginner is not None:
            _enter_task(loop, beginner)
    rest = _going_on(work, awaited)
    rest.send(None)
    to_come.task = task = loop.create_task(rest)
    return task


@types.coroutine
def _going_on(work: Coroutine[Any, Any, T], awaited: object) -> Generator[Any, Any, T]:
    """Await ``awaited``, which ``work`` waits for, in its place, and go on with it.

    Who makes a task of this takes the first step himself: a task that is cancelled before its first step runs nothing,
    and would leave the work where it is.
    """
    is_begun = False
    while True:
        try:
            if not is_begun:
                is_begun = True
                yield None
            yield awaited
        except GeneratorExit:  # nobody holds the task any more
            work.close()
            raise
        except BaseException as error:  # noqa: BLE001 - the work's to handle
            try:
                awaited = work.throw(error)
            except StopIteration as end:
                return cast("T", end.value)
        else:
            return cast("T", (yield from work))
