"""Joining: a fresh node becomes a member that owns nothing, whatever crashes or is lost, or hears why not."""

from __future__ import annotations

import asyncio

import pytest

from merganser.model.errors import ConfigurationError
from merganser.service.topology import load_map
from merganser.sim.machine import Machine
from merganser.sim.network import Conditions
from merganser.sim.world import World
from service.plays import member, play, simulated, until

SEEDS = 60


def assert_joined(world: World, newcomer: Machine, *, members: int = 4) -> None:
    current = member(newcomer).topology.map
    assert len(current.nodes) == members
    assert [node.id for node in current.nodes].count(newcomer.node) == 1
    record = member(newcomer).topology.me
    assert record.weight == 0.0
    assert record.number not in current.owners
    assert load_map(newcomer.engine) is not None
    assert not member(newcomer).topology.held()


@simulated()
async def test_a_fresh_node_is_a_member_that_owns_nothing_and_all_hear_of_it(world: World) -> None:
    await world.start()
    newcomer = world.add_machine()
    await world.start()
    assert_joined(world, newcomer)
    await until(lambda: all(len(member(machine).topology.map.nodes) == 4 for machine in world.machines))


@simulated()
async def test_several_join_at_once_through_different_members(world: World) -> None:
    await world.start()
    newcomers = [world.add_machine(join=world.machines[i % 3].address) for i in range(4)]
    await world.start()
    await until(lambda: all(len(member(machine).topology.map.nodes) == 7 for machine in world.machines))
    numbers = [member(newcomer).topology.me.number for newcomer in newcomers]
    assert sorted(numbers) == [4, 5, 6, 7]


@simulated()
async def test_it_waits_for_the_cluster_to_be_founded_and_for_a_majority(world: World) -> None:
    newcomer = world.add_machine()
    newcomer.start()
    await asyncio.sleep(5.0)
    assert newcomer.member is None
    await world.start()
    assert_joined(world, newcomer)


def test_crashes_and_losses_at_any_time_leave_it_a_member_once() -> None:
    async def script(world: World) -> None:
        await world.start()
        world.network.conditions = Conditions(
            delay_s=(0.0002, world.rng.choice([0.005, 0.3])), loss=world.rng.choice([0.0, 0.2])
        )
        newcomer = world.add_machine(join=world.rng.choice(world.machines).address)
        newcomer.start()
        for _ in range(world.rng.randint(1, 4)):
            await asyncio.sleep(world.rng.expovariate(10.0))
            victim = world.rng.choice([newcomer, newcomer, world.rng.choice(world.machines)])
            victim.crash()
            await asyncio.sleep(world.rng.choice([0.0, 0.01, 0.1]))
            victim.start()
        await world.start()
        world.network.conditions = Conditions()
        assert_joined(world, newcomer)
        await until(lambda: all(len(member(machine).topology.map.nodes) == 4 for machine in world.machines))

    for seed in range(SEEDS):
        play(script, seed=seed)


@simulated()
async def test_a_node_at_the_address_of_a_member_is_told_so(world: World) -> None:
    await world.start()
    world.machines[2].crash()
    usurper = Machine(
        world.loop,
        world.network,
        world.rng,
        address=world.machines[2].address,
        zone="",
        seeds=(),
        partitions=16,
        join=world.machines[0].address,
        witness=world.witness,
    )
    usurper.start()
    await until(lambda: bool(usurper.errors))
    assert isinstance(usurper.errors[0], ConfigurationError)
    assert str(usurper.errors[0]) == (
        f"the cluster of machine-0:7700 does not take this node: node {world.machines[2].node} is a member at "
        "machine-2:7700 already: start this one at another address, or have the other one removed"
    )


@simulated()
async def test_its_own_address_is_not_that_of_a_member(world: World) -> None:
    newcomer = world.add_machine(join="machine-3:7700")
    newcomer.start()
    await until(lambda: bool(newcomer.errors))
    with pytest.raises(ConfigurationError, match="is the peer address of this node"):
        raise newcomer.errors.pop()
