"""Leaders of items: conditions, versions, majorities, and what is told of what."""

from __future__ import annotations

from merganser.sim.world import World
from service.led import change, leading, payload_of, read, register_at, started_led
from service.plays import simulated, until


@simulated()
async def test_what_a_change_wrote_is_held_by_all_replicas_and_read(world: World) -> None:
    table = await started_led(world)
    leader = leading(world, table, b"k")
    assert leader is not None
    changed = await change(leader, table, b"k", payload_of("put", b"v"))
    found = await read(leader, table, b"k")
    assert (found.value, found.version) == (b"v", changed.version)
    await until(lambda: all(register_at(machine, table, b"k").value == b"v" for machine in world.machines))


@simulated()
async def test_a_repeated_request_that_wrote_nothing_writes_nothing_though_it_could_by_now(world: World) -> None:
    table = await started_led(world)
    leader = leading(world, table, b"k")
    assert leader is not None
    request = b"r" * 16
    compare = payload_of("compare_and_set", b"a", b"b")
    first = await change(leader, table, b"k", compare, request=request)
    await change(leader, table, b"k", payload_of("put", b"a"))
    assert first.is_rejected
    assert await change(leader, table, b"k", compare, request=request) == first
    assert (await read(leader, table, b"k")).value == b"a"
