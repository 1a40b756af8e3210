"""Deadlines of requests: many on one timer."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from merganser.net.deadlines import TICK_S, Deadlines
from merganser.sim.loop import SimulatedLoop


def expired_at(timeouts_s: list[float], *, begin_s: float = 0.0, stopped_s: float = 0.0) -> dict[int, float]:
    """Return when each of the deadlines, which begin within a second, was announced, counted from its own time."""
    loop = SimulatedLoop(random.Random(1))
    due: dict[int, float] = {}
    late: dict[int, float] = {}

    async def scenario() -> None:
        deadlines = Deadlines(loop, lambda number: late.__setitem__(number, loop.time() - due[number]))
        await asyncio.sleep(begin_s)
        for number, timeout_s in enumerate(timeouts_s):
            due[number] = loop.time() + timeout_s
            deadlines.add(number, timeout_s)
            await asyncio.sleep(1 / len(timeouts_s))
        if stopped_s:
            deadlines._timer.cancel()  # type: ignore[union-attr] # as if the process were stopped
            await asyncio.sleep(stopped_s)
            deadlines._tick()
        await asyncio.sleep(max(timeouts_s) + 1)

    loop.run(scenario())
    return late


def test_each_is_announced_after_its_time_and_at_most_two_ticks_late() -> None:
    rng = random.Random(7)
    timeouts_s = [rng.choice((0.001, TICK_S, 0.5, 10.0)) * rng.uniform(0.5, 1.5) for _ in range(500)]
    late = expired_at(timeouts_s, begin_s=3.14159)
    assert sorted(late) == list(range(500))
    assert min(late.values()) >= 0
    assert max(late.values()) <= 2.2 * TICK_S


def test_those_on_the_edge_of_a_tick_are_announced_too() -> None:
    late = expired_at([number * TICK_S for number in range(1, 100)])
    assert sorted(late) == list(range(99))
    assert min(late.values()) >= 0


def test_after_a_long_stop_all_that_is_due_is_announced_at_once() -> None:
    late = expired_at([0.1, 0.2, 5000.0], stopped_s=3600.0)
    assert sorted(late) == [0, 1, 2]
    assert late[2] <= 2.2 * TICK_S


def test_what_is_answered_in_time_is_not_announced() -> None:
    loop = SimulatedLoop(random.Random(1))
    announced: list[int] = []

    async def scenario() -> None:
        deadlines = Deadlines(loop, announced.append)
        buckets = [deadlines.add(number, 0.1) for number in range(10)]
        for number in range(0, 10, 2):
            buckets[number].discard(number)
        await asyncio.sleep(1)

    loop.run(scenario())
    assert sorted(announced) == [1, 3, 5, 7, 9]


@pytest.mark.plain
def test_what_is_answered_in_time_costs_one_wake_up_in_its_time_and_none_after() -> None:
    loop = SimulatedLoop(random.Random(1))
    wake_ups: list[float] = []

    async def scenario() -> None:
        deadlines = Deadlines(loop, lambda _number: None)
        call_at = loop.call_at

        def counted(when: float, callback: Any, *of: Any, **named: Any) -> asyncio.TimerHandle:
            if getattr(callback, "__self__", None) is deadlines:
                wake_ups.append(when)
            return call_at(when, callback, *of, **named)

        loop.call_at = counted  # type: ignore[method-assign]
        for number in range(1000):
            deadlines.add(number, 10.0).discard(number)
            await asyncio.sleep(0.005)
        await asyncio.sleep(20)

    loop.run(scenario())
    assert len(wake_ups) == 1


def test_one_that_is_earlier_than_all_others_is_announced_in_its_time() -> None:
    late = expired_at([5.0, 0.2])
    assert late[1] <= 2.2 * TICK_S
