"""Leaders of a simulated cluster whose machines die, stop, lose what they held or lose touch."""

from __future__ import annotations

import asyncio

import pytest

from merganser.model.errors import StorageFailedError
from merganser.model.leader_messages import Campaign, Confirm, Promised, Standing
from merganser.model.leadership import NO_EPOCH, Epoch
from merganser.sim.network import Conditions
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.engine import Batch
from service.elections import (
    GROUP,
    GROUPS,
    SETTLED_S,
    TAKE_OVER_S,
    confirmed,
    has_leaders,
    leader,
    leaders,
    leadership,
    led_evenly,
    spread,
    term,
)
from service.plays import made_with_leaders, member, simulated, started, started_with_leaders, until


@simulated()
async def test_when_a_leader_dies_others_lead_all_its_groups_soon(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    leader(world).crash()
    await until(lambda: has_leaders(world), timeout_s=TAKE_OVER_S)
    assert min(spread(world)) >= 7


@simulated()
async def test_when_the_death_of_a_leader_goes_unnoticed_by_connections_pulses_tell(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    world.network.unnoticed_share = 1.0
    leader(world).crash()
    await until(lambda: has_leaders(world), timeout_s=TAKE_OVER_S)


@simulated()
async def test_a_leader_that_was_paused_is_deposed_when_it_goes_on(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    old, led = leader(world), term(leader(world))
    old.pause()
    await until(lambda: has_leaders(world), timeout_s=TAKE_OVER_S)
    new = term(leader(world))
    assert new.epoch > led.epoch
    old.resume()
    await until(lambda: not led.is_standing, timeout_s=0.1)
    assert led.deposed.done()
    assert new.is_standing
    await led_evenly(world)


@simulated()
async def test_a_leader_that_is_cut_off_lets_go_and_does_not_disturb_the_new_one_until_it_has_settled(
    world: World,
) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    lonely, led = leader(world), term(leader(world))
    world.cut_off(lonely)
    await until(lambda: len(leaders(world, GROUP)) == 1 and leader(world) is not lonely, timeout_s=TAKE_OVER_S)
    assert not led.is_standing
    new = term(leader(world))
    await asyncio.sleep(5.0)
    assert leaders(world, GROUP) == [leader(world)]
    assert term(leader(world)) is new
    world.network.heal()
    await asyncio.sleep(1.0)
    assert new.is_standing
    await led_evenly(world)


@simulated()
async def test_one_who_hears_nothing_of_a_leader_that_others_hear_deposes_nobody(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    head, second, third = (
        next(machine for machine in world.machines if machine.node == node) for node in term(leader(world)).replicas
    )
    led = term(head)
    world.network.cut(head.address, second.address)
    await asyncio.sleep(10.0)
    assert led.is_standing
    assert term(head) is led
    await confirmed(head, led)
    assert leadership(third).known(GROUP) == led.epoch


@simulated()
async def test_a_node_that_restarts_leads_nothing_until_it_is_elected_again(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    machine, before = leader(world), term(leader(world)).epoch
    machine.crash()
    machine.start()
    await world.up(machine)
    assert not leadership(machine).leading()
    assert leadership(machine).known(GROUP) == NO_EPOCH or leadership(machine).known(GROUP) >= before
    await until(lambda: has_leaders(world), timeout_s=TAKE_OVER_S)
    assert term(leader(world)).epoch > before
    await led_evenly(world)


@simulated()
async def test_after_a_power_cut_of_all_every_epoch_is_new(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    before = {group: term(leader(world, group), group).epoch for group in GROUPS}
    for machine in world.machines:
        machine.crash()
    await world.start()
    await led_evenly(world)
    for group in GROUPS:
        assert term(leader(world, group), group).epoch.number > before[group].number


@simulated()
async def test_with_one_message_in_ten_lost_leaders_stay(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    before = [term(leader(world, group), group) for group in GROUPS]
    world.network.conditions = Conditions(loss=0.1)
    await asyncio.sleep(60.0)
    assert all(led.is_standing for led in before)


@simulated(seed=2)
async def test_disks_that_take_a_second_to_sync_only_delay_elections(world: World) -> None:
    await started(world)
    for machine in world.machines:
        machine.disk.slow((0.8, 1.2))
    await made_with_leaders(world)
    await led_evenly(world)


@simulated()
async def test_one_that_lost_what_it_held_leads_nothing_and_another_does(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    unfit, led = leader(world), term(leader(world))
    leadership(unfit).may_vote = lambda group: group != GROUP
    await until(lambda: bool(leaders(world, GROUP)) and leader(world) is not unfit, timeout_s=TAKE_OVER_S)
    assert not led.is_standing
    await confirmed(leader(world), term(leader(world)))
    await asyncio.sleep(SETTLED_S)
    assert leader(world) is not unfit
    leadership(unfit).may_vote = lambda _group: True
    await led_evenly(world)


@simulated()
async def test_the_word_of_one_that_lost_what_it_held_counts_for_nothing(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    machine, epoch = leader(world), term(leader(world)).epoch
    voter = next(other for other in world.machines if other is not machine)
    leadership(voter).may_vote = lambda group: group != GROUP
    later = Epoch(epoch.number + 1, epoch.leader)
    for asked in epoch, later:
        claim = Confirm(0, ((GROUP.rule, GROUP.partition, asked),))
        assert await voter.spawn(member(voter).serve(machine.node, claim)) == Standing((NO_EPOCH,))
    for is_poll in True, False:
        bid = Campaign(0, GROUP.rule, ((GROUP.partition, later.number),), is_poll=is_poll, is_handover=False)
        answer = await voter.spawn(member(voter).serve(machine.node, bid))
        assert isinstance(answer, Promised)
        assert answer.promised == (NO_EPOCH,)
    assert member(voter).leader_tables.promises.of(GROUP) == epoch


@simulated()
async def test_one_whose_disk_has_failed_leaves_its_groups_to_others(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    machine = leader(world)
    machine.disk.fail_next_sync()
    machine.engine.commit(Batch().put(keys.metadata_key("t"), b""))
    with pytest.raises(StorageFailedError):
        await machine.spawn(machine.engine.durable())
    await until(lambda: not leadership(machine).leading() and has_leaders(world), timeout_s=TAKE_OVER_S)
    assert min(spread(world)) >= 7


@simulated()
async def test_one_that_is_short_of_disk_leaves_its_groups_to_others_until_there_is_room(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    machine = leader(world)
    await asyncio.sleep(SETTLED_S)
    machine.disk.fill()
    await until(lambda: not leadership(machine).leading(), timeout_s=TAKE_OVER_S)
    await until(lambda: has_leaders(world), timeout_s=0.1)
    machine.disk.free()
    await led_evenly(world)


@simulated()
async def test_when_all_are_short_of_disk_there_are_leaders_all_the_same(world: World) -> None:
    for machine in world.machines:
        machine.disk.fill()
    await started_with_leaders(world)
    await led_evenly(world)
