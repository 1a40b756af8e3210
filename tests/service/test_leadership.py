"""Leaders of a simulated cluster: one for each group, spread evenly, soon replaced when it is gone."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from merganser.model.errors import RefusedError, StorageFailedError, UnavailableError
from merganser.model.ids import PartitionId
from merganser.model.leader_messages import NOT_LEADING, Campaign, Confirm, Promised, Standing, TakeOver
from merganser.model.leadership import NO_EPOCH, Epoch, Group
from merganser.service.leadership import CLOSE_S, Leadership, Led
from merganser.sim.machine import Machine
from merganser.sim.network import Conditions
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.engine import Batch
from service.plays import made_with_leaders, member, now_s, simulated, started, started_with_leaders, until

GROUPS = [Group(3, PartitionId(p)) for p in range(16)]
GROUP = GROUPS[0]
TAKE_OVER_S = 2.0
"""From a fault until somebody else leads."""
SETTLED_S = 6.0
"""From the end of a fault until leaders are spread evenly again."""


def leadership(machine: Machine) -> Leadership:
    return member(machine).leader_tables.leadership


def leaders(world: World, group: Group) -> list[Machine]:
    """Return the machines that run and believe that they lead ``group``."""
    return [
        machine
        for machine in world.machines
        if machine.member is not None and not machine.is_paused and leadership(machine).led(group)
    ]


def has_leaders(world: World) -> bool:
    return all(len(leaders(world, group)) == 1 for group in GROUPS)


def spread(world: World) -> list[int]:
    return sorted(Counter(leaders(world, group)[0].address for group in GROUPS).values())


async def led_evenly(world: World, *, timeout_s: float = SETTLED_S) -> None:
    await until(lambda: has_leaders(world) and spread(world) == [5, 5, 6], timeout_s=timeout_s)


def leader(world: World, group: Group = GROUP) -> Machine:
    (found,) = leaders(world, group)
    return found


def term(machine: Machine, group: Group = GROUP) -> Led:
    led = leadership(machine).led(group)
    assert led is not None
    return led


async def confirmed(machine: Machine, led: Led, *, timeout_s: float = 1.0) -> None:
    await machine.spawn(leadership(machine).confirm(led, deadline=now_s() + timeout_s))


# Elections


@simulated()
async def test_every_group_has_exactly_one_leader_and_they_are_spread_evenly(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world, timeout_s=0.1)  # some round trips and fsyncs
    for group in GROUPS:
        epoch = term(leader(world, group), group).epoch
        assert epoch.number == 1
        await until(lambda: all(leadership(machine).known(group) == epoch for machine in world.machines))  # noqa: B023


@simulated()
async def test_without_a_table_that_has_leaders_nobody_does_anything_for_elections(world: World) -> None:
    await started(world)
    await asyncio.sleep(5.0)
    for machine in world.machines:
        assert not member(machine).leader_tables.is_running
        assert not leadership(machine).leading()


@simulated()
async def test_a_table_of_another_n_gets_leaders_at_once_and_those_of_the_first_stay(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    before = [term(leader(world, group), group) for group in GROUPS]
    await made_with_leaders(world, n=1, name="alone")
    alone = [Group(1, group.partition) for group in GROUPS]
    await until(lambda: all(len(leaders(world, group)) == 1 for group in alone), timeout_s=0.1)
    assert all(led.is_standing for led in before)


@simulated()
async def test_nobody_leads_for_a_table_that_was_dropped(world: World) -> None:
    table = await started_with_leaders(world)
    await led_evenly(world)
    led = term(leader(world))
    machine = world.machines[0]
    await machine.spawn(member(machine).catalog.drop_table(table, deadline=now_s() + 5.0))
    await until(lambda: not any(leadership(machine).leading() for machine in world.machines))
    assert not led.is_standing


@simulated()
async def test_a_term_tells_the_roots_of_the_replicas_that_promised(world: World) -> None:
    table = await started_with_leaders(world)
    await led_evenly(world)
    led = term(leader(world))
    roots = led.roots[table.id]
    assert leader(world).node in roots
    assert len(roots) >= 2
    assert set(roots.values()) == {0}  # of an empty partition
    assert led.replicas == member(leader(world)).topology.ring.preference_list(GROUP.partition, 3)


@simulated()
async def test_versions_of_a_term_are_contiguous_and_outrank_those_of_earlier_terms(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    before = term(leader(world))
    versions = [before.next_version() for _ in range(3)]
    assert [version.sequence for version in versions] == [1, 2, 3]
    leader(world).crash()
    await until(lambda: has_leaders(world))
    assert term(leader(world)).next_version() > versions[-1]


# Faults


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
        claim = Confirm(0, ((GROUP.n, GROUP.partition, asked),))
        assert await voter.spawn(member(voter).serve(machine.node, claim)) == Standing((NO_EPOCH,))
    for is_poll in True, False:
        bid = Campaign(0, GROUP.n, ((GROUP.partition, later.number),), is_poll=is_poll, is_handover=False)
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


# Epochs that others tell of


@simulated()
async def test_a_leader_is_deposed_by_a_later_epoch_that_it_promises_or_hears_of(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    machine, led = leader(world), term(leader(world))
    deposed: list[Led] = []
    leadership(machine).when_deposed(deposed.append)
    leadership(machine).learned(GROUP, Epoch(7, 2))
    assert not led.is_standing
    assert deposed == [led]
    await led_evenly(world)
    again = term(leader(world))
    assert again.epoch.number == 8
    await machine.spawn(member(machine).leader_tables.promises.admit(GROUP, Epoch(9, 2)))
    assert not again.is_standing
    await led_evenly(world)
    assert term(leader(world)).epoch.number >= 10


# Handovers


@simulated()
async def test_the_first_replica_leads_again_some_seconds_after_it_is_back(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    machine = leader(world)
    machine.crash()
    await until(lambda: has_leaders(world))
    machine.start()
    await world.up(machine)
    await asyncio.sleep(2.0)
    assert leader(world) is not machine
    await led_evenly(world)
    assert leader(world) is machine


@simulated()
async def test_a_handover_that_arrives_late_deposes_nobody(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    machine, epoch = leader(world), term(leader(world)).epoch
    leadership(machine).learned(GROUP, Epoch(7, epoch.leader))
    await led_evenly(world)
    again = term(leader(world))
    assert again.epoch > epoch
    heir = next(other for other in world.machines if other is not machine)
    late = TakeOver(0, GROUP.n, ((GROUP.partition, epoch),))
    await heir.spawn(member(heir).serve(machine.node, late))
    await asyncio.sleep(1.0)
    assert again.is_standing


@simulated()
async def test_a_leader_with_something_in_flight_hands_nothing_over(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    machine = leader(world)
    machine.crash()
    await until(lambda: has_leaders(world))
    is_busy = True

    async def quiesce(led: Led, _deadline: float) -> bool:
        return led.group != GROUP or not is_busy

    busy, led = leader(world), term(leader(world))
    leadership(busy).quiesce = quiesce
    machine.start()
    await world.up(machine)
    await asyncio.sleep(SETTLED_S)
    assert led.is_standing
    is_busy = False
    await led_evenly(world)
    assert leader(world) is machine


@simulated()
async def test_a_node_that_is_closed_leaves_its_groups_to_others_in_a_moment(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    machine = leader(world)
    await machine.spawn(member(machine).close())
    assert not leadership(machine).leading()
    await until(lambda: has_leaders(world), timeout_s=0.1)
    await asyncio.sleep(SETTLED_S)
    assert has_leaders(world)


@simulated()
async def test_a_node_that_is_closed_waits_for_what_is_in_flight(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    machine, led = leader(world), term(leader(world))

    async def quiesce(_led: Led, deadline: float) -> bool:
        await asyncio.sleep(0.8 * (deadline - now_s()))
        return True

    leadership(machine).quiesce = quiesce
    closing = machine.spawn(member(machine).close())
    await asyncio.sleep(0.75 * CLOSE_S)
    assert led.is_standing
    await closing
    await until(lambda: has_leaders(world), timeout_s=0.1)


# Confirmations


@simulated()
async def test_a_leader_confirms_its_epochs_for_all_that_wait_with_a_few_messages(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    machine = leader(world)
    sent = world.network.sent
    await asyncio.gather(
        *(confirmed(machine, led) for led in leadership(machine).leading() for _ in range(100)),
    )
    assert world.network.sent - sent <= 16  # four of a round, and what else is said meanwhile


@simulated()
async def test_a_leader_that_does_not_know_yet_that_it_is_deposed_confirms_nothing(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    old, led = leader(world), term(leader(world))
    old.pause()
    await until(lambda: has_leaders(world), timeout_s=TAKE_OVER_S)
    old.resume()
    with pytest.raises(RefusedError) as refused:
        await confirmed(old, led)
    assert refused.value.code == NOT_LEADING
    assert refused.value.epoch > led.epoch


@simulated()
async def test_without_a_majority_nothing_is_confirmed(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    machine, led = leader(world), term(leader(world))
    world.cut_off(machine)
    with pytest.raises(UnavailableError):
        await confirmed(machine, led, timeout_s=0.5)
    began = now_s()
    with pytest.raises(RefusedError):
        await confirmed(machine, led, timeout_s=5.0)
    assert now_s() - began < 1.0, "whoever waits is told when the term ends"


@simulated()
async def test_one_silent_replica_does_not_delay_confirmations(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    machine = leader(world)
    next(other for other in world.machines if other is not machine).pause()
    for _ in range(20):
        began = now_s()
        await confirmed(machine, term(machine))
        assert now_s() - began < 0.05


@simulated()
async def test_a_question_that_is_lost_is_asked_again(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    machine = leader(world)
    world.network.conditions = Conditions(loss=0.4)
    for _ in range(20):
        await confirmed(machine, term(machine), timeout_s=5.0)


@simulated()
async def test_a_group_of_one_replica_is_confirmed_by_itself(world: World) -> None:
    await started_with_leaders(world, n=1)
    alone = Group(1, GROUP.partition)
    await until(lambda: len(leaders(world, alone)) == 1)
    machine = leader(world, alone)
    world.cut_off(machine)
    await asyncio.sleep(5.0)
    await confirmed(machine, term(machine, alone))
