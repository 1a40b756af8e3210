"""A simulated machine: what an old copy of its disk does."""

from __future__ import annotations

import pytest

from merganser.model.errors import InvariantError
from merganser.sim.world import World
from service.plays import ALL, held, put, simulated, started


@simulated()
async def test_a_machine_restored_from_an_old_image_holds_what_it_held_then(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    await put(machine, table, b"k", b"old", level=ALL)
    image = machine.image()
    await put(machine, table, b"k", b"new", level=ALL)
    await put(machine, table, b"l", b"new", level=ALL)
    machine.crash()
    machine.restore(image)
    machine.start()
    await world.up(machine)
    row = held(machine, table, b"k")
    assert row is not None
    assert [cell.value for cell in row.cells] == [b"old"]
    assert held(machine, table, b"l") is None


@simulated()
async def test_the_disk_of_a_running_machine_is_not_replaced(world: World) -> None:
    await started(world)
    with pytest.raises(InvariantError, match="crash it before"):
        world.machines[0].restore(world.machines[0].image())
