"""Hinted handoff: what a replica missed waits with others and is handed over when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from merganser.core import hint_policy
from merganser.model.cluster import Table
from merganser.model.errors import RefusedError, UnavailableError, UnknownOutcomeError
from merganser.model.ids import NodeId
from merganser.model.messages import Hint, Reply
from merganser.service import hinting
from merganser.service.hint_store import HintStore
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage import keys
from service.hints import drained, hints_left, keepers, kept, noted, number, refusing
from service.plays import ALL, ONE, get, held, holders, key_of, member, put, replicas_of, settled, simulated, started

# Storing


@simulated(machines=5)
async def test_a_replica_that_is_down_gets_its_copy_on_the_first_fallback(world: World) -> None:
    table = await started(world)
    first, _, third = replicas_of(world, table, b"k")
    fallbacks = member(first).topology.fallbacks(table, key_of(table, b"k"))
    (keeper,) = [m for m in world.machines if m.member and member(m).topology.node == fallbacks[0]]
    third.crash()
    await put(first, table, b"k", b"v")
    await settled(world)
    third.start()
    await world.up(third)
    assert keepers(world, third) == [keeper]


@simulated()
async def test_without_a_fallback_the_coordinator_keeps_the_hint(world: World) -> None:
    table = await started(world)
    coordinator, _, away = world.machines
    target = number(away)
    away.crash()
    await put(coordinator, table, b"k", b"v")
    await settled(world)
    assert member(coordinator).hints.held(target).hints == 1


@simulated()
async def test_a_replica_that_is_silent_gets_a_hint_and_marks_no_write_as_failed(world: World) -> None:
    table = await started(world)
    coordinator, _, silent = world.machines
    world.cut_off(silent)
    await put(coordinator, table, b"k", b"v")
    await settled(world)
    assert kept(coordinator, silent) == [b"k"]


@simulated()
async def test_a_replica_that_acks_late_but_before_it_is_called_silent_gets_no_hint(world: World) -> None:
    table = await started(world)
    world.network.conditions.delay_s = (0.015, 0.02)
    for i in range(20):
        await put(world.machines[0], table, b"%d" % i, b"v", level=ONE)
    await settled(world)
    assert hints_left(world) == 0
    assert member(world.machines[0]).coordinator.hinting.sent == 0


@simulated()
async def test_a_write_of_unknown_outcome_leaves_hints_so_that_replicas_become_equal(world: World) -> None:
    table = await started(world)
    coordinator, *others = world.machines
    world.cut_off(coordinator)
    with pytest.raises(UnknownOutcomeError):
        await put(coordinator, table, b"k", b"v")
    await settled(world)
    assert [kept(coordinator, other) for other in others] == [[b"k"], [b"k"]]
    world.network.heal()
    await drained(world)
    assert len(holders(world, table, b"k")) == 3


@simulated(machines=5)
async def test_a_write_that_is_reported_as_unwritten_leaves_no_hint(world: World) -> None:
    table = await started(world)
    replicas = replicas_of(world, table, b"k")
    (outsider, *_) = [machine for machine in world.machines if machine not in replicas]
    for replica in replicas[:2]:
        refusing(replica, lambda _: RefusedError("unavailable", "not now"))
    replicas[2].crash()
    with pytest.raises(UnavailableError, match="nothing was written"):
        await put(outsider, table, b"k", b"v", level=ONE)
    await settled(world)
    await world.start()
    await settled(world)
    assert (hints_left(world), holders(world, table, b"k")) == (0, [])


@pytest.mark.parametrize("code", ["clock_skew", "corruption"])
def test_a_refusal_that_would_come_again_leaves_no_hint(code: str) -> None:
    @simulated()
    async def play(world: World) -> None:
        table = await started(world)
        refusing(world.machines[2], lambda _: RefusedError(code, "never"))
        await put(world.machines[0], table, b"k", b"v")
        await settled(world)
        assert hints_left(world) == 0

    play()


@simulated()
async def test_an_overloaded_replica_gets_a_hint_when_it_refuses(world: World) -> None:
    table = await started(world)
    coordinator, _, busy = world.machines
    is_busy = True
    refusing(busy, lambda _: RefusedError("overloaded", "later") if is_busy else None)
    await put(coordinator, table, b"k", b"v")
    await settled(world)
    assert kept(coordinator, busy) == [b"k"]
    is_busy = False
    await drained(world)
    assert held(busy, table, b"k") is not None


@simulated(machines=6)
async def test_a_fallback_that_has_no_room_is_passed_over_for_the_next(world: World) -> None:
    table = await started(world)
    first, _, away = replicas_of(world, table, b"k")
    outsiders = member(first).topology.fallbacks(table, key_of(table, b"k"))
    full, spare = (next(m for m in world.machines if member(m).topology.node == node) for node in outsiders[:2])

    async def refuse(_sender: NodeId, _request: Hint) -> Reply:
        raise RefusedError(hint_policy.HINTS_FULL, "full")

    member(full)._serve[Hint] = refuse
    target = number(away)
    away.crash()
    await put(first, table, b"k", b"v")
    await settled(world)
    assert [member(machine).hints.held(target).hints for machine in (full, spare)] == [0, 1]


@simulated()
async def test_a_write_that_was_sent_again_leaves_hints_for_the_last_attempt_only(world: World) -> None:
    table = await started(world)
    ahead, behind, away = world.machines
    ahead.skew_us, behind.skew_us = 4_000_000, -4_000_000
    await put(ahead, table, b"k", b"first", level=ALL)
    target = number(away)
    away.crash()
    hints = noted(behind, Hint)
    before = member(behind).hints.stored
    await put(behind, table, b"k", b"second")
    await settled(world)
    assert member(behind).hints.stored == before + 1
    assert hints == [], "it keeps its own"
    assert member(behind).hints.held(target).hints == 1


@simulated()
async def test_writes_beyond_the_bound_are_not_looked_after_and_counted(world: World) -> None:
    table = await started(world)
    coordinator, _, away = world.machines
    before, hinting.WATCHED_MAX = hinting.WATCHED_MAX, 2
    target = number(away)
    away.crash()
    try:
        await asyncio.gather(*(put(coordinator, table, b"%d" % i, b"v") for i in range(5)))
    finally:
        hinting.WATCHED_MAX = before
    await settled(world)
    assert member(coordinator).coordinator.hinting.dropped == 3
    assert member(coordinator).hints.held(target).hints == 2


# The whole, under faults


async def stormy(world: World) -> None:
    """Write through two machines that stay up while links are cut and all others come and go; then heal."""
    table = await started(world)
    rng, coordinators, others = world.rng, world.machines[:2], world.machines[2:]

    async def write_some(machine: Machine) -> None:
        for i in range(20):
            await asyncio.sleep(rng.expovariate(20.0))
            name = b"%d" % rng.randrange(8)
            value = None if rng.random() < 0.2 else b"%s-%d" % (machine.address.encode(), i)
            try:
                await put(machine, table, name, value, level=ONE if rng.random() < 0.5 else ALL, timeout_s=1.0)
            except (UnavailableError, UnknownOutcomeError):
                pass

    writing = [asyncio.ensure_future(write_some(machine)) for machine in coordinators]
    while not all(task.done() for task in writing):
        await asyncio.sleep(rng.uniform(0.05, 0.4))
        victim = rng.choice(others)
        if not victim.is_up:
            victim.start()
        elif rng.random() < 0.5:
            victim.crash()
        elif rng.random() < 0.5:
            world.cut_off(victim)
        else:
            world.network.cut(rng.choice(coordinators).address, victim.address)
        if rng.random() < 0.3:
            world.network.heal()
    for task in writing:
        await task
    world.network.heal()
    await world.start()
    await drained(world)
    compare(world, table)


def compare(world: World, table: Table) -> None:
    for i in range(8):
        name = b"%d" % i
        replicas = replicas_of(world, table, name)
        assert len({machine.engine.get(key_of(table, name)) for machine in replicas}) == 1, name


def storms(seeds: range) -> Iterator[str]:
    """Tell what goes wrong, seed by seed."""
    for seed in seeds:
        world = World(seed, machines=5, partitions=8)
        try:
            world.run(stormy)
        except (AssertionError, TimeoutError) as error:
            yield f"seed {seed}: {error!r}"
        yield from (f"seed {seed}: {unheard!r}" for unheard in world.errors())


def test_after_a_storm_hints_drain_to_zero_and_replicas_are_equal_without_a_read() -> None:
    assert list(storms(range(40))) == []


def test_the_storm_leaves_replicas_apart_when_hints_are_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hinting.HintedWriting, "stand_in", lambda _self, _primary: None)
    assert next(storms(range(10)), None)


def test_the_storm_leaves_replicas_apart_when_hints_are_given_up_before_the_ack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = HintStore.slice

    def and_give_up(self: HintStore, target: int, start: bytes, *, hints_max: int, bytes_max: int) -> object:
        hints = real(self, target, start, hints_max=hints_max, bytes_max=bytes_max)
        self.delivered(target, hints)
        return hints

    monkeypatch.setattr(HintStore, "slice", and_give_up)
    assert next(storms(range(20)), None)


def test_the_storm_leaves_replicas_apart_when_a_later_hint_overwrites_an_earlier_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = HintStore._merge

    def overwrite(self: HintStore, target: int, key: bytes, *rest: object, **options: object) -> object:
        self._remove([keys.hint_key(target, key)])
        return real(self, target, key, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(HintStore, "_merge", overwrite)
    assert next(storms(range(40)), None)


@simulated()
async def test_get_through_the_node_that_was_away_sees_what_was_handed_over(world: World) -> None:
    table = await started(world)
    coordinator, _, away = world.machines
    away.crash()
    await put(coordinator, table, b"k", b"v")
    await settled(world)
    await world.start()
    await drained(world)
    assert await get(away, table, b"k", level=ONE) == b"v"
