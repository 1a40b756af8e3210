"""Too much to do: background work stops, then requests wait, then they are refused; what was acknowledged stays."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Coroutine
from typing import Any, cast

import msgspec
import pytest

from merganser.core.admission import SLICE_MIN_S, TICK_S, AdmissionLimits, Measured
from merganser.model.errors import OverloadedError, UnknownOutcomeError
from merganser.model.ids import TableId
from merganser.model.leader_messages import Change, ReadLed, Replicate
from merganser.model.leadership import Epoch
from merganser.model.messages import Apply, FetchMap, Read, ReadRange, Request
from merganser.service.admission import Admission
from merganser.service.steps import EXPIRY
from merganser.sim.loop import SimulatedLoop
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.engine import Batch
from service.plays import ALL, ONE, get, holders, member, put, read, replicas_of, simulated, started, until

SMALL = AdmissionLimits(requests_max=4, requests_min=2, waiting_max=8, operations_max=20, served_max=20)
READ = Read(1, TableId(1), b"k")


def alone(script: Coroutine[Any, Any, None]) -> None:
    """Run ``script`` on virtual time."""
    loop = SimulatedLoop(random.Random(1))
    loop.run(script)
    assert loop.errors == []


def held(admission: Admission, count: int) -> tuple[asyncio.Event, list[int], list[asyncio.Task[None]]]:
    """Let ``count`` requests ask to be served until the event is set; the list is of those served, by arrival."""
    gate, served = asyncio.Event(), list[int]()
    arrivals = itertools.count()

    async def hold() -> None:
        number = next(arrivals)
        async with admission.requests:
            served.append(number)
            await gate.wait()

    return gate, served, [asyncio.create_task(hold()) for _ in range(count)]


# Client requests.


def test_requests_beyond_the_limit_wait_and_the_newest_is_served_first() -> None:
    async def script() -> None:
        admission = Admission(SMALL)
        gate, served, tasks = held(admission, 8)
        await asyncio.sleep(0.01)
        assert served == [0, 1, 2, 3]
        tasks[0].cancel()
        await asyncio.sleep(0.01)
        assert served[4:] == [7]
        gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert sorted(served) == list(range(8))
        assert admission.load().requests_in_flight == 0
        admission.close()

    alone(script())


def test_a_request_whose_patience_is_over_is_refused_and_so_is_one_that_finds_no_room_to_wait() -> None:
    async def script() -> None:
        admission = Admission(SMALL)
        gate, served, tasks = held(admission, 15)
        await asyncio.sleep(0.01)
        assert len(served) == 4
        assert sum(task.done() for task in tasks) == 3
        await asyncio.sleep(SMALL.patience_s + 2 * TICK_S)
        assert sum(task.done() for task in tasks) == 11
        gate.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(outcome, OverloadedError) for outcome in outcomes) == 11
        load = admission.load()
        assert (load.requests_refused, load.most_requests_in_flight, load.most_requests_waiting) == (11, 4, 8)
        admission.close()

    alone(script())


def test_cancelled_requests_give_their_places_back_wherever_they_stand() -> None:
    async def script() -> None:
        rng = random.Random(7)
        admission = Admission(SMALL)
        for _ in range(100):
            _, _, tasks = held(admission, rng.randint(1, 14))
            await asyncio.sleep(0)
            for task in rng.sample(tasks, len(tasks)):
                task.cancel()
                if rng.random() < 0.5:
                    await asyncio.sleep(0)
            await asyncio.wait(tasks)
            load = admission.load()
            assert (load.requests_in_flight, load.requests_waiting) == (0, 0)
        admission.close()

    alone(script())


def test_an_idle_node_has_no_timer() -> None:
    async def script() -> None:
        admission = Admission(SMALL)
        gate, _, tasks = held(admission, 8)
        await asyncio.sleep(0.01)
        gate.set()
        await asyncio.gather(*tasks)
        await asyncio.sleep(10.0)
        assert admission._timer is None

    alone(script())


# Replicas.


def test_what_a_leader_takes_on_is_bounded_apart_and_leaves_room_for_what_it_waits_for() -> None:
    async def script() -> None:
        admission = Admission(AdmissionLimits(served_max=1, led_max=2, served_bytes_max=100))
        epoch = Epoch(1, 1)
        change = Change(1, TableId(1), b"k", epoch, b"r" * 16, 0, b"x" * 25)
        begun: list[tuple[Request, float]] = [(change, admission.begin(change)) for _ in range(2)]
        with pytest.raises(OverloadedError, match="2 reads and writes of items that this node leads are under way"):
            admission.begin(ReadLed(1, TableId(1), b"k", epoch))
        replicate = Replicate(1, TableId(1), b"k", epoch, b"x" * 50)
        begun.append((replicate, admission.begin(replicate)))
        for one in begun:
            admission.end(*one)
        large = Change(1, TableId(1), b"k", epoch, b"r" * 16, 0, b"x" * 51)
        with pytest.raises(OverloadedError, match="writes of 0 bytes"):
            admission.begin(large)
        load = admission.load()
        assert (load.led, load.led_refused, load.most_led, load.served_bytes) == (0, 2, 2, 0)
        assert load.served_refused == 0
        admission.close()

    alone(script())


def test_a_node_that_only_leads_for_clients_of_others_is_asked_and_one_that_repairs_is_not() -> None:
    async def script() -> None:
        epoch = Epoch(1, 1)
        change = Change(1, TableId(1), b"k", epoch, b"r" * 16, 0, b"x")
        replicate = Replicate(1, TableId(1), b"k", epoch, b"x")
        expiry = msgspec.structs.replace(change, kind=EXPIRY)
        for request, is_asked in (change, True), (expiry, False), (replicate, False):
            admission = Admission(AdmissionLimits())
            for _ in range(40):
                admission.end(request, admission.begin(request))
            await asyncio.sleep(2 * TICK_S)
            assert admission.is_asked is is_asked
            await asyncio.sleep(10.0)
            assert not admission.is_asked, "nobody has asked for ten seconds"
            assert admission._timer is None
            admission.close()

    alone(script())


def asked() -> Admission:
    """Return what a calm node takes on that clients ask."""
    admission = Admission(AdmissionLimits())
    admission._share.update(Measured(0.0, asked=30))
    return admission


def test_the_longer_a_slice_of_background_work_took_the_later_the_next_one_begins() -> None:
    async def script() -> None:
        admission, loop = asked(), cast("SimulatedLoop", asyncio.get_running_loop())
        began_s = loop.time()
        for slice_s, waits_s in (0.001, 0.0), (0.01, 9 * 0.001), (0.0, 9 * 0.01), (0.0, 9 * SLICE_MIN_S):
            await admission.background()
            assert loop.time() - began_s == pytest.approx(waits_s)
            loop._now_s += slice_s
            began_s = loop.time()

    alone(script())


def test_of_two_that_want_a_slice_at_once_the_second_waits_for_what_the_first_took_and_no_longer() -> None:
    async def script() -> None:
        admission, loop, began = asked(), asyncio.get_running_loop(), list[float]()

        async def walk() -> None:
            for _ in range(3):
                await admission.background()
                began.append(loop.time())

        await asyncio.gather(walk(), walk())
        assert began == pytest.approx([9 * SLICE_MIN_S * number for number in range(6)])

    alone(script())


def test_what_tasks_do_that_a_slice_begins_is_part_of_it() -> None:
    class Clock(asyncio.SelectorEventLoop):
        late_s = 0.0

        def time(self) -> float:
            return super().time() + self.late_s

    async def script() -> None:
        admission, loop = asked(), cast("Clock", asyncio.get_running_loop())

        async def step() -> None:
            loop.late_s += 0.01

        await admission.background()
        await asyncio.gather(*(step() for _ in range(4)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not admission._is_slice_open
        assert admission._slice_s >= 0.04

    with asyncio.Runner(loop_factory=Clock) as runner:
        runner.run(script())


def test_a_replica_takes_a_bounded_number_of_requests_and_bytes_and_counts_no_others() -> None:
    async def script() -> None:
        limits = AdmissionLimits(served_max=3, served_bytes_max=100)
        admission = Admission(limits)
        write = Apply(1, TableId(1), b"k", b"x" * 60)
        scan = ReadRange(1, TableId(1), b"", b"", reverse=False, rows_max=1, bytes_max=1)
        begun = [(request, admission.begin(request)) for request in (write, READ, scan)]
        with pytest.raises(OverloadedError, match="3 reads and writes of this replica are under way"):
            admission.begin(READ)
        admission.begin(FetchMap(0))
        admission.end(*begun.pop())
        with pytest.raises(OverloadedError, match="writes of 60 bytes"):
            admission.begin(write)
        for one in begun:
            admission.end(*one)
        load = admission.load()
        assert (load.served, load.served_bytes, load.served_refused) == (0, 0, 2)
        assert (load.most_served, load.most_served_bytes) == (3, 60)
        admission.close()

    alone(script())


def overload(machine: Machine) -> None:
    """Take every place that ``machine`` has for reads and writes of its replica."""
    admission = member(machine).admission
    for _ in range(admission._limits.served_max):
        admission.begin(READ)


@simulated()
async def test_replicas_that_refuse_for_overload_make_it_an_overload_and_nothing_is_written(world: World) -> None:
    table = await started(world)
    for machine in world.machines:
        overload(machine)
    with pytest.raises(OverloadedError, match="nothing was written"):
        await put(world.machines[0], table, b"k", b"v")
    with pytest.raises(OverloadedError, match="under way"):
        await read(world.machines[0], table, b"k")
    assert holders(world, table, b"k") == []


@simulated()
async def test_a_write_that_one_replica_took_and_the_others_were_too_busy_for_is_of_unknown_outcome(
    world: World,
) -> None:
    table = await started(world)
    for machine in world.machines[1:]:
        overload(machine)
    with pytest.raises(UnknownOutcomeError):
        await put(world.machines[0], table, b"k", b"v")


@simulated(machines=5)
async def test_a_read_turns_to_another_replica_when_one_is_too_busy_and_asks_it_last_for_a_while(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, b"k", b"v", level=ALL)
    replicas = replicas_of(world, table, b"k")
    (outsider, *_) = [machine for machine in world.machines if machine not in replicas]
    member(outsider).coordinator.repairs.may_begin = lambda: False  # a look asks all of them
    overload(replicas[0])
    for _ in range(3):
        assert await get(outsider, table, b"k", level=ONE) == b"v"
    assert member(replicas[0]).admission.load().served_refused == 1


@simulated()
async def test_a_coordinator_takes_a_bounded_number_of_operations(world: World) -> None:
    for machine in world.machines:
        machine.limits = SMALL
    table = await started(world)
    machine = world.machines[0]
    outcomes = await asyncio.gather(*(put(machine, table, b"%d" % i, b"v") for i in range(50)), return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, OverloadedError)]
    assert len(refused) == 30
    assert "20 reads and writes through this node are under way" in str(refused[0])
    assert member(machine).admission.load().most_operations == 20


# Background work.


class Background:
    """Work that nobody waits for: slices as fast as they are admitted."""

    def __init__(self, machine: Machine) -> None:
        self.slices = 0
        self._admission = member(machine).admission
        self.task = machine.spawn(self._work())

    async def _work(self) -> None:
        while True:
            await self._admission.background()
            self.slices += 1
            await asyncio.sleep(0.005)

    async def slices_in(self, seconds: float) -> int:
        before = self.slices
        await asyncio.sleep(seconds)
        return self.slices - before


@simulated()
async def test_background_work_of_an_idle_node_waits_for_nothing(world: World) -> None:
    await started(world)
    admission, loop = member(world.machines[0]).admission, asyncio.get_running_loop()
    began_s = loop.time()
    for _ in range(200):
        await admission.background()
    assert loop.time() - began_s < 0.1


@simulated()
async def test_background_work_that_is_shed_still_gets_a_slice_now_and_then(world: World) -> None:
    for machine in world.machines:
        machine.limits = SMALL
    await started(world)
    machine = world.machines[0]
    background = Background(machine)
    gate, _, tasks = held(member(machine).admission, 4)
    await asyncio.sleep(1.0)
    assert await background.slices_in(30.0) == 3
    gate.set()
    await asyncio.gather(*tasks)
    background.task.cancel()


@simulated()
async def test_read_repair_waits_for_a_quieter_time(world: World) -> None:
    for machine in world.machines:
        machine.limits = SMALL
    table = await started(world)
    machine, stale, _ = world.machines
    await put(machine, table, b"k", b"v", level=ALL)
    stale.engine.commit(Batch().delete_range(*keys.table_range(table.id)))
    gate, _, tasks = held(member(machine).admission, 4)
    await asyncio.sleep(0.01)
    await get(machine, table, b"k", level=ALL)
    assert member(machine).coordinator.repairs.dropped == 1
    gate.set()
    await asyncio.gather(*tasks)
    await get(machine, table, b"k", level=ALL)
    await member(machine).coordinator.repairs.idle()
    assert len(holders(world, table, b"k")) == 3


# A burst.


@simulated()
async def test_in_a_burst_the_background_stops_first_then_requests_are_shed_and_all_that_was_acknowledged_stays(
    world: World,
) -> None:
    for machine in world.machines:
        machine.limits = SMALL
    table = await started(world)
    machine = world.machines[0]
    admission = member(machine).admission
    background = Background(machine)
    acknowledged: list[int] = []
    shed: list[int] = []

    async def client(number: int) -> None:
        try:
            async with admission.requests:
                await put(machine, table, b"k%d" % number, b"v%d" % number, timeout_s=10.0)
                acknowledged.append(number)
        except OverloadedError:
            shed.append(number)

    assert await background.slices_in(1.0) > 50
    burst = [asyncio.create_task(client(number)) for number in range(200)]
    await until(lambda: admission.load().requests_in_flight > 2)
    before = background.slices
    await until(lambda: bool(shed))
    more = []
    for number in range(200, 2000):
        more.append(asyncio.create_task(client(number)))
        await asyncio.sleep(0.001)
    assert background.slices <= before + 1, "one slice may have begun before"
    await asyncio.gather(*burst, *more)
    assert len(acknowledged) + len(shed) == 2000
    assert len(shed) > 100
    load = admission.load()
    assert load.most_requests_in_flight == 4
    assert load.most_requests_waiting == 8
    assert load.most_operations <= 4
    for number in acknowledged:
        assert await get(machine, table, b"k%d" % number) == b"v%d" % number
    await asyncio.sleep(3.0)
    assert await background.slices_in(1.0) > 50
    assert admission.load().background_share == 1.0
    background.task.cancel()
