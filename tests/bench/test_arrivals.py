"""Open loop: whoever comes while the server stalls has waited since it came."""

from __future__ import annotations

import asyncio
import itertools
import random
import time

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from merganser.bench.arrivals import ARRIVALS, Alarm, Line, arrivals


def first(kind: str, count: int, *, rate: float, start: float = 0.0) -> list[float]:
    return list(itertools.islice(arrivals(kind, rate, start=start, rng=random.Random(1)), count))


def test_even_arrivals_are_equally_far_apart() -> None:
    assert first("even", 4, rate=10, start=5.0) == pytest.approx([5.1, 5.2, 5.3, 5.4])


def test_poisson_arrivals_have_the_rate_and_the_spread_of_a_poisson_process() -> None:
    times = first("poisson", 50_000, rate=200)
    assert times == sorted(times)
    assert len(times) / times[-1] == pytest.approx(200, rel=0.03)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert deviation == pytest.approx(mean, rel=0.03)


def test_a_kind_of_arrivals_that_there_is_not_is_told() -> None:
    with pytest.raises(ValueError, match="poisson or even, not 'bursts'"):
        first("bursts", 1, rate=1)


class Play:
    """One connection to a server that takes ``service_s`` a request and stalls once; its clock is a number."""

    def __init__(self, *, rate: float, service_s: float, stall: tuple[float, float], until: float) -> None:
        self.latencies: list[float] = []
        line = Line(arrivals("even", rate, start=0.0, rng=random.Random(1)))
        now = 0.0
        while now < until:
            line.arrive(now)
            intended = line.take()
            if intended is None:
                now = line.next_at
                continue
            begin, end = stall
            ended = now + service_s + (end - now if begin <= now < end else 0.0)
            self.latencies.append(ended - intended)
            now = ended


def test_a_stall_is_felt_by_all_who_would_have_come_meanwhile() -> None:
    play = Play(rate=100, service_s=0.001, stall=(1.0, 2.0), until=5.0)
    slow = [latency for latency in play.latencies if latency > 0.1]
    # 100 come in the second of the stall; those of its first nine tenths wait for more than 0.1 s
    assert 85 <= len(slow) <= 105
    assert max(slow) == pytest.approx(1.0, rel=0.02)


def test_without_a_stall_nobody_waits() -> None:
    play = Play(rate=100, service_s=0.001, stall=(9.0, 9.0), until=5.0)
    assert max(play.latencies) == pytest.approx(0.001)
    assert len(play.latencies) == pytest.approx(500, abs=2)


@given(st.sampled_from(ARRIVALS), st.lists(st.floats(0.0, 2.0), min_size=1, max_size=30))
def test_everyone_who_arrives_is_served_once_in_order(kind: str, times: list[float]) -> None:
    line = Line(arrivals(kind, 50.0, start=0.0, rng=random.Random(3)))
    served: list[float] = []
    for now in sorted(times):
        line.arrive(now)
        assert line.next_at > now
        while (intended := line.take()) is not None:
            served.append(intended)
            assert intended <= now
    everyone = itertools.takewhile(
        lambda when: when <= max(times), arrivals(kind, 50.0, start=0.0, rng=random.Random(3))
    )
    assert served == list(everyone)
    assert len(line) == 0


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_alarm_rings_once_for_the_last_time_that_was_set_and_never_early(new_loop: object) -> None:
    rung: list[float] = []

    async def run() -> tuple[float, float]:
        done = asyncio.Event()

        def ring() -> None:
            rung.append(time.monotonic())
            done.set()

        alarm = Alarm(asyncio.get_running_loop(), ring)
        alarm.set(time.monotonic() + 3600)
        wanted = time.monotonic() + 0.002
        alarm.set(wanted)
        async with asyncio.timeout(30):
            await done.wait()
        past = time.monotonic() - 1
        done.clear()
        alarm.set(past)  # at once
        async with asyncio.timeout(30):
            await done.wait()
        alarm.close()
        return wanted, past

    assert callable(new_loop)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        wanted, _ = runner.run(run())
    assert len(rung) == 2
    assert rung[0] >= wanted
