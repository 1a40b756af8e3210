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
