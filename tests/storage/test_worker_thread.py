"""The thread that does jobs for an event loop."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from merganser.storage.worker_thread import WorkerThread


def on_loop(scenario: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    @functools.wraps(scenario)
    def run() -> None:
        asyncio.run(asyncio.wait_for(scenario(), 10))

    return run


@on_loop
async def test_jobs_are_done_in_order_in_one_other_thread() -> None:
    worker = WorkerThread("worker")
    seen: list[tuple[int, str]] = []

    def see(number: int) -> None:
        seen.append((number, threading.current_thread().name))

    await asyncio.gather(*[worker.do(functools.partial(see, number)) for number in range(100)])
    worker.close()
    assert seen == [(number, "worker") for number in range(100)]


@on_loop
async def test_a_job_that_fails_fails_for_whoever_gave_it_and_the_next_is_done() -> None:
    worker, done = WorkerThread("worker"), threading.Event()

    def fail() -> None:
        raise OSError("full")

    failing, next_one = worker.do(fail), worker.do(done.set)
    with pytest.raises(OSError, match="full"):
        await failing
    await next_one
    assert done.is_set()
    worker.close()


@on_loop
async def test_what_was_given_before_the_end_is_done_and_nothing_is_taken_after_it() -> None:
    worker, begun, go_on, done = WorkerThread("worker"), threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        begun.set()
        go_on.wait(10)

    given_up = worker.do(first)
    second = worker.do(done.set)
    begun.wait(10)
    given_up.cancel()
    go_on.set()
    worker.close()
    worker.close()
    assert done.is_set()
    with pytest.raises(RuntimeError, match="worker is closed"):
        worker.do(done.set)
    await second


def test_a_loop_that_has_ended_meanwhile_is_left_alone() -> None:
    worker, go_on = WorkerThread("worker"), threading.Event()

    def wait() -> None:
        go_on.wait(10)

    async def leave() -> None:
        worker.do(wait)

    asyncio.run(leave())
    go_on.set()
    worker.close()
