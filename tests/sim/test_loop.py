"""The simulated loop: virtual time, a seeded order within what asyncio promises, and power cuts."""

from __future__ import annotations

import asyncio
import gc
import random
import warnings

import pytest

from merganser.sim.loop import Incarnation, SimulatedLoop, SimulationError


def loop(seed: int = 1) -> SimulatedLoop:
    return SimulatedLoop(random.Random(seed))


def test_time_is_virtual_and_jumps_to_the_next_timer() -> None:
    async def script() -> list[float]:
        clock = asyncio.get_running_loop()
        seen = [clock.time()]
        for pause_s in (0.5, 86_400.0):
            await asyncio.sleep(pause_s)
            seen.append(clock.time())
        return seen

    assert loop().run(script()) == [0.0, 0.5, 86_400.5]


def test_timers_fire_in_order_of_time_and_cancelled_ones_never() -> None:
    async def script() -> list[str]:
        fired: list[str] = []
        clock = asyncio.get_running_loop()
        clock.call_later(0.3, fired.append, "third")
        clock.call_later(0.1, fired.append, "first")
        clock.call_later(0.2, fired.append, "cancelled").cancel()
        clock.call_later(0.2, fired.append, "second")
        await asyncio.sleep(1.0)
        return fired

    assert loop().run(script()) == ["first", "second", "third"]


def test_plain_callbacks_keep_their_order_under_every_seed() -> None:
    async def script() -> list[int]:
        ran: list[int] = []
        others = [asyncio.ensure_future(asyncio.sleep(0)) for _ in range(5)]
        for number in range(20):
            asyncio.get_running_loop().call_soon(ran.append, number)
        await asyncio.gather(*others)
        await asyncio.sleep(0.001)
        return ran

    for seed in range(50):
        assert loop(seed).run(script()) == list(range(20))


def order(seed: int) -> list[tuple[str, int]]:
    """Return the order in which three tasks took their five steps."""

    async def step(name: str, took: list[tuple[str, int]]) -> None:
        for number in range(5):
            took.append((name, number))
            await asyncio.sleep(0)

    async def script() -> list[tuple[str, int]]:
        took: list[tuple[str, int]] = []
        await asyncio.gather(*(step(name, took) for name in "abc"))
        return took

    return loop(seed).run(script())


def test_each_task_keeps_the_order_of_its_steps_and_seeds_differ_in_how_tasks_interleave() -> None:
    orders = [order(seed) for seed in range(50)]
    for took in orders:
        for name in "abc":
            assert [number for who, number in took if who == name] == list(range(5))
    assert len(set(map(tuple, orders))) > 25


def test_one_seed_gives_one_order() -> None:
    for seed in range(10):
        assert order(seed) == order(seed)


def test_the_trace_tells_apart_what_happened_and_when() -> None:
    async def note(pause_s: float, what: str) -> None:
        await asyncio.sleep(pause_s)
        asyncio.get_running_loop().note(what)  # type: ignore[attr-defined]

    def trace(pause_s: float, what: str) -> str:
        simulated = loop()
        simulated.run(note(pause_s, what))
        return simulated.trace

    assert trace(1.0, "a") == trace(1.0, "a")
    assert len({trace(1.0, "a"), trace(1.0, "b"), trace(2.0, "a")}) == 3


def test_a_power_cut_runs_no_finally_no_except_and_no_callback() -> None:
    ran: list[str] = []
    life, other = Incarnation("dying"), Incarnation("living")

    async def work(name: str) -> None:
        try:
            asyncio.get_running_loop().call_later(0.2, ran.append, f"{name} timer")
            await asyncio.sleep(0.2)
            ran.append(f"{name} went on")
        except BaseException:
            ran.append(f"{name} except")
            raise
        finally:
            ran.append(f"{name} finally")

    async def script() -> None:
        simulated = asyncio.get_running_loop()
        assert isinstance(simulated, SimulatedLoop)
        dying, living = simulated.spawn(life, work("dying")), simulated.spawn(other, work("living"))
        await asyncio.sleep(0.1)
        life.is_dead = True
        dying.cancel()
        await living
        await asyncio.sleep(1.0)
        assert not dying.done()

    loop().run(script())
    assert ran == ["living timer", "living went on", "living finally"]


def test_what_a_task_starts_dies_with_its_machine() -> None:
    ran: list[str] = []
    life = Incarnation("machine")

    async def child() -> None:
        await asyncio.sleep(0.2)
        ran.append("child")

    async def parent() -> None:
        asyncio.get_running_loop().create_task(child(), name="child")
        await asyncio.sleep(0)

    async def script() -> None:
        simulated = asyncio.get_running_loop()
        assert isinstance(simulated, SimulatedLoop)
        await simulated.spawn(life, parent())
        life.is_dead = True
        await asyncio.sleep(1.0)

    loop().run(script())
    assert ran == []


def test_a_task_that_a_power_cut_kept_from_beginning_is_thrown_away_in_silence() -> None:
    life = Incarnation("machine")

    async def work() -> None:
        raise AssertionError("it never begins")

    async def script() -> None:
        simulated = asyncio.get_running_loop()
        assert isinstance(simulated, SimulatedLoop)
        simulated.spawn(life, work())
        life.is_dead = True
        await asyncio.sleep(1.0)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        loop().run(script())
        gc.collect()
    assert [str(warning.message) for warning in told] == []


def test_work_for_an_executor_takes_time_and_hands_back_its_result_or_error() -> None:
    def fail() -> None:
        raise OSError("disk")

    async def script() -> None:
        clock = asyncio.get_running_loop()
        assert await clock.run_in_executor(None, divmod, 7, 2) == (3, 1)
        assert clock.time() > 0
        with pytest.raises(OSError, match="disk"):
            await clock.run_in_executor(None, fail)

    loop().run(script())


def test_cancelled_executor_work_is_not_done() -> None:
    done: list[int] = []

    async def script() -> None:
        asyncio.get_running_loop().run_in_executor(None, done.append, 1).cancel()
        await asyncio.sleep(1.0)

    loop().run(script())
    assert done == []


def test_timeouts_task_groups_and_queues_work_on_virtual_time() -> None:
    async def script() -> list[int]:
        queue: asyncio.Queue[int] = asyncio.Queue(1)
        taken: list[int] = []

        async def produce() -> None:
            for number in range(5):
                await queue.put(number)
                await asyncio.sleep(1.0)

        async def consume() -> None:
            taken.extend([await queue.get() for _ in range(5)])

        async with asyncio.TaskGroup() as group:
            group.create_task(produce())
            group.create_task(consume())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10.0):
                await queue.get()
        return taken

    assert loop().run(script()) == list(range(5))


def test_a_script_that_waits_for_nothing_is_told_so() -> None:
    async def script() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(SimulationError, match="nothing can run"):
        loop().run(script())


def test_errors_that_nobody_handled_are_kept() -> None:
    async def script() -> None:
        asyncio.get_running_loop().call_soon(int, "x")
        await asyncio.sleep(1.0)

    simulated = loop()
    simulated.run(script())
    assert [type(error) for error in simulated.errors] == [ValueError]
