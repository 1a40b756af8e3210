"""Healing over real RocksDB files: damaged values, and blocks that cannot be read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from merganser.model.cluster import Table
from merganser.model.errors import CorruptionError
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.engine import Batch, Engine
from merganser.storage.rocks import RocksEngine
from service.plays import ALL, get, key_of, member, put, started, until

ROWS = 400
NAMES = [b"%03d" % i for i in range(ROWS)]


class OnTheLoop:
    """Does what the engine's thread does: that of a simulated loop takes virtual time."""

    def do(self, job: Callable[[], None]) -> asyncio.Future[None]:
        return asyncio.get_running_loop().run_in_executor(None, job)

    def close(self) -> None:
        return


def open_on(machine: Machine, directory: Path) -> RocksEngine:
    engine = RocksEngine.open(directory)
    engine._syncer.close()
    engine._syncer = OnTheLoop()  # type: ignore[assignment]
    machine.engine = engine  # type: ignore[assignment]
    return engine


async def filled(world: World) -> Table:
    table = await started(world)
    for name in NAMES:
        await put(world.machines[0], table, name, b"the value of " + name, level=ALL)
    return table


async def stop(machine: Machine, engine: RocksEngine) -> None:
    """Stop the machine with all its rows in one table file."""
    await machine.spawn(engine.durable())
    engine._database.flush()
    engine._database.compact_range(None, None)
    machine.crash()
    engine.close()


def rows_of(engine: Engine, table: Table) -> dict[bytes, bytes]:
    return dict(engine.scan(*keys.table_range(table.id)))


def run(tmp_path: Path, damage: str) -> None:
    world = World(1, partitions=4)
    world.run(lambda world: _play(world, tmp_path / "data", damage))
    assert world.errors() == []


async def _play(world: World, directory: Path, damage: str) -> None:
    victim, other, _ = world.machines
    engine = open_on(victim, directory)
    table = await filled(world)
    await stop(victim, engine)
    if damage == "value":
        _damage_value(directory, table)
    else:
        _flip_a_bit_of_the_middle_block(directory)
    engine = open_on(victim, directory)
    victim.start()
    await world.up(victim)
    await until(lambda: all(member(machine).topology.table(table.id) for machine in world.machines))
    for partition in member(victim).topology.partitions_between(table, *keys.table_range(table.id)):
        await victim.spawn(member(victim).scrubber.scrub(table, partition))
    await (_values_are_healed if damage == "value" else _rows_are_put_over_the_block)(victim, other, table)
    engine.close()


def _damage_value(directory: Path, table: Table) -> None:
    """Leave a value on the disk whose own checksum is wrong, and that of the block right, as bad memory does."""
    engine = RocksEngine.open(directory)
    key = key_of(table, NAMES[7])
    stored = bytearray(engine.get(key) or b"")
    stored[-2] ^= 0x20
    engine.commit(Batch().put(key, bytes(stored)))
    engine._database.flush()
    engine.close()


async def _values_are_healed(victim: Machine, other: Machine, table: Table) -> None:
    assert member(victim).damage.found == 1
    await until(lambda: not member(victim).damage.wounds)
    assert rows_of(victim.engine, table) == rows_of(other.engine, table)


def _flip_a_bit_of_the_middle_block(directory: Path) -> None:
    (file,) = directory.glob("*.sst")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)


async def _rows_are_put_over_the_block(victim: Machine, other: Machine, table: Table) -> None:
    wounds = list(member(victim).damage.wounds.values())  # a block may reach from one partition into the next
    assert len(wounds) in (1, 2)
    unreadable = [name for name in NAMES if any(w.start <= key_of(table, name) < (w.end or b"") for w in wounds)]
    assert 5 < len(unreadable) < ROWS / 2
    with pytest.raises(CorruptionError):
        victim.engine.get(key_of(table, unreadable[0]))
    await until(lambda: all(wound.tries for wound in wounds))
    # Each row can be read and written again,
    assert [victim.engine.get(key_of(table, name)) for name in NAMES] == [
        other.engine.get(key_of(table, name)) for name in NAMES
    ]
    await put(victim, table, unreadable[0], b"new", level=ALL)
    assert await get(victim, table, unreadable[0], level=ALL) == b"new"
    # ranges cannot, and the reason is told.
    with pytest.raises(CorruptionError):
        rows_of(victim.engine, table)
    assert all("start the node with --rebuild" in wound.problem for wound in wounds)
    assert member(victim).healing.rows_put == len(unreadable)


@pytest.mark.parametrize("damage", ["value", "block"])
def test_what_is_damaged_on_a_real_disk_is_found_by_the_scrub_and_healed(tmp_path: Path, damage: str) -> None:
    run(tmp_path, damage)
