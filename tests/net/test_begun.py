"""Work that begins at once, and the task that goes on with what waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from merganser.net.begun import begin, begin_answer

Run = Callable[[Coroutine[None, None, None]], None]


def test_what_need_not_wait_has_ended_on_return_and_makes_no_task(run: Run) -> None:
    async def scenario() -> None:
        tasks = asyncio.all_tasks()
        answer = begin_answer(_after(()), asyncio.get_running_loop())
        assert answer.done()
        assert answer.result() == "done"
        assert begin(_nothing(), asyncio.get_running_loop()) is None
        assert asyncio.all_tasks() == tasks

    run(scenario())


def test_what_waits_is_gone_on_with_by_a_task(run: Run) -> None:
    async def scenario() -> None:
        one, other = asyncio.Event(), asyncio.Event()
        answer = begin_answer(_after((one, other)), asyncio.get_running_loop())
        assert not answer.done()
        for event in one, other:
            event.set()
        assert await answer == "done"

    run(scenario())


def test_an_error_of_the_first_step_is_that_of_the_answer(run: Run) -> None:
    async def scenario() -> None:
        answer = begin_answer(_failing(), asyncio.get_running_loop())
        with pytest.raises(ValueError, match="at once"):
            await answer

    run(scenario())


@pytest.mark.parametrize("turns", [0, 1, 2])
def test_cancelling_reaches_the_work_wherever_it_waits_even_before_the_first_step_of_the_task(
    run: Run, turns: int
) -> None:
    async def scenario() -> None:
        told: list[str] = []
        task = begin_answer(_telling(told), asyncio.get_running_loop())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert told == ["cancelled", "over"]

    run(scenario())


def test_work_that_is_cancelled_may_go_on_and_wait_again(run: Run) -> None:
    async def scenario() -> None:
        again = asyncio.Event()
        answer = begin_answer(_stubborn(again), asyncio.get_running_loop())
        answer.cancel()
        await asyncio.sleep(0)
        again.set()
        assert await answer == "went on"

    run(scenario())


def test_a_time_limit_of_the_first_step_ends_the_work_and_nobody_else(run: Run) -> None:
    async def scenario() -> None:
        beginner = asyncio.current_task()
        answer = begin_answer(_limited(), asyncio.get_running_loop())
        assert asyncio.current_task() is beginner
        assert await answer == "late"

    run(scenario())


def test_work_may_begin_work(run: Run) -> None:
    async def scenario() -> None:
        event = asyncio.Event()

        async def outer() -> str:
            inner = begin_answer(_after((event,)), asyncio.get_running_loop())
            try:
                async with asyncio.timeout(0.001):
                    await asyncio.Event().wait()
            except TimeoutError:
                event.set()
            return await inner

        assert await begin_answer(outer(), asyncio.get_running_loop()) == "done"

    run(scenario())


async def _after(events: tuple[asyncio.Event, ...]) -> str:
    for event in events:
        await event.wait()
    return "done"


async def _nothing() -> None:
    return None


async def _failing() -> str:
    raise ValueError("at once")


async def _telling(told: list[str]) -> str:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        told.append("cancelled")
        raise
    finally:
        told.append("over")
    return ""


async def _stubborn(again: asyncio.Event) -> str:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await again.wait()
    return "went on"


async def _limited() -> str:
    try:
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()
    except TimeoutError:
        return "late"
    return ""
