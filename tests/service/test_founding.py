"""Founding: any order, any loss, any crash; one cluster with everyone in it, or a message that says why not."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from merganser.model.errors import ConfigurationError, VersionError
from merganser.model.ids import NodeId
from merganser.model.versions import NEWEST
from merganser.service.founding import check_address
from merganser.service.topology import load_map
from merganser.sim.machine import Machine
from merganser.sim.network import Conditions
from merganser.sim.world import World
from merganser.storage.engine import Batch
from merganser.storage.keys import metadata_key
from merganser.storage.memory import MemoryEngine
from merganser.storage.values import seal
from service.plays import member, play, simulated

SEEDS = 100


def assert_one_cluster(world: World) -> None:
    maps = [member(machine).topology.map for machine in world.machines]
    assert all(found == maps[0] for found in maps)
    assert sorted(node.peer_address for node in maps[0].nodes) == [machine.address for machine in world.machines]
    assert all(load_map(machine.engine) == maps[0] for machine in world.machines)


@simulated(machines=1)
async def test_a_single_node_founds_at_once(world: World) -> None:
    await world.start()
    assert_one_cluster(world)
    assert world.loop.time() < 0.1


@simulated(machines=3)
async def test_nobody_is_a_member_before_every_seed_was_met(world: World) -> None:
    world.machines[0].start()
    world.machines[1].start()
    await asyncio.sleep(30.0)
    assert [machine.member for machine in world.machines] == [None] * 3
    world.machines[2].start()
    await world.start()
    assert_one_cluster(world)


def test_any_order_of_starts_gives_one_cluster() -> None:
    async def script(world: World) -> None:
        for machine in world.rng.sample(world.machines, len(world.machines)):
            machine.start()
            await asyncio.sleep(world.rng.choice([0.0, 0.02, 2.0]))
        await world.start()
        assert_one_cluster(world)

    for seed in range(SEEDS // 2):
        play(script, seed=seed, machines=1 + seed % 5)


def test_lost_repeated_and_late_messages_give_one_cluster() -> None:
    async def script(world: World) -> None:
        world.network.conditions = Conditions(delay_s=(0.001, 0.9), loss=0.3, duplication=0.3)
        await world.start()
        assert_one_cluster(world)

    for seed in range(SEEDS // 2):
        play(script, seed=seed)


def test_crashes_at_any_time_give_one_cluster() -> None:
    async def script(world: World) -> None:
        world.network.conditions = Conditions(delay_s=(0.0002, world.rng.choice([0.005, 0.5])))
        for machine in world.machines:
            machine.start()
        for _ in range(world.rng.randint(1, 4)):
            await asyncio.sleep(world.rng.expovariate(20.0))
            machine = world.rng.choice([world.machines[0], world.rng.choice(world.machines)])
            machine.crash()
            await asyncio.sleep(world.rng.choice([0.0, 0.01, 0.1]))
            machine.start()
        await world.start()
        assert_one_cluster(world)

    for seed in range(4 * SEEDS):
        play(script, seed=seed)


@simulated()
async def test_a_map_that_is_not_on_the_founders_disk_yet_is_told_to_nobody(world: World) -> None:
    founder, *others = world.machines
    disk_is_well = asyncio.Event()

    async def wait() -> None:
        await disk_is_well.wait()

    founder.engine = MemoryEngine(sync=wait)
    for machine in world.machines:
        machine.start()
    await asyncio.sleep(30.0)
    assert [load_map(machine.engine) for machine in others] == [None, None]
    disk_is_well.set()
    await world.start()
    assert_one_cluster(world)


@simulated()
async def test_members_that_restart_are_members_at_once_though_alone(world: World) -> None:
    await world.start()
    before = member(world.machines[2]).topology.map
    for machine in world.machines:
        machine.crash()
    world.machines[2].start()
    assert (await world.up(world.machines[2])).topology.map == before


@simulated()
async def test_a_wiped_node_is_refused_and_told_what_to_do(world: World) -> None:
    await world.start()
    for wiped in world.machines:  # the founder as well
        wiped.crash()
        fresh = newcomer(world, wiped.address, seeds=tuple(machine.address for machine in world.machines))
        fresh.start()
        await asyncio.sleep(5.0)
        assert fresh.member is None
        (error,) = fresh.errors
        assert isinstance(error, ConfigurationError)
        assert "does not know this node" in str(error)
        assert "start the node with the data directory it had" in str(error)
        fresh.crash()
        wiped.start()
        await world.up(wiped)


def newcomer(world: World, address: str, *, seeds: tuple[str, ...]) -> Machine:
    """Return a machine with an empty disk at ``address``."""
    return Machine(world.loop, world.network, world.rng, address=address, zone="", seeds=seeds, partitions=16)


@simulated(machines=1)
async def test_seeds_without_the_nodes_own_address_are_refused(world: World) -> None:
    stranger = newcomer(world, "stranger:7700", seeds=("machine-0:7700",))
    stranger.start()
    await asyncio.sleep(1.0)
    (error,) = stranger.errors
    assert isinstance(error, ConfigurationError)
    assert "its own address among them" in str(error)


@simulated(machines=1)
async def test_seeds_of_a_cluster_that_does_not_know_the_node_are_refused(world: World) -> None:
    await world.start()
    stranger = newcomer(world, "stranger:7700", seeds=("machine-0:7700", "stranger:7700"))
    stranger.start()
    await asyncio.sleep(1.0)
    (error,) = stranger.errors
    assert isinstance(error, ConfigurationError)
    assert "does not know this node" in str(error)


def test_nodes_given_different_seeds_never_found_two_clusters_that_share_a_node() -> None:
    async def script(world: World) -> None:
        shared = newcomer(world, "c:7700", seeds=("c:7700", "d:7700"))
        machines = [
            newcomer(world, "a:7700", seeds=("a:7700", "b:7700", "c:7700")),
            newcomer(world, "b:7700", seeds=("a:7700", "b:7700", "c:7700")),
            shared,
            newcomer(world, "d:7700", seeds=("c:7700", "d:7700")),
        ]
        for machine in world.rng.sample(machines, 4):
            machine.start()
            await asyncio.sleep(world.rng.choice([0.0, 0.01]))
        await asyncio.sleep(10.0)
        clusters = {m.topology.map.cluster_id for machine in machines if (m := machine.member)}
        assert len(clusters) == 1
        told = [error for machine in machines for error in machine.errors]
        assert told
        assert all(isinstance(error, ConfigurationError) for error in told)
        assert all("seeds" in str(error) for error in told)

    for seed in range(SEEDS // 2):
        play(script, seed=seed, machines=0)


@simulated(machines=1)
async def test_a_data_directory_moved_to_another_address_is_refused(world: World) -> None:
    await world.start()
    topology = member(world.machines[0]).topology
    check_address(topology.me, topology.map)
    with pytest.raises(ConfigurationError, match="belongs to the node at machine-0:7700"):
        check_address(msgspec.structs.replace(topology.me, peer_address="elsewhere:7700"), topology.map)
    with pytest.raises(ConfigurationError, match="does not know node"):
        check_address(msgspec.structs.replace(topology.me, id=NodeId("0" * 16)), topology.map)
    with pytest.raises(ConfigurationError, match="--data-center is 'eu', and this node is in no data centre, for good"):
        check_address(msgspec.structs.replace(topology.me, data_center="eu"), topology.map)


def test_a_directory_of_a_newer_release_is_refused_and_not_read_in_part() -> None:
    engine = MemoryEngine()
    of_the_future = {"version": 9, "cluster_id": 7, "what": "nobody knows yet"}  # no other field is as it is today
    key = metadata_key("cluster_map")
    engine.commit(Batch().put(key, seal(key, msgspec.msgpack.encode(of_the_future))))
    with pytest.raises(VersionError, match=rf"the cluster uses version 9 .*, and this node speaks up to {NEWEST}"):
        load_map(engine)
